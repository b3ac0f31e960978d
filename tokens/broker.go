package tokens

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// Observer counts renewals; see the metrics of the same names.
type Observer interface {
	// Refreshed: credential is a Kind in words, result one of ok, refused, unreachable, store.
	Refreshed(credential, result string, took time.Duration)
}

// Secrets are what the operator gives the broker to ask WeChat with. They may change while it runs.
type Secrets struct {
	Component       string // appid; "" where only own accounts are served
	ComponentSecret wechat.Secret
	Apps            map[string]wechat.Secret // own accounts: appid → app secret
}

// Config of a Broker. Store and Client are needed; every other zero value is legal.
type Config struct {
	Store   store.Store
	Client  *wechat.Client
	Secrets Secrets

	RenewBefore         time.Duration    // 0: 10 minutes
	CacheSize           int64            // accounts in memory; 0: 100,000
	MaintenanceInterval time.Duration    // how often it is looked what is due, such as the nightly comparison; 0: a minute
	Now                 func() time.Time // nil: time.Now
	Observer            Observer         // nil: nobody counts
	Log                 *slog.Logger     // nil: nothing is logged
}

// Broker gives out tokens. It is safe for concurrent use; Close it before its Store.
type Broker struct {
	store       store.Store
	client      atomic.Pointer[wechat.Client]
	secrets     atomic.Pointer[Secrets]
	renewBefore time.Duration
	now         func() time.Time
	observer    Observer
	log         *slog.Logger

	cache          *cache
	flights        singleflight.Group
	earlyRefresher *earlyRefresher
	exchanger      *exchanger
	stateCounts    stateCounts
	listIndex      listIndex

	keys        signingKeys
	profiler    *profiler
	revalidator *revalidator
	maintenance *maintenance

	life   context.Context // ends when waiting for renewals is over
	cancel context.CancelFunc
	gate   sync.RWMutex // held for reading while a piece of work is begun; closed is behind it
	closed bool
	work   sync.WaitGroup
}

// renewTimeout bounds one renewal, waiting for locks included.
const renewTimeout = 20 * time.Second

