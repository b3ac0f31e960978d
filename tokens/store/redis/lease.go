package redis

import (
	"context"
	"fmt"
	"time"

	"wxproxy/tokens/store"
)

// startExtending extends the lease until stopExtending is called. It calls
// lost, with [store.ErrLost] as the cause, if the lock is lost before.
//
// A lease is extended after a third of its length. An extension that fails is
// retried after a twentieth, until the lease has expired: from then on another
// process may hold the lock.
func (l *lock) startExtending(lost context.CancelCauseFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = lost
	l.timer = time.AfterFunc(l.s.lease/3, l.extend)
}

// stopExtending is called before the record is saved. An extension in flight
// does no harm: it only extends the lock if this update still holds it.
func (l *lock) stopExtending() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = nil
	l.timer.Stop()
}

// extend extends the lease once and schedules the next extension.
func (l *lock) extend() {
	l.mu.Lock()
	end, lost := l.leaseEnd, l.lost
	l.mu.Unlock()
	if lost == nil {
		return
	}
	sentAt := time.Now()
	// Not the caller's context: if that has ended, fn may still need the lock
	// until it returns.
	ctx, cancel := context.WithDeadline(context.Background(), end)
	keys := []string{l.bucket.lock + l.key}
	held, err := extendScript.Run(ctx, l.s.client, keys, l.owner, l.s.lease.Milliseconds()).Int()
	cancel()
	next := l.s.lease / 3
	switch {
	case err == nil && held == 0:
		lost(fmt.Errorf("%w: another process may hold it", store.ErrLost))
		return
	case err == nil:
		end = sentAt.Add(l.s.lease)
	case !time.Now().Before(end):
		lost(fmt.Errorf("%w: %w", store.ErrLost, l.s.convertError(context.Background(), err)))
		return
	default:
		next = l.s.lease / 20
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leaseEnd = end; l.lost != nil {
		l.timer = time.AfterFunc(min(next, time.Until(end)), l.extend)
	}
}
