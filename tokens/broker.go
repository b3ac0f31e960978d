package tokens

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"wxproxy/tokens/governor"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// Observer counts renewals for the metrics.
type Observer interface {
	// Refreshed is called after each renewal. credential is a Kind as text.
	// result is ok, refused, unreachable, or store if the token could not be
	// saved.
	Refreshed(credential, result string, took time.Duration)
	// OwnCall is called for each request that wxproxy makes for itself.
	// endpoint is the last segment of its path. result is that of
	// [governor.Config].
	OwnCall(endpoint, result string)
}

// Secrets identify wxproxy to WeChat. They can change while the Broker runs;
// see [Broker.Reconfigure].
type Secrets struct {
	Component       string // appid; "" if only own accounts are served
	ComponentSecret wechat.Secret
	Apps            map[string]wechat.Secret // app secrets of own accounts, by appid
}

// Config configures a Broker. Store and Client are required. All other fields
// have defaults.
type Config struct {
	Store   store.Store // a [store.Monitored] is used as it is
	Client  *wechat.Client
	Secrets Secrets

	RenewBefore         time.Duration    // how long before its expiry a token is due; default: 10m
	CacheSize           int64            // number of accounts; default: 100,000
	OwnCalls            int              // wxproxy's own requests in flight; default: 64
	MaintenanceInterval time.Duration    // between checks for what is due; default: 1m
	Now                 func() time.Time // default: time.Now
	Observer            Observer         // nil disables it
	Log                 *slog.Logger     // nil disables it

	// Changed is called with each change of an authorization that no push has
	// announced, before the change is saved and while the account is locked.
	// The change is saved only if the error is nil, and else found again later.
	// It may be called with one change several times. nil disables it.
	Changed func(ctx context.Context, c Change) error
}

