package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"wxproxy/cmd/wxproxy/internal/config"
	"wxproxy/cmd/wxproxy/internal/server"
)

// newServe returns `wxproxy serve`.
func newServe(e *env) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run wxproxy with a configuration file",
		Long: `Run wxproxy until it receives SIGTERM or SIGINT (Ctrl-C). It then finishes the
requests in flight, for 30 seconds at most. Those that take longer are cut off
and logged. The exit code is 0 in either case.

SIGHUP makes it read the configuration again. An invalid configuration is
logged and changes nothing. Windows has no SIGHUP: restart wxproxy there.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), e, path) },
	}
	configFlag(cmd, &path)
	return cmd
}

// configFlag adds --config to cmd.
func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "config", "config.toml", "read the configuration from `FILE`")
}

// serve runs wxproxy until ctx ends, and reloads its configuration on SIGHUP.
func serve(ctx context.Context, e *env, path string) error {
	cfg, warnings, err := config.Load(path, e.getenv)
	if err != nil {
		return err
	}
	var level slog.LevelVar
	log := server.NewLog(e.stderr, cfg.Log, &level)
	logWarnings(log, warnings)
	// Registered before the server opens: an early SIGHUP waits in the channel
	// instead of killing the process.
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	srv, err := server.Open(ctx, cfg, server.Options{Version: version, Log: log})
	if err != nil {
		if ctx.Err() != nil {
			log.Info("stopped before it served", "error", err)
			return nil
		}
		return err
	}
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	// Reloads happen one after the other in this goroutine, which Reload needs.
	for {
		select {
		case err := <-done:
			return err
		case <-reload:
			cfg, warnings, err := config.Load(path, e.getenv)
			if err == nil {
				err = srv.Reload(cfg)
			}
			if err != nil {
				// One log line for each fault.
				for line := range strings.SplitSeq(err.Error(), "\n") {
					log.Error("configuration rejected, keeping the current one", "fault", line)
				}
				continue
			}
			// The level is the only key of [log] that a reload can change.
			server.SetLevel(cfg.Log, &level)
			logWarnings(log, warnings)
			log.Info("configuration reloaded")
		}
	}
}

// logWarnings logs what is legal in a configuration but probably not meant.
func logWarnings(log *slog.Logger, warnings []config.Warning) {
	for _, w := range warnings {
		log.Warn("configuration", "key", w.Key, "problem", w.Problem)
	}
}

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
