package bolt

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"wxproxy/tokens/store"
)

// reserved is a lane that Take has reserved.
type reserved struct {
	lane  string
	lease uint64
	due   time.Time // when it was due
	head  uint64

	entry   queued // the first waiting one, if found
	found   bool
	payload []byte // nil if it is damaged
}

// leaseText returns the text of a reservation. It has the number of the entry,
// so that a former owner removes no entry that was added later.
func leaseText(lease, seq uint64) string { return fmt.Sprintf("%d-%d", lease, seq) }

// parseLease parses what leaseText has returned.
func parseLease(s string) (lease, seq uint64, ok bool) {
	_, err := fmt.Sscanf(s, "%d-%d", &lease, &seq)
	return lease, seq, err == nil
}

// Take implements [store.Queue]. It commits only if it finds a damaged payload.
func (q *queue) Take(
	ctx context.Context, want map[string]int, lease time.Duration,
) ([]store.TakenEntry, error) {
	lease = min(max(lease, time.Millisecond), store.MaxQueuePause)
	left := maps.Clone(want)
	var taken []store.TakenEntry
	for {
		lanes, err := q.reserve(ctx, left, lease)
		if err == nil {
			err = q.readFirst(lanes)
		}
		if err != nil {
			for _, r := range lanes {
				q.release(r.lane, r.lease, r.due)
			}
			if len(taken) > 0 {
				return taken, nil
			}
			return nil, err
		}
		again := false
		for _, r := range lanes {
			switch {
			case !r.found: // its entries were dropped meanwhile
				q.release(r.lane, r.lease, r.due)
			case r.payload == nil:
				again = q.bury(r) || again
			default:
				left[r.entry.Service]--
				t := store.TakenEntry{QueueEntry: r.entry.QueueEntry}
				t.Payload, t.Lease = r.payload, leaseText(r.lease, r.entry.seq)
				taken = append(taken, t)
			}
		}
		if !again {
			return taken, nil
		}
	}
}

// reserve reserves lanes that are due, at most left[service] of each service.
func (q *queue) reserve(
	ctx context.Context, left map[string]int, lease time.Duration,
) ([]*reserved, error) {
	if err := q.lock(ctx); err != nil {
		return nil, err
	}
	defer q.mu.Unlock()
	now := q.s.now()
	var lanes []*reserved
	for name, n := range left {
		s := q.state.services[name]
		// A lane that is reserved is due at the end of its lease, so the first
		// lane of the heap is another one in each turn.
		for s != nil && n > 0 && len(s.due) > 0 && !s.due[0].due.After(now) {
			l := s.due[0]
			if l.waiting <= 0 { // the lease of an entry that was dropped has passed
				l.lease = 0
				q.state.forgetEmpty(l)
				continue
			}
			n--
			q.leases++
			r := reserved{lane: l.name, lease: q.leases, due: l.due, head: l.head}
			lanes = append(lanes, &r)
			l.lease, l.taken = q.leases, 0
			l.setDue(now.Add(lease))
		}
	}
	slices.SortFunc(lanes, func(a, b *reserved) int { return a.due.Compare(b.due) })
	return lanes, nil
}

