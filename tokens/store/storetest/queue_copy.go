package storetest

import (
	"fmt"
	"testing"

	"wxproxy/tokens/store"
)

// FillQueue adds entries of several lanes to a queue: waiting ones, dead ones
// among them, one whose last try failed, one without a byte and one of 2 MiB.
func FillQueue(t testing.TB, q store.Queue) {
	t.Helper()
	for i := range 30 {
		service, appid := []string{"orders", "audit"}[i%2], []string{"a", "b", "c"}[i%3]
		e := entry(service, appid, fmt.Sprint(100+i*7%30))
		switch i {
		case 10:
			e.Payload = nil
		case 11:
			e.Payload = make([]byte, 2<<20)
		}
		if added, err := q.Add(t.Context(), 0, e); err != nil || added != 1 {
			t.Fatalf("add: got %d, error %v, want 1", added, err)
		}
	}
	taken, err := q.Take(t.Context(), map[string]int{"orders": 3}, lease)
	if err != nil || len(taken) != 3 {
		t.Fatalf("take: got %d, error %v, want 3", len(taken), err)
	}
	results := []store.QueueResult{store.QueueDead, store.QueueFailed, store.QueueDead}
	for i, e := range taken {
		o := store.QueueOutcome{Result: results[i], Pause: lease, Error: "error of " + e.ID}
		if err := q.Settle(t.Context(), e, o); err != nil {
			t.Fatalf("settle: %v", err)
		}
	}
}

// SameQueue fails the test unless two queues have the same entries, and each
// lane has them in the same order.
func SameQueue(t *testing.T, got, want store.Queue) {
	t.Helper()
	g := queueSuite{T: t, Queue: got, ctx: t.Context()}
	w := queueSuite{T: t, Queue: want, ctx: t.Context()}
	all := w.scanned()
	g.wantSameLanes(g.scanned(), all)
	gotSizes, gotErr := got.Sizes(t.Context())
	wantSizes, wantErr := want.Sizes(t.Context())
	if gotErr != nil || wantErr != nil || len(all) == 0 {
		t.Errorf("sizes: got errors %v and %v, and %d entries", gotErr, wantErr, len(all))
	}
	for service, size := range wantSizes {
		if g := gotSizes[service]; g != size {
			t.Errorf("size of %s: got %+v, want %+v", service, g, size)
		}
	}
}
