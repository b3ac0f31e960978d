package store

import (
	"testing"
	"time"
)

// TestClockOfMemoryQueueIsSetBack takes a lane × settles a failed try or not ×
// then the clock is set back by 10 s or a day. A pause that ends later than any
// can counts as over; so does a lease. Entries that are added then are due.
func TestClockOfMemoryQueueIsSetBack(t *testing.T) {
	for _, back := range []time.Duration{10 * time.Second, 24 * time.Hour} {
		for _, settles := range []bool{true, false} {
			q := newMemoryQueue(func() bool { return false })
			now := time.UnixMilli(1_700_000_000_000)
			q.clock = func() time.Time { return now }
			e := QueueEntry{QueueKey: QueueKey{"orders", "a", "1"}}
			if _, err := q.Add(t.Context(), 0, e); err != nil {
				t.Fatal(err)
			}
			take := func(want int) []TakenEntry {
				t.Helper()
				taken, err := q.Take(t.Context(), map[string]int{"orders": 1}, MaxQueuePause)
				if err != nil || len(taken) != want {
					t.Fatalf("set back by %v: got %v, error %v, want %d", back, taken, err, want)
				}
				return taken
			}
			o := QueueOutcome{Result: QueueFailed, Pause: MaxQueuePause}
			if taken := take(1); settles {
				if err := q.Settle(t.Context(), taken[0], o); err != nil {
					t.Fatal(err)
				}
			}
			take(0)
			now = now.Add(-back)
			if settles {
				e.ID = "2"
				if _, err := q.Add(t.Context(), 0, e); err != nil {
					t.Fatal(err)
				}
			}
			if !settles && back < MaxQueuePause {
				now = now.Add(MaxQueuePause + back)
			}
			take(1)
		}
	}
}
