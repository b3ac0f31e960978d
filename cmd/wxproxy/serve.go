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

	"wxproxy/cmd/wxproxy/internal/config"
	"wxproxy/cmd/wxproxy/internal/server"
)

// serveCommand is `wxproxy serve`.
type serveCommand struct {
	env    *env
	config string
}

func newServe(e *env) command { return &serveCommand{env: e} }

func (c *serveCommand) ParseFlags(args []string) error {
	fs := newFlags("serve", "Serves calls, WeChat's pushes and operators until it is told to stop. SIGHUP reads the configuration again.")
	fs.StringVar(&c.config, "config", "config.toml", "the configuration is in `FILE`; SIGHUP reads it again")
	return parseFlags(c.env, fs, args)
}

func (c *serveCommand) Run(ctx context.Context) error {
	cfg, warnings, err := config.Load(c.config, c.env.getenv)
	if err != nil {
		return err
	}
	var level slog.LevelVar
	log := server.NewLog(c.env.stderr, cfg.Log, &level)
	warn(log, warnings)
	// Taken before anything is open: a reload that comes early waits instead of ending the process.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	srv, err := server.Open(ctx, cfg, server.Options{Version: version, Log: log})
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	for {
		select {
		case err := <-done:
			return err
		case <-hup:
			cfg, warnings, err := config.Load(c.config, c.env.getenv)
			if err == nil {
				err = srv.Reload(cfg)
			}
			if err != nil {
				// One line for each fault; the running configuration stays.
				for line := range strings.SplitSeq(err.Error(), "\n") {
					log.Error("the configuration was not taken over", "fault", line)
				}
				continue
			}
			server.SetLevel(cfg.Log, &level)
			warn(log, warnings)
			log.Info("the configuration was read again")
		}
	}
}

func warn(log *slog.Logger, warnings []config.Warning) {
	for _, w := range warnings {
		log.Warn("configuration", "key", w.Key, "problem", w.Problem)
	}
}

// checkCommand is `wxproxy check`.
type checkCommand struct {
	env    *env
	config string
}

func newCheck(e *env) command { return &checkCommand{env: e} }

func (c *checkCommand) ParseFlags(args []string) error {
	fs := newFlags("check", "Reads the configuration, says all that is wrong with it, and opens the store.")
	fs.StringVar(&c.config, "config", "config.toml", "the configuration is in `FILE`")
	return parseFlags(c.env, fs, args)
}

// Run says all that is wrong with the configuration, and then whether the store opens with it.
func (c *checkCommand) Run(ctx context.Context) error {
	cfg, warnings, err := config.Load(c.config, c.env.getenv)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		fmt.Fprintf(c.env.stdout, "warning: %s: %s\n", c.config, w)
	}
	warn := func(problem string) {
		fmt.Fprintf(c.env.stdout, "warning: %s: store.url: %s\n", c.config, problem)
	}
	if err := server.Check(ctx, cfg, warn); err != nil {
		return fmt.Errorf("%s: %w", c.config, err)
	}
	_, err = fmt.Fprintf(c.env.stdout, "%s: good; the store opens\n", c.config)
	return err
}

// healthCommand is `wxproxy health`: what a container's health check runs, in images that hold nothing else.
type healthCommand struct {
	env   *env
	admin string
}

func newHealth(e *env) command { return &healthCommand{env: e} }

func (c *healthCommand) ParseFlags(args []string) error {
	fs := newFlags("health", "Asks the admin listener of a running wxproxy whether it lives. Needs no key.")
	fs.StringVar(&c.admin, "admin", "http://127.0.0.1:8082", "`URL` of the admin listener")
	return parseFlags(c.env, fs, args)
}

// Run asks a running wxproxy whether it lives, on the path that needs no key.
func (c *healthCommand) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.admin, "/")+"/healthz", nil)
	if err != nil {
		return fmt.Errorf("--admin is no URL")
	}
	// No proxy from the environment: the question is whether this address answers.
	client := &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{}).DialContext}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("%s does not answer: %w", c.admin, server.NetCause(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", c.admin, resp.Status)
	}
	_, err = fmt.Fprintln(c.env.stdout, "ok")
	return err
}
