package queue_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"wxproxy/callback/queue"
	"wxproxy/tokens/store"
)

// brokenQueue is a queue of which one operation fails.
type brokenQueue struct {
	store.Queue
	mu     sync.Mutex
	broken string      // the operation that fails; "" if none does
	asked  []time.Time // of its calls that failed
}

var errBroken = errors.New("store unavailable")

func (q *brokenQueue) set(broken string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.broken = broken
}

func (q *brokenQueue) err(operation string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.broken != operation {
		return nil
	}
	q.asked = append(q.asked, time.Now())
	return errBroken
}

func (q *brokenQueue) Add(
	ctx context.Context, known time.Duration, entries ...store.QueueEntry,
) (int, error) {
	if err := q.err("Add"); err != nil {
		return 0, err
	}
	return q.Queue.Add(ctx, known, entries...)
}

func (q *brokenQueue) Take(
	ctx context.Context, want map[string]int, lease time.Duration,
) ([]store.TakenEntry, error) {
	if err := q.err("Take"); err != nil {
		return nil, err
	}
	return q.Queue.Take(ctx, want, lease)
}

func (q *brokenQueue) Settle(ctx context.Context, t store.TakenEntry, o store.QueueOutcome) error {
	if err := q.err("Settle"); err != nil {
		return err
	}
	return q.Queue.Settle(ctx, t, o)
}

// TestStoreFails: {Add, Take, Settle} fails for 5 minutes. Add returns the
// error. The store is asked ever less often, at last once in 5 s for each lease
// of 30 s, and the log has one line at the beginning and one at the end. Each
// event is delivered once, although its lease ends meanwhile.
func TestStoreFails(t *testing.T) {
	for _, operation := range []string{"Add", "Take", "Settle"} {
		t.Run(operation, func(t *testing.T) {
			broken := &brokenQueue{}
			run(t, func(c *queue.Config) {
				broken.Queue, c.Store = c.Store, broken
			}, func(t *testing.T, e *env) {
				broken.set(operation)
				ev := event(account(1), 0)
				err := e.Add(t.Context(), known, ev, "a")
				if (operation == "Add") != errors.Is(err, errBroken) {
					t.Fatalf("Add: got error %v", err)
				}
				wait(5 * time.Minute)
				most := map[string]int{"Add": 1, "Take": 70, "Settle": 400}[operation]
				if n := len(broken.asked); n > most || operation != "Add" && n < 60 {
					t.Errorf("failed calls in 5 minutes: got %d, want 60 to %d", n, most)
				}
				broken.set("")
				e.add(ev, "a")
				wait(10 * time.Second)
				equal(t, "accepted", e.to.accepted("a", ""), ids(account(1), 1))
				lines := 1
				if operation == "Add" {
					lines = 0 // the caller logs it
				}
				began := e.log.count("store unavailable, events")
				ended := e.log.count("available again")
				if began != lines || ended != lines {
					t.Errorf("log: got %d and %d lines, want %d each:\n%s",
						began, ended, lines, e.log)
				}
				if n := e.total(store.AnyQueueState, ""); n != 0 {
					t.Errorf("stored afterwards: got %d entries, want 0", n)
				}
			})
		})
	}
}
