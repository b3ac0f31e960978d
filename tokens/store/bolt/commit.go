package bolt

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"wxproxy/tokens/store"
)

// pendingWrite is a change that waits for its commit.
type pendingWrite struct {
	// apply makes the change. If it returns an error, the whole commit fails,
	// with the changes of others.
	apply func(*bbolt.Tx) error
	done  chan error // buffered, so that the committer never blocks
}

func newWrite(apply func(*bbolt.Tx) error) *pendingWrite {
	return &pendingWrite{apply: apply, done: make(chan error, 1)}
}

// committer makes changes to the file. Writes that arrive during a commit
// share the next one, so 500 concurrent updates need a few syncs instead of
// 500.
//
// bbolt's own Batch is not used: it delays a single write by 10 ms to wait for
// others, and runs in goroutines that catchFaults cannot guard.
type committer struct {
	db       *guardedDB
	now      func() time.Time // when claims end; tests replace it
	writes   chan *pendingWrite
	stopping chan struct{} // closed by stop
	stopped  chan struct{} // closed when run has returned
	// writeFault is set after an I/O error and never reset: from then on every
	// write fails, see save.
	writeFault atomic.Pointer[error]
}

// maxGroup is how many writes share a commit at most. It bounds the memory of a
// commit, and how long its first write waits for the last.
const maxGroup = 1024

func newCommitter(db *guardedDB) *committer {
	c := &committer{
		db:       db,
		now:      time.Now,
		writes:   make(chan *pendingWrite, maxGroup),
		stopping: make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	go c.run()
	return c
}

// commit returns nil once w is on the disk. If the file breaks or ctx ends
// during the commit, w may be on the disk, or about to be written, although
// commit returns an error.
func (c *committer) commit(ctx context.Context, w *pendingWrite) error {
	select {
	case c.writes <- w:
	case <-ctx.Done():
		return ctx.Err()
	case <-c.db.broken:
		return c.db.fault
	case <-c.stopped:
		return store.ErrClosed
	}
	var err error
	select {
	case err = <-w.done:
		return err
	case <-ctx.Done():
		err = ctx.Err()
	case <-c.db.broken:
		err = c.db.fault
	case <-c.stopped:
		err = store.ErrClosed
	}
	// Both may have happened: the result of w takes precedence.
	select {
	case err = <-w.done:
	default:
	}
	return err
}

// stop ends the committer and waits for a commit in progress, unless the file
// is broken: then the commit may block forever in bbolt's locks.
func (c *committer) stop() {
	close(c.stopping)
	select {
	case <-c.stopped:
	case <-c.db.broken:
	}
}

// run commits one group of writes after another until stop is called.
func (c *committer) run() {
	defer close(c.stopped)
	group := make([]*pendingWrite, 0, maxGroup)
	for {
		select {
		case w := <-c.writes:
			group = append(group[:0], w)
		case <-c.stopping:
			return
		}
	gather:
		for len(group) < maxGroup {
			select {
			case w := <-c.writes:
				group = append(group, w)
			default:
				break gather
			}
		}
		err := c.save(group)
		for i, w := range group {
			w.done <- err
			group[i] = nil
		}
	}
}

// save commits the group in one transaction. After an error nothing of it is
// saved, except that a disk which failed in the last step may have saved all.
func (c *committer) save(group []*pendingWrite) error {
	if err := c.writeFault.Load(); err != nil {
		return *err
	}
	err := c.db.access(func() error {
		return c.db.bolt.Update(func(tx *bbolt.Tx) error {
			return c.apply(tx, group)
		})
	})
	// After a failed write-back, Linux marks pages as clean that never reached
	// the disk. A later commit would succeed and build on them, so writing
	// stops. Windows reports such errors with other codes: there the failed
	// commit returns an error, and the next one is tried.
	if errors.Is(err, syscall.EIO) {
		err = fmt.Errorf("%w; nothing is written until wxproxy is restarted", err)
		c.writeFault.Store(&err)
	}
	return err
}

// apply makes the changes of the group, and removes claims that have ended.
func (c *committer) apply(tx *bbolt.Tx, group []*pendingWrite) error {
	for _, w := range group {
		if err := w.apply(tx); err != nil {
			return err
		}
	}
	return sweepClaims(tx, c.now(), minSweep+2*len(group))
}
