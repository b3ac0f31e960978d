package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"time"

	"wxproxy/callback"
	"wxproxy/console"
	"wxproxy/metrics"
	"wxproxy/proxy"
	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// instance is a whole wxproxy: three listeners, a broker, a store. serve and demo run one.
type instance struct {
	log     *slog.Logger
	cfg     config // as it was at the start, or after the last good reload
	watch   func(proxy.Call)
	metrics *metrics.Metrics
	store   store.Store
	broker  *tokens.Broker
	keys    keys

	proxy    *proxy.Proxy
	callback *callback.Handler
	console  *console.Handler

	tls                            *tls.Config // of the proxy listener; nil: plain
	proxyLn, callbackLn, consoleLn net.Listener
	callbackServer, consoleServer  *http.Server
}

const (
	// stopTime is what calls and renewals under way get when wxproxy stops.
	stopTime = 30 * time.Second
	// deliverTime is what events on their way to services get of it.
	deliverTime = stopTime / 2
)

// open builds everything from the store upwards and binds the addresses, so that a busy port or a
// store in use is told before anything is served. On an error nothing stays open.
func open(ctx context.Context, cfg config, log *slog.Logger, watch func(proxy.Call)) (_ *instance, err error) {
	in := &instance{log: log, cfg: cfg, watch: watch}
	defer func() {
		if err != nil {
			in.release()
		}
	}()
	p, err := newParts(cfg)
	if err != nil {
		return nil, err
	}
	if in.store, err = openStore(ctx, cfg, func(problem string) { log.Warn("store", "problem", problem) }); err != nil {
		return nil, err
	}
	in.tls = p.tls
	in.metrics = metrics.New(version, runtime.Version())
	if in.broker, err = tokens.New(tokens.Config{
		Store: in.store, Client: p.client, Secrets: p.secrets,
		RenewBefore: time.Duration(cfg.Tokens.RenewBefore), CacheSize: int64(cfg.Tokens.CacheSize),
		Observer: in.metrics, Log: log,
	}); err != nil {
		return nil, fmt.Errorf("store.url: %w", err)
	}
	if in.keys, err = loadKeys(ctx, in.broker); err != nil {
		return nil, fmt.Errorf("store.url: %w", err)
	}
	in.metrics.Pull(metrics.Gauges{
		TicketAge: in.broker.TicketAge, ComponentExpiry: in.broker.ComponentExpiry, Accounts: in.broker.Accounts,
		Evictions: in.broker.Evictions, SetsDropped: in.broker.SetsDropped,
		Panicked: func(what string, cause any) {
			// Only the kind of it: the cause itself can be anything.
			log.Error("BUG: a metric could not be read", "metric", what, "panic", fmt.Sprintf("%T", cause))
		},
	})
	if in.proxy, err = proxy.New(in.proxyConfig(cfg, p)); err != nil {
		return nil, fmt.Errorf("[proxy] and [[caller]]: %w", err)
	}
	in.callback = callback.New(in.callbackConfig(cfg, p))
	in.console = console.New(in.consoleConfig(cfg))
	in.callbackServer = callback.NewServer(in.callback, log)
	in.consoleServer = console.NewServer(in.console, log)
	for _, l := range []struct {
		key, addr string
		ln        *net.Listener
	}{
		{"proxy.listen", cfg.Proxy.Listen, &in.proxyLn},
		{"callback.listen", cfg.Callback.Listen, &in.callbackLn},
		{"admin.listen", cfg.Admin.Listen, &in.consoleLn},
	} {
		if *l.ln, err = net.Listen("tcp", l.addr); err != nil {
			return nil, fmt.Errorf("%s: cannot listen on %s: %w", l.key, l.addr, reasonOf(err))
		}
	}
	return in, nil
}

