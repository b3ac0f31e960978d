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
// keeps most requests fast and rejects the oldest.
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

// queue holds the requests that wait for a slot, as a linked list by age.
type queue struct {
	timeout time.Duration // of a request; never changed
	length  atomic.Int32  // may be read without mu
	mu      sync.Mutex
	newest  *waiter
	oldest  *waiter
	served  int // admitted since the last sweep
}

// waiter is a request in the queue. Waiters are pooled: under overload every
// request becomes one.
type waiter struct {
	older, newer *waiter
	slot         Slot
	since        time.Time
	admitted     chan bool // receives exactly one value
}

var waiters = sync.Pool{New: func() any { return &waiter{admitted: make(chan bool, 1)} }}

// Acquire takes a slot for key and waits in the queue if there is none. It
// returns ErrLimit or ErrKeyLimit, whichever kept it waiting at first, once
// [Limiter.Run] has timed it out. Waiting cannot be canceled otherwise; it is
// short. The slot must be given to [Limiter.Release].
func (l *Limiter) Acquire(key []byte, now time.Time) (Slot, error) {
	slot := l.slot(key)
	q := &l.queue
	q.mu.Lock()
	// Add before the attempt: a slot that is released after the attempt failed
	// is then given to this request, since Release sees that one waits.
	q.length.Add(1)
	err := l.take(slot)
	if err == nil {
		q.length.Add(-1)
		q.mu.Unlock()
		return slot, nil
	}
	w := waiters.Get().(*waiter)
	w.slot, w.since = slot, now
	q.push(w)
	q.mu.Unlock()
	admitted := <-w.admitted
	waiters.Put(w)
	if admitted {
		return slot, nil
	}
	return Slot{}, err
}

// admitWaiters gives free slots to waiting requests, the newest first.
func (l *Limiter) admitWaiters() {
	// The newest may all belong to keys at their limit. The search for another
	// one is bounded, since thousands can wait.
	const maxVisited = 64
	q := &l.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	for w, n := q.newest, 0; w != nil && n < maxVisited; n++ {
		older := w.older
		switch l.take(w.slot) {
		case nil:
			q.remove(w)
			q.served++
			w.admitted <- true
		case ErrLimit:
			return
		}
		w = older
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
	rejects := max(q.served/rejectRatio, minRejects)
	q.served = 0
	for w := q.oldest; w != nil && now.Sub(w.since) >= q.timeout; w = q.oldest {
		if overloaded && rejects <= 0 && now.Sub(w.since) < maxQueueTimeout {
			return
		}
		rejects--
		q.remove(w)
		w.admitted <- false
	}
}

// push adds w as the newest. The caller holds mu and has counted w in length.
func (q *queue) push(w *waiter) {
	if w.older, w.newer = q.newest, nil; w.older != nil {
		w.older.newer = w
	} else {
		q.oldest = w
	}
	q.newest = w
}

// remove takes w out of the list and out of length. The caller holds mu.
func (q *queue) remove(w *waiter) {
	if w.newer != nil {
		w.newer.older = w.older
	} else {
		q.newest = w.older
	}
	if w.older != nil {
		w.older.newer = w.newer
	} else {
		q.oldest = w.newer
	}
	w.older, w.newer, w.slot = nil, nil, Slot{}
	q.length.Add(-1)
}
