package tokens

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// TicketAge is how long ago the newest ticket came; false where there is none.
func (b *Broker) TicketAge() (time.Duration, bool) {
	ctx, cancel := context.WithTimeout(b.life, time.Second)
	defer cancel()
	t, err := b.loadTicket(ctx)
	if err != nil || t == nil || t.Ticket == "" {
		return 0, false
	}
	return b.now().Sub(fromMillis(t.Received)), true
}

// ComponentExpiry is how long the component's token will live, negative where it is over; false
// where there is none.
func (b *Broker) ComponentExpiry() (time.Duration, bool) {
	ctx, cancel := context.WithTimeout(b.life, time.Second)
	defer cancel()
	acc, err := b.loadAccount(ctx, b.Component())
	if err != nil || acc == nil || acc.Access == "" {
		return 0, false
	}
	return fromMillis(acc.ExpiresAt).Sub(b.now()), true
}

// Evictions is how many entries were pushed out of the cache for want of room.
func (b *Broker) Evictions() uint64 { return b.cache.evicted.Load() }

// SetsDropped is how many entries the cache did not take in under load.
func (b *Broker) SetsDropped() uint64 { return b.cache.dropped.Load() }

// stateCounts counts the authorizers by state. It reads all records, so an answer serves for a while.
type stateCounts struct {
	mu      sync.Mutex
	counts  map[State]int // nil: not known
	until   time.Time
	running chan struct{} // closed when it is done; nil: nobody counts
}

const (
	countsLifetime = 2 * time.Second
	// countsWait is how long an asker waits for a count before he gets the one before it. A million accounts take longer.
	countsWait   = time.Second
	countTimeout = 2 * time.Minute
)

// Accounts counts the authorizers by state, as of two seconds ago at most; with very many accounts, as of some twenty
// times what counting takes. known is false where the store could not be read, and while the first count lasts.
func (b *Broker) Accounts() (active, revoked, failing int, known bool) {
	c := &b.stateCounts
	c.mu.Lock()
	if (c.counts == nil || !b.now().Before(c.until)) && c.running == nil {
		c.running = make(chan struct{})
		go b.countStates()
	}
	running := c.running
	c.mu.Unlock()
	if running != nil {
		select {
		case <-running:
		case <-time.After(countsWait):
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[Active], c.counts[Revoked], c.counts[Failing], c.counts != nil
}

func (b *Broker) countStates() {
	ctx, cancel := context.WithTimeout(b.life, countTimeout)
	defer cancel()
	began, counts := b.now(), map[State]int{}
	err := b.store.List(ctx, accountPrefix, "", func(_ string, raw []byte) bool {
		if acc, err := decodeAccount(raw); err == nil && acc.Kind == Authorizer.String() {
			counts[acc.state()]++
		}
		return true
	})
	c := &b.stateCounts
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts = nil; err == nil {
		c.counts, c.until = counts, b.now().Add(max(countsLifetime, 20*b.now().Sub(began)))
	}
	close(c.running)
	c.running = nil
}

// Ready says whether the store answers and a token of each configured kind can be had, without
// asking WeChat: there is one, or nothing speaks against fetching one. The error has one
// sentence for each thing that is missing.
func (b *Broker) Ready(ctx context.Context) error {
	if err := b.store.Ping(ctx); err != nil {
		return fmt.Errorf("the store does not answer: %w", err)
	}
	s := b.secrets.Load()
	var errs []error
	if s.Component != "" {
		errs = append(errs, b.readyComponent(ctx))
	}
	for appid := range s.Apps {
		acc, err := b.loadAccount(ctx, appid)
		if err == nil && acc != nil && !acc.usable(b.now()) && acc.FailureCount > 0 {
			err = fmt.Errorf("own account %s: %s", appid, acc.Failure)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (b *Broker) readyComponent(ctx context.Context) error {
	acc, err := b.loadAccount(ctx, b.Component())
	if err != nil || acc.usable(b.now()) {
		return err
	}
	if _, err := b.currentTicket(ctx); errors.Is(err, ErrNoTicket) {
		return fmt.Errorf("%w: WeChat pushes one every ten minutes to the authorization event URL (授权事件接收URL), path /component/events of the callback listener", err)
	} else if err != nil {
		return err
	}
	if acc != nil && acc.FailureCount > 0 {
		return errors.New(acc.Failure)
	}
	return nil
}
