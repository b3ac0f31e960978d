package server

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
	"wxproxy/callback/pages"
	"wxproxy/cmd/wxproxy/internal/config"
	"wxproxy/console"
	"wxproxy/metrics"
	"wxproxy/proxy"
	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// Server is a whole wxproxy: three listeners, a broker, a store. serve and demo run one.
type Server struct {
	log     *slog.Logger
	version string
	cfg     config.Config // as it was at the start, or after the last good reload
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

// Options are what a Server needs besides its configuration.
type Options struct {
	// Version is shown in metrics, on the console and in the log.
	Version string
	Log     *slog.Logger
	// Watch, if not nil, is called with each request after it was answered.
	Watch func(proxy.Call)
}

// Open builds everything from the store upwards and binds the addresses, so
// that a busy port or a store in use is reported before anything is served.
// After an error nothing stays open. Call Run to serve.
func Open(ctx context.Context, cfg config.Config, o Options) (_ *Server, err error) {
	log := o.Log
	s := &Server{log: log, version: o.Version, cfg: cfg, watch: o.Watch}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	p, err := newComponents(cfg)
	if err != nil {
		return nil, err
	}
	if s.store, err = openStore(ctx, cfg, func(problem string) { log.Warn("store", "problem", problem) }); err != nil {
		return nil, err
	}
	s.tls = p.tls
	s.metrics = metrics.New(s.version, runtime.Version())
	if s.broker, err = tokens.New(tokens.Config{
		Store: s.store, Client: p.client, Secrets: p.secrets,
		RenewBefore: time.Duration(cfg.Tokens.RenewBefore), CacheSize: int64(cfg.Tokens.CacheSize),
		Observer: s.metrics, Log: log,
	}); err != nil {
		return nil, fmt.Errorf("store.url: %w", err)
	}
	if s.keys, err = loadKeys(ctx, s.broker); err != nil {
		return nil, fmt.Errorf("store.url: %w", err)
	}
	s.metrics.Pull(metrics.Gauges{
		TicketAge: s.broker.TicketAge, ComponentExpiry: s.broker.ComponentExpiry, Accounts: s.broker.Accounts,
		Evictions: s.broker.Evictions, SetsDropped: s.broker.SetsDropped,
		Panicked: func(what string, cause any) {
			// Only the kind of it: the cause itself can be anything.
			log.Error("BUG: a metric could not be read", "metric", what, "panic", fmt.Sprintf("%T", cause))
		},
	})
	if s.proxy, err = proxy.New(s.proxyConfig(cfg, p)); err != nil {
		return nil, fmt.Errorf("[proxy] and [[caller]]: %w", err)
	}
	s.callback = callback.New(s.callbackConfig(cfg, p))
	s.console = console.New(s.consoleConfig(cfg))
	s.callbackServer = callback.NewServer(s.callback, log)
	s.consoleServer = console.NewServer(s.console, log)
	for _, l := range []struct {
		key, addr string
		ln        *net.Listener
	}{
		{"proxy.listen", cfg.Proxy.Listen, &s.proxyLn},
		{"callback.listen", cfg.Callback.Listen, &s.callbackLn},
		{"admin.listen", cfg.Admin.Listen, &s.consoleLn},
	} {
		if *l.ln, err = Listen(l.key, l.addr); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Listen opens addr, HOST:PORT. Its error starts with key, the name of the
// setting that addr comes from.
func Listen(key, addr string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: cannot listen on %s: %w", key, addr, NetCause(err))
	}
	return ln, nil
}

// NetCause returns the cause within a network error, without the address,
// which the messages that quote it name already.
func NetCause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

func (s *Server) proxyConfig(cfg config.Config, p components) proxy.Config {
	return proxy.Config{
		Component: cfg.Component.AppID, Apps: p.secrets.Apps, DefaultAppID: cfg.Proxy.DefaultAppID, Routes: p.routes, Callers: p.callers,
		Upstream: cfg.Proxy.Upstream, Roots: p.roots, Timeout: time.Duration(cfg.Proxy.Timeout), MaxBody: int(cfg.Proxy.MaxRequestBody),
		Tokens: s.broker, StandInKey: s.keys.standIn, Exchange: s.broker.Exchange, Revalidate: s.broker.Revalidate,
		Observer: s.metrics, Watch: s.watch, Log: s.log,
	}
}

func (s *Server) callbackConfig(cfg config.Config, p components) callback.Config {
	return callback.Config{
		ComponentAppID: cfg.Component.AppID, Crypts: p.crypts, Accounts: s.broker, Observe: s.metrics.Event, Log: s.log,
		Pages: pages.Config{
			CodeExchanger: s.broker, StateKey: s.keys.state,
			PublicURL: cfg.Callback.PublicURL, ReturnTo: cfg.Callback.ReturnTo, LoginBase: loginBase(cfg),
		},
		ExchangeCode: s.broker.Exchange,
		Forwards:     forwardsOf(cfg), SendText: func(ctx context.Context, appid, openid, text string) error {
			return sendText(ctx, s.broker, p.client, appid, openid, text)
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
func loginBase(cfg config.Config) string {
	upstream, err1 := url.Parse(cfg.Proxy.Upstream)
	public, err2 := url.Parse(cfg.Callback.PublicURL)
	if err1 == nil && err2 == nil && config.IsLoopbackHost(upstream.Hostname()) && config.IsLoopbackHost(public.Hostname()) {
		return cfg.Proxy.Upstream
	}
	return ""
}

func (s *Server) consoleConfig(cfg config.Config) console.Config {
	return console.Config{Ready: s.broker.Ready, Metrics: s.metrics.Handler(), Key: cfg.Admin.Key, Log: s.log, Loopback: config.IsLoopback(cfg.Admin.Listen),
		Accounts: s.broker, Stats: s.broker, Explain: s.explain, About: s.about(),
	}
}

// Run serves until ctx ends or a listener fails, then stops everything in order.
func (s *Server) Run(ctx context.Context) error {
	var err error
	failed := make(chan error, 3)
	go func() { failed <- s.proxy.Serve(s.proxyLn, s.tls) }()
	go func() { failed <- s.callbackServer.Serve(s.callbackLn) }()
	go func() { failed <- s.consoleServer.Serve(s.consoleLn) }()
	s.log.Info("serving", "version", s.version, "proxy", s.proxyLn.Addr().String(), "callback", s.callbackLn.Addr().String(), "admin", s.consoleLn.Addr().String())
	select {
	case <-ctx.Done():
		s.log.Info("stopping: calls and renewals under way are finished first", "at_most", stopTime)
		err = nil
	case err = <-failed:
		err = fmt.Errorf("a listener failed: %w", err)
	}
	return errors.Join(err, s.stop())
}

// stop ends what takes calls first, then what they need; the admin listener last, so that it can
// be asked until the end.
func (s *Server) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	errs := make(chan error, 2)
	go func() { errs <- s.proxy.Shutdown(ctx) }()
	go func() { errs <- s.callbackServer.Shutdown(ctx) }()
	err := errors.Join(<-errs, <-errs)
	s.deliver(ctx)
	err = errors.Join(err, s.broker.Close(ctx))
	err = errors.Join(err, s.store.Close())
	s.consoleServer.Close()
	return err
}

// deliver gives events on their way to services some time. That a service does not take them is no failure of ours, and
// was logged.
func (s *Server) deliver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, deliverTime)
	defer cancel()
	_ = s.callback.Close(ctx)
}

// release closes what open had opened before it failed.
func (s *Server) release() {
	for _, ln := range []net.Listener{s.proxyLn, s.callbackLn, s.consoleLn} {
		if ln != nil {
			ln.Close()
		}
	}
	if s.broker != nil {
		s.broker.Close(context.Background())
	}
	if s.store != nil {
		s.store.Close()
	}
}

// Reload takes over what may change while wxproxy runs, or nothing at all.
func (s *Server) Reload(cfg config.Config) error {
	p, err := newComponents(cfg)
	if err != nil {
		return err
	}
	if err := s.proxy.Reconfigure(s.proxyConfig(cfg, p)); err != nil {
		return fmt.Errorf("[proxy] and [[caller]]: %w", err)
	}
	s.broker.Reconfigure(p.secrets, p.client)
	s.callback.Reconfigure(s.callbackConfig(cfg, p))
	s.console.Reconfigure(s.consoleConfig(cfg))
	for _, key := range needsRestart(s.cfg, cfg) {
		s.log.Warn("this change takes effect at the next start only", "key", key)
	}
	s.cfg = cfg
	return nil
}
