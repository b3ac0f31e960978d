package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"

	"wxproxy/tokens/governor"
)

// Stats returns facts about the Broker as a whole, for metrics and operators.
func (b *Broker) Stats() *Stats { return b.stats }

// Stats are facts about a [Broker] as a whole. They can be read after it was
// closed. It is safe for concurrent use.
type Stats struct {
	component func() string
	tickets   *tickets
	accounts  *accounts
	cache     *cache
	tasks     *taskGroup
	now       func() time.Time
	counter   *stateCounter
	syncer    *syncer
	damaged   *damagedCounter

	store        *unsavedStore
	clocks       *clocks
	governor     *governor.Governor
	earlyRenewer *earlyRenewer
}

// Component returns the component's appid, or "" if none is configured.
func (s *Stats) Component() string { return s.component() }

// statusTimeout bounds a metric that reads the store. A slow store must not
// delay the scrape of all others.
const statusTimeout = time.Second

// TicketAge returns the time since the newest ticket was received. It returns
// false if there is none.
func (s *Stats) TicketAge() (time.Duration, bool) {
	ctx, cancel := context.WithTimeout(s.tasks.ctx, statusTimeout)
	defer cancel()
	t, err := s.tickets.load(ctx)
	if err != nil || t == nil || t.Ticket == "" {
		return 0, false
	}
	return max(s.now().Sub(fromMillis(t.Received)), 0), true
}

// ComponentExpiry returns the time until the component's token expires, which
// is negative if it has expired. It returns false if there is none.
func (s *Stats) ComponentExpiry() (time.Duration, bool) {
	ctx, cancel := context.WithTimeout(s.tasks.ctx, statusTimeout)
	defer cancel()
	acc, err := s.accounts.load(ctx, s.component())
	if err != nil || acc == nil || acc.Access == "" {
		return 0, false
	}
	return fromMillis(acc.ExpiresAt).Sub(s.now()), true
}

// UnsavedGrants returns how many accounts have tokens that WeChat has issued and
// the store could not save yet.
func (s *Stats) UnsavedGrants() int { return s.store.accounts() }

// Comparison says how the comparison with WeChat's list is.
type Comparison struct {
	Age time.Duration // since the list was last adopted completely
	// Held of HeldOf active accounts are unknown to WeChat; see
	// [SyncResult.Held].
	Held, HeldOf int
}

// Comparison returns how the comparison with WeChat's list is. It returns false
// if none was complete yet, or the store does not respond.
func (s *Stats) Comparison() (c Comparison, known bool) {
	ctx, cancel := context.WithTimeout(s.tasks.ctx, statusTimeout)
	defer cancel()
	rec, err := loadRecord[syncRecord](ctx, s.syncer.store, syncKey(s.component()))
	if err != nil || rec == nil || rec.Done == 0 {
		return c, false
	}
	return Comparison{s.now().Sub(fromMillis(rec.Done)), rec.Held, rec.HeldOf}, true
}

// ComparisonAge returns the age that Comparison returns.
func (s *Stats) ComparisonAge() (time.Duration, bool) {
	c, known := s.Comparison()
	return c.Age, known
}

// Evictions returns how many entries the cache evicted because it was full.
func (s *Stats) Evictions() uint64 { return s.cache.evicted.Load() }

// SetsDropped returns how many entries the cache dropped under load.
func (s *Stats) SetsDropped() uint64 { return s.cache.dropped.Load() }

// OwnCallsWaiting returns how many requests of wxproxy's own wait until fewer
// are in flight.
func (s *Stats) OwnCallsWaiting() int { return s.governor.Waiting() }

// RenewalsWaiting returns how many renewals ahead of expiry are due and have not
// begun.
func (s *Stats) RenewalsWaiting() int { return s.earlyRenewer.waiting() }

// ClockSkew returns how far a clock is ahead of this machine's, negative if it
// is behind, and 0 if the difference is too small to be measured. It returns
// false if that is not known, such as for a store without a clock.
func (s *Stats) ClockSkew(of Clock) (time.Duration, bool) { return s.clocks.ahead(of) }

// BreakersOpen reports for each reason whether requests to WeChat are paused.
func (s *Stats) BreakersOpen() map[string]bool {
	open := map[string]bool{}
	for _, r := range governor.Reasons {
		open[string(r)] = s.governor.Open(r)
	}
	return open
}

// AccountCounts holds how many authorizers are in each state.
type AccountCounts struct{ Active, Revoked, Failing, Forgotten int }

// AccountCounts returns how many authorizers are in each state. The numbers are
// up to two seconds old; with very many accounts, up to twenty times as old as
// counting takes. known is false if the store could not be read, and until the
// first count is done.
func (s *Stats) AccountCounts() (counts AccountCounts, known bool) { return s.counter.get() }

// DamagedRecords returns how many damaged records lie in the store below
// [store.DamagedPrefix]. The number is up to a second old. known is false
// if the store could not be read.
func (s *Stats) DamagedRecords() (n int, known bool) { return s.damaged.get() }

// Ready reports whether the store responds, whether a token of each configured
// kind is available or can be fetched, whether the clocks agree, and whether
// WeChat has answered this process within the last minute, if it was asked. It
// does not wait for WeChat. The error has one line for each fault.
func (b *Broker) Ready(ctx context.Context) error {
	if err := b.store.Ping(ctx); err != nil {
		return fmt.Errorf("%s%w", storeUnavailable, err)
	}
	s := b.secrets.Load()
	errs := []error{b.reachability.check(), b.clocks.check()}
	if s.Component != "" {
		errs = append(errs, b.readyComponent(ctx))
	}
	for appid := range s.Apps {
		acc, err := b.accounts.load(ctx, appid)
		if err == nil && !acc.usable(b.now()) {
			if f, failed := b.renewer.unanswered.last(appid); failed {
				err = fmt.Errorf("own account %s: %s", appid, f.reason)
			} else if acc != nil && acc.FailureCount > 0 {
				err = fmt.Errorf("own account %s: %s", appid, acc.Failure)
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (b *Broker) readyComponent(ctx context.Context) error {
	acc, err := b.accounts.load(ctx, b.Component())
	if err != nil || acc.usable(b.now()) {
		return err
	}
	if _, err := b.tickets.current(ctx); errors.Is(err, ErrNoTicket) {
		return fmt.Errorf("%w: WeChat pushes one every ten minutes "+
			"to the authorization event URL (授权事件接收URL), "+
			"path /component/events of the callback listener", err)
	} else if err != nil {
		return err
	}
	if acc != nil && acc.FailureCount > 0 {
		return errors.New(acc.Failure)
	}
	if f, failed := b.renewer.unanswered.last(b.Component()); failed {
		return errors.New(f.reason)
	}
	return nil
}
