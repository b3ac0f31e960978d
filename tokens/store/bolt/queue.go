package bolt

import (
	"context"
	"crypto/sha256"
	"math"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"wxproxy/tokens/store"
)

// queue is the [store.Queue] of a file. Entries are in the file; reservations
// are in memory, because one process has the file open. After a restart a lane
// is due when its last pause ends, and what was being delivered is taken again.
//
// Changes share their commits with all other writes. Take, Wake, Sizes and what
// only reads commit nothing.
//
// # Reservations
//
// A reservation is a number. It ends when the entry was settled, or when the
// lane is taken again after the lease. While Settle commits, the lane has a
// reservation that the caller does not know, so that it is settled once and
// taken by no other caller, however long the disk takes.
//
// # State and file
//
// The state follows the file: the committer reports each commit in the order of
// the commits, with the number of its transaction. A state that was read from
// the file has the number of the last one that it contains, and ignores reports
// of earlier ones. After a failed commit it is not known what the file holds,
// so the state is read again before it is used.
//
// mu must not be held while a write waits for its commit, because the committer
// needs it. It must not be requested in a transaction either: load reads the
// file while it holds mu, and bbolt lets a reader wait for a writer that waits
// for other readers.
type queue struct {
	s *Store

	mu     sync.Mutex
	state  *queueState
	leases uint64 // number of reservations so far
	// loaded is the session that the state was read from, and follows; nil if
	// the state has to be read.
	loaded *session
	// loadedTx is the last transaction that the state contains.
	loadedTx int
}

var (
	_ store.Queuer = (*Store)(nil)
	_ store.Queue  = (*queue)(nil)
)

// Queue implements [store.Queuer].
func (s *Store) Queue() store.Queue { return &s.queue }

// begin returns why the queue cannot be used.
func (q *queue) begin(ctx context.Context) error {
	if q.s.closed.Load() {
		return store.ErrClosed
	}
	return ctx.Err()
}

// lock locks the state after it was read from the file, if it had to be.
func (q *queue) lock(ctx context.Context) error {
	if err := q.begin(ctx); err != nil {
		return err
	}
	q.mu.Lock()
	if n := q.s.session.Load(); q.loaded != n {
		if err := q.load(n); err != nil {
			q.mu.Unlock()
			return err
		}
	}
	return nil
}

// load reads the state from the file. Reservations stay, and so do pauses that
// began in this process. The caller holds mu.
func (q *queue) load(n *session) error {
	state, now := newQueueState(), q.s.now()
	txid := 0
	err := q.s.viewIn(n, func(tx *bbolt.Tx) error {
		txid = tx.ID()
		first := ""
		readQueue(tx).each("", nil, func(_ []byte, e *queued) bool {
			due := now
			if lane := laneOf(e.QueueKey); !e.Dead && lane != first { // the first of its lane
				first, due = lane, e.dueAfterRestart(now)
			}
			state.add(e, due)
			return true
		})
		return nil
	})
	if err != nil {
		return err
	}
	if q.state != nil {
		for name, old := range q.state.lanes {
			// A lane whose entry was dropped can be reserved nevertheless.
			if old.lease == 0 && state.lanes[name] == nil {
				continue
			}
			l := state.lane(name, now)
			l.lease, l.taken, l.triedAt = old.lease, old.taken, old.triedAt
			l.setDue(old.due)
		}
	}
	q.state, q.loaded, q.loadedTx = state, n, txid
	return nil
}

// dueAfterRestart returns when the lane is due whose first entry is e: at the
// end of its pause, or when the entry was added. A time that is further ahead
// than it can be was stored by a wrong clock, and means now.
func (e *queued) dueAfterRestart(now time.Time) time.Time {
	switch {
	case e.Next.After(e.Since) && !e.Next.After(now.Add(store.MaxQueuePause)):
		return e.Next
	case e.Since.Before(now):
		return e.Since
	}
	return now
}

// commit makes a change to the file. apply must not fail because of what it
// finds: its error fails the writes of others. changed is called when the
// change is on the disk, with mu locked, unless the state has to be read from
// the file anyway.
func (q *queue) commit(
	ctx context.Context, apply func(queueTx) error, changed func(*queueState),
) error {
	n, txid := q.s.session.Load(), 0
	w := newWrite(func(tx *bbolt.Tx) error {
		b, err := writeQueue(tx)
		if err != nil {
			return err
		}
		txid = tx.ID()
		return apply(b)
	})
	w.after = func(err error) {
		q.mu.Lock()
		defer q.mu.Unlock()
		switch {
		case q.loaded != n: // not read yet, or from another file
		case err != nil:
			q.loaded = nil // the change may be in the file nevertheless
		case txid > q.loadedTx:
			changed(q.state)
		}
	}
	return q.s.convertError(n.commits.commit(ctx, w))
}

