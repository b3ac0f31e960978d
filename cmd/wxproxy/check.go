package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"wxproxy/cmd/wxproxy/internal/config"
	"wxproxy/cmd/wxproxy/internal/server"
)

// newCheck returns `wxproxy check`.
func newCheck(e *env) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check a configuration file and report every fault",
		Long: `Check a configuration file, report every fault in it, and open the store that
it names. The exit code is 0 if wxproxy can start with this configuration.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error { return check(cmd.Context(), e, path) },
	}
	configFlag(cmd, &path)
	return cmd
}

// check reports what is wrong with the configuration at path. The store is
// opened only if the configuration itself has no fault.
func check(ctx context.Context, e *env, path string) error {
	cfg, warnings, err := config.Load(path, e.getenv)
	if err != nil {
		return err
	}
	// Warnings are part of the result, so they go to stdout.
	for _, w := range warnings {
		fmt.Fprintf(e.stdout, "warning: %s: %s\n", path, w)
	}
	warn := func(problem string) {
		fmt.Fprintf(e.stdout, "warning: %s: store.url: %s\n", path, problem)
	}
	if err := server.Check(ctx, cfg, warn); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	_, err = fmt.Fprintf(e.stdout, "%s: the configuration is valid, and the store opens\n", path)
	return err
}

// newHealth returns `wxproxy health`, which container images without a shell
// or curl run as their health check.
func newHealth(e *env) *cobra.Command {
	var admin string
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Check whether a running wxproxy responds",
		Long: `Request /healthz from the admin listener of a running wxproxy. No key is
needed. The exit code is 0 if it responds within 3 seconds.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			base, err := parseAdminURL(cmd, admin)
			if err != nil {
				return err
			}
			return health(cmd.Context(), e, base)
		},
	}
	cmd.Flags().StringVar(&admin, "admin", defaultAdmin, "`URL` of the admin listener")
	return cmd
}

// health requests /healthz from the admin listener at base.
func health(ctx context.Context, e *env, base string) error {
	// The same as the timeout of the health check in the Dockerfile: a longer
	// one would have no effect there.
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/healthz", nil)
	if err != nil {
		return err
	}
	// Proxies from the environment are ignored: the question is whether this
	// address responds.
	client := &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{}).DialContext}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("no response from %s: %w", base, server.NetCause(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s responded with %s", base, resp.Status)
	}
	_, err = fmt.Fprintln(e.stdout, "ok")
	return err
}