// New builds a broker and takes up the authorization codes that an earlier one left unexchanged.
// It asks WeChat for no token: those in the store serve until they are due or refused.
func New(c Config) (*Broker, error) {
	if c.RenewBefore <= 0 {
		c.RenewBefore = 10 * time.Minute
	}
	if c.CacheSize <= 0 {
		c.CacheSize = 100_000
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	k, err := newCache(c.CacheSize, c.Now)
	if err != nil {
		return nil, err
	}
	b := &Broker{store: c.Store, renewBefore: c.RenewBefore, now: c.Now, observer: c.Observer, log: c.Log, cache: k}
	b.client.Store(c.Client)
	b.secrets.Store(&c.Secrets)
	b.life, b.cancel = context.WithCancel(context.Background())
	b.earlyRefresher = newEarlyRefresher(b, int(c.CacheSize))
	b.exchanger = newExchanger(b)
	b.profiler, b.revalidator, b.maintenance = newProfiler(b), newRevalidator(), newMaintenance(b, c.MaintenanceInterval)
	if err := b.exchanger.recover(b.life); err != nil {
		b.Close(context.Background())
		return nil, err
	}
	b.maintenance.start()
	if w, ok := b.store.(store.Watcher); ok {
		b.work.Go(func() { b.watchStore(w) })
	}
	return b, nil
}

// Reconfigure changes the secrets and the way to WeChat. Tokens at hand stay good.
func (b *Broker) Reconfigure(s Secrets, c *wechat.Client) {
	b.secrets.Store(&s)
	b.client.Store(c)
}

// Close refuses new work, waits for renewals under way until ctx ends, then ends them.
func (b *Broker) Close(ctx context.Context) error {
	b.gate.Lock()
	already := b.closed
	b.closed = true
	b.gate.Unlock()
	if already {
		return nil
	}
	b.earlyRefresher.stop()
	b.exchanger.stop()
	b.maintenance.stop()
	done := make(chan struct{})
	go func() { b.work.Wait(); close(done) }()
	var err error
	select {
	case <-done:
		b.cancel()
	case <-ctx.Done():
		err = ctx.Err()
		b.cancel()
		<-done // every piece of work ends with its context
	}
	b.cache.close()
	return err
}

// begin counts a piece of work in; end must follow where it returns true.
func (b *Broker) begin() bool {
	b.gate.RLock()
	defer b.gate.RUnlock()
	if b.closed {
		return false
	}
	b.work.Add(1)
	return true
}

// Kind says of which kind appid is. An appid that nobody configured is an authorizer's.
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

// Component is the component's appid, "" where there is none.
func (b *Broker) Component() string { return b.secrets.Load().Component }

// Cached gives the token of appid if it is in memory and good. It neither waits nor
// allocates, and keeps nothing of appid.
func (b *Broker) Cached(appid string) (Token, bool) {
	e, ok := b.cache.get(appid)
	if !ok {
		return Token{}, false
	}
	if !e.used.Load() { // reading first keeps the cache line shared
		e.used.Store(true)
	}
	t := e.token
	t.Hit = true
	return t, true
}

// Token gives a token of appid that is good by our clock: from memory, from the store, or new
// from WeChat. While the stored one is good nobody waits for WeChat. ctx bounds the
// waiting, not the renewal, which others may be waiting for.
//
// The errors are ErrUnknownAccount, ErrRevoked, ErrUnavailable with its reasons, ErrClosed, a
// fault of the store, and that of ctx.
func (b *Broker) Token(ctx context.Context, appid string) (Token, error) {
	if t, ok := b.Cached(appid); ok {
		return t, nil
	}
	appid = strings.Clone(appid)
	if t, ok := b.cachedStale(appid); ok {
		return t, nil
	}
	return b.joinFlight(ctx, appid, wechat.Secret{}, reasonMissing)
}

// cachedStale gives a token that is due and still good. The store is looked at meanwhile, and nobody waits for it: it may be away.
func (b *Broker) cachedStale(appid string) (Token, bool) {
	e, ok := b.cache.getStale(appid)
	if !ok {
		return Token{}, false
	}
	now := b.now()
	if until := e.recheckAt.Load(); now.UnixNano() >= until && e.recheckAt.CompareAndSwap(until, now.Add(dueRecheckInterval).UnixNano()) {
		go b.joinFlight(context.Background(), appid, wechat.Secret{}, reasonMissing)
	}
	e.used.Store(true)
	t := e.token
	t.Hit = true
	return t, true
}

// Renew gives a token of appid that is another one than stale, which WeChat has just refused. Of many
// that come with the same stale token one renews; those that come later find that the stored
// token is no longer the one they were refused with, and take that.
//
// Errors as for Token, and ErrThrottled.
func (b *Broker) Renew(ctx context.Context, appid string, stale wechat.Secret) (Token, error) {
	if t, ok := b.Cached(appid); ok && !t.Value.Equal(stale) {
		return t, nil
	}
	return b.joinFlight(ctx, strings.Clone(appid), stale, reasonRejected)
}

// reason is why a token is wanted.
type reason uint8

const (
	reasonMissing  reason = iota // none at hand
	reasonRejected               // WeChat did not accept the stale one
	reasonDue                    // the one at hand is due
)

// joinFlight joins all who want the same thing at the same time.
//
// The key holds the stale token, not the appid alone. Else this could happen:
//
//	caller 1: cold look-up of A, reads token T0 from the store ...
//	caller 2: was refused with T0, joins the flight of caller 1
//	caller 1: ... and returns T0
//	caller 2: is handed the token that it was refused with
func (b *Broker) joinFlight(ctx context.Context, appid string, stale wechat.Secret, why reason) (Token, error) {
	key := appid + "\x00" + stale.Reveal()
	if why == reasonDue {
		key = appid + "\x01"
	}
	if err := ctx.Err(); err != nil {
		return Token{}, err
	}
	// Counted is the flight, not those who wait for it: it outlives waiters that leave.
	ch := b.flights.DoChan(key, func() (any, error) {
		if !b.begin() {
			return Token{}, ErrClosed
		}
		defer b.work.Done()
		ctx, cancel := context.WithTimeout(b.life, renewTimeout)
		defer cancel()
		t, err := b.loadOrRefresh(ctx, appid, stale, why)
		return t, err
	})
	select {
	case r := <-ch:
		if r.Err != nil {
			return Token{}, r.Err
		}
		return r.Val.(Token), nil
	case <-ctx.Done():
		return Token{}, ctx.Err()
	}
}

// loadOrRefresh looks into the store, and renews only if what lies there will not do.
func (b *Broker) loadOrRefresh(ctx context.Context, appid string, stale wechat.Secret, why reason) (Token, error) {
	kind := b.Kind(appid)
	epoch := b.cache.epoch(appid)
	raw, err := b.store.Load(ctx, accountKey(appid))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return Token{}, storeFault(err)
	}
	acc, err := decodeAccount(raw)
	if err != nil {
		return Token{}, storeFault(err)
	}
	if acc == nil && kind == Authorizer {
		// The code may have come a moment ago, and its exchange be under way or have failed.
		found, err := b.exchanger.exchangeNow(ctx, appid)
		if err == nil && !found {
			found = b.discover(ctx, appid)
		}
		if err != nil || !found {
			return Token{}, errors.Join(err, ErrUnknownAccount)
		}
		return b.loadOrRefresh(ctx, appid, stale, why)
	}
	now := b.now()
	if acc.usable(now) && acc.Access != stale.Reveal() && why != reasonDue {
		return b.cacheAccount(appid, kind, acc, epoch, true), nil
	}
	if acc != nil && acc.IsRevoked {
		b.cache.remove(appid)
		return Token{}, ErrRevoked
	}
	// While an account backs off, its callers are told at once.
	if acc != nil && !acc.usable(now) && now.Before(fromMillis(acc.RetryAt)) {
		return Token{}, &unavailableError{reason: acc.Failure, retryAt: fromMillis(acc.RetryAt)}
	}
	return b.refresh(ctx, appid, kind, stale, why)
}

// cacheAccount puts a good record into memory and sees to its renewal ahead of its end. used: a caller
// asked for it, rather than the clock or a push.
func (b *Broker) cacheAccount(appid string, kind Kind, acc *account, epoch uint64, used bool) Token {
	now := b.now()
	due := acc.refreshAt(appid, b.renewBefore)
	e := newEntry(acc, kind, due)
	fresh := due
	if !now.Before(due) {
		// Due and still good: it serves on, for moments at a time, while it is renewed.
		fresh = now.Add(dueRecheckInterval)
	}
	e.recheckAt.Store(fresh.UnixNano())
	e.used.Store(used)
	drops := b.cache.generation.Load()
	if !b.earlyRefresher.schedule(appid, e, max(due.Sub(now), 0, fromMillis(acc.RetryAt).Sub(now))) {
		e.generation = drops
	}
	b.cache.put(appid, e, e.sendableUntil.Sub(now), epoch)
	return e.token
}

// dueRecheckInterval is how long a token that is due is served from memory before the store is looked at again.
const dueRecheckInterval = 2 * time.Second

func storeFault(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &unavailableError{reason: "the store does not answer: " + err.Error(), cause: err}
}
