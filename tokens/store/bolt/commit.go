package bolt

import (
	"context"
	"errors"
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
	// after is called with the result of the commit, in the order of the
	// writes; nil if there is nothing to do. It must not wait for a commit.
	after func(error)
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
	now      func() time.Time // when claims end
	disk     func() error     // fails commits in tests; nil otherwise
	writes   chan *pendingWrite
	lasts    chan *lastStep
	stopping chan struct{} // closed by stop
	stopped  chan struct{} // closed when run has returned

	// writeFault is set after an I/O error and never reset: this committer
	// writes no more, and the Store opens the file again. See save.
	writeFault atomic.Pointer[error]
	// suspect is set after a commit that failed for another reason. Only run
	// uses it.
	suspect bool
	// succeededAt is when the last commit succeeded; nil if none has, or if one
	// has failed since.
	succeededAt atomic.Pointer[time.Time]
}

// maxGroup is how many writes share a commit at most. It bounds the memory of a
// commit, and how long its first write waits for the last.
const maxGroup = 1024

func newCommitter(db *guardedDB, now func() time.Time, disk func() error) *committer {
	return &committer{
		db:       db,
		now:      now,
		disk:     disk,
		writes:   make(chan *pendingWrite, maxGroup),
		lasts:    make(chan *lastStep),
		stopping: make(chan struct{}),
		stopped:  make(chan struct{}),
	}
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
		case l := <-c.lasts:
			c.doLast(l)
			continue
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
			if w.after != nil {
				w.after(err)
			}
			w.done <- err
			group[i] = nil
		}
	}
}

// save commits the group in one transaction. After an error nothing of it is
// saved, except that a disk which failed in the last step may have saved all.
//
// After a failed write-back, Linux marks pages as clean that never reached the
// disk. bbolt syncs the pages of a transaction before it writes the meta page
// that refers to them. So what may be missing on the disk is a meta page, and
// the next commit must not build on it before it is there:
//
//   - After ENOSPC, EROFS and the like, the meta pages are written again before
//     the next commit. Reads go on.
//   - After EIO, nothing is written until the file was verified and opened
//     again. Windows reports such errors with other codes; there the meta pages
//     are written again.
func (c *committer) save(group []*pendingWrite) error {
	if err := c.writeFault.Load(); err != nil {
		return *err
	}
	var err error
	committing := false
	if c.suspect {
		err = c.rewriteMeta()
	}
	if err == nil {
		err = c.db.access(func() error {
			return c.db.bolt.Update(func(tx *bbolt.Tx) error {
				committing = false
				if err := c.apply(tx, group); err != nil {
					return err
				}
				committing = true
				if c.disk != nil {
					return c.disk()
				}
				return nil
			})
		})
	}
	switch now := time.Now(); {
	case err == nil:
		c.suspect = false
		c.succeededAt.Store(&now)
		return nil
	case errors.Is(err, syscall.EIO):
		c.writeFault.Store(&err)
		if c.db.wake != nil {
			c.db.wake()
		}
	case committing:
		c.suspect = true
	}
	c.succeededAt.Store(nil)
	return err
}

// lastStep is done between two commits, while nothing is written. If it
// succeeds, all later commits fail with fault.
type lastStep struct {
	do    func() error
	fault error
	done  chan error // buffered
}

// last makes l the last thing that is done, and returns its error.
func (c *committer) last(do func() error, fault error) error {
	l := &lastStep{do: do, fault: fault, done: make(chan error, 1)}
	select {
	case c.lasts <- l:
		return <-l.done
	case <-c.db.broken:
		return c.db.fault
	case <-c.stopped:
		return store.ErrClosed
	}
}

func (c *committer) doLast(l *lastStep) {
	err := l.do()
	if err == nil {
		c.writeFault.Store(&l.fault)
	}
	l.done <- err
}

// rewriteMeta writes the meta pages again; see rewriteMeta in recovery.go.
func (c *committer) rewriteMeta() error {
	if c.disk != nil {
		if err := c.disk(); err != nil {
			return err
		}
	}
	return rewriteMeta(c.db.path)
}

// succeededWithin reports whether a commit has succeeded within d, and none has
// failed since.
func (c *committer) succeededWithin(d time.Duration) bool {
	at := c.succeededAt.Load()
	return at != nil && time.Since(*at) < d
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
