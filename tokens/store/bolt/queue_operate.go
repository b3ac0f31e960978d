package bolt

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"wxproxy/tokens/store"
)

// remove removes an entry, and reports whether there was one.
func (q *queue) remove(
	ctx context.Context, k store.QueueKey, seq uint64,
) (existed bool, err error) {
	var e queued
	found := false
	err = q.commit(ctx, func(b queueTx) error {
		if e, found = b.get(k, seq); !found {
			return nil
		}
		return b.remove(&e)
	}, func(s *queueState) {
		if found {
			s.remove(&e)
		}
	})
	return err == nil && found, err // see update
}

// find returns an entry of the file, or [store.ErrNotFound].
func (q *queue) find(ctx context.Context, k store.QueueKey) (e queued, err error) {
	if err := q.begin(ctx); err != nil {
		return e, err
	}
	found := false
	err = q.s.viewTx(func(tx *bbolt.Tx) error {
		e, found = readQueue(tx).find(k)
		return nil
	})
	if err == nil && !found {
		err = store.ErrNotFound
	}
	return e, err
}

// Drop implements [store.Queue]. The lane of an entry that is being delivered
// stays reserved.
func (q *queue) Drop(ctx context.Context, key store.QueueKey) error {
	e, err := q.find(ctx, key)
	if err != nil {
		return err
	}
	existed, err := q.remove(ctx, key, e.seq)
	if err == nil && !existed {
		err = store.ErrNotFound
	}
	return err
}

// Revive implements [store.Queue]. Only a dead entry costs a commit.
func (q *queue) Revive(ctx context.Context, key store.QueueKey) error {
	e, err := q.find(ctx, key)
	if err != nil {
		return err
	}
	now := q.s.now()
	if e.Dead {
		err = q.revive(ctx, key, e.seq, now)
	}
	if err != nil {
		return err
	}
	if err := q.lock(ctx); err != nil {
		return err
	}
	defer q.mu.Unlock()
	if l := q.state.lanes[laneOf(key)]; l != nil {
		l.advance(now)
	}
	return nil
}

// revive makes a dead entry waiting.
func (q *queue) revive(ctx context.Context, k store.QueueKey, seq uint64, now time.Time) error {
	var before, after queued
	found := false
	err := q.commit(ctx, func(b queueTx) error {
		if before, found = b.get(k, seq); !found {
			return nil
		}
		after = before
		if !before.Dead {
			return nil
		}
		after.Dead, after.Since, after.Next = false, now, time.Time{}
		if before.Created.IsZero() { // the entry is damaged
			after.Created = now
		}
		after.size = len(b.payload(seq))
		return b.put(&after)
	}, func(s *queueState) {
		if found {
			s.replace(&before, &after, now)
		}
	})
	if err == nil && !found {
		err = store.ErrNotFound
	}
	return err
}

// Expire implements [store.Queue]. Its lane is reserved during the commit, so
// that the entry is not taken meanwhile.
func (q *queue) Expire(ctx context.Context, key store.QueueKey, reason string) error {
	e, err := q.find(ctx, key)
	if err != nil || e.Dead {
		return err
	}
	if err := q.lock(ctx); err != nil {
		return err
	}
	lane, now := laneOf(key), q.s.now()
	var reservation uint64
	var due time.Time
	if l := q.state.lanes[lane]; l != nil {
		isTaken := l.lease != 0 && l.due.After(now)
		if isTaken && (l.taken == 0 || l.taken == e.seq) {
			q.mu.Unlock()
			return nil
		}
		if !isTaken {
			reservation, due = q.exchange(lane, l.lease, now.Add(maxSettle))
		}
	}
	q.mu.Unlock()
	exists, err := q.update(context.Background(), key, e.seq, func(e *queued) {
		if !e.Dead {
			e.Dead, e.Next = true, time.Time{}
			e.Error = store.QueueOutcome{Error: reason}.Cut().Error
		}
	})
	q.release(lane, reservation, due)
	if err == nil && !exists {
		err = store.ErrNotFound
	}
	return err
}

// Sizes implements [store.Queue].
func (q *queue) Sizes(ctx context.Context) (map[string]store.QueueSize, error) {
	if err := q.lock(ctx); err != nil {
		return nil, err
	}
	defer q.mu.Unlock()
	sizes := map[string]store.QueueSize{}
	for name, s := range q.state.services {
		if s.waiting > 0 || s.dead > 0 {
			sizes[name] = s.size()
		}
	}
	return sizes, nil
}

// listed is what List sorts by of an entry.
type listed struct {
	created int64
	seq     uint64
	dead    bool
	first   bool   // the first waiting one of its lane
	key     []byte // in the file; valid during the transaction
}

