package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"sync"
	"time"

	"wxproxy/internal/clock"
)

// memoryQueue is a [Queue] that keeps entries in a map. It is meant for tests
// and trials: some operations look at all entries.
type memoryQueue struct {
	closed func() bool
	clock  func() time.Time // tests replace it

	mu      sync.Mutex
	seq     int64
	entries map[QueueKey]*memoryEntry
	lanes   map[lane]*laneState
	known   map[QueueKey]time.Time // until when Add leaves a key out
}

// lane is the account and the service of entries.
type lane struct{ service, appid string }

func (k QueueKey) lane() lane { return lane{k.Service, k.AppID} }

type memoryEntry struct {
	QueueEntry
	seq int64 // orders the lane
}

// laneState is a lane that has waiting entries or is taken.
type laneState struct {
	due     time.Time // end of the pause, or of the lease
	triedAt time.Time // when a try failed last
	lease   string    // "" if no process has taken the lane
	taken   QueueKey  // what the process has taken
}

// isDue reports whether the lane can be taken. An end that is further ahead
// than any can be was stored by a wrong clock.
func (s *laneState) isDue(now time.Time) bool {
	return !s.due.After(now) || s.due.After(now.Add(MaxQueuePause))
}

func newMemoryQueue(closed func() bool) *memoryQueue {
	return &memoryQueue{
		closed: closed, clock: clock.Now, entries: map[QueueKey]*memoryEntry{},
		lanes: map[lane]*laneState{}, known: map[QueueKey]time.Time{},
	}
}

