package admission

import (
	"log/slog"
	"runtime"
	"testing"
	"time"
)

// TestOverloadController feeds the controller with delays. Overload for half a
// second lowers the limit until the delay is near its target. Once the queue is
// empty the full limit is back.
func TestOverloadController(t *testing.T) {
	cpus := int64(runtime.GOMAXPROCS(0))
	l := NewLimiter(100_000, QueueTimeout)
	c := &overloadController{limiter: l, log: slog.New(slog.DiscardHandler)}
	ticks := func(n int, delay time.Duration) int64 {
		for range n {
			c.tick(delay)
		}
		return l.limit.Load()
	}
	check := func(situation string, got, want int64) {
		t.Helper()
		if got != want {
			t.Errorf("%s: got limit %d, want %d", situation, got, want)
		}
	}
	full := l.maxLimit
	l.total.Store(minInFlightPerCPU * cpus)
	check("few requests and a long delay", ticks(20, time.Second), full)
	l.total.Store(2000 * cpus)
	check("many requests and a short delay", ticks(20, overloadDelay-1), full)
	check("a burst", ticks(overloadTicks-1, time.Second), full)
	check("a pause in the burst", ticks(1, 0), full)
	check("a second burst", ticks(overloadTicks-1, time.Second), full)
	check("overload begins", ticks(1, overloadDelay), 1000*cpus)
	l.queue.length.Store(1)
	check("delay far over the target", ticks(1, time.Second), 500*cpus)
	check("delay a little over the target", ticks(1, targetDelay*4/3), 375*cpus)
	check("delay that stays far over the target", ticks(20, time.Second), minLimitPerCPU*cpus)
	check("delay at the target", ticks(20, targetDelay), minLimitPerCPU*cpus)
	check("no delay", ticks(1, 0), minLimitPerCPU*cpus*5/4)
	check("no delay for long", ticks(40, 0), full)
	l.queue.length.Store(1)
	check("overload again", ticks(4, time.Second), full/16)
	l.queue.length.Store(0)
	check("empty queue", ticks(1, targetDelay), full)
}

func TestDelayProbe(t *testing.T) {
	p, err := newDelayProbe()
	if err != nil {
		t.Fatal(err)
	}
	if d := p.delay(); d > time.Microsecond {
		t.Errorf("before the first send: got delay %v, want 0", d)
	}
	for range 3 {
		p.send()
		waitUntil(t, "the probe's byte is received", func() bool { return p.received.Load() != 0 })
		if d := p.delay(); d <= 0 {
			t.Errorf("got delay %v, want more than 0", d)
		}
	}
	none := (*delayProbe)(nil)
	none.send()
	if d := none.delay(); d != 0 {
		t.Errorf("nil probe: got delay %v, want 0", d)
	}
	none.close()
	p.close()
	p.received.Store(1)
	p.send() // fails, so that the byte stays pending
	first := p.delay()
	waitUntil(t, "the delay of a pending byte grows", func() bool { return p.delay() > first })
}

// waitUntil polls condition until it holds.
func waitUntil(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !condition(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatalf("timeout: %s: got false, want true", what)
		}
	}
}
