package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

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