// reasonOf is the last link of a network error: the address was said already.
func reasonOf(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

func (in *instance) proxyConfig(cfg config, p parts) proxy.Config {
	return proxy.Config{
		Component: cfg.Component.AppID, Apps: p.secrets.Apps, DefaultAppID: cfg.Proxy.DefaultAppID, Routes: p.routes, Callers: p.callers,
		Upstream: cfg.Proxy.Upstream, Roots: p.roots, Timeout: time.Duration(cfg.Proxy.Timeout), MaxBody: int(cfg.Proxy.MaxRequestBody),
		Tokens: in.broker, StandInKey: in.keys.standIn, Exchange: in.broker.Exchange, Doubt: in.broker.Doubt,
		Observer: in.metrics, Watch: in.watch, Log: in.log,
	}
}

func (in *instance) callbackConfig(cfg config, p parts) callback.Config {
	return callback.Config{
		ComponentAppID: cfg.Component.AppID, Crypts: p.crypts, Accounts: in.broker, Observe: in.metrics.Event, Log: in.log,
		CodeExchanger: in.broker, StateKey: in.keys.state, PublicURL: cfg.Callback.PublicURL, ReturnTo: cfg.Callback.ReturnTo, LoginBase: loginBase(cfg),
		Forwards: forwardsOf(cfg), SendText: func(ctx context.Context, appid, openid, text string) error {
			return sendText(ctx, in.broker, p.client, appid, openid, text)
		},
	}
}

// sendText sends a text to a user of an account, once more where its token is refused.
func sendText(ctx context.Context, b *tokens.Broker, client *wechat.Client, appid, openid, text string) error {
	t, err := b.Token(ctx, appid)
	if err != nil {
		return err
	}
	err = client.SendText(ctx, t.Value, openid, text)
	if !wechat.TokenRefused(wechat.Code(err), false) {
		return err
	}
	if t, err = b.Renew(ctx, appid, t.Value); err != nil {
		return err
	}
	return client.SendText(ctx, t.Value, openid, text)
}

// loginBase is where merchants consent: at WeChat (""), or at a sandbox. It is one where both WeChat and this wxproxy
// are addresses that only a browser on this machine can reach: WeChat would send nobody back to such an address.
func loginBase(cfg config) string {
	upstream, err1 := url.Parse(cfg.Proxy.Upstream)
	public, err2 := url.Parse(cfg.Callback.PublicURL)
	if err1 == nil && err2 == nil && isLoopbackHost(upstream.Hostname()) && isLoopbackHost(public.Hostname()) {
		return cfg.Proxy.Upstream
	}
	return ""
}

func (in *instance) consoleConfig(cfg config) console.Config {
	return console.Config{Ready: in.broker.Ready, Metrics: in.metrics.Handler(), Key: cfg.Admin.Key, Log: in.log, Loopback: isLoopback(cfg.Admin.Listen),
		Accounts: in.broker, Gauges: in.broker, Explain: in.explain, About: in.about(),
	}
}

// run serves until ctx ends or a listener fails, then stops everything in order.
func (in *instance) run(ctx context.Context) error {
	var err error
	failed := make(chan error, 3)
	go func() { failed <- in.proxy.Serve(in.proxyLn, in.tls) }()
	go func() { failed <- in.callbackServer.Serve(in.callbackLn) }()
	go func() { failed <- in.consoleServer.Serve(in.consoleLn) }()
	in.log.Info("serving", "version", version, "proxy", in.proxyLn.Addr().String(), "callback", in.callbackLn.Addr().String(), "admin", in.consoleLn.Addr().String())
	select {
	case <-ctx.Done():
		in.log.Info("stopping: calls and renewals under way are finished first", "at_most", stopTime)
		err = nil
	case err = <-failed:
		err = fmt.Errorf("a listener failed: %w", err)
	}
	return errors.Join(err, in.stop())
}

// stop ends what takes calls first, then what they need; the admin listener last, so that it can
// be asked until the end.
func (in *instance) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	errs := make(chan error, 2)
	go func() { errs <- in.proxy.Shutdown(ctx) }()
	go func() { errs <- in.callbackServer.Shutdown(ctx) }()
	err := errors.Join(<-errs, <-errs)
	in.deliver(ctx)
	err = errors.Join(err, in.broker.Close(ctx))
	err = errors.Join(err, in.store.Close())
	in.consoleServer.Close()
	return err
}

// deliver gives events on their way to services some time. That a service does not take them is no failure of ours, and
// was logged.
func (in *instance) deliver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, deliverTime)
	defer cancel()
	_ = in.callback.Close(ctx)
}

// release closes what open had opened before it failed.
func (in *instance) release() {
	for _, ln := range []net.Listener{in.proxyLn, in.callbackLn, in.consoleLn} {
		if ln != nil {
			ln.Close()
		}
	}
	if in.broker != nil {
		in.broker.Close(context.Background())
	}
	if in.store != nil {
		in.store.Close()
	}
}

// reload takes over what may change while wxproxy runs, or nothing at all.
func (in *instance) reload(cfg config) error {
	p, err := newParts(cfg)
	if err != nil {
		return err
	}
	if err := in.proxy.Reconfigure(in.proxyConfig(cfg, p)); err != nil {
		return fmt.Errorf("[proxy] and [[caller]]: %w", err)
	}
	in.broker.Reconfigure(p.secrets, p.client)
	in.callback.Reconfigure(in.callbackConfig(cfg, p))
	in.console.Reconfigure(in.consoleConfig(cfg))
	for _, key := range needsRestart(in.cfg, cfg) {
		in.log.Warn("this change takes effect at the next start only", "key", key)
	}
	in.cfg = cfg
	return nil
}