// begin locks the queue, unless it cannot be used.
func (q *memoryQueue) begin(ctx context.Context) error {
	if q.closed() {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	q.mu.Lock()
	return nil
}

// now returns the time in milliseconds.
func (q *memoryQueue) now() time.Time { return q.clock().Truncate(time.Millisecond) }

// Add implements [Queue]. Each call looks at all keys that are known.
func (q *memoryQueue) Add(
	ctx context.Context, known time.Duration, entries ...QueueEntry,
) (added int, err error) {
	if err := q.begin(ctx); err != nil {
		return 0, err
	}
	defer q.mu.Unlock()
	if err := CheckQueueEntries(true, entries); err != nil {
		return 0, err
	}
	now := q.now()
	maps.DeleteFunc(q.known, func(_ QueueKey, until time.Time) bool { return !until.After(now) })
	for _, e := range entries {
		_, waits := q.entries[e.QueueKey]
		if _, isKnown := q.known[e.QueueKey]; isKnown || waits {
			continue
		}
		q.known[e.QueueKey] = now.Add(known)
		q.put(QueueEntry{
			QueueKey: e.QueueKey, Payload: bytes.Clone(e.Payload),
			Created: e.Created.Truncate(time.Millisecond), Since: now,
		})
		added++
	}
	return added, nil
}

// put appends an entry to its lane.
func (q *memoryQueue) put(e QueueEntry) {
	q.seq++
	q.entries[e.QueueKey] = &memoryEntry{e, q.seq}
	if !e.Dead {
		q.hasten(e.lane())
	}
}

// hasten makes a lane due, unless a process has taken it, or its last try has
// failed less than MinQueuePause ago.
func (q *memoryQueue) hasten(l lane) {
	s := q.lanes[l]
	if s == nil {
		q.lanes[l] = &laneState{due: q.now()}
		return
	}
	now := q.now()
	if end := s.triedAt.Add(MinQueuePause); end.After(now) && !s.triedAt.After(now) {
		s.advance(end)
	} else {
		s.advance(now)
	}
}

// advance makes the lane due at t, if that is earlier and no process has taken
// it.
func (s *laneState) advance(t time.Time) {
	if s.lease == "" && t.Before(s.due) {
		s.due = t
	}
}

// first returns the first waiting entry of a lane, or nil.
func (q *memoryQueue) first(l lane) *memoryEntry {
	var first *memoryEntry
	for _, e := range q.entries {
		if !e.Dead && e.lane() == l && (first == nil || e.seq < first.seq) {
			first = e
		}
	}
	return first
}

// Take implements [Queue]. It sorts all lanes in every call.
func (q *memoryQueue) Take(
	ctx context.Context, want map[string]int, lease time.Duration,
) ([]TakenEntry, error) {
	if err := q.begin(ctx); err != nil {
		return nil, err
	}
	defer q.mu.Unlock()
	now, left := q.now(), maps.Clone(want)
	lanes := slices.SortedFunc(maps.Keys(q.lanes), func(a, b lane) int {
		return q.lanes[a].due.Compare(q.lanes[b].due)
	})
	var taken []TakenEntry
	for _, l := range lanes {
		s := q.lanes[l]
		if left[l.service] <= 0 || !s.isDue(now) {
			continue
		}
		e := q.first(l)
		if e == nil { // the lease of an entry that was dropped has passed
			delete(q.lanes, l)
			continue
		}
		s.lease, s.taken = rand.Text(), e.QueueKey
		s.due = now.Add(min(lease, MaxQueuePause))
		left[l.service]--
		t := TakenEntry{e.QueueEntry, s.lease}
		t.Payload = bytes.Clone(e.Payload)
		taken = append(taken, t)
	}
	return taken, nil
}

// Settle implements [Queue]. A reservation is in force until the lane is taken
// again, whatever the time is.
func (q *memoryQueue) Settle(ctx context.Context, t TakenEntry, o QueueOutcome) error {
	if err := q.begin(ctx); err != nil {
		return err
	}
	defer q.mu.Unlock()
	l, now, o := t.lane(), q.now(), o.Cut()
	s, e := q.lanes[l], q.entries[t.QueueKey]
	if o.Result == QueueDelivered {
		delete(q.entries, t.QueueKey)
	}
	if s == nil || s.lease != t.Lease {
		q.removeEmpty(l)
		return nil
	}
	s.lease, s.due = "", now
	if e != nil && !e.Dead {
		e.Attempts++
		e.Error = o.Error
		e.Dead = o.Result == QueueDead
		if o.Result == QueueFailed {
			s.triedAt, s.due = now, now.Add(o.Pause)
		}
	}
	q.removeEmpty(l)
	return nil
}

// removeEmpty forgets a lane without waiting entries that is not taken.
func (q *memoryQueue) removeEmpty(l lane) {
	if s := q.lanes[l]; s != nil && s.lease == "" && q.first(l) == nil {
		delete(q.lanes, l)
	}
}

// Wake implements [Queue]. A lane that is taken stays so.
func (q *memoryQueue) Wake(ctx context.Context, service string) error {
	if err := q.begin(ctx); err != nil {
		return err
	}
	defer q.mu.Unlock()
	for l, s := range q.lanes {
		if l.service == service {
			s.advance(q.now())
		}
	}
	return nil
}

// Sizes implements [Queue]. It counts all entries in every call.
func (q *memoryQueue) Sizes(ctx context.Context) (map[string]QueueSize, error) {
	if err := q.begin(ctx); err != nil {
		return nil, err
	}
	defer q.mu.Unlock()
	sizes := map[string]QueueSize{}
	for _, e := range q.entries {
		s := sizes[e.Service]
		s.Bytes += int64(len(e.Payload))
		if e.Dead {
			s.Dead++
		} else {
			s.Waiting++
			if s.Oldest.IsZero() || e.Created.Before(s.Oldest) {
				s.Oldest = e.Created
			}
		}
		sizes[e.Service] = s
	}
	return sizes, nil
}

// List implements [Queue]. It sorts all entries in every call.
func (q *memoryQueue) List(
	ctx context.Context, f QueueFilter, offset, limit int,
) (total int, entries []QueueEntry, err error) {
	if err := q.begin(ctx); err != nil {
		return 0, nil, err
	}
	defer q.mu.Unlock()
	var all []*memoryEntry
	for _, e := range q.entries {
		if f.Matches(&e.QueueEntry) {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b *memoryEntry) int {
		if a.Dead != b.Dead {
			return cmp.Compare(dead(a), dead(b))
		}
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.seq, b.seq))
	})
	for _, e := range all[min(offset, len(all)):min(offset+limit, len(all))] {
		entries = append(entries, q.describe(e, false))
	}
	return len(all), entries, nil
}