// withDefaults returns c with its zero values replaced.
func (c Config) withDefaults() Config {
	if c.RenewBefore <= 0 {
		c.RenewBefore = 10 * time.Minute
	}
	if c.CacheSize <= 0 {
		c.CacheSize = 100_000
	}
	if c.MaintenanceInterval <= 0 {
		c.MaintenanceInterval = time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Changed == nil {
		c.Changed = func(context.Context, Change) error { return nil }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Broker returns the tokens of accounts and keeps them valid. It is safe for
// concurrent use. Close it before its Store.
type Broker struct {
	store   *unsavedStore
	client  atomic.Pointer[wechat.Client]
	secrets atomic.Pointer[Secrets]
	now     func() time.Time
	log     *slog.Logger

	governor     *governor.Governor
	reachability *reachability
	clocks       *clocks
	tasks        *taskGroup
	cache        *cache
	accounts     *accounts
	component    *componentAPI
	tickets      *tickets
	renewer      *renewer

	earlyRenewer *earlyRenewer
	exchanger    *exchanger
	revalidator  *revalidator
	syncer       *syncer
	profiler     *profiler
	names        *names
	maintenance  *maintenance
	signingKeys  *signingKeys
	lister       *lister
	stats        *Stats
}

// New returns a running Broker. It schedules the authorization codes that an
// earlier process left in the store. It fetches no tokens: the stored ones
// serve until they are due or rejected.
//
// It returns an error if the store cannot be read.
func New(c Config) (*Broker, error) {
	c = c.withDefaults()
	cache, err := newCache(c.CacheSize, c.Now)
	if err != nil {
		return nil, err
	}
	b := &Broker{now: c.Now, log: c.Log, cache: cache, tasks: newTaskGroup()}
	monitored := store.Monitor(c.Store, store.MonitorOptions{Log: c.Log})
	b.store = newUnsavedStore(
		newQuarantine(monitored, b.tasks, b.log), monitored.Writable, b.tasks, c.Now, c.Log)
	b.governor = newGovernor(c)
	b.clocks = &clocks{tasks: b.tasks, now: c.Now, log: c.Log}
	b.clocks.askTime, _ = store.As[store.Clock](c.Store)
	b.Reconfigure(c.Secrets, c.Client)
	connect(b, c)
	if err := b.exchanger.schedulePending(b.tasks.ctx); err != nil {
		b.Close(context.Background())
		return nil, err
	}
	go b.profiler.run()
	go b.maintenance.run()
	go b.syncer.loop(c.MaintenanceInterval)
	go b.clocks.run(clockInterval)
	if w, ok := store.As[store.Watcher](c.Store); ok {
		startWatching(b, w)
	}
	return b, nil
}

// Reconfigure replaces the secrets and the client. Cached and stored tokens
// stay valid.
func (b *Broker) Reconfigure(s Secrets, c *wechat.Client) {
	b.secrets.Store(&s)
	b.client.Store(c.WithGate(gate{b.governor, b.clocks}))
}

// Client returns the client for requests that wxproxy makes for itself. All of
// them share its limit.
func (b *Broker) Client() *wechat.Client { return b.client.Load() }

// Close rejects new work and waits for renewals in flight. When ctx ends it
// cancels them and returns the error of ctx. Later calls do nothing.
func (b *Broker) Close(ctx context.Context) error {
	if !b.tasks.close() {
		return nil
	}
	b.earlyRenewer.stop()
	b.exchanger.stop()
	err := b.tasks.wait(ctx)
	b.store.flush(ctx)
	b.cache.close()
	return err
}

// Kind returns the kind of an account. Every appid that is not configured
// counts as an authorizer's.
func (b *Broker) Kind(appid string) Kind {
	s := b.secrets.Load()
	if appid == s.Component && appid != "" {
		return Component
	}
	if _, ok := s.Apps[appid]; ok {
		return App
	}
	return Authorizer
}

// Component returns the component's appid, or "" if none is configured.
func (b *Broker) Component() string { return b.secrets.Load().Component }

// Cached returns the token of appid if it is cached and valid. It does not
// block, does not allocate, and does not keep appid, which may alias a buffer.
func (b *Broker) Cached(appid string) (Token, bool) {
	e, ok := b.cache.get(appid)
	if !ok {
		return Token{}, false
	}
	if !e.used.Load() { // loading first keeps the CPU's cache line shared
		e.used.Store(true)
	}
	t := e.token
	t.Hit = true
	return t, true
}

// Token returns a token of appid that is valid by wxproxy's clock: from the
// cache, from the store, or a new one from WeChat. While the stored one is
// valid it does not wait for WeChat. ctx bounds the wait, not the renewal,
// which other callers may be waiting for.
//
// Errors are ErrUnknownAccount, ErrRevoked, ErrUnavailable with its reason,
// ErrClosed, and the one of ctx.
func (b *Broker) Token(ctx context.Context, appid string) (Token, error) {
	if t, ok := b.Cached(appid); ok {
		return t, nil
	}
	appid = strings.Clone(appid)
	if t, ok := b.cachedStale(appid); ok {
		return t, nil
	}
	return b.renewer.token(ctx, appid, wechat.Secret{}, reasonMissing)
}

// cachedStale returns a cached token that is due and still valid. The store is
// read in the background: it may be unavailable, and no caller should wait for
// it while there is a valid token.
func (b *Broker) cachedStale(appid string) (Token, bool) {
	e, ok := b.cache.getStale(appid)
	if !ok {
		return Token{}, false
	}
	now, at := b.now(), e.recheckAt.Load()
	next := now.Add(dueRecheckInterval).UnixNano()
	if now.UnixNano() >= at && e.recheckAt.CompareAndSwap(at, next) {
		// Of many callers, the one that moved recheckAt reads the store.
		go b.renewer.token(context.Background(), appid, wechat.Secret{}, reasonMissing)
	}
	e.used.Store(true)
	t := e.token
	t.Hit = true
	return t, true
}

// Renew returns a token of appid that differs from stale, which WeChat has just
// rejected. Of many callers with the same stale token, one renews. Those that
// come later find another token in the store, and get that one.
//
// Errors are those of Token, and ErrThrottled.
func (b *Broker) Renew(ctx context.Context, appid string, stale wechat.Secret) (Token, error) {
	if t, ok := b.Cached(appid); ok && !t.Value.Equal(stale) {
		return t, nil
	}
	return b.renewer.token(ctx, strings.Clone(appid), stale, reasonRejected)
}
