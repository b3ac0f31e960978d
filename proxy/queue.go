package proxy

import (
	"sync"
	"sync/atomic"
	"time"
)

// A call for which there is no place waits for one. A burst is over in less than placeWait, and everybody has been served. When
// more is asked than can be done for longer than that, some have to be told so: it is those who have waited longest, for who came
// last is served first. Served in their order all would wait until nearly nobody wants the answer any more. And the
// connections that are served are few then, and the same ones again, which the processor has in its cache; a call over one
// of thousands that take turns costs twice as much, however little there is to do for it. So it is that as much gets done as
// ever (bench/load: overload).

// placeWait is how long a call waits for a place.
const placeWait = time.Second

// queue is the calls that wait, the newest first.
type queue struct {
	length atomic.Int32 // to be looked at without the lock
	mu     sync.Mutex
	newest *waiter
}

// waiter is a call that waits. They are used again and again: with too much to do every call waits.
type waiter struct {
	older, newer *waiter
	slot         *atomic.Int32
	admitted     bool          // under the lock of the queue
	in           chan struct{} // gets one value when it is admitted
	timer        *time.Timer
}

var waiters = sync.Pool{New: func() any { return &waiter{in: make(chan struct{}, 1), timer: time.NewTimer(placeWait)} }}

// wait takes a place in slot as soon as there is one, within placeWait; otherwise it gives no slot, and says why.
func (s *shares) wait(slot *atomic.Int32) (*atomic.Int32, *problem) {
	q := &s.queue
	q.mu.Lock()
	q.length.Add(1) // before the second look: who leaves after it sees that somebody waits
	p := s.try(slot)
	if p == nil {
		q.length.Add(-1)
		q.mu.Unlock()
		return slot, nil
	}
	w := waiters.Get().(*waiter)
	w.slot, w.admitted = slot, false
	q.push(w)
	q.mu.Unlock()
	w.timer.Reset(placeWait)
	select {
	case <-w.in:
	case <-w.timer.C:
		q.mu.Lock()
		if w.admitted { // in the last moment
			<-w.in
		} else {
			q.remove(w)
			slot = nil
		}
		q.mu.Unlock()
	}
	w.timer.Stop()
	waiters.Put(w)
	if slot != nil {
		p = nil
	}
	return slot, p
}

// admit gives the places that there are to those who wait.
func (s *shares) admit() {
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
			w.admitted = true
			w.in <- struct{}{}
		case errNoRoom:
			return
		}
		w = older
	}
}

func (q *queue) push(w *waiter) {
	if w.older, w.newer = q.newest, nil; w.older != nil {
		w.older.newer = w
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
	}
	w.older, w.newer, w.slot = nil, nil, nil
	q.length.Add(-1)
}