// dead returns 1 for a dead entry, which sorts after the others.
func dead(e *memoryEntry) int {
	if e.Dead {
		return 1
	}
	return 0
}

// describe returns a copy of an entry, with the time of its next try.
func (q *memoryQueue) describe(e *memoryEntry, payload bool) QueueEntry {
	c := e.QueueEntry
	c.Payload = nil
	if payload {
		c.Payload = bytes.Clone(e.Payload)
	}
	if l := e.lane(); !e.Dead && q.first(l) == e {
		c.Next = q.lanes[l].due
	}
	return c
}

// Find implements [Queue]. It looks at all entries.
func (q *memoryQueue) Find(ctx context.Context, id string) ([]QueueEntry, error) {
	if err := q.begin(ctx); err != nil {
		return nil, err
	}
	defer q.mu.Unlock()
	var found []QueueEntry
	for k, e := range q.entries {
		if k.ID == id {
			found = append(found, q.describe(e, true))
		}
	}
	if found == nil {
		return nil, ErrNotFound
	}
	slices.SortFunc(found, func(a, b QueueEntry) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.AppID, b.AppID))
	})
	return found, nil
}

func (q *memoryQueue) Revive(ctx context.Context, key QueueKey) error {
	if err := q.begin(ctx); err != nil {
		return err
	}
	defer q.mu.Unlock()
	e := q.entries[key]
	if e == nil {
		return ErrNotFound
	}
	if e.Dead {
		e.Dead, e.Since = false, q.now()
	}
	l := key.lane()
	if s := q.lanes[l]; s == nil {
		q.lanes[l] = &laneState{due: q.now()}
	} else {
		s.advance(q.now())
	}
	return nil
}

func (q *memoryQueue) Expire(ctx context.Context, key QueueKey, reason string) error {
	if err := q.begin(ctx); err != nil {
		return err
	}
	defer q.mu.Unlock()
	e, l := q.entries[key], key.lane()
	if e == nil {
		return ErrNotFound
	}
	if s := q.lanes[l]; !e.Dead && (s.lease == "" || !s.due.After(q.now()) || s.taken != key) {
		e.Dead, e.Error = true, QueueOutcome{Error: reason}.Cut().Error
		q.removeEmpty(l)
	}
	return nil
}

// Drop implements [Queue]. The key stays known.
func (q *memoryQueue) Drop(ctx context.Context, key QueueKey) error {
	if err := q.begin(ctx); err != nil {
		return err
	}
	defer q.mu.Unlock()
	if q.entries[key] == nil {
		return ErrNotFound
	}
	delete(q.entries, key)
	q.removeEmpty(key.lane())
	return nil
}

// Scan implements [Queue]. It yields a copy of the queue as it was at the
// beginning, and holds no lock meanwhile.
func (q *memoryQueue) Scan(ctx context.Context, yield func(QueueEntry) bool) error {
	if err := q.begin(ctx); err != nil {
		return err
	}
	all := slices.SortedFunc(maps.Values(q.entries), func(a, b *memoryEntry) int {
		return cmp.Compare(a.seq, b.seq)
	})
	var copies []QueueEntry
	for _, e := range all {
		copies = append(copies, q.describe(e, true))
	}
	q.mu.Unlock()
	for _, e := range copies {
		if !yield(e) {
			return nil
		}
	}
	return nil
}

// Restore implements [Queue].
func (q *memoryQueue) Restore(ctx context.Context, entries ...QueueEntry) error {
	if err := q.begin(ctx); err != nil {
		return err
	}
	defer q.mu.Unlock()
	if err := CheckQueueEntries(false, entries); err != nil {
		return err
	}
	for _, e := range entries {
		if q.entries[e.QueueKey] == nil {
			e.Payload, e.Next = bytes.Clone(e.Payload), time.Time{}
			q.put(e)
		}
	}
	return nil
}

// Replace implements [Queue].
func (q *memoryQueue) Replace(ctx context.Context, key QueueKey, old, payload []byte) error {
	if err := q.begin(ctx); err != nil {
		return err
	}
	defer q.mu.Unlock()
	if e := q.entries[key]; e != nil && bytes.Equal(e.Payload, old) {
		e.Payload = bytes.Clone(payload)
	}
	return nil
}
