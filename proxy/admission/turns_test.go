package admission

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"
)

// model drives a Limiter from one goroutine and checks after each step that no
// request waits for a slot that it may have.
type model struct {
	*testing.T
	l       *Limiter
	now     time.Time
	held    []Slot
	waiting []*waiter // the oldest first
	history []string  // steps, for failures
}

func newModel(t *testing.T, limit int) *model {
	return &model{T: t, l: NewLimiter(limit, QueueTimeout), now: time.Now()}
}

// slot returns the slot of the key with this number. No two share a counter.
func (m *model) slot(key int) Slot { return Slot{uint16(key) + 1} }

// acquire is Acquire, except that it does not wait. It reports whether it got a
// slot at once.
func (m *model) acquire(key int) bool {
	m.now = m.now.Add(time.Millisecond)
	w, err := m.l.enqueue(m.slot(key), m.now)
	if err == nil {
		m.held = append(m.held, m.slot(key))
	} else {
		m.waiting = append(m.waiting, w)
	}
	m.check("acquire " + strconv.Itoa(key))
	return err == nil
}

// release releases the i-th slot that is held.
func (m *model) release(i int) {
	s := m.held[i]
	m.held = append(m.held[:i], m.held[i+1:]...)
	m.l.Release(s)
	m.check("release " + strconv.Itoa(int(s.counter)-1))
}

// check moves requests that got a slot to held, checks the invariant, and
// returns the keys of those requests, in the order in which they began to wait.
func (m *model) check(step string) (admitted []int) {
	m.Helper()
	if m.history = append(m.history, step); len(m.history) > 30 {
		m.history = m.history[1:]
	}
	kept := m.waiting[:0]
	newestLeft := map[Slot]time.Time{}
	for _, w := range m.waiting {
		slot := w.slot
		select {
		case ok := <-w.admitted:
			if !ok {
				break
			}
			m.held = append(m.held, slot)
			admitted = append(admitted, int(slot.counter)-1)
			if left, ok := newestLeft[slot]; ok && step != "limit" && !left.Before(w.since) {
				m.Fatalf("%q: key %d: got an older request admitted, want the newest",
					m.history, slot.counter-1)
			}
		default:
			newestLeft[slot] = w.since
			kept = append(kept, w)
		}
	}
	m.waiting = kept
	limit, total := m.l.limit.Load(), m.l.total.Load()
	if int(total) != len(m.held) || int(m.l.queue.length.Load()) != len(m.waiting) {
		m.Fatalf("%q: got %d slots in use and length %d, want %d and %d",
			m.history, total, m.l.queue.length.Load(), len(m.held), len(m.waiting))
	}
	for _, w := range m.waiting {
		inFlight := int64(m.l.inFlight(w.slot).Load())
		atLimit := total >= limit/fairnessThreshold && inFlight >= max(limit/perKeyFraction, 1)
		if total < limit && !atLimit {
			m.Fatalf("%q: key %d waits with %d slots in flight, %d of %d in use: want it admitted",
				m.history, w.slot.counter-1, inFlight, total, limit)
		}
	}
	return admitted
}

// TestNoRequestWaitsForFreeSlot takes random steps, with 1 to 40 keys of which
// one is used as often as all others together, limits of 1 to 100 that change,
// and sweeps of a queue of any length. After each step no request waits for a
// slot that it may have, and within a key the newest was served.
func TestNoRequestWaitsForFreeSlot(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		m := newModel(t, 1+r.IntN(100))
		keys, releases := 1+r.IntN(40), r.IntN(10)
		for range 500 {
			switch n := r.IntN(20); {
			case n == 0:
				m.l.setLimit(1 + r.Int64N(m.l.maxLimit))
				m.check("limit")
			case n == 1 && r.IntN(10) == 0:
				until := m.now.Add(QueueTimeout - time.Duration(r.IntN(300))*time.Millisecond)
				m.l.queue.sweep(until, r.IntN(2) == 0)
				m.check("sweep")
			case n <= 1+releases && len(m.held) > 0:
				m.release(r.IntN(len(m.held)))
			default:
				m.acquire(r.IntN(keys) * r.IntN(2))
			}
		}
		m.l.queue.sweep(m.now.Add(time.Minute), false)
		m.check("sweep")
		for len(m.held) > 0 {
			m.release(0)
		}
		checkEmpty(t, m.l)
	}
}

// TestWaitersOfOneKeyHideNoOther has one key at its limit with 1 to 1,000
// requests that wait, all newer than the one request of a quiet key. Of 64 slots
// 16 are released by others: the quiet key gets the first of them.
func TestWaitersOfOneKeyHideNoOther(t *testing.T) {
	for _, waiting := range []int{1, 63, 64, 65, 1000} {
		const slow, quiet = 0, 9
		m := newModel(t, 64)
		for range 32 {
			m.acquire(slow)
		}
		for i := range 32 {
			m.acquire(1 + i%4)
		}
		m.acquire(quiet)
		for range waiting {
			m.acquire(slow)
		}
		for i := range 16 {
			m.l.Release(m.held[32])
			m.held = append(m.held[:32], m.held[33:]...)
			got, want := m.check("release"), []int(nil)
			if i == 0 {
				want = []int{quiet}
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%d waiting, release %d: got keys %v admitted, want %v", waiting, i, got, want)
			}
		}
	}
}

// TestKeysTakeTurns has 10 busy keys with 50 requests each that wait, and
// releases one slot after another. A quiet key that comes in between is served
// with one of the next two slots. While a new quiet key comes with every
// release, the busy ones still get half of the slots, in turn.
func TestKeysTakeTurns(t *testing.T) {
	m := newModel(t, 100)
	for i := range 100 {
		m.acquire(i % 10)
	}
	for i := range 500 {
		m.acquire(i % 10)
	}
	served := map[int]int{}
	release := func() (admitted []int) {
		m.l.Release(m.held[0])
		m.held = m.held[1:]
		admitted = m.check("release")
		for _, key := range admitted {
			served[key]++
		}
		return admitted
	}
	for range 20 {
		release() // until each has been served once
	}
	clear(served)
	for range 20 {
		release()
	}
	for key := range 10 {
		if served[key] != 2 {
			t.Errorf("20 slots for 10 busy keys: got %d for key %d, want 2", served[key], key)
		}
	}
	m.acquire(500)
	if got := append(release(), release()...); got[0] != 500 && got[1] != 500 {
		t.Errorf("quiet key: got keys %v served, want 500 among them", got)
	}
	clear(served)
	for i := range 200 {
		m.acquire(1000 + i)
		release()
	}
	for key := range 10 {
		if n := served[key]; n < 9 || n > 11 {
			t.Errorf("200 slots, half of them for 10 busy keys: got %d for key %d, want 9 to 11", n, key)
		}
	}
}

// TestWaitingAllocatesNothing checks that the queue allocates nothing once its
// waiters are pooled: under overload every request waits.
func TestWaitingAllocatesNothing(t *testing.T) {
	l := NewLimiter(1, QueueTimeout)
	a, b := Slot{1}, Slot{2}
	l.take(a)
	now := time.Now()
	if n := testing.AllocsPerRun(1000, func() {
		w, _ := l.enqueue(b, now)
		l.Release(a)
		<-w.admitted
		waiters.Put(w)
		a, b = b, a
	}); n != 0 {
		t.Errorf("a request that waits: got %v allocations, want 0", n)
	}
}
