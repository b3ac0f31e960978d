package boltstore

import (
	"errors"
	"fmt"
	"runtime/debug"
	"syscall"

	bolt "go.etcd.io/bbolt"

	"wxproxy/tokens"
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
	db     *bolt.DB
	writes chan *write
	quit   chan struct{} // closed by stop
	done   chan struct{} // closed when run has ended
	broken error         // run's own until done is closed
}

// groupSize bounds the memory of a commit, and how long its last write makes the first one wait.
const groupSize = 1024

func newCommitter(db *bolt.DB) *committer {
	c := &committer{
		db:     db,
		writes: make(chan *write, groupSize),
		quit:   make(chan struct{}),
		done:   make(chan struct{}),
	}
	go c.run()
	return c
}

// commit returns when w is on the disk, or is known not to be.
func (c *committer) commit(w *write) error {
	select {
	case c.writes <- w:
	case <-c.done:
		return tokens.ErrStoreClosed
	}
	select {
	case err := <-w.done:
		return err
	case <-c.done:
	}
	// It may have been answered in the last moment.
	select {
	case err := <-w.done:
		return err
	default:
		return tokens.ErrStoreClosed
	}
}

// stop ends the committer after the writes it has begun with, and says whether bbolt can still be closed.
func (c *committer) stop() bool {
	close(c.quit)
	<-c.done
	return !errors.Is(c.broken, tokens.ErrCorrupt)
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
	if c.broken != nil {
		return c.broken
	}
	err := guard(func() error {
		return c.db.Update(func(tx *bolt.Tx) error {
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
	// After a fault bbolt's locks are in nobody's hands; and after a failed write back the system
	// counts pages as clean that never reached the disk, so a later commit would build on them.
	// Either way nothing more is written until the file was looked through again, at the next start.
	if errors.Is(err, tokens.ErrCorrupt) || errors.Is(err, syscall.EIO) {
		c.broken = fmt.Errorf("%w; nothing is written until the restart", err)
	}
	return err
}

// guard runs one access to the file, whose pages bbolt reads as memory. Where the disk cannot
// deliver a page, or somebody cut the file off under us, the system sends a signal that
// ends the process, unless it is turned into a panic as here. The same goes for bbolt's
// own panics about pages that make no sense.
//
// It holds for this goroutine only, so access must not start another.
func guard(access func() error) (err error) {
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", tokens.ErrCorrupt, p)
		}
	}()
	return access()
}
