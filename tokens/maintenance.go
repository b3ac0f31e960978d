package tokens

import (
	"context"
	"strings"
	"time"
)

// maintenance looks from time to time whether something is due that no call and no push asks for: the daily
// comparison with WeChat's list, tickets that do not come any more, traces of spent codes.
type maintenance struct {
	b      *Broker
	every  time.Duration
	nudge  chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	began  time.Time
}

const (
	// syncInterval: what nobody told is found out within a day.
	syncInterval = 24 * time.Hour
	// syncPause is the least time between two tries.
	syncPause = 10 * time.Minute
	// ticketOverdueAfter: WeChat pushes every ten minutes; when this long nothing came, it has given up, or cannot reach us.
	ticketOverdueAfter = time.Hour
	// exchangedCodeLifetime is longer than any code lives.
	exchangedCodeLifetime = 48 * time.Hour
)

func newMaintenance(b *Broker, every time.Duration) *maintenance {
	if every <= 0 {
		every = time.Minute
	}
	u := &maintenance{b: b, every: every, nudge: make(chan struct{}, 1), began: b.now()}
	u.ctx, u.cancel = context.WithCancel(b.life)
	return u
}

func (u *maintenance) start() { go u.run() }
func (u *maintenance) stop()  { u.cancel() }

// wake has it look now.
func (u *maintenance) wake() {
	select {
	case u.nudge <- struct{}{}:
	default:
	}
}

func (u *maintenance) run() {
	t := time.NewTicker(u.every)
	defer t.Stop()
	for {
		u.runOnce()
		select {
		case <-t.C:
		case <-u.nudge:
		case <-u.ctx.Done():
			return
		}
	}
}

func (u *maintenance) runOnce() {
	b := u.b
	if b.Component() == "" || !b.begin() {
		return
	}
	defer b.work.Done()
	ctx, cancel := context.WithTimeout(u.ctx, syncTimeout)
	defer cancel()
	u.requestLateTicket(ctx)
	// Codes that another process has left, and cannot exchange any more.
	if err := b.exchanger.recover(ctx); err != nil && u.ctx.Err() == nil {
		b.log.Warn("waiting authorization codes could not be read", "error", err)
	}
	if !u.claimSync(ctx) {
		return
	}
	if _, err := b.Sync(ctx); err != nil {
		if u.ctx.Err() == nil {
			b.log.Warn("the accounts could not be compared with WeChat's list; the next try is in ten minutes", "error", err)
		}
		return
	}
	if err := b.deleteOldExchangedCodes(ctx); err != nil && u.ctx.Err() == nil {
		b.log.Warn("old records could not be removed", "error", err)
	}
}

// requestLateTicket asks WeChat to push again when no ticket has come for long.
func (u *maintenance) requestLateTicket(ctx context.Context) {
	t, err := u.b.loadTicket(ctx)
	if err != nil {
		return
	}
	since := u.began // WeChat needs ten minutes even if all is well
	if t != nil {
		since = latest(since, fromMillis(t.Received))
	}
	if u.b.now().Sub(since) >= ticketOverdueAfter {
		u.b.startPush(ctx)
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// claimSync says whether a comparison is due, and no other replica is at it. It needs a component
// token, which may be in memory only where the store was emptied, or a ticket to get one with: otherwise the ticket wakes us.
func (u *maintenance) claimSync(ctx context.Context) (mine bool) {
	b := u.b
	if acc, err := b.loadAccount(ctx, b.Component()); err != nil {
		return false
	} else if _, cached := b.cache.getStale(b.Component()); !cached && !acc.usable(b.now()) {
		if _, err := b.currentTicket(ctx); err != nil {
			return false
		}
	}
	now := b.now()
	due := func(s *syncRecord) bool {
		return now.Sub(fromMillis(s.Done)) >= syncInterval && now.Sub(fromMillis(s.Begun)) >= syncPause
	}
	raw, err := b.store.Load(ctx, syncKey(b.Component()))
	if s, decodeErr := decodeSync(raw); err == nil && (decodeErr != nil || !due(s)) {
		return false // looked at without a lock: it is so nearly always
	}
	err = b.noteSync(ctx, func(s *syncRecord) bool {
		mine = due(s)
		s.Begun = millis(now)
		return mine
	})
	return mine && err == nil
}

// deleteOldExchangedCodes removes the traces of codes that nobody can bring again.
func (b *Broker) deleteOldExchangedCodes(ctx context.Context) error {
	var old []string
	err := b.store.List(ctx, exchangedCodePrefix, "", func(key string, raw []byte) bool {
		if s, err := decodeExchangedCode(raw); err == nil && b.now().Sub(fromMillis(s.At)) >= exchangedCodeLifetime {
			old = append(old, strings.Clone(key))
		}
		return len(old) < 100_000
	})
	for _, key := range old {
		if err := b.store.Update(ctx, key, func(context.Context, []byte) ([]byte, error) { return nil, nil }); err != nil {
			return err
		}
	}
	return err
}
