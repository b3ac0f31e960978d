package admission

import (
	"sync"
	"sync/atomic"
	"time"
)

// The queue is LIFO. A burst is over in less than QueueTimeout, and every
// request of it is served. If more is asked than can be done for longer than
// that, some requests must be rejected. Under sustained overload a FIFO queue
// would make every request wait until its client has nearly given up. LIFO
// keeps most requests fast and rejects the oldest. Each account has a list of
// its own (turns.go), so that one with many requests keeps no slot from others.
//
// LIFO is also cheaper: few connections are served, and the same ones again and
// again, whose data is in the CPU's cache. A request on one of thousands of
// connections that take turns costs twice as much (bench/load, overload).

const (
	// QueueTimeout is how long a request should wait for a slot before it may
	// be rejected. Clients wait longer than that for a response, and a burst is
	// over sooner.
	QueueTimeout = time.Second
	// maxQueueTimeout is how long it may wait while the CPUs are overloaded, if
	// that is longer than the timeout of the limiter. A
	// rejection costs about half of what a request costs. If all requests that
	// reached it were rejected at once, little else would get done.
	maxQueueTimeout = 5 * time.Second
	// rejectRatio is the number of requests served for each rejection while the
	// CPUs are overloaded.
	rejectRatio = 8
	// minRejects is the number of rejections allowed at each sweep in any case.
	minRejects = 8
)

// queue holds the requests that wait for a slot.
type queue struct {
	timeout  time.Duration // of a request; never changed
	length   atomic.Int32  // may be read without mu
	mu       sync.Mutex
	byAge    list[waiter] // the newest first
	turns    turns
	admitted int // since the last sweep
}

// waiter is a request in the queue. Waiters are pooled: under overload every
// request becomes one.
type waiter struct {
	age, key node[waiter] // in byAge, and in the list of its counter
	slot     Slot
	since    time.Time
	admitted chan bool // receives exactly one value
}

var waiters = sync.Pool{New: func() any { return &waiter{admitted: make(chan bool, 1)} }}

// Acquire takes a slot for key and waits in the queue if there is none. It
// returns ErrLimit or ErrKeyLimit, whichever kept it waiting at first, once
// [Limiter.Run] has timed it out. Waiting cannot be canceled otherwise; it is
// short. The slot must be given to [Limiter.Release].
func (l *Limiter) Acquire(key []byte, now time.Time) (Slot, error) {
	slot := l.slot(key)
	w, err := l.enqueue(slot, now)
	if err == nil {
		return slot, nil
	}
	admitted := <-w.admitted
	waiters.Put(w)
	if admitted {
		return slot, nil
	}
	return Slot{}, err
}

// enqueue takes slot, or adds a request that waits for it. Then it returns why
// there is no slot.
func (l *Limiter) enqueue(slot Slot, now time.Time) (*waiter, error) {
	q := &l.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	// Add before the attempt: a slot that is released after the attempt failed
	// is then given to this request, since Release sees that one waits.
	q.length.Add(1)
	err := l.take(slot)
	if err == nil {
		q.length.Add(-1)
		return nil, nil
	}
	w := waiters.Get().(*waiter)
	w.slot, w.since = slot, now
	q.byAge.pushFront(&w.age, w)
	q.turns.add(w, err)
	return w, err
}

// admitReleased gives free slots to waiting requests after slot was released.
func (l *Limiter) admitReleased(slot Slot) {
	l.queue.mu.Lock()
	defer l.queue.mu.Unlock()
	l.queue.turns.unblock(slot)
	l.admitWaiters()
}

// admitAll gives free slots to waiting requests after the limits have changed.
func (l *Limiter) admitAll() {
	l.queue.mu.Lock()
	defer l.queue.mu.Unlock()
	l.queue.turns.unblockAll()
	l.admitWaiters()
}

// admitWaiters gives each free slot to a waiting request that may have it. The
// caller holds mu. On return, no request waits for a slot that it may have:
//
//   - A counter in blocked was at the limit per key when it got there. That can
//     change when one of its slots is released, or with the limits: then it is
//     unblocked. It also gets slots while few are in use, see take, so the first
//     of blocked is tried at the end.
//   - A counter in another list is tried here, and admitted or blocked.
func (l *Limiter) admitWaiters() {
	q := &l.queue
	for k := q.turns.next(); k != nil; k = q.turns.next() {
		switch l.take(k.waiters.first.value.slot) {
		case nil:
			w := q.turns.take(k)
			w.age.remove()
			q.length.Add(-1)
			q.admitted++
			w.admitted <- true
		case ErrLimit:
			return
		case ErrKeyLimit:
			if k.turn.in == &q.turns.blocked {
				return
			}
			q.turns.block(k)
		}
	}
}

// sweep rejects requests that have waited too long, the oldest first. It must
// be called regularly. A timer per waiting request would cost more.
func (q *queue) sweep(now time.Time, overloaded bool) {
	if q.length.Load() == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	rejects := max(q.admitted/rejectRatio, minRejects)
	q.admitted = 0
	for !q.byAge.empty() {
		w := q.byAge.last.value
		waited := now.Sub(w.since)
		if waited < q.timeout || overloaded && rejects <= 0 && waited < maxQueueTimeout {
			return
		}
		rejects--
		w.age.remove()
		q.turns.remove(w)
		q.length.Add(-1)
		w.admitted <- false
	}
}