// readFirst reads the first waiting entry of each lane. The lanes are reserved,
// so none of the entries is taken meanwhile; they may be dropped. mu is not
// held, because payloads may have to be read from the disk.
func (q *queue) readFirst(lanes []*reserved) error {
	if len(lanes) == 0 {
		return nil
	}
	err := q.s.viewTx(func(tx *bbolt.Tx) error {
		b := readQueue(tx)
		for _, r := range lanes {
			b.each(r.lane, encodeSeq(r.head), func(_ []byte, e *queued) bool {
				r.entry, r.found = *e, !e.Dead
				return e.Dead
			})
			if r.found {
				r.payload = b.payload(r.entry.seq)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range lanes {
		// The dead entries before it need not be skipped again. If the head is
		// another one by now, an entry was revived.
		l := q.state.lanes[r.lane]
		if l == nil || !r.found {
			continue
		}
		if l.head == r.head {
			l.head = r.entry.seq
		}
		if l.lease == r.lease {
			l.taken = r.entry.seq
		}
	}
	return nil
}

// bury makes an entry dead whose payload is damaged, and releases its lane. If
// that fails, it returns false, and the lane stays reserved for its lease.
func (q *queue) bury(r *reserved) bool {
	bury := func(e *queued) { e.Dead, e.Error, e.Next = true, damagedPayload, time.Time{} }
	_, err := q.update(context.Background(), r.entry.QueueKey, r.entry.seq, bury)
	if err == nil {
		q.release(r.lane, r.lease, r.due)
	}
	return err == nil
}

// update changes an entry, and reports whether there is one. change must not
// change the key, the number and the size.
func (q *queue) update(
	ctx context.Context, k store.QueueKey, seq uint64, change func(e *queued),
) (exists bool, err error) {
	var before, after queued
	found := false
	err = q.commit(ctx, func(b queueTx) error {
		if before, found = b.get(k, seq); !found {
			return nil
		}
		after = before
		change(&after)
		return b.put(&after)
	}, func(s *queueState) {
		if found {
			s.replace(&before, &after, q.s.now())
		}
	})
	// After an error the write may still be in progress, so found must not be
	// read.
	return err == nil && found, err
}

// release ends a reservation, if there is one. The lane is due at due.
func (q *queue) release(lane string, lease uint64, due time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if l := q.state.lanes[lane]; l != nil && lease != 0 && l.lease == lease {
		l.lease = 0
		l.setDue(due)
		q.state.forgetEmpty(l)
	}
}

// maxSettle is how long a lane stays reserved, at the most, while the result of
// a try is saved.
const maxSettle = 24 * time.Hour

// exchange gives a reservation another number and another end. The lane is due
// at was before. It does nothing if the reservation is not in force.
func (q *queue) exchange(lane string, lease uint64, end time.Time) (next uint64, was time.Time) {
	l := q.state.lanes[lane]
	if l == nil || l.lease != lease {
		return 0, time.Time{}
	}
	was = l.due
	q.leases++
	l.lease = q.leases
	l.setDue(end)
	return l.lease, was
}

// Settle implements [store.Queue]. Once the commit has begun it ignores the end
// of ctx: the caller must know whether the result was saved.
func (q *queue) Settle(ctx context.Context, t store.TakenEntry, o store.QueueOutcome) error {
	if err := q.lock(ctx); err != nil {
		return err
	}
	o = o.Cut()
	lane, now := laneOf(t.QueueKey), q.s.now()
	lease, seq, ok := parseLease(t.Lease)
	var settling uint64 // 0 if the caller has not reserved the lane
	var leaseEnd time.Time
	if ok { // during the commit the lane is not taken, and not settled again
		settling, leaseEnd = q.exchange(lane, lease, now.Add(maxSettle))
	}
	q.mu.Unlock()
	var exists bool
	var err error
	switch {
	case !ok || settling == 0 && o.Result != store.QueueDelivered:
		return nil
	case o.Result == store.QueueDelivered:
		_, err = q.remove(context.Background(), t.QueueKey, seq)
	default:
		exists, err = q.update(context.Background(), t.QueueKey, seq, func(e *queued) {
			if e.Dead { // it has expired after the lease
				return
			}
			e.Attempts++
			e.Error, e.Next = o.Error, time.Time{}
			if e.Dead = o.Result == store.QueueDead; !e.Dead {
				e.Next = now.Add(o.Pause)
			}
		})
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.state.lanes[lane]
	switch {
	case settling == 0 || l == nil || l.lease != settling:
	case err != nil: // the lane is taken again after the lease
		l.lease = lease
		l.setDue(leaseEnd)
	default:
		l.lease = 0
		l.setDue(now)
		if exists && o.Result == store.QueueFailed {
			l.triedAt = now
			l.setDue(now.Add(o.Pause))
		}
		q.state.forgetEmpty(l)
	}
	return err
}

// Wake implements [store.Queue].
func (q *queue) Wake(ctx context.Context, service string) error {
	if err := q.lock(ctx); err != nil {
		return err
	}
	defer q.mu.Unlock()
	s, now := q.state.services[service], q.s.now()
	if s == nil {
		return nil
	}
	for _, l := range slices.Clone(s.due) { // advance changes the order
		l.advance(now)
	}
	return nil
}
