package tokens

import (
	"context"
	"strings"
	"time"
)

// upkeep looks from time to time whether something is due that no call and no push asks for: the daily
// comparison with WeChat's list, tickets that do not come any more, traces of spent codes.
type upkeep struct {
	b      *Broker
	every  time.Duration
	nudge  chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	began  time.Time
}

const (
	// syncEvery: what nobody told is found out within a day.
	syncEvery = 24 * time.Hour
	// syncPause is the least time between two tries.
	syncPause = 10 * time.Minute
	// ticketLate: WeChat pushes every ten minutes; when this long nothing came, it has given up, or cannot reach us.
	ticketLate = time.Hour
	// spentLife is longer than any code lives.
	spentLife = 48 * time.Hour
)

func newUpkeep(b *Broker, every time.Duration) *upkeep {
	if every <= 0 {
		every = time.Minute
	}
	u := &upkeep{b: b, every: every, nudge: make(chan struct{}, 1), began: b.now()}
	u.ctx, u.cancel = context.WithCancel(b.life)
	return u
}

func (u *upkeep) start() { go u.run() }
func (u *upkeep) stop()  { u.cancel() }

// wake has it look now.
func (u *upkeep) wake() {
	select {
	case u.nudge <- struct{}{}:
	default:
	}
}

func (u *upkeep) run() {
	t := time.NewTicker(u.every)
	defer t.Stop()
	for {
		u.look()
		select {
		case <-t.C:
		case <-u.nudge:
		case <-u.ctx.Done():
			return
		}
	}
}

func (u *upkeep) look() {
	b := u.b
	if b.Component() == "" || !b.begin() {
		return
	}
	defer b.work.Done()
	ctx, cancel := context.WithTimeout(u.ctx, syncTimeout)
	defer cancel()
	u.tickets(ctx)
	// Codes that another process has left, and cannot exchange any more.
	if err := b.codes.recover(ctx); err != nil && u.ctx.Err() == nil {
		b.log.Warn("waiting authorization codes could not be read", "error", err)
	}
	if !u.mineToSync(ctx) {
		return
	}
	if _, err := b.Sync(ctx); err != nil {
		if u.ctx.Err() == nil {
			b.log.Warn("the accounts could not be compared with WeChat's list; the next try is in ten minutes", "error", err)
		}
		return
	}
	if err := b.forgetSpent(ctx); err != nil && u.ctx.Err() == nil {
		b.log.Warn("old records could not be removed", "error", err)
	}
}

// tickets asks WeChat to push again when no ticket has come for long.
func (u *upkeep) tickets(ctx context.Context) {
	t, err := u.b.loadTicket(ctx)
	if err != nil {
		return
	}
	since := u.began // WeChat needs ten minutes even if all is well
	if t != nil {
		since = latest(since, fromMillis(t.Received))
	}
	if u.b.now().Sub(since) >= ticketLate {
		u.b.startPush(ctx)
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// mineToSync says whether a comparison is due, and no other replica is at it. It needs a component
// token, which may be in memory only where the store was emptied, or a ticket to get one with: otherwise the ticket wakes us.
func (u *upkeep) mineToSync(ctx context.Context) (mine bool) {
	b := u.b
	if acc, err := b.loadAccount(ctx, b.Component()); err != nil {
		return false
	} else if _, cached := b.cache.last(b.Component()); !cached && !acc.usable(b.now()) {
		if _, err := b.ticket(ctx); err != nil {
			return false
		}
	}
	now := b.now()
	due := func(s *synced) bool {
		return now.Sub(fromMillis(s.Done)) >= syncEvery && now.Sub(fromMillis(s.Begun)) >= syncPause
	}
	raw, err := b.store.Load(ctx, syncKey(b.Component()))
	if s, decodeErr := decodeSynced(raw); err == nil && (decodeErr != nil || !due(s)) {
		return false // looked at without a lock: it is so nearly always
	}
	err = b.noteSync(ctx, func(s *synced) bool {
		mine = due(s)
		s.Begun = millis(now)
		return mine
	})
	return mine && err == nil
}

// forgetSpent removes the traces of codes that nobody can bring again.
func (b *Broker) forgetSpent(ctx context.Context) error {
	var old []string
	err := b.store.List(ctx, spentPrefix, "", func(key string, raw []byte) bool {
		if s, err := decodeSpent(raw); err == nil && b.now().Sub(fromMillis(s.At)) >= spentLife {
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
