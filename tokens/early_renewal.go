package tokens

import (
	"container/heap"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// earlyRenewer renews tokens before they expire, if they were used since their
// last renewal. An account that no caller uses any more costs one more renewal,
// and then nothing. It is safe for concurrent use.
type earlyRenewer struct {
	// renew renews the token of appid if it is due.
	renew func(appid string) error
	now   func() time.Time
	limit int // accounts that are scheduled at most

	mu       sync.Mutex
	queue    renewalQueue
	byAppID  map[string]*scheduledRenewal // what is in queue
	timer    *time.Timer                  // fires at the time of the first in queue
	stopped  bool
	inFlight chan struct{} // a slot for each renewal
}

// scheduledRenewal is an entry that becomes due at some time.
type scheduledRenewal struct {
	appid string
	entry *entry
	at    time.Time
	index int // in the queue
}

// maxEarlyRenewals bounds the early renewals in flight. 16 that take 100 ms
// each are 160 a second, enough for a million accounts in use.
const maxEarlyRenewals = 16

func newEarlyRenewer(
	limit int, now func() time.Time, renew func(appid string) error,
) *earlyRenewer {
	r := &earlyRenewer{
		renew: renew, now: now, limit: limit,
		byAppID:  make(map[string]*scheduledRenewal),
		inFlight: make(chan struct{}, maxEarlyRenewals),
	}
	r.timer = time.AfterFunc(time.Hour, r.tick) // schedule sets the first real time
	return r
}

// schedule renews the token of e after wait, if it was used by then. It
// replaces what was scheduled for the account before. It returns false if the
// limit is reached: then the token is renewed when the next caller finds it
// due.
func (r *earlyRenewer) schedule(appid string, e *entry, wait time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return false
	}
	at := r.now().Add(wait)
	if s := r.byAppID[appid]; s != nil {
		s.entry, s.at = e, at
		heap.Fix(&r.queue, s.index)
	} else {
		if len(r.queue) >= r.limit {
			return false
		}
		s = &scheduledRenewal{appid: appid, entry: e, at: at}
		r.byAppID[appid] = s
		heap.Push(&r.queue, s)
	}
	r.setTimer()
	return true
}

// appids returns the accounts that are scheduled: all that are cached and not
// due, except those for which there was no room.
func (r *earlyRenewer) appids() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.byAppID))
}

// setTimer requires r.mu.
func (r *earlyRenewer) setTimer() {
	if len(r.queue) > 0 {
		r.timer.Reset(max(r.queue[0].at.Sub(r.now()), 0))
	}
}

// tick starts the renewals that are due, as far as there are free slots. The
// timer calls it, and each renewal that ends.
func (r *earlyRenewer) tick() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	for !r.stopped && len(r.queue) > 0 && !r.queue[0].at.After(now) {
		s := r.queue[0]
		if !s.entry.used.Load() {
			// No caller got this token. The next one finds it due and renews
			// it, or does not come.
			r.pop()
			continue
		}
		select {
		case r.inFlight <- struct{}{}:
		default:
			return // the next renewal that ends calls tick
		}
		r.pop()
		go r.run(s.appid, s.entry)
	}
	r.setTimer()
}

// pop removes the first in the queue. It requires r.mu.
func (r *earlyRenewer) pop() {
	s := heap.Pop(&r.queue).(*scheduledRenewal)
	delete(r.byAppID, s.appid)
}

func (r *earlyRenewer) run(appid string, e *entry) {
	defer func() {
		<-r.inFlight
		r.tick()
	}()
	err := r.renew(appid)
	switch {
	case err == nil: // the next renewal is scheduled
		return
	case errors.Is(err, ErrClosed), errors.Is(err, ErrRevoked), errors.Is(err, ErrForgotten),
		errors.Is(err, ErrUnknownAccount):
		return
	}
	// While the old token is valid there is time for more attempts.
	if now := r.now(); now.Before(e.usableUntil) {
		r.schedule(appid, e, RetryAfter(err, now))
	}
}

// stop starts no more renewals. Those in flight go on.
func (r *earlyRenewer) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	r.timer.Stop()
}

// renewalQueue is a heap ordered by time; see [container/heap].
type renewalQueue []*scheduledRenewal

func (q renewalQueue) Len() int           { return len(q) }
func (q renewalQueue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }

func (q renewalQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *renewalQueue) Push(x any) {
	s := x.(*scheduledRenewal)
	s.index = len(*q)
	*q = append(*q, s)
}

func (q *renewalQueue) Pop() any {
	old := *q
	s := old[len(old)-1]
	old[len(old)-1] = nil // for the garbage collector
	*q = old[:len(old)-1]
	return s
}
