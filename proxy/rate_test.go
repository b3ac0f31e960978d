package proxy

import (
	"testing"
	"time"
)

// TestRateLimiter uses a clock of its own.
func TestRateLimiter(t *testing.T) {
	start := time.Now()
	at := func(d time.Duration) time.Time { return start.Add(d) }
	l := newRateLimiter(10, 3)
	check := func(since, want time.Duration) {
		t.Helper()
		got := takeRate(l, at(since))
		if diff := got - want; (got == 0) != (want == 0) || diff.Abs() > time.Microsecond {
			t.Errorf("a request after %v: got wait %v, want %v", since, got, want)
		}
	}
	for range 3 {
		check(0, 0) // the burst
	}
	check(0, 100*time.Millisecond)
	check(99*time.Millisecond, time.Millisecond)
	check(100*time.Millisecond+time.Microsecond, 0)
	// A long pause fills it up to the burst, and not beyond.
	for range 3 {
		check(time.Hour, 0)
	}
	check(time.Hour, 100*time.Millisecond)
}

func TestRateLimiterBurst(t *testing.T) {
	now := time.Now()
	for _, c := range []struct{ rate, burst, want int }{{1, 0, 1}, {5, 0, 5}, {5, 1, 1}, {1_000_000, 2, 2}} {
		l, n := newRateLimiter(c.rate, c.burst), 0
		for takeRate(l, now) == 0 {
			n++
		}
		if n != c.want {
			t.Errorf("rate %d, burst %d: got %d requests at once, want %d", c.rate, c.burst, n, c.want)
		}
	}
	if l := newRateLimiter(0, 5); l != nil {
		t.Errorf("rate 0: got limiter %v, want none", l)
	}
}

func TestRateLimiterAlloc(t *testing.T) {
	l, now := newRateLimiter(1, 1), time.Now()
	takeRate(l, now)
	for name, later := range map[string]time.Duration{"allowed": time.Hour, "denied": 0} {
		if n := testing.AllocsPerRun(100, func() { takeRate(l, now.Add(later)) }); n != 0 {
			t.Errorf("%s: got %v allocations, want 0", name, n)
		}
	}
}