// knownClaim returns the claim that makes Add leave an entry out. It is short,
// because a file with 100,000 entries has at least as many claims. The
// probability that two keys have the same one is negligible.
func knownClaim(k store.QueueKey) string {
	sum := sha256.Sum256([]byte(k.String()))
	return "queue/" + string(sum[:20])
}

// isKnown reports whether Add leaves an entry out.
func (q *queue) isKnown(b queueTx, k store.QueueKey, now time.Time) bool {
	if _, exists := b.find(k); exists {
		return true
	}
	return isClaimed(b.tx, knownClaim(k), now)
}

// Add implements [store.Queue]. Entries that are known already cost no commit.
func (q *queue) Add(
	ctx context.Context, known time.Duration, entries ...store.QueueEntry,
) (added int, err error) {
	if err := q.begin(ctx); err != nil {
		return 0, err
	}
	if err := store.CheckQueueEntries(true, entries); err != nil {
		return 0, err
	}
	now := q.s.now()
	allKnown := true
	err = q.s.viewTx(func(tx *bbolt.Tx) error {
		b := readQueue(tx)
		for i := range entries {
			allKnown = allKnown && q.isKnown(b, entries[i].QueueKey, now)
		}
		return nil
	})
	if err != nil || allKnown {
		return 0, err
	}
	var fresh []queued
	err = q.commit(ctx, func(b queueTx) error {
		for _, e := range entries {
			if q.isKnown(b, e.QueueKey, now) {
				continue
			}
			n := queued{QueueEntry: store.QueueEntry{
				QueueKey: e.QueueKey, Created: e.Created, Since: now,
			}}
			if err := b.add(&n, e.Payload); err != nil {
				return err
			}
			if known > 0 {
				if err := putClaim(b.tx, knownClaim(e.QueueKey), now.Add(known)); err != nil {
					return err
				}
			}
			fresh = append(fresh, n)
		}
		return nil
	}, func(s *queueState) { s.addAll(fresh, now) })
	// After an error the write may still be in progress, so fresh must not be
	// read.
	if err != nil {
		return 0, err
	}
	return len(fresh), nil
}

// addAll counts entries that were added, and makes their lanes due.
func (q *queueState) addAll(entries []queued, now time.Time) {
	for i := range entries {
		e := &entries[i]
		q.add(e, now)
		if !e.Dead {
			q.lane(laneOf(e.QueueKey), now).hasten(now)
		}
	}
}

// Restore implements [store.Queue]. All entries are in one transaction, so the
// caller must pass a bounded number of them.
func (q *queue) Restore(ctx context.Context, entries ...store.QueueEntry) error {
	if err := q.begin(ctx); err != nil {
		return err
	}
	if err := store.CheckQueueEntries(false, entries); err != nil {
		return err
	}
	var fresh []queued
	return q.commit(ctx, func(b queueTx) error {
		for _, e := range entries {
			if _, exists := b.find(e.QueueKey); exists {
				continue
			}
			n, payload := restored(e)
			if err := b.add(&n, payload); err != nil {
				return err
			}
			fresh = append(fresh, n)
		}
		return nil
	}, func(s *queueState) { s.addAll(fresh, q.s.now()) })
}

// importEntry appends an entry that was exported to its lane.
func importEntry(tx *bbolt.Tx, e store.QueueEntry) error {
	b, err := writeQueue(tx)
	if err != nil {
		return err
	}
	if _, exists := b.find(e.QueueKey); exists {
		return nil
	}
	n, payload := restored(e)
	return b.add(&n, payload)
}

// restored returns what Restore stores of an entry.
func restored(e store.QueueEntry) (n queued, payload []byte) {
	payload = e.Payload
	e.Payload, e.Next = nil, time.Time{}
	e.Attempts = min(max(e.Attempts, 0), math.MaxUint32)
	e.Error = store.QueueOutcome{Error: e.Error}.Cut().Error
	return queued{QueueEntry: e}, payload
}

// Replace implements [store.Queue]. A damaged payload equals no old one, and is
// never replaced.
func (q *queue) Replace(ctx context.Context, key store.QueueKey, old, payload []byte) error {
	if err := q.begin(ctx); err != nil {
		return err
	}
	var before, after queued
	replaced := false
	return q.commit(ctx, func(b queueTx) error {
		e, ok := b.find(key)
		if !ok || string(b.payload(e.seq)) != string(old) {
			return nil
		}
		before, after, replaced = e, e, true
		after.size = len(payload)
		seq := encodeSeq(e.seq)
		if err := b.payloads.Put(seq, encodeValue(seq, payload)); err != nil {
			return err
		}
		return b.put(&after)
	}, func(s *queueState) {
		if replaced {
			s.service(key.Service).bytes += int64(after.size) - int64(before.size)
		}
	})
}
