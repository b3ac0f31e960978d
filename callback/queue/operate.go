package queue

import (
	"context"
	"encoding/json"
	"errors"

	"wxproxy/tokens/store"
)

// List returns the entries that match f; see [store.Queue].
func (q *Queue) List(
	ctx context.Context, f store.QueueFilter, offset, limit int,
) (total int, entries []store.QueueEntry, err error) {
	return q.c.Store.List(ctx, f, offset, limit)
}

// Stored is an entry with the event that it holds.
type Stored struct {
	store.QueueEntry
	Event *Event // nil if the stored event cannot be read
}

// Find returns the entries of an event, sorted by service. Without any the
// error is [store.ErrNotFound].
func (q *Queue) Find(ctx context.Context, id string) ([]Stored, error) {
	entries, err := q.c.Store.Find(ctx, id)
	if err != nil {
		return nil, err
	}
	found := make([]Stored, len(entries))
	for i, entry := range entries {
		found[i].QueueEntry = entry
		var e Event
		if json.Unmarshal(entry.Payload, &e) == nil {
			found[i].Event = &e
		}
	}
	return found, nil
}

// Retry makes the entries of an event due: that of one service, or all if
// service is "". It returns how many these are. Without any the error is
// [store.ErrNotFound].
func (q *Queue) Retry(ctx context.Context, id, service string) (n int, err error) {
	return q.each(ctx, id, service, q.revive)
}

// Drop removes the entries of an event: that of one service, or all if service
// is "". It returns how many these were. Without any the error is
// [store.ErrNotFound].
func (q *Queue) Drop(ctx context.Context, id, service string) (n int, err error) {
	return q.each(ctx, id, service, q.c.Store.Drop)
}

// each calls do with the entries of an event.
func (q *Queue) each(
	ctx context.Context, id, service string, do func(context.Context, store.QueueKey) error,
) (n int, err error) {
	entries, err := q.c.Store.Find(ctx, id)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if service != "" && e.Service != service {
			continue
		}
		switch err := do(ctx, e.QueueKey); {
		case err == nil:
			n++
		case !errors.Is(err, store.ErrNotFound):
			return n, err
		}
	}
	if n == 0 {
		return 0, store.ErrNotFound
	}
	return n, nil
}

// revive makes an entry due, and its service if that is down.
func (q *Queue) revive(ctx context.Context, key store.QueueKey) error {
	if err := q.c.Store.Revive(ctx, key); err != nil {
		return err
	}
	q.confirm([]string{key.Service}, 0, 1)
	return nil
}

// RetryAll makes the entries that match f due, and returns how many these are.
// After an error it can be called again. Entries that are added, delivered or
// found dead meanwhile may be left out.
func (q *Queue) RetryAll(ctx context.Context, f store.QueueFilter) (n int, err error) {
	states := []store.QueueState{f.State}
	if f.State == store.AnyQueueState {
		// In this order: dead entries become waiting ones.
		states = []store.QueueState{store.WaitingEntries, store.DeadEntries}
	}
	for _, f.State = range states {
		revived, err := q.reviveAll(ctx, f)
		n += revived
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// reviveAll revives the entries that match f, which names a state.
func (q *Queue) reviveAll(ctx context.Context, f store.QueueFilter) (n int, err error) {
	left := -1 // of the entries there were at the beginning
	for offset := 0; left != 0; {
		total, entries, err := q.c.Store.List(ctx, f, offset, pageSize)
		if left < 0 {
			left = total
		}
		if err != nil || len(entries) == 0 {
			return n, err
		}
		entries = entries[:min(len(entries), left)]
		left -= len(entries)
		for _, e := range entries {
			switch err := q.revive(ctx, e.QueueKey); {
			case err == nil:
				n++
			case !errors.Is(err, store.ErrNotFound):
				return n, err
			}
		}
		if f.State == store.WaitingEntries { // revived ones are still listed
			offset += len(entries)
		}
	}
	return n, nil
}
