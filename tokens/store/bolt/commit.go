package bolt

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"go.etcd.io/bbolt"

	"wxproxy/tokens/store"
)

// pendingWrite is a record that waits for its commit. A nil value deletes it.
type pendingWrite struct {
	key, value []byte
	done       chan error // buffered, so that the committer never blocks
}

// committer writes records to the file. Writes that arrive during a commit
// share the next one, so 500 concurrent updates need a few syncs instead of
// 500.
//
// bbolt's own Batch is not used: it delays a single write by 10 ms to wait for
// others, and runs in goroutines that catchFaults cannot guard.
type committer struct {
	db       *guardedDB
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
		writes:   make(chan *pendingWrite, maxGroup),
		stopping: make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	go c.run()
	return c
}

// commit returns nil once w is on the disk. If the file breaks during the
// commit, w may be on the disk although commit returns an error.
func (c *committer) commit(w *pendingWrite) error {
	select {
	case c.writes <- w:
	case <-c.db.broken:
		return c.db.fault
	case <-c.stopped:
		return store.ErrClosed
	}
	var err error
	select {
	case err = <-w.done:
		return err
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
			return apply(tx.Bucket(recordsBucket), group)
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

// apply writes the group in the transaction of b.
func apply(b *bbolt.Bucket, group []*pendingWrite) error {
	for _, w := range group {
		var err error
		if w.value == nil {
			err = b.Delete(w.key)
		} else {
			err = b.Put(w.key, w.value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
