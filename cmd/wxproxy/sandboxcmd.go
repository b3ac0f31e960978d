package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"wxproxy/cmd/wxproxy/internal/server"
	"wxproxy/sandbox"
)

// sandboxCommand is `wxproxy sandbox`.
type sandboxCommand struct {
	env    *env
	listen string
	push   string
	life   time.Duration
	rotate bool
}

func newSandbox(e *env) command { return &sandboxCommand{env: e} }

func (c *sandboxCommand) ParseFlags(args []string) error {
	fs := newFlags("sandbox", "Runs the sandbox WeChat alone, to test one's own code and SDKs against.")
	fs.StringVar(&c.listen, "listen", "127.0.0.1:8090", "`ADDRESS` to listen on")
	fs.StringVar(&c.push, "push", "", "push tickets and events to the callback listener at this `URL`, such as http://127.0.0.1:8081")
	fs.DurationVar(&c.life, "token-life", 2*time.Hour, "how long tokens live")
	fs.BoolVar(&c.rotate, "rotate", false, "give a new refresh token with each renewal")
	return parseFlags(c.env, fs, args)
}

func (c *sandboxCommand) Run(ctx context.Context) error {
	wx, err := sandbox.New(sandbox.Config{PushURL: c.push, TokenLife: c.life, RotateRefreshTokens: c.rotate})
	if err != nil {
		return err
	}
	ln, err := server.Listen("--listen", c.listen)
	if err != nil {
		return err
	}
	srv := newSandboxServer(wx)
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	fmt.Fprintf(c.env.stdout, `sandbox WeChat on http://%s, control page http://%[1]s/sandbox/

[component] for config.toml:
appid = %[2]q
appsecret = %[3]q
message_token = %[4]q
message_key = %[5]q
and [proxy] upstream = "http://%[1]s"
`, ln.Addr(), sandbox.DefaultComponentAppID, sandbox.DefaultComponentSecret, sandbox.DefaultMessageToken, sandbox.DefaultEncodingAESKey)
	if c.push == "" {
		fmt.Fprintln(c.env.stdout, "\nNothing is pushed: say where to with --push.")
	}
	if c.push != "" {
		go wx.Run(ctx, func(err error) { fmt.Fprintf(c.env.stderr, "the ticket did not arrive: %v\n", err) })
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return srv.Close()
}

// newSandboxServer gives the sandbox limits that suit a test partner.
func newSandboxServer(wx *sandbox.WeChat) *http.Server {
	return &http.Server{Handler: wx, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: sandbox.IdleTimeout}
}
