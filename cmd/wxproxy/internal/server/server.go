// Package server runs a whole wxproxy: it builds the components that a
// configuration describes, starts three listeners, reloads, and stops
// everything in order.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"time"

	"wxproxy/callback"
	"wxproxy/cmd/wxproxy/internal/config"
	"wxproxy/console"
	"wxproxy/internal/clock"
	"wxproxy/metrics"
	"wxproxy/proxy"
	"wxproxy/proxy/transport"
	"wxproxy/tokens"
	"wxproxy/tokens/namespace"
	"wxproxy/tokens/store"
)

// Server is a whole wxproxy: three listeners, a broker and a store. [Open]
// creates one. Run and Reload can be called concurrently, but Reload must not
// be called concurrently with itself.
type Server struct {
	log     *slog.Logger
	version string
	cfg     config.Config // as at the start, or after the last successful reload
	watch   func(proxy.Call)
	metrics *metrics.Metrics
	store   store.Store
	names   *namespace.Namespace // of this platform in the store
	// exporting is held while the store is exported.
	exporting sync.Mutex
	broker    *tokens.Broker
	keys      signingKeys

	proxy    *proxy.Proxy
	callback *callback.Handler
	opened   chan struct{} // closed: callback is set
	console  *console.Handler

	tls                            *tls.Config // of the proxy listener; nil: plain HTTP
	proxyLn, callbackLn, consoleLn net.Listener
	callbackServer, consoleServer  *http.Server
}

// stopTimeout is how long requests and renewals in flight may take after Run
// was told to stop, as a duration. Only tests link another value.
var stopTimeout = "30s"

const (
	// deliveryFraction is the part of stopTimeout for events on their way to
	// services. The rest is for the broker, which must save what it has
	// fetched.
	deliveryFraction = 2

	// saveTimeout is how long the broker may save what it has fetched, even if
	// requests have used up stopTimeout.
	saveTimeout = 2 * time.Second
)

// Options are what a [Server] needs besides its configuration.
type Options struct {
	// Version is shown in metrics, on the console and in the log.
	Version string
	// Log receives all messages. It must not be nil.
	Log *slog.Logger
	// Watch, if not nil, is called after each request was answered.
	Watch func(proxy.Call)
}

