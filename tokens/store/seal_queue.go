package store

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"
)

// sealedQueuer is a sealedStore whose inner store has a queue.
type sealedQueuer struct {
	*sealedStore
	queue *sealedQueue
}

// Queue implements [Queuer].
func (s *sealedQueuer) Queue() Queue { return s.queue }

// sealedQueue is a [Queue] whose payloads are encrypted, like the records of a
// sealedStore. All else of an entry stays readable: the database needs it.
type sealedQueue struct {
	Queue // of the store below
	s     *sealedStore
}

const (
	// foreignPause is how long an entry waits that is sealed with a key that
	// this process does not have. Another process may take it meanwhile.
	foreignPause = 5 * time.Second
	// maxDamagedTakes bounds how often one Take tries again because none of the
	// entries that it got could be opened.
	maxDamagedTakes = 100

	foreignEntry = "this process does not have the key of the event"
	damagedEntry = "the event is damaged: it cannot be decrypted"
)

// sealed returns copies of entries with encrypted payloads. A Payload that is
// nil, which could not be opened before, stays nil.
func (q *sealedQueue) sealed(ctx context.Context, entries []QueueEntry) ([]QueueEntry, error) {
	if err := q.s.prepare(ctx); err != nil {
		return nil, err
	}
	entries = slices.Clone(entries)
	for i := range entries {
		if e := &entries[i]; e.Payload != nil {
			e.Payload = q.s.ring.seal(e.String(), e.Payload)
		}
	}
	return entries, nil
}

// opened returns an entry with its payload decrypted, or nil.
func (q *sealedQueue) opened(e QueueEntry) QueueEntry {
	e.Payload, _, _ = q.s.ring.open(e.String(), e.Payload)
	return e
}

// Add implements [Queue]. A payload that is nil counts as empty.
func (q *sealedQueue) Add(
	ctx context.Context, known time.Duration, entries ...QueueEntry,
) (added int, err error) {
	entries = slices.Clone(entries)
	for i := range entries {
		if entries[i].Payload == nil {
			entries[i].Payload = []byte{}
		}
	}
	if entries, err = q.sealed(ctx, entries); err != nil {
		return 0, err
	}
	return q.Queue.Add(ctx, known, entries...)
}

// Take implements [Queue]. It settles entries that cannot be opened: they are
// dead, unless another process can open them. Those wait for foreignPause.
func (q *sealedQueue) Take(
	ctx context.Context, want map[string]int, lease time.Duration,
) ([]TakenEntry, error) {
	for range maxDamagedTakes {
		taken, err := q.Queue.Take(ctx, want, lease)
		if err != nil || len(taken) == 0 {
			return nil, err
		}
		var opened []TakenEntry
		for _, t := range taken {
			payload, _, openErr := q.s.ring.open(t.String(), t.Payload)
			if openErr != nil {
				err = errors.Join(err, q.reject(ctx, t, openErr))
				continue
			}
			t.Payload = payload
			opened = append(opened, t)
		}
		if len(opened) > 0 || err != nil {
			// An entry that could not be settled is taken again after its lease.
			// The others must be delivered.
			if len(opened) > 0 {
				err = nil
			}
			return opened, err
		}
	}
	return nil, nil
}

// reject settles an entry whose payload was not opened because of openErr.
func (q *sealedQueue) reject(ctx context.Context, t TakenEntry, openErr error) error {
	o := QueueOutcome{Result: QueueDead, Error: damagedEntry}
	switch err := q.s.explain(ctx, t.Payload, openErr); {
	case errors.Is(err, ErrForeignKey):
		o = QueueOutcome{Result: QueueFailed, Error: foreignEntry, Pause: foreignPause}
	case !errors.Is(err, ErrDamaged):
		return err // of the store
	}
	return q.Settle(ctx, t, o)
}

// Find implements [Queue]. A Payload that cannot be opened is nil.
func (q *sealedQueue) Find(ctx context.Context, id string) ([]QueueEntry, error) {
	entries, err := q.Queue.Find(ctx, id)
	for i := range entries {
		entries[i] = q.opened(entries[i])
	}
	return entries, err
}

// Scan implements [Queue]. A Payload that cannot be opened is nil.
func (q *sealedQueue) Scan(ctx context.Context, yield func(QueueEntry) bool) error {
	return q.Queue.Scan(ctx, func(e QueueEntry) bool { return yield(q.opened(e)) })
}

// Restore implements [Queue].
func (q *sealedQueue) Restore(ctx context.Context, entries ...QueueEntry) error {
	entries, err := q.sealed(ctx, entries)
	if err != nil {
		return err
	}
	return q.Queue.Restore(ctx, entries...)
}

// Replace implements [Queue]. old and payload are plain text.
func (q *sealedQueue) Replace(ctx context.Context, key QueueKey, old, payload []byte) error {
	if err := q.s.prepare(ctx); err != nil {
		return err
	}
	stored, err := findEntry(ctx, q.Queue, key)
	if err != nil || stored == nil {
		return err
	}
	opened, _, err := q.s.ring.open(key.String(), stored.Payload)
	if err != nil || !bytes.Equal(opened, old) {
		return nil
	}
	sealed := q.s.ring.seal(key.String(), payload)
	return q.Queue.Replace(ctx, key, stored.Payload, sealed)
}

// findEntry returns the entry of q with that key, or nil.
func findEntry(ctx context.Context, q Queue, key QueueKey) (*QueueEntry, error) {
	entries, err := q.Find(ctx, key.ID)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	for i := range entries {
		if entries[i].QueueKey == key {
			return &entries[i], nil
		}
	}
	return nil, err
}
