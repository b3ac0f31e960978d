package store_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/storetest"
)

func TestMonitoredQueueContract(t *testing.T) {
	storetest.RunQueue(t, func(*testing.T) store.Store {
		return store.Monitor(store.NewMemory(), store.MonitorOptions{})
	})
}

// failingQueue is a queue and its store. Its operations return err.
type failingQueue struct {
	store.Store
	err   error
	pings int
}

func (f *failingQueue) Queue() store.Queue { return failingOperations{f} }

func (f *failingQueue) Ping(context.Context) error {
	f.pings++
	return nil
}

// failingOperations are the operations of a failingQueue.
type failingOperations struct{ f *failingQueue }

func (o failingOperations) Add(context.Context, time.Duration, ...store.QueueEntry) (int, error) {
	return 0, o.f.err
}

func (o failingOperations) Take(
	context.Context, map[string]int, time.Duration,
) ([]store.TakenEntry, error) {
	return nil, o.f.err
}

func (o failingOperations) Settle(context.Context, store.TakenEntry, store.QueueOutcome) error {
	return o.f.err
}

func (o failingOperations) Sizes(context.Context) (map[string]store.QueueSize, error) {
	return nil, o.f.err
}

func (o failingOperations) List(
	context.Context, store.QueueFilter, int, int,
) (int, []store.QueueEntry, error) {
	return 0, nil, o.f.err
}

func (o failingOperations) Find(context.Context, string) ([]store.QueueEntry, error) {
	return nil, o.f.err
}

func (o failingOperations) Scan(context.Context, func(store.QueueEntry) bool) error {
	return o.f.err
}

func (o failingOperations) Replace(context.Context, store.QueueKey, []byte, []byte) error {
	return o.f.err
}

func (o failingOperations) Wake(context.Context, string) error                   { return o.f.err }
func (o failingOperations) Revive(context.Context, store.QueueKey) error         { return o.f.err }
func (o failingOperations) Expire(context.Context, store.QueueKey, string) error { return o.f.err }
func (o failingOperations) Drop(context.Context, store.QueueKey) error           { return o.f.err }
func (o failingOperations) Restore(context.Context, ...store.QueueEntry) error   { return o.f.err }

// TestMonitorObservesQueue: 13 operations × success, an error of the disk, and
// four that are not the database's. Each is observed once, with its result. A
// failed write makes the store unwritable at once, a failed read only pings.
func TestMonitorObservesQueue(t *testing.T) {
	ctx := t.Context()
	entry := store.QueueEntry{QueueKey: queueKey("1")}
	outcome := store.QueueOutcome{Result: store.QueueFailed}
	for _, c := range []struct {
		operation string // how it is observed
		writes    bool
		do        func(q store.Queue)
	}{
		{"queue_add", true, func(q store.Queue) { q.Add(ctx, time.Hour, entry) }},
		{"queue_take", true, func(q store.Queue) { q.Take(ctx, nil, time.Minute) }},
		{"queue_settle", true, func(q store.Queue) {
			q.Settle(ctx, store.TakenEntry{QueueEntry: entry}, outcome)
		}},
		{"queue", true, func(q store.Queue) { q.Wake(ctx, "orders") }},
		{"queue", true, func(q store.Queue) { q.Revive(ctx, entry.QueueKey) }},
		{"queue", true, func(q store.Queue) { q.Expire(ctx, entry.QueueKey, "") }},
		{"queue", true, func(q store.Queue) { q.Drop(ctx, entry.QueueKey) }},
		{"queue", true, func(q store.Queue) { q.Restore(ctx, entry) }},
		{"queue", true, func(q store.Queue) { q.Replace(ctx, entry.QueueKey, nil, nil) }},
		{"queue", false, func(q store.Queue) { q.Sizes(ctx) }},
		{"queue", false, func(q store.Queue) { q.List(ctx, store.QueueFilter{}, 0, 1) }},
		{"queue", false, func(q store.Queue) { q.Find(ctx, "1") }},
		{"queue", false, func(q store.Queue) {
			q.Scan(ctx, func(store.QueueEntry) bool { return true })
		}},
	} {
		for result, err := range map[string]error{
			"ok": nil, "failed": errDisk, "ok again": store.ErrNotFound,
			"ok, rejected": store.ErrQueueKey, "damaged": store.ErrForeignKey,
			"canceled": store.ErrClosed,
		} {
			synctest.Test(t, func(t *testing.T) {
				result, _, _ := strings.Cut(strings.Fields(result)[0], ",")
				f := &failingQueue{Store: store.NewMemory(), err: err}
				var seen []string
				observe := func(operation, result string, _ time.Duration) {
					seen = append(seen, operation+" "+result)
				}
				m := store.Monitor(f, store.MonitorOptions{Observe: observe})
				defer m.Close()
				c.do(m.Queue())
				want := c.operation + " " + result
				if got := strings.Join(seen, ", "); got != want {
					t.Errorf("%s, error %v: observed %q, want %q", c.operation, err, got, want)
				}
				isFailed := result == "failed"
				if got := m.Writable(""); (got != nil) != (isFailed && c.writes) {
					t.Errorf("%s, error %v: Writable: got %v", c.operation, err, got)
				}
				<-time.After(10 * time.Second)
				synctest.Wait()
				if got := m.Writable(""); got != nil || (f.pings > 0) != isFailed {
					t.Errorf("%s, error %v: later: got %v and %d pings", c.operation, err, got, f.pings)
				}
			})
		}
	}
}
