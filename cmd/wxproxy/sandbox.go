package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"wxproxy/cmd/wxproxy/internal/server"
	"wxproxy/sandbox"
)

// sandboxOptions are the flags of `wxproxy sandbox`.
type sandboxOptions struct {
	listen string
	// push is the URL of the callback listener that receives tickets and
	// events. They are not pushed if it is "".
	push string
	// life is how long tokens are valid. Tests of an expiry want a short one.
	life time.Duration
	// rotate makes each renewal return another refresh token, which WeChat may
	// do at any time.
	rotate bool
}

// newSandbox returns `wxproxy sandbox`.
func newSandbox(e *env) *cobra.Command {
	var o sandboxOptions
	cmd := &cobra.Command{
		Use:   "sandbox",
		Short: "Run the sandbox WeChat alone",
		Long: `Run the sandbox WeChat alone, to test your own code and SDKs against it. It
prints the [component] block that it expects. Its control page can expire
tokens, inject faults and push events.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error { return runSandbox(cmd.Context(), e, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:8090", "listen on `ADDRESS`")
	f.StringVar(&o.push, "push", "",
		"push tickets and events to the callback listener at this `URL`, such as http://127.0.0.1:8081")
	f.DurationVar(&o.life, "token-life", 2*time.Hour, "how long tokens are valid")
	f.BoolVar(&o.rotate, "rotate", false, "issue a new refresh token with each renewal")
	return cmd
}

// runSandbox serves the sandbox until ctx ends.
func runSandbox(ctx context.Context, e *env, o sandboxOptions) error {
	wx, err := sandbox.New(sandbox.Config{PushURL: o.push, TokenLife: o.life, RotateRefreshTokens: o.rotate})
	if err != nil {
		return err
	}
	ln, err := server.Listen("--listen", o.listen)
	if err != nil {
		return err
	}
	srv := newSandboxServer(wx)
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	fmt.Fprintf(e.stdout, `sandbox WeChat on http://%s, control page http://%[1]s/sandbox/

For the config.toml of wxproxy:

[component]
appid = %[2]q
appsecret = %[3]q
message_token = %[4]q
message_key = %[5]q

[proxy]
upstream = "http://%[1]s"
`, ln.Addr(), sandbox.DefaultComponentAppID, sandbox.DefaultComponentSecret,
		sandbox.DefaultMessageToken, sandbox.DefaultEncodingAESKey)
	if o.push == "" {
		fmt.Fprintln(e.stdout, "\nNo tickets or events are pushed. Use --push URL to receive them.")
	} else {
		go wx.Run(ctx, func(err error) { fmt.Fprintf(e.stderr, "ticket not delivered: %v\n", err) })
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	// Requests that hang because of an injected fault must not delay the exit
	// for ever.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return srv.Close()
}

// newSandboxServer returns a server for wx. A client that sends no header in
// time is disconnected; idle connections are closed as early as WeChat does.
func newSandboxServer(wx *sandbox.WeChat) *http.Server {
	return &http.Server{Handler: wx, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: sandbox.IdleTimeout}
}
