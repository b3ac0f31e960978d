package bolt

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"go.etcd.io/bbolt"

	"wxproxy/tokens/store"
)

// file is bbolt's open database, with the accesses to it fenced in.
//
// bbolt reads the file as memory. Where the disk cannot deliver a page, or somebody copies a backup over
// the open file (which cuts it off first), the system answers with a signal that ends the process.
// Turned into a panic it goes through bbolt's own code and may leave bbolt's locks behind, for the next
// to wait for. So the first such fault is the last access: the file is broken from then
// on, and only a restart, which looks through it anew, gets it back into use.
type file struct {
	db *bbolt.DB
	f  *os.File // bbolt's own
	at string   // its path

	size   atomic.Int64 // it never shrinks, unless it is cut off
	once   sync.Once
	broken chan struct{} // closed by the first fault
	fault  error         // behind broken
}

func newFile(db *bbolt.DB, f *os.File) (*file, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	n := &file{db: db, f: f, at: f.Name(), broken: make(chan struct{})}
	n.size.Store(info.Size())
	return n, nil
}

// access runs do, which uses db, in this goroutine; it must not start another, as that would not be
// protected.
func (f *file) access(do func() error) error {
	select {
	case <-f.broken:
		return f.fault
	default:
	}
	known := f.size.Load() // before the next line: others may see the file grow in between
	info, err := f.f.Stat()
	switch {
	case errors.Is(err, os.ErrClosed):
		return store.ErrClosed
	case err != nil:
		return err
	case info.Size() < known:
		return f.breaks("the file was cut off while it was in use")
	}
	f.size.Store(info.Size()) // an older, smaller size may win here; the next access mends it
	if err = guard(do); errors.Is(err, errFault) {
		return f.breaks(err)
	}
	return err
}

// breaks makes the file unusable, and gives the error that everybody gets from now on.
func (f *file) breaks(why any) error {
	f.once.Do(func() {
		f.fault = fmt.Errorf("%w: %v; it is out of use until the restart", store.ErrCorrupt, why)
		close(f.broken)
	})
	return f.fault
}

// close lets go of the file. A broken one is not closed by bbolt, which may wait for ever for its
// locks; it stays locked for others until this process ends.
func (f *file) close() error {
	select {
	case <-f.broken:
		return f.f.Close()
	default:
		return f.db.Close()
	}
}

var errFault = errors.New("a page could not be read, or made no sense")

// guard turns faults and panics of do, which uses bbolt, into errFault. Programming errors
// of ours do not pass through here: neither fn nor yield runs in it.
func guard(do func() error) (err error) {
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if p := recover(); p != nil {
			err = fmt.Errorf("%w (%v)", errFault, p)
		}
	}()
	return do()
}
