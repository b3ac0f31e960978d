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
	share int // renewals that are in flight at most

	mu       sync.Mutex
	queue    renewalQueue
	byAppID  map[string]*scheduledRenewal // what is in queue
	timer    *time.Timer                  // fires at the time of the first in queue
	stopped  bool
	inFlight int
}

// scheduledRenewal is an entry that becomes due at some time.
type scheduledRenewal struct {
	appid string
	entry *entry
	at    time.Time
	index int // in the queue
}

// newEarlyRenewer returns one that runs up to share renewals at a time. 32 that
// take 100 ms each are 320 a second, enough for two million accounts in use.
func newEarlyRenewer(
	limit, share int, now func() time.Time, renew func(appid string) error,
) *earlyRenewer {
	r := &earlyRenewer{
		renew: renew, now: now, limit: limit, share: share,
		byAppID: make(map[string]*scheduledRenewal),
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

// waiting returns how many renewals are due and have not begun, because as many
// as may are in flight.
func (r *earlyRenewer) waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.queue.due(0, r.now())
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
		if r.inFlight >= r.share {
			return // the next renewal that ends calls tick
		}
		r.inFlight++
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
		r.mu.Lock()
		r.inFlight--
		r.mu.Unlock()
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
	now := r.now()
	left := e.usableUntil.Sub(now)
	if left <= 0 {
		return
	}
	wait := RetryAfter(err, now)
	if left >= 10*maxUnansweredPause {
		// No caller needs the new token yet. So accounts for which WeChat does
		// not respond take no more than half of the time of a slot.
		wait = max(wait, maxUnansweredPause)
	}
	r.schedule(appid, e, wait)
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

// due returns how many of the heap below i are due at now.
func (q renewalQueue) due(i int, now time.Time) int {
	if i >= len(q) || q[i].at.After(now) {
		return 0 // and so are all that are below
	}
	return 1 + q.due(2*i+1, now) + q.due(2*i+2, now)
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
