package admission

import (
	"log/slog"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// acquireQueued starts an Acquire that has to wait, and returns once it waits.
// done receives its error.
func acquireQueued(t *testing.T, l *Limiter, done func(error)) {
	t.Helper()
	before := l.queue.length.Load()
	go func() {
		slot, err := l.Acquire([]byte("a"), time.Now())
		if (slot == Slot{}) != (err != nil) {
			t.Errorf("Acquire: got slot %v with error %v, want exactly one of the two", slot, err)
		}
		done(err)
	}()
	waitUntil(t, "the request is queued", func() bool { return l.queue.length.Load() != before })
}

// checkEmpty checks that no slot is in use and no request waits.
func checkEmpty(t *testing.T, l *Limiter) {
	t.Helper()
	if n := l.InFlight(); n != 0 {
		t.Errorf("slots in use: got %d, want 0", n)
	}
	if n := l.queue.length.Load(); n != 0 || !l.queue.byAge.empty() {
		t.Errorf("queue: got length %d, oldest %v, want an empty queue", n, l.queue.byAge.last)
	}
}

func TestLimits(t *testing.T) {
	l := NewLimiter(16, QueueTimeout)
	take := func(key string, want bool) Slot {
		t.Helper()
		slot, got := l.TryAcquire([]byte(key))
		if got != want {
			t.Errorf("key %q with %d slots in use: got %v, want %v", key, l.InFlight(), got, want)
		}
		return slot
	}
	second := "b"
	for l.slot([]byte(second)) == l.slot([]byte("a")) {
		second += "b" // keys that share a counter would share the limit
	}
	var slots []Slot
	for range 8 {
		slots = append(slots, take("a", true)) // half of them, while no other key needs any
	}
	take("a", false)
	for range 2 {
		slots = append(slots, take(second, true)) // an eighth
	}
	take(second, false)
	for _, slot := range slots {
		l.Release(slot)
	}
	l.Release(Slot{})
	checkEmpty(t, l)
}

func TestQueueServesNewestFirst(t *testing.T) {
	l := NewLimiter(1, QueueTimeout)
	slot, _ := l.TryAcquire([]byte("a"))
	done := make(chan string, 10)
	for i := range 5 {
		acquireQueued(t, l, func(err error) {
			if err != nil {
				done <- err.Error()
				return
			}
			done <- strconv.Itoa(i)
		})
	}
	for _, want := range []string{"4", "3", "2"} {
		l.Release(slot)
		if got := <-done; got != want {
			t.Fatalf("served: got request %s, want %s", got, want)
		}
	}
	now := time.Now()
	l.queue.sweep(now.Add(-time.Minute), false)
	if n := l.queue.length.Load(); n != 2 {
		t.Fatalf("waiting after a sweep before QueueTimeout: got %d, want 2", n)
	}
	l.queue.sweep(now.Add(QueueTimeout), false)
	for range 2 {
		if got := <-done; got != ErrLimit.Error() {
			t.Fatalf("after QueueTimeout: got %q, want %q", got, ErrLimit)
		}
	}
	acquireQueued(t, l, func(err error) {
		if err != nil {
			t.Errorf("after the limit was raised: got error %v, want a slot", err)
		}
		done <- "served"
	})
	l.maxLimit = 8
	l.setLimit(8)
	<-done
	l.Release(slot)
	l.Release(slot)
	checkEmpty(t, l)
}

// TestRejectionsAreSpreadUnderOverload checks that a sweep rejects few requests
// while the CPUs are overloaded, the oldest first, and all of them after
// maxQueueTimeout.
func TestRejectionsAreSpreadUnderOverload(t *testing.T) {
	const waiting = 40
	l := NewLimiter(1, QueueTimeout)
	l.TryAcquire([]byte("a"))
	rejected := make(chan int, waiting)
	for i := range waiting {
		acquireQueued(t, l, func(err error) {
			if err != nil {
				rejected <- i
			}
		})
	}
	seen := map[int]bool{}
	sweep := func(after time.Duration, want int) {
		t.Helper()
		l.queue.sweep(time.Now().Add(after), true)
		for range want {
			seen[<-rejected] = true
		}
		if n := int(l.queue.length.Load()); n != waiting-len(seen) {
			t.Errorf("after %v: got %d waiting and %d rejected, want %d together", after, n, len(seen), waiting)
		}
		for i := range len(seen) {
			if !seen[i] {
				t.Errorf("after %v: request %d was not rejected, want it rejected before newer ones", after, i)
			}
		}
	}
	sweep(QueueTimeout, minRejects)
	l.queue.admitted = 12 * rejectRatio
	sweep(QueueTimeout, 12)
	sweep(maxQueueTimeout, waiting-12-minRejects)
}

// TestLimitHoldsUnderConcurrency checks that there are never more slots in use
// than the limit allows, and that all are free at the end.
func TestLimitHoldsUnderConcurrency(t *testing.T) {
	const limit = 4
	l := NewLimiter(limit, QueueTimeout)
	var highest, rejected atomic.Int64
	var requests sync.WaitGroup
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				l.queue.sweep(time.Now().Add(QueueTimeout-2*time.Millisecond), false)
			}
		}
	}()
	for i := range 64 {
		requests.Go(func() {
			key := []byte{byte(i % 3)}
			for range 300 {
				slot, ok := l.TryAcquire(key)
				if !ok {
					var err error
					if slot, err = l.Acquire(key, time.Now()); err != nil {
						rejected.Add(1)
						continue
					}
				}
				if n := l.total.Load(); n > highest.Load() {
					highest.Store(n)
				}
				runtime.Gosched()
				l.Release(slot)
			}
		})
	}
	requests.Wait()
	close(stop)
	t.Logf("%d of %d requests were rejected", rejected.Load(), 64*300)
	if n := highest.Load(); n > limit {
		t.Errorf("slots in use: got up to %d, want %d at most", n, limit)
	}
	checkEmpty(t, l)
}

// TestRunTimesOutWaiters checks that Run rejects a request that waits in vain, and
// that Run returns only when no request is in flight.
func TestRunTimesOutWaiters(t *testing.T) {
	l := NewLimiter(1, QueueTimeout)
	slot, _ := l.TryAcquire([]byte("a"))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		l.Run(stop, slog.New(slog.DiscardHandler))
		close(done)
	}()
	start := time.Now()
	if _, err := l.Acquire([]byte("a"), start); err != ErrLimit {
		t.Errorf("got error %v, want %v", err, ErrLimit)
	}
	if waited := time.Since(start); waited < QueueTimeout {
		t.Errorf("got a rejection after %v, want %v at least", waited, QueueTimeout)
	}
	close(stop)
	select {
	case <-done:
		t.Error("Run has returned with a request in flight, want it to wait")
	case <-time.After(2 * controlInterval):
	}
	l.Release(slot)
	<-done
}