// Open builds everything from the store upwards and binds the addresses, so
// that a busy port or a store in use is reported before anything is served.
// After an error nothing stays open. Call Run to serve.
func Open(ctx context.Context, cfg config.Config, o Options) (_ *Server, err error) {
	s := &Server{log: o.Log, version: o.Version, cfg: cfg, watch: o.Watch,
		opened: make(chan struct{})}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	c, err := newComponents(cfg)
	if err != nil {
		return nil, err
	}
	s.tls = c.tls
	if err := s.openBroker(ctx, cfg, c); err != nil {
		return nil, err
	}
	if s.proxy, err = proxy.New(s.proxyConfig(cfg, c)); err != nil {
		return nil, fmt.Errorf("[proxy] and [[caller]]: %w", err)
	}
	s.callback = callback.New(s.callbackConfig(cfg, c))
	close(s.opened)
	s.console = console.New(s.consoleConfig(cfg))
	s.callbackServer = callback.NewServer(s.callback, s.log)
	s.consoleServer = console.NewServer(s.console, s.log)
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

// openBroker opens the store and creates the broker and the metrics.
func (s *Server) openBroker(ctx context.Context, cfg config.Config, c components) (err error) {
	warn := func(problem string) { s.log.Warn("store", "problem", problem) }
	if s.store, err = openStore(ctx, cfg, warn); err != nil {
		return err
	}
	s.names = namespace.New(s.store, platform(c.secrets), s.log)
	if err := s.names.Move(ctx); err != nil {
		return fmt.Errorf("store.url: %w", err)
	}
	s.metrics = metrics.New(s.version, runtime.Version())
	s.store = store.Monitor(s.names.Store(), store.MonitorOptions{
		Observe: s.metrics.StoreOperation, Log: s.log,
	})
	s.broker, err = tokens.New(tokens.Config{
		Store:       s.store,
		Client:      c.client,
		Secrets:     c.secrets,
		RenewBefore: time.Duration(cfg.Tokens.RenewBefore),
		CacheSize:   int64(cfg.Tokens.CacheSize),
		Now:         clock.Now,
		OwnCalls:    cfg.Tokens.OwnCalls,
		Observer:    s.metrics,
		Changed:     s.accountChanged,
		Log:         s.log,
	})
	if err != nil {
		return fmt.Errorf("store.url: %w", err)
	}
	if s.keys, err = loadKeys(ctx, s.broker); err != nil {
		return fmt.Errorf("store.url: %w", err)
	}
	stats := s.broker.Stats()
	s.metrics.SetSources(metrics.Sources{
		TicketAge:       stats.TicketAge,
		ComponentExpiry: stats.ComponentExpiry,
		Accounts: func() (map[string]int, bool) {
			c, known := stats.AccountCounts()
			return map[string]int{
				string(tokens.Active): c.Active, string(tokens.Revoked): c.Revoked,
				string(tokens.Failing): c.Failing, string(tokens.Forgotten): c.Forgotten,
			}, known
		},
		SyncAge:        stats.ComparisonAge,
		DamagedRecords: stats.DamagedRecords,
		ForwardQueue:   s.forwardQueue,
		Evictions:      stats.Evictions,
		SetsDropped:    stats.SetsDropped,

		UnsavedGrants:   stats.UnsavedGrants,
		OwnCallsWaiting: stats.OwnCallsWaiting,
		RenewalsWaiting: stats.RenewalsWaiting,
		BreakersOpen:    stats.BreakersOpen,
		ClockSkew: func(of string) (time.Duration, bool) {
			return stats.ClockSkew(tokens.Clock(of))
		},
		Panicked: func(metric string, cause any) {
			// Only the type of cause is logged: its value can contain anything.
			s.log.Error("BUG: panic while reading a metric",
				"metric", metric, "panic", fmt.Sprintf("%T", cause))
		},
	})
	return nil
}

// Run serves until ctx ends or a listener fails, and then stops everything in
// order. It must be called once.
func (s *Server) Run(ctx context.Context) error {
	var err error
	stopResealing := s.startResealing()
	failed := make(chan error, 3)
	go func() { failed <- s.proxy.Serve(s.proxyLn, s.tls) }()
	go func() { failed <- s.callbackServer.Serve(s.callbackLn) }()
	go func() { failed <- s.consoleServer.Serve(s.consoleLn) }()
	s.log.Info("serving", "version", s.version, "proxy", s.proxyLn.Addr().String(),
		"callback", s.callbackLn.Addr().String(), "admin", s.consoleLn.Addr().String())
	if len(s.cfg.Callers) == 0 && !s.cfg.Proxy.AllowAnonymous {
		// The last block may have been removed before a restart, to lock its
		// caller out.
		s.log.Warn("authentication of the proxy listener is disabled",
			"reason", "there is no [[caller]] block")
	}
	if transport.PlainSockets() {
		s.log.Info("plain sockets", "reason", transport.PlainSocketsEnv+" is set")
	}
	select {
	case <-ctx.Done():
		s.log.Info("stopping after the requests in flight", "timeout", stopTimeout)
	case err = <-failed:
		err = fmt.Errorf("a listener failed: %w", err)
	}
	stopResealing()
	return errors.Join(err, s.stop())
}

// startResealing seals the records with the current key, if that was changed,
// until the function that it returns is called.
func (s *Server) startResealing() (stop func()) {
	sealed, ok := store.As[store.Resealer](s.store)
	if !ok {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		sealed.Reseal(ctx, s.log)
		close(done)
	}()
	return func() {
		cancel()
		<-done
	}
}

// stop closes what accepts requests first, then what they need. The admin
// listener is last, so that it shows the state until the end. Requests that are
// cut off, because they take longer than stopTimeout, are logged. They are no
// error: the process was told to stop, and has stopped.
func (s *Server) stop() error {
	timeout, err := time.ParseDuration(stopTimeout)
	if err != nil {
		return err // tests only
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	callbackDone := make(chan error, 1)
	go func() { callbackDone <- s.callbackServer.Shutdown(ctx) }()
	proxyErr, callbackErr := s.proxy.Shutdown(ctx), <-callbackDone
	if errors.Is(callbackErr, context.DeadlineExceeded) {
		s.log.Warn("pushes and pages were cut off", "timeout", timeout)
		callbackErr = s.callbackServer.Close()
	}
	var cutOff *proxy.CutOffError
	if errors.As(proxyErr, &cutOff) {
		s.log.Warn("requests were cut off", "requests", cutOff.Requests, "timeout", timeout)
		proxyErr = nil
	}
	s.deliver(ctx, timeout/deliveryFraction)
	err = errors.Join(proxyErr, callbackErr, s.closeBroker(ctx), s.store.Close())
	s.consoleServer.Close()
	return err
}

// deliver waits for events that are on their way to services. A service that
// does not accept them is not an error of the server, and was logged.
func (s *Server) deliver(ctx context.Context, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_ = s.callback.Close(ctx)
}

// closeBroker waits for renewals until ctx ends, and for saveTimeout at least.
// Renewals that take longer are canceled: they belong to requests that were cut
// off, or WeChat does not answer.
func (s *Server) closeBroker(ctx context.Context) error {
	end, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeout(context.Background(), max(time.Until(end), saveTimeout))
	defer cancel()
	err := s.broker.Close(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		s.log.Warn("token renewals were cut off")
		return nil
	}
	return err
}

// release closes what Open had opened before it failed.
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

// Reload applies what can change while wxproxy runs. After an error nothing has
// changed. Keys that need a restart are logged.
func (s *Server) Reload(cfg config.Config) error {
	if err := unlocks(s.cfg, cfg); err != nil {
		return err
	}
	c, err := newComponents(cfg)
	if err != nil {
		return err
	}
	// The proxy is first: it is the only one that can reject a configuration.
	if err := s.proxy.Reconfigure(s.proxyConfig(cfg, c)); err != nil {
		return fmt.Errorf("[proxy] and [[caller]]: %w", err)
	}
	s.names.Configure(platform(c.secrets))
	s.broker.Reconfigure(c.secrets, c.client)
	s.callback.Reconfigure(s.callbackConfig(cfg, c))
	s.console.Reconfigure(s.consoleConfig(cfg))
	for _, key := range needsRestart(s.cfg, cfg) {
		s.log.Warn("the change takes effect after a restart", "key", key)
	}
	s.cfg = cfg
	return nil
}

// unlocks returns an error if a reload from a to b would disable the
// authentication of a listener without the operator's consent. Removing the
// last caller is meant to lock it out, and must not let all others in. A start
// cannot check this: it does not know the configuration before.
func unlocks(a, b config.Config) error {
	var errs []error
	if len(a.Callers) > 0 && len(b.Callers) == 0 && !b.Proxy.AllowAnonymous {
		errs = append(errs, errors.New("caller: the last [[caller]] block was removed, "+
			"which would disable authentication; keep a block with another name and key, "+
			"or write allow_anonymous = true in [proxy] if every client may use the listener"))
	}
	if !a.Admin.Key.IsEmpty() && b.Admin.Key.IsEmpty() && !b.Admin.AllowAnonymous {
		errs = append(errs, errors.New("admin.key: the key was removed, which would disable "+
			"authentication; write another key, or allow_anonymous = true in [admin] "+
			"if every client may use the listener"))
	}
	return errors.Join(errs...)
}

// needsRestart returns the keys that differ between a and b and are read only
// at the start.
func needsRestart(a, b config.Config) (keys []string) {
	for key, differs := range map[string]bool{
		"proxy.listen":         a.Proxy.Listen != b.Proxy.Listen,
		"proxy.tls_cert_file":  a.Proxy.TLSCertFile != b.Proxy.TLSCertFile,
		"proxy.tls_key_file":   a.Proxy.TLSKeyFile != b.Proxy.TLSKeyFile,
		"proxy.client_ca_file": a.Proxy.ClientCAFile != b.Proxy.ClientCAFile,
		"callback.listen":      a.Callback.Listen != b.Callback.Listen,
		"admin.listen":         a.Admin.Listen != b.Admin.Listen,
		"store.url":            a.Store.URL != b.Store.URL,
		"store.key":            !a.Store.Key.Equal(b.Store.Key),
		"tokens.renew_before":  a.Tokens.RenewBefore != b.Tokens.RenewBefore,
		"tokens.cache_size":    a.Tokens.CacheSize != b.Tokens.CacheSize,
		"tokens.own_calls":     a.Tokens.OwnCalls != b.Tokens.OwnCalls,
		"log.format":           a.Log.Format != b.Log.Format,
	} {
		if differs {
			keys = append(keys, key)
		}
	}
	return keys
}
