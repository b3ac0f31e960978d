package admission

import (
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Too much for half a second takes places away, until what arrives is looked at soon; when nobody waits all are there again.
func TestPressure(t *testing.T) {
	processors := int64(runtime.GOMAXPROCS(0))
	s := NewLimiter(100_000)
	p := &pressure{s: s, log: slog.New(slog.DiscardHandler)}
	ticks := func(n int, delay time.Duration) int64 {
		for range n {
			p.tick(delay)
		}
		return s.room.Load()
	}
	all := s.most
	want := func(what string, got, want int64) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d places, not %d", what, got, want)
		}
	}
	s.total.Store(many * processors)
	want("few calls, however slow", ticks(20, time.Second), all)
	s.total.Store(2000 * processors)
	want("many calls, each soon", ticks(20, tooMuch-1), all)
	want("a burst", ticks(tooMuchTicks-1, time.Second), all)
	want("and another", ticks(1, 0)+ticks(tooMuchTicks-1, time.Second)-all, all)
	want("too much", ticks(1, tooMuch), 1000*processors)
	s.queue.length.Store(1)
	want("still", ticks(1, time.Second), 500*processors)
	want("a little", ticks(1, wanted*4/3), 375*processors)
	want("very much", ticks(20, time.Second), fewest*processors)
	want("as wanted", ticks(20, wanted), fewest*processors)
	want("less", ticks(1, 0), fewest*processors*5/4)
	want("little", ticks(40, 0), all)
	s.queue.length.Store(1)
	want("too much again", ticks(4, time.Second), all/16)
	s.queue.length.Store(0)
	want("nobody waits", ticks(1, wanted), all)
}

func TestProbe(t *testing.T) {
	p, err := newProbe()
	if err != nil {
		t.Fatal(err)
	}
	if d := p.delay(); d > time.Microsecond {
		t.Errorf("nothing was sent, and that took %v", d)
	}
	for range 3 {
		p.send()
		for end := time.Now().Add(10 * time.Second); p.back.Load() == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("nothing came back")
			}
		}
		if d := p.delay(); d <= 0 || d > 5*time.Second {
			t.Errorf("%v", d)
		}
	}
	none := (*probe)(nil)
	none.send()
	if d := none.delay(); d != 0 {
		t.Errorf("nothing measures %v", d)
	}
	none.close()
	p.close()
	p.back.Store(1)
	p.send() // to nobody
	time.Sleep(2 * time.Millisecond)
	if d := p.delay(); d < 2*time.Millisecond {
		t.Errorf("%v, and it is still on its way", d)
	}
}

// waitsFor starts a call that waits, and returns when it does.
func waitsFor(t *testing.T, s *Limiter, done func(error)) {
	t.Helper()
	before := s.queue.length.Load()
	go func() {
		slot, err := s.Acquire([]byte("a"), time.Now())
		if (slot == Slot{}) != (err != nil) {
			t.Errorf("a place and a refusal: %v", err)
		}
		done(err)
	}()
	for end := time.Now().Add(10 * time.Second); s.queue.length.Load() == before; time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatal("it does not wait")
		}
	}
}

// Who came last is served first, and who has waited for a second is told so.
func TestNewestFirst(t *testing.T) {
	s := NewLimiter(1)
	slot, _ := s.TryAcquire([]byte("a"))
	order := make(chan string, 10)
	for i := range 5 {
		waitsFor(t, s, func(err error) {
			if err != nil {
				order <- err.Error()
				return
			}
			order <- strconv.Itoa(i)
		})
	}
	for _, want := range []string{"4", "3", "2"} {
		s.Release(slot)
		if got := <-order; got != want {
			t.Fatalf("%s was served, not %s", got, want)
		}
	}
	s.queue.sweep(time.Now(), false) // too early
	if n := s.queue.length.Load(); n != 2 {
		t.Fatalf("%d wait", n)
	}
	s.queue.sweep(time.Now().Add(placeWait), false)
	for range 2 {
		if got := <-order; got != ErrLimit.Error() {
			t.Fatalf("%s", got)
		}
	}
	if n := s.queue.length.Load(); n != 0 || s.queue.newest != nil || s.queue.oldest != nil {
		t.Errorf("%d wait", n)
	}
	waitsFor(t, s, func(err error) { order <- fmt.Sprint("served: ", err == nil) })
	s.most = 8
	s.resize(8)
	if got := <-order; got != "served: true" {
		t.Error(got)
	}
}

// Where processors are scarce few are refused at a time, those who have waited longest, and after a while all.
func TestRefusalsTakeTurns(t *testing.T) {
	s := NewLimiter(1)
	s.TryAcquire([]byte("a"))
	refused := make(chan int, 100)
	for i := range 40 {
		waitsFor(t, s, func(err error) {
			if err != nil {
				refused <- i
			}
		})
	}
	some := map[int]bool{}
	after := func(d time.Duration, want int) {
		t.Helper()
		s.queue.sweep(time.Now().Add(d), true)
		for range want {
			some[<-refused] = true
		}
		if n := int(s.queue.length.Load()); n+len(some) != 40 {
			t.Errorf("%d wait, %d were refused", n, len(some))
		}
		for i := range len(some) {
			if !some[i] {
				t.Errorf("%d was not refused, and later ones were", i)
			}
		}
	}
	after(placeWait, fewestRefusals)
	s.queue.served = 12 * refusalsEvery
	after(placeWait, 12)
	after(longestWait, 40-12-fewestRefusals)
}

// However calls come and go, there are never more than there is room for, and all places come back.
func TestPlacesUnderway(t *testing.T) {
	const room = 4
	s := NewLimiter(room)
	var most, refused atomic.Int64
	var all sync.WaitGroup
	over := make(chan struct{})
	go func() {
		for {
			select {
			case <-over:
				return
			case <-time.After(time.Millisecond):
				s.queue.sweep(time.Now().Add(placeWait-2*time.Millisecond), false)
			}
		}
	}()
	for i := range 64 {
		all.Go(func() {
			for range 300 {
				slot, ok := s.TryAcquire([]byte{byte(i % 3)})
				if !ok {
					var err error
					if slot, err = s.Acquire([]byte{byte(i % 3)}, time.Now()); err != nil {
						refused.Add(1)
						continue
					}
				}
				if n := s.total.Load(); n > most.Load() {
					most.Store(n)
				}
				runtime.Gosched()
				s.Release(slot)
			}
		})
	}
	all.Wait()
	close(over)
	if most.Load() > room || s.total.Load() != 0 || s.queue.length.Load() != 0 || s.queue.newest != nil {
		t.Errorf("%d at most, %d now, %d wait; %d were refused", most.Load(), s.total.Load(), s.queue.length.Load(), refused.Load())
	}
}