// List implements [store.Queue]. It reads all entries of the service, or of all
// services, without their payloads.
func (q *queue) List(
	ctx context.Context, f store.QueueFilter, offset, limit int,
) (total int, entries []store.QueueEntry, err error) {
	if err := q.begin(ctx); err != nil {
		return 0, nil, err
	}
	var firsts []bool
	err = q.s.viewTx(func(tx *bbolt.Tx) error {
		b := readQueue(tx)
		all := b.matching(f)
		total = len(all)
		slices.SortFunc(all, func(a, b listed) int {
			if a.dead != b.dead {
				if a.dead {
					return 1
				}
				return -1
			}
			return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.seq, b.seq))
		})
		for _, l := range all[min(max(offset, 0), total):min(max(offset+limit, 0), total)] {
			e, _ := decodeQueued(l.key, b.entries.Get(l.key))
			e.Next = time.Time{}
			entries = append(entries, e.QueueEntry)
			firsts = append(firsts, l.first)
		}
		return nil
	})
	if err != nil {
		return 0, nil, err
	}
	return total, entries, q.setNext(ctx, entries, firsts)
}

// matching returns the entries that f selects.
func (q queueTx) matching(f store.QueueFilter) []listed {
	prefix := ""
	if f.Service != "" {
		prefix = f.Service + "/"
		if f.AppID != "" {
			prefix += f.AppID + "/"
		}
	}
	var all []listed
	lane := ""
	q.each(prefix, nil, func(key []byte, e *queued) bool {
		l := listed{created: e.Created.UnixMilli(), seq: e.seq, dead: e.Dead, key: key}
		if !e.Dead && laneOf(e.QueueKey) != lane {
			l.first, lane = true, laneOf(e.QueueKey)
		}
		if f.Matches(&e.QueueEntry) {
			all = append(all, l)
		}
		return true
	})
	return all
}

// setNext sets the next tries of entries that are the first of their lanes. It
// runs after the transaction that has read them; see queue.mu.
func (q *queue) setNext(ctx context.Context, entries []store.QueueEntry, firsts []bool) error {
	if err := q.lock(ctx); err != nil {
		return err
	}
	defer q.mu.Unlock()
	latest := q.s.now().Add(store.MaxQueuePause)
	for i := range entries {
		if l := q.state.lanes[laneOf(entries[i].QueueKey)]; l != nil && firsts[i] {
			entries[i].Next = l.due
			if l.due.After(latest) { // it is being settled
				entries[i].Next = latest
			}
			entries[i].Next = entries[i].Next.Truncate(time.Millisecond)
		}
	}
	return nil
}

// Find implements [store.Queue]. IDs contain no slash, so no other event is
// found whose ID begins with this one.
func (q *queue) Find(ctx context.Context, id string) ([]store.QueueEntry, error) {
	if err := q.begin(ctx); err != nil {
		return nil, err
	}
	var found []store.QueueEntry
	var firsts []bool
	err := q.s.viewTx(func(tx *bbolt.Tx) error {
		b := readQueue(tx)
		for _, k := range b.keysOf(id) {
			e, ok := b.find(k)
			if !ok {
				continue
			}
			e.Payload, e.Next = b.payload(e.seq), time.Time{}
			found = append(found, e.QueueEntry)
			first := false
			b.each(laneOf(k), nil, func(_ []byte, l *queued) bool {
				first = !l.Dead && l.seq == e.seq
				return l.Dead
			})
			firsts = append(firsts, first)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case found == nil:
		return nil, store.ErrNotFound
	}
	return found, q.setNext(ctx, found, firsts)
}

// keysOf returns the keys of the entries of an event, sorted.
func (q queueTx) keysOf(id string) []store.QueueKey {
	if !q.exists() {
		return nil
	}
	var keys []store.QueueKey
	prefix := id + "/"
	c := q.ids.Cursor()
	k, _ := c.Seek([]byte(prefix))
	for ; k != nil && bytes.HasPrefix(k, []byte(prefix)); k, _ = c.Next() {
		if key, ok := parseIDKey(k); ok {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b store.QueueKey) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.AppID, b.AppID))
	})
	return keys
}

// scanBytes is how many bytes of payloads Scan reads in one transaction at
// least; see listPageSize.
const scanBytes = 1 << 20

// Scan implements [store.Queue]. It calls yield with no transaction open.
func (q *queue) Scan(ctx context.Context, yield func(store.QueueEntry) bool) error {
	var after []byte
	for {
		if err := q.begin(ctx); err != nil {
			return err
		}
		var page []store.QueueEntry
		size := 0
		err := q.s.viewTx(func(tx *bbolt.Tx) error {
			b := readQueue(tx)
			b.each("", after, func(_ []byte, e *queued) bool {
				e.Payload, e.Next = b.payload(e.seq), time.Time{}
				page = append(page, e.QueueEntry)
				after = append(entryKey(e.QueueKey, e.seq), 0) // the next possible key
				size += len(e.Payload)
				return len(page) < listPageSize && size < scanBytes
			})
			return nil
		})
		if err != nil {
			return err
		}
		for _, e := range page {
			if !yield(e) {
				return nil
			}
		}
		if len(page) == 0 {
			return nil
		}
	}
}
