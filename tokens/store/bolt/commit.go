package bolt

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"go.etcd.io/bbolt"

	"wxproxy/tokens/store"
)

// write is one record on its way to the disk; a nil value deletes.
type write struct {
	key, value []byte
	done       chan error // has room for the answer
}

// committer gives all writes that came while the disk was busy one commit together. A lone
// write starts at once, which is why this is not bbolt's Batch: that one waits 10 ms for company,
// and runs in goroutines that no guard can protect.
type committer struct {
	file   *file
	writes chan *write
	quit   chan struct{}         // closed by stop
	done   chan struct{}         // closed when run has ended
	failed atomic.Pointer[error] // set once: the disk cannot be trusted any more
}

// groupSize bounds the memory of a commit, and how long its last write makes the first one wait.
const groupSize = 1024

func newCommitter(f *file) *committer {
	c := &committer{
		file:   f,
		writes: make(chan *write, groupSize),
		quit:   make(chan struct{}),
		done:   make(chan struct{}),
	}
	go c.run()
	return c
}

// commit returns when w is on the disk, or is known not to be. (Where the file breaks at this very moment
// nobody can say which, and it is an error.)
func (c *committer) commit(w *write) error {
	select {
	case c.writes <- w:
	case <-c.file.broken:
		return c.file.fault
	case <-c.done:
		return store.ErrClosed
	}
	var err error
	select {
	case err = <-w.done:
		return err
	case <-c.file.broken:
		err = c.file.fault
	case <-c.done:
		err = store.ErrClosed
	}
	select {
	case err = <-w.done: // it was answered all the same
	default:
	}
	return err
}

// stop ends the committer. Nobody waits for one that hangs in the locks of a broken file.
func (c *committer) stop() {
	close(c.quit)
	select {
	case <-c.done:
	case <-c.file.broken:
	}
}

func (c *committer) run() {
	defer close(c.done)
	group := make([]*write, 0, groupSize)
	for {
		select {
		case w := <-c.writes:
			group = append(group[:0], w)
		case <-c.quit:
			return
		}
	gather:
		for len(group) < groupSize {
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

// save commits the group as one. An error is everybody's: nothing of it was saved, or
// (where the disk failed in the very last step) nobody can say.
func (c *committer) save(group []*write) error {
	if failed := c.failed.Load(); failed != nil {
		return *failed
	}
	err := c.file.access(func() error {
		return c.file.db.Update(func(tx *bbolt.Tx) error {
			b := tx.Bucket(recordsBucket)
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
		})
	})
	// After a failed write back the system counts pages as clean that never reached the disk, and
	// a later commit, though it succeeds, would build on them.
	if errors.Is(err, syscall.EIO) {
		err = fmt.Errorf("%w; nothing is written until the restart", err)
		c.failed.Store(&err)
	}
	return err
}
