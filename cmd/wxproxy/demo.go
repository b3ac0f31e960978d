package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"wxproxy/cmd/wxproxy/internal/config"
	"wxproxy/cmd/wxproxy/internal/server"
	"wxproxy/sandbox"
	"wxproxy/wechat"
)

// demoCommand is `wxproxy demo`: the whole thing in one process.
type demoCommand struct {
	env                             *env
	proxy, callback, admin, sandbox string
}

func newDemo(e *env) command { return &demoCommand{env: e} }

func (c *demoCommand) ParseFlags(args []string) error {
	fs := newFlags("demo", "Runs a sandbox WeChat and wxproxy in one process, with nothing to configure, and shows the traffic.")
	fs.StringVar(&c.proxy, "proxy", "127.0.0.1:8080", "`ADDRESS` of the proxy listener")
	fs.StringVar(&c.callback, "callback", "127.0.0.1:8081", "`ADDRESS` of the callback listener")
	fs.StringVar(&c.admin, "admin", "127.0.0.1:8082", "`ADDRESS` of the admin listener")
	fs.StringVar(&c.sandbox, "sandbox", "127.0.0.1:8090", "`ADDRESS` of the sandbox WeChat")
	if err := parseFlags(c.env, fs, args); err != nil {
		return err
	}
	for name, addr := range map[string]string{"proxy": c.proxy, "callback": c.callback, "admin": c.admin, "sandbox": c.sandbox} {
		// Everybody who reaches a demo may call, and expire, and look on.
		if !config.IsLoopback(addr) {
			return fmt.Errorf("--%s must be a loopback address, such as 127.0.0.1:8080", name)
		}
	}
	return nil
}

// The accounts that authorize the demo's component: an official account and a mini program.
const (
	demoAccount     = "wxd0000000000000a1"
	demoMiniProgram = "wxd0000000000000b2"
)

func (c *demoCommand) Run(ctx context.Context) (err error) {
	folder, err := os.MkdirTemp("", "wxproxy-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)

	stage := newStage(c.env.stdout)
	wx, err := sandbox.New(sandbox.Config{PushURL: "http://" + c.callback, Observe: stage.wechat})
	if err != nil {
		return err
	}
	ln, err := server.Listen("--sandbox", c.sandbox)
	if err != nil {
		return err
	}
	wxServer := newSandboxServer(wx)
	go wxServer.Serve(ln)
	defer wxServer.Close()

	srv, err := server.Open(ctx, c.config(folder), server.Options{Version: version, Log: slog.New(stage), Watch: stage.call})
	if err != nil {
		return fmt.Errorf("%w (demo takes other addresses: see wxproxy demo --help)", err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()

	if err := c.prepare(ctx, wx, stage); err != nil {
		stop()
		return errors.Join(err, <-done)
	}
	c.invite(stage)
	go wx.Run(ctx, func(err error) { stage.say("the sandbox could not push its ticket: %v", err) })
	return <-done
}

// config is what an operator would write, for the sandbox.
func (c *demoCommand) config(folder string) config.Config {
	cfg := config.Default()
	cfg.Component = config.Component{
		AppID: sandbox.DefaultComponentAppID, AppSecret: wechat.NewSecret(sandbox.DefaultComponentSecret),
		MessageToken: wechat.NewSecret(sandbox.DefaultMessageToken), MessageKey: wechat.NewSecret(sandbox.DefaultEncodingAESKey),
	}
	cfg.Proxy.Listen, cfg.Proxy.Upstream = c.proxy, "http://"+c.sandbox
	cfg.Callback.Listen, cfg.Admin.Listen = c.callback, c.admin
	cfg.Callback.PublicURL = "http://" + c.callback
	cfg.Store.URL = "file:" + filepath.Join(folder, "wxproxy.db")
	return cfg
}

// prepare does what happens once in the life of a platform: the first ticket comes, accounts authorize.
func (c *demoCommand) prepare(ctx context.Context, wx *sandbox.WeChat, stage *stage) error {
	stage.title(c)
	stage.say("WeChat pushes its ticket, encrypted, to http://%s/component/events", c.callback)
	if err := wx.PushTicket(ctx); err != nil {
		return fmt.Errorf("the ticket did not arrive: %w", err)
	}
	if err := errors.Join(wx.AddAccount(demoAccount, sandbox.OfficialAccount), wx.AddAccount(demoMiniProgram, sandbox.MiniProgram)); err != nil {
		return err
	}
	for _, appid := range []string{demoAccount, demoMiniProgram} {
		stage.say("%s authorizes the platform; WeChat pushes a code, wxproxy exchanges it", appid)
		if _, err := wx.Authorize(ctx, appid); err != nil {
			return fmt.Errorf("the authorization did not arrive: %w", err)
		}
		if err := c.known(ctx, appid); err != nil {
			return err
		}
	}
	return nil
}

// known waits until the code of appid has been exchanged, which happens after the answer to the push.
func (c *demoCommand) known(ctx context.Context, appid string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.proxy+"/"+appid+"/cgi-bin/get_api_domain_ip", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return fmt.Errorf("the proxy does not answer: %w", server.NetCause(err))
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// invite prints what can be pasted.
func (c *demoCommand) invite(stage *stage) {
	call := fmt.Sprintf("curl -i 'http://%s/%s/cgi-bin/user/info?openid=oSandboxUser0000000000000001&lang=zh_CN'", c.proxy, demoAccount)
	stage.paste("a call for an account, with no token anywhere", call)
	stage.paste("a call for the platform itself", fmt.Sprintf("curl -i 'http://%s/wxa/gettemplatelist'", c.proxy))
	stage.paste("an upload (curl sends it in chunks, which WeChat refuses and wxproxy mends)",
		fmt.Sprintf("echo a picture | curl -i -H 'Transfer-Encoding: chunked' -F 'media=@-;filename=a.jpg;type=image/jpeg' 'http://%s/%s/cgi-bin/media/upload?type=image'", c.proxy, demoAccount))
	stage.paste("the account's token expires at WeChat …", fmt.Sprintf("curl -X POST 'http://%s/sandbox/expire?appid=%s'", c.sandbox, demoAccount))
	stage.paste("… and the next call says X-Wxproxy-Token: retried", call)
	stage.paste("what Prometheus sees", fmt.Sprintf("curl -s 'http://%s/metrics' | grep '^wxproxy_.*_total' | grep -v ' 0$'", c.admin))
	stage.line("")
	stage.say("To authorize an account as a merchant does, open http://%s/authorize", c.callback)
	stage.say("The sandbox has a page with more to try: http://%s/sandbox/", c.sandbox)
	stage.say("Ctrl-C ends it. What happens is shown below.")
	stage.blank()
}
