package bolt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"wxproxy/internal/clock"
	"wxproxy/tokens/store"
	"wxproxy/tokens/store/internal/durable"
)

// recovery opens the file of a Store again after a fault, until that succeeds:
//
//   - a commit failed with EIO
//   - the mapped file could not be read, was truncated, or holds an invalid page
//   - the path names another file than the open one
//   - the path names no file: after removedPatience, the content of the open
//     one is written to a new one
//
// A file is opened again only if it passes the same verification as in [Open].
// A damaged file stays unusable, and all errors say why. If another file is put
// in its place, no restart is needed.
type recovery struct {
	s *Store
	// accept checks a store that is to replace the open one: it must be sealed
	// with the same key. nil accepts every store.
	accept func(ctx context.Context, s store.Store) error

	ctx     context.Context // ends when stop is called
	cancel  context.CancelFunc
	faults  chan struct{} // buffered: a second fault changes nothing
	stopped chan struct{} // closed when run has returned

	removedAt       time.Time     // when the path first named no file; zero if it names one
	removedPatience time.Duration // tests shorten it

	// rejected is why the last file that replaced the open one was not used.
	rejected atomic.Pointer[error]
}

// Pauses between two attempts. They grow from firstPause to lastPause, or to
// the time that the last attempt took if that is longer.
const (
	firstPause = 250 * time.Millisecond
	lastPause  = 4 * time.Second
	// removedPatience is how long a removed file is waited for. An operator that
	// replaces the file may remove it first.
	removedPatience = 10 * time.Second
)

func (r *recovery) init(s *Store, accept func(ctx context.Context, s store.Store) error) {
	r.s, r.accept, r.removedPatience = s, accept, removedPatience
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.faults, r.stopped = make(chan struct{}, 1), make(chan struct{})
	go r.run()
}

// wake starts an attempt unless one runs.
func (r *recovery) wake() {
	select {
	case r.faults <- struct{}{}:
	default:
	}
}

// stop ends the recovery, and waits for an attempt that runs.
func (r *recovery) stop() {
	r.cancel()
	<-r.stopped
}

func (r *recovery) run() {
	defer close(r.stopped)
	for {
		select {
		case <-r.faults:
		case <-r.ctx.Done():
			return
		}
		for pause := firstPause; ; pause = min(2*pause, lastPause) {
			began := time.Now()
			if r.attempt() {
				break
			}
			select {
			case <-time.After(max(pause, time.Since(began))):
			case <-r.ctx.Done():
				return
			}
		}
	}
}

// attempt opens the file again if there is a reason to, and reports whether
// nothing is left to do.
func (r *recovery) attempt() (done bool) {
	n := r.s.session.Load()
	replaced, err := n.db.isReplaced()
	if !errors.Is(err, os.ErrNotExist) {
		r.removedAt = time.Time{}
	} else if !n.db.isBroken() && n.commits.writeFault.Load() == nil {
		return r.restore(n) == nil
	}
	switch {
	case replaced:
		// The open file stays in use until the other one has turned out to be
		// good.
		err := r.reopen(n, true)
		r.rejected.Store(&err)
		return err == nil
	case n.db.isBroken():
		return r.reopen(n, false) == nil
	case n.commits.writeFault.Load() == nil:
		return true
	}
	// Reads go on until the disk can be written.
	if err == nil {
		err = n.commits.rewriteMeta()
	}
	return err == nil && r.reopen(n, false) == nil
}

// errRemoved is returned while a removed file is waited for.
var errRemoved = errors.New("the file was removed")

// restore writes the content of a file that was removed while it is open to a
// new file, and opens that one in place of n. Otherwise all that is written from
// now on would be lost with the process.
func (r *recovery) restore(n *session) error {
	if r.removedAt.IsZero() {
		r.removedAt = time.Now()
	}
	if time.Since(r.removedAt) < r.removedPatience {
		return errRemoved
	}
	write := func() error {
		return durable.Create(r.s.path, func(name string) error { return copyTo(name, n.db.f) })
	}
	// No commit goes to the old file after it was copied.
	if err := n.commits.last(write, errReopening); err != nil {
		return err
	}
	return r.reopen(n, true)
}

// copyTo copies an open file to the file name, which exists, and syncs that.
func copyTo(name string, from *os.File) error {
	info, err := from.Stat()
	if err != nil {
		return err
	}
	to, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, io.NewSectionReader(from, 0, info.Size()))
	if err == nil {
		err = to.Sync()
	}
	return errors.Join(err, to.Close())
}

// isReplaced reports whether the path names another file than the open one. A
// path that names no file does not count: there is nothing to open.
func (g *guardedDB) isReplaced() (bool, error) {
	named, err := os.Stat(g.path)
	if err != nil || g.f == nil {
		return false, err
	}
	open, err := g.f.Stat()
	return err == nil && !os.SameFile(named, open), err
}

// reopen verifies the file that the path names and opens it in place of n. If
// that is another file than the one of n, that one is closed at the end.
// Otherwise it is closed at the beginning: bbolt's lock admits one opening only.
func (r *recovery) reopen(n *session, replaced bool) error {
	s := r.s
	if !replaced {
		s.session.Store(brokenSession(s.path, errReopening))
		_ = n.end() // its file may be beyond closing, which is no reason to stop
	}
	db, err := r.open()
	if err != nil {
		if !replaced {
			s.session.Store(brokenSession(s.path, err))
		}
		return err
	}
	s.begin(db)
	if replaced {
		_ = n.end()
	}
	return nil
}

// open opens the file that the path names, if it passes all checks.
func (r *recovery) open() (*guardedDB, error) {
	exists, err := storeExists(r.s.path)
	if err == nil && !exists {
		err = errRemoved
	}
	if err != nil {
		return nil, err
	}
	db, err := openVerified(r.ctx, r.s.path)
	if err != nil {
		return nil, err
	}
	if err := r.check(db); err != nil {
		return nil, errors.Join(err, db.close())
	}
	return db, nil
}

// brokenSession stands for a file that is not open. It has no goroutine.
func brokenSession(path string, fault error) *session {
	db := newBrokenDB(path, fault)
	return &session{db: db, commits: newCommitter(db, clock.Now, nil)}
}

// check makes sure that db is writable, and that accept takes it. It leaves db
// open.
func (r *recovery) check(db *guardedDB) error {
	if err := rewriteMeta(db.path); err != nil {
		return err
	}
	if r.accept == nil {
		return nil
	}
	s := &Store{path: db.path, locks: store.NewKeyLocks(), now: clock.Now}
	s.queue.s = s
	s.begin(db)
	defer s.session.Load().commits.stop()
	return r.accept(r.ctx, s)
}

// rewriteMeta writes the two meta pages of the file again, as they are, and
// syncs them; see committer.save. It must not run during a commit.
func rewriteMeta(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	m, err := readMeta(f, info.Size())
	if err != nil {
		return fmt.Errorf("reading the meta pages: %w", err)
	}
	pages := make([]byte, 2*m.pageSize)
	if _, err := f.ReadAt(pages, 0); err != nil {
		return err
	}
	if _, err := f.WriteAt(pages, 0); err != nil {
		return err
	}
	return f.Sync()
}
