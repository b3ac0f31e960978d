package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"wxproxy/cmd/wxproxy/internal/config"
	"wxproxy/cmd/wxproxy/internal/server"
	"wxproxy/sandbox"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// demo is one run of `wxproxy demo`. The fields are the addresses of its four
// listeners, HOST:PORT. The defaults are those of the configuration, so that
// the lines in the documents work for the demo, too.
type demo struct {
	proxy, callback, admin, sandbox string
}

// newDemo returns `wxproxy demo`.
func newDemo(e *env) *cobra.Command {
	var d demo
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Try everything in one process, without configuration",
		Long: `Run a sandbox WeChat and wxproxy in one process. Nothing has to be configured.
The demo prints requests to paste, and then shows the traffic.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			flags := map[string]string{
				"proxy": d.proxy, "callback": d.callback, "admin": d.admin, "sandbox": d.sandbox,
			}
			for name, addr := range flags {
				// The demo has no authentication, and its control page can
				// inject faults.
				if !config.IsLoopback(addr) {
					return usagef(cmd, "--%s must be a loopback address such as 127.0.0.1:8080", name)
				}
			}
			return d.run(cmd.Context(), e)
		},
	}
	f := cmd.Flags()
	f.StringVar(&d.proxy, "proxy", "127.0.0.1:8080", "`ADDRESS` of the proxy listener")
	f.StringVar(&d.callback, "callback", "127.0.0.1:8081", "`ADDRESS` of the callback listener")
	f.StringVar(&d.admin, "admin", "127.0.0.1:8082", "`ADDRESS` of the admin listener")
	f.StringVar(&d.sandbox, "sandbox", "127.0.0.1:8090", "`ADDRESS` of the sandbox WeChat")
	return cmd
}

// The accounts that authorize the demo's component.
const (
	demoOfficialAccount = "wxd0000000000000a1"
	demoMiniProgram     = "wxd0000000000000b2"
)

// run runs the demo until ctx ends. Its store is in a temporary folder.
func (d *demo) run(ctx context.Context, e *env) (err error) {
	folder, err := os.MkdirTemp("", "wxproxy-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)

	log := newDemoLog(e)
	wx, err := sandbox.New(sandbox.Config{PushURL: "http://" + d.callback, Observe: log.sandboxCall})
	if err != nil {
		return err
	}
	ln, err := server.Listen("--sandbox", d.sandbox)
	if err != nil {
		return err
	}
	// Both servers must be running before prepare.
	wxServer := newSandboxServer(wx)
	go wxServer.Serve(ln)
	defer wxServer.Close()

	options := server.Options{Version: version, Log: slog.New(log), Watch: log.proxyCall}
	srv, err := server.Open(ctx, d.config(folder), options)
	if err != nil {
		return fmt.Errorf("%w (the demo can use other addresses: see wxproxy demo --help)", err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()

	if err := d.prepare(ctx, wx, log); err != nil {
		if ctx.Err() != nil {
			return <-done // stopped meanwhile
		}
		stop() // and report how the server ended, which may be the cause
		return errors.Join(err, <-done)
	}
	d.printRequests(log)
	go wx.Run(ctx, func(err error) { log.printf("  The sandbox could not push its ticket: %v", err) })
	return <-done
}

// config returns the configuration that an operator would write to use wxproxy
// with the sandbox.
func (d *demo) config(folder string) config.Config {
	cfg := config.Default()
	cfg.Component = config.Component{
		AppID:        sandbox.DefaultComponentAppID,
		AppSecret:    wechat.NewSecret(sandbox.DefaultComponentSecret),
		MessageToken: wechat.NewSecret(sandbox.DefaultMessageToken),
		MessageKey:   wechat.NewSecret(sandbox.DefaultEncodingAESKey),
	}
	cfg.Proxy.Listen, cfg.Proxy.Upstream = d.proxy, "http://"+d.sandbox
	cfg.Proxy.AllowAnonymous = true // meant, so there is no warning
	cfg.Callback.Listen, cfg.Admin.Listen = d.callback, d.admin
	// A loopback address here makes /authorize lead to the sandbox instead of
	// WeChat.
	cfg.Callback.PublicURL = "http://" + d.callback
	cfg.Store.URL = "file:" + filepath.Join(folder, "wxproxy.db")
	// The folder ends with the demo, so there is no point in a warning about a
	// key file in it.
	key := make([]byte, store.KeySize)
	rand.Read(key) // never fails
	cfg.Store.Key = wechat.NewSecret(base64.StdEncoding.EncodeToString(key))
	return cfg
}

// prepare does what happens once with a real platform: WeChat pushes its first
// ticket, and accounts authorize the platform.
func (d *demo) prepare(ctx context.Context, wx *sandbox.WeChat, log *demoLog) error {
	log.printf("%s\n", log.color(bold, "wxproxy demo: a sandbox WeChat and wxproxy in one process"))
	log.printf("  proxy           http://%s   your services send requests here, without tokens", d.proxy)
	log.printf("  callback        http://%s   WeChat pushes events here, merchants open /authorize", d.callback)
	log.printf("  admin           http://%s   the console, /metrics, /healthz, /readyz", d.admin)
	log.printf("  sandbox WeChat  http://%s   plays api.weixin.qq.com", d.sandbox)

	log.printf("\n%s", log.color(bold, "What a real platform does once, done for you:"))
	if err := wx.PushTicket(ctx); err != nil {
		return fmt.Errorf("pushing the ticket: %w", err)
	}
	log.printf("  WeChat pushed an encrypted ticket to http://%s/component/events", d.callback)
	accounts := []struct {
		appid string
		kind  sandbox.Kind
		name  string
	}{
		{demoOfficialAccount, sandbox.OfficialAccount, "official account"},
		{demoMiniProgram, sandbox.MiniProgram, "mini program"},
	}
	for _, a := range accounts {
		if err := wx.AddAccount(a.appid, a.kind); err != nil {
			return err
		}
		if _, err := wx.Authorize(ctx, a.appid); err != nil {
			return fmt.Errorf("pushing the authorization: %w", err)
		}
		if err := d.waitFor(ctx, a.appid); err != nil {
			return err
		}
		log.printf("  the %s %s authorized the platform", a.name, a.appid)
	}
	return nil
}

// waitFor waits until requests for appid succeed. wxproxy exchanges the
// authorization code after it has acknowledged the push.
func (d *demo) waitFor(ctx context.Context, appid string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	target := "http://" + d.proxy + "/" + appid + "/cgi-bin/get_api_domain_ip"
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return fmt.Errorf("no response from the proxy: %w", server.NetCause(err))
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return nil
		}
		// The code is being exchanged: until then wxproxy does not know the
		// account.
		time.Sleep(20 * time.Millisecond)
	}
}

// printRequests prints command lines that work when they are pasted, and ends
// the silence of log.
func (d *demo) printRequests(log *demoLog) {
	user := fmt.Sprintf("curl -i 'http://%s/%s/cgi-bin/user/info?openid=oSandboxUser0000000000000001&lang=zh_CN'",
		d.proxy, demoOfficialAccount)
	// The comments contain no quotes or parentheses: zsh, the shell of macOS,
	// does not ignore comments that are typed or pasted.
	log.printf("\n%s", log.color(bold, "Paste these lines into another terminal:"))
	log.command("1. Read a user of the official account. You send no token: wxproxy adds it.", user)
	log.command("2. Call an API of the platform itself. wxproxy adds the token of the platform.",
		fmt.Sprintf("curl -i 'http://%s/wxa/gettemplatelist'", d.proxy))
	log.command("3. Upload a picture.", fmt.Sprintf("echo a picture | curl -i -H 'Transfer-Encoding: chunked' "+
		"-F 'media=@-;filename=a.jpg;type=image/jpeg' 'http://%s/%s/cgi-bin/media/upload?type=image'",
		d.proxy, demoOfficialAccount))
	log.command("4. Let the token of the account expire at WeChat. The sandbox confirms it.",
		fmt.Sprintf("curl -X POST 'http://%s/sandbox/expire?appid=%s'", d.sandbox, demoOfficialAccount))
	log.command("5. Send request 1 again. It succeeds, because wxproxy fetches a new token and retries.\n"+
		"#    The response has the header X-Wxproxy-Token: retried.", user)
	log.command("6. Read the metrics.",
		fmt.Sprintf("curl -s 'http://%s/metrics' | grep '^wxproxy_.*_total' | grep -v ' 0$'", d.admin))

	log.printf("\n%s", log.color(bold, "Open these pages in a browser:"))
	log.printf("  http://%s/authorize   authorize an account, as a merchant does", d.callback)
	log.printf("  http://%s/sandbox/    expire tokens, cause errors, push events", d.sandbox)
	log.printf("  http://%s/            the operator's console", d.admin)
	log.printf("\nPress Ctrl-C to stop. The traffic is shown below.\n")
	log.start()
}
