package proxy

import (
	"testing"
	"time"
)

// The bucket by itself: with a clock that the test holds.
func TestBucket(t *testing.T) {
	at := func(d time.Duration) time.Time { return epoch.Add(d) }
	b := newBucket(10, 3)
	for i := range 3 {
		if w := b.take(at(0)); w != 0 {
			t.Errorf("call %d has to wait for %v", i, w)
		}
	}
	if w := b.take(at(0)); w != 100*time.Millisecond {
		t.Errorf("a fourth may come after %v", w)
	}
	if w := b.take(at(99 * time.Millisecond)); w != time.Millisecond {
		t.Errorf("after 99 ms there are %v left", w)
	}
	if w := b.take(at(100 * time.Millisecond)); w != 0 {
		t.Errorf("after 100 ms there are %v left", w)
	}
	// A long rest fills it up to the burst, and not beyond.
	for i := range 4 {
		if w := b.take(at(time.Hour)); (w != 0) != (i == 3) {
			t.Errorf("call %d after an hour has to wait for %v", i, w)
		}
	}
	for _, c := range []struct{ rate, burst, at int }{{1, 0, 1}, {5, 0, 5}, {5, 1, 1}, {1_000_000, 2, 2}} {
		b, n := newBucket(c.rate, c.burst), 0
		for b.take(at(0)) == 0 {
			n++
		}
		if n != c.at {
			t.Errorf("rate %d, burst %d: %d at once", c.rate, c.burst, n)
		}
	}
	if newBucket(0, 5) != nil {
		t.Error("no rate is no limit")
	}
}
