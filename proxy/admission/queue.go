package admission

import (
	"sync"
	"sync/atomic"
	"time"
)

// A call for which there is no place waits for one. A burst is over in less than placeWait, and everybody has been served. When
// more is asked than can be done for longer than that, some have to be told so: it is those who have waited longest, for who came
// last is served first. Served in their order all would wait until nearly nobody wants the answer any more. And the
// connections that are served are few then, and the same ones again, which the processor has in its cache; a call over one
// of thousands that take turns costs twice as much, however little there is to do for it. (bench/load: overload)

const (
	// placeWait is how long a call waits for a place, and longestWait how long where processors are scarce: a refusal takes
	// half of the time that a call does, and with all who have waited long enough refused at once there would be time for
	// little else. So there are as many refusals as one of so many calls that are served.
	placeWait     = time.Second
	longestWait   = 5 * time.Second
	refusalsEvery = 8
	// fewestRefusals is how many there are at each sweep all the same.
	fewestRefusals = 8
)

// queue is the calls that wait.
type queue struct {
	length atomic.Int32 // to be looked at without the lock
	mu     sync.Mutex
	newest *waiter
	oldest *waiter
	served int // calls that got a place since the last sweep
}

// waiter is a call that waits. They are used again and again: with too much to do every call waits.
type waiter struct {
	older, newer *waiter
	slot         *atomic.Int32
	since        time.Time
	over         chan bool // gets one value: whether there is a place for it
}

var waiters = sync.Pool{New: func() any { return &waiter{over: make(chan bool, 1)} }}

// Acquire takes a place for key as soon as there is one. Who has waited for too long, see sweep, gets none, and hears why.
func (s *Limiter) Acquire(key []byte, now time.Time) (Slot, error) {
	slot := s.slot(key)
	q := &s.queue
	q.mu.Lock()
	q.length.Add(1) // before the second look: who leaves after it sees that somebody waits
	err := s.try(slot.account)
	if err == nil {
		q.length.Add(-1)
		q.mu.Unlock()
		return slot, nil
	}
	w := waiters.Get().(*waiter)
	w.slot, w.since = slot.account, now
	q.push(w)
	q.mu.Unlock()
	admitted := <-w.over
	waiters.Put(w)
	if admitted {
		return slot, nil
	}
	return Slot{}, err
}

// admit gives the places that there are to those who wait.
func (s *Limiter) admit() {
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	// In front may be those of an account that has its share. They are not all looked at: there can be thousands.
	const looks = 64
	for w, n := q.newest, 0; w != nil && n < looks; n++ {
		older := w.older
		switch s.try(w.slot) {
		case nil:
			q.remove(w)
			q.served++
			w.over <- true
		case ErrLimit:
			return
		}
		w = older
	}
}

// sweep refuses those who have waited for too long by now. Somebody has to call it now and then: timers would be set and
// stopped with each call that waits.
func (q *queue) sweep(now time.Time, scarce bool) {
	if q.length.Load() == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	refusals := max(q.served/refusalsEvery, fewestRefusals)
	q.served = 0
	for w := q.oldest; w != nil && now.Sub(w.since) >= placeWait; w = q.oldest {
		if scarce && refusals <= 0 && now.Sub(w.since) < longestWait {
			return
		}
		refusals--
		q.remove(w)
		w.over <- false
	}
}

func (q *queue) push(w *waiter) {
	if w.older, w.newer = q.newest, nil; w.older != nil {
		w.older.newer = w
	} else {
		q.oldest = w
	}
	q.newest = w
}

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
	w.older, w.newer, w.slot = nil, nil, nil
	q.length.Add(-1)
}
