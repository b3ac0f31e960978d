package store

import (
	"context"
	"time"
)

// monitoredQueue is a [Queue] that reports to a Monitored what its operations
// return. A failed write makes the store unwritable; a failed read makes it
// ping.
type monitoredQueue struct {
	inner Queue
	m     *Monitored
}

// Queue implements [Queuer]. It returns nil if the store has no queue.
func (m *Monitored) Queue() Queue {
	if q, ok := As[Queuer](m.inner); ok {
		return &monitoredQueue{q.Queue(), m}
	}
	return nil
}

// wrote reports an operation that changes the queue.
func (q *monitoredQueue) wrote(operation string, began time.Time, err error) {
	q.m.o.Observe(operation, resultOf(err), time.Since(began))
	q.m.writeFailed(err)
}

// read reports an operation that changes nothing.
func (q *monitoredQueue) read(began time.Time, err error) {
	q.m.o.Observe("queue", resultOf(err), time.Since(began))
	q.m.suspect(err)
}

// Add implements [Queue].
func (q *monitoredQueue) Add(
	ctx context.Context, known time.Duration, entries ...QueueEntry,
) (added int, err error) {
	began := time.Now()
	added, err = q.inner.Add(ctx, known, entries...)
	q.wrote("queue_add", began, err)
	return added, err
}

// Take implements [Queue].
func (q *monitoredQueue) Take(
	ctx context.Context, want map[string]int, lease time.Duration,
) ([]TakenEntry, error) {
	began := time.Now()
	taken, err := q.inner.Take(ctx, want, lease)
	q.wrote("queue_take", began, err)
	return taken, err
}

// Settle implements [Queue].
func (q *monitoredQueue) Settle(ctx context.Context, t TakenEntry, o QueueOutcome) error {
	began := time.Now()
	err := q.inner.Settle(ctx, t, o)
	q.wrote("queue_settle", began, err)
	return err
}

// Wake implements [Queue].
func (q *monitoredQueue) Wake(ctx context.Context, service string) error {
	began := time.Now()
	err := q.inner.Wake(ctx, service)
	q.wrote("queue", began, err)
	return err
}

// Sizes implements [Queue].
func (q *monitoredQueue) Sizes(ctx context.Context) (map[string]QueueSize, error) {
	began := time.Now()
	sizes, err := q.inner.Sizes(ctx)
	q.read(began, err)
	return sizes, err
}

// List implements [Queue].
func (q *monitoredQueue) List(
	ctx context.Context, f QueueFilter, offset, limit int,
) (total int, entries []QueueEntry, err error) {
	began := time.Now()
	total, entries, err = q.inner.List(ctx, f, offset, limit)
	q.read(began, err)
	return total, entries, err
}

// Find implements [Queue].
func (q *monitoredQueue) Find(ctx context.Context, id string) ([]QueueEntry, error) {
	began := time.Now()
	entries, err := q.inner.Find(ctx, id)
	q.read(began, err)
	return entries, err
}

// Revive implements [Queue].
func (q *monitoredQueue) Revive(ctx context.Context, key QueueKey) error {
	began := time.Now()
	err := q.inner.Revive(ctx, key)
	q.wrote("queue", began, err)
	return err
}

// Expire implements [Queue].
func (q *monitoredQueue) Expire(ctx context.Context, key QueueKey, reason string) error {
	began := time.Now()
	err := q.inner.Expire(ctx, key, reason)
	q.wrote("queue", began, err)
	return err
}

// Drop implements [Queue].
func (q *monitoredQueue) Drop(ctx context.Context, key QueueKey) error {
	began := time.Now()
	err := q.inner.Drop(ctx, key)
	q.wrote("queue", began, err)
	return err
}

// Scan implements [Queue]. Its duration includes that of yield.
func (q *monitoredQueue) Scan(ctx context.Context, yield func(QueueEntry) bool) error {
	began := time.Now()
	err := q.inner.Scan(ctx, yield)
	q.read(began, err)
	return err
}

// Restore implements [Queue].
func (q *monitoredQueue) Restore(ctx context.Context, entries ...QueueEntry) error {
	began := time.Now()
	err := q.inner.Restore(ctx, entries...)
	q.wrote("queue", began, err)
	return err
}

// Replace implements [Queue].
func (q *monitoredQueue) Replace(
	ctx context.Context, key QueueKey, old, payload []byte,
) error {
	began := time.Now()
	err := q.inner.Replace(ctx, key, old, payload)
	q.wrote("queue", began, err)
	return err
}
