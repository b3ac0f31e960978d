package bolt

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"wxproxy/tokens/store"
)

// guardedDB is an open bbolt database whose faults do not end the process.
//
// bbolt reads the file as memory. If the disk cannot deliver a page, or another
// program truncates the open file (copying a backup over it does), the system
// sends a signal that ends the process. guardedDB turns the signal into a panic
// and recovers it. The panic passes through bbolt's code and may leave bbolt's
// locks held, so that the next access could block forever. Therefore the first
// fault is the last access: from then on every access returns the same error.
// The Store then verifies the file and opens it again; see recovery.
type guardedDB struct {
	bolt *bbolt.DB // nil if the file could not be opened again
	f    *os.File  // opened by bbolt, only read here
	path string

	size   atomic.Int64 // largest size seen; the file shrinks only if truncated
	once   sync.Once
	broken chan struct{} // closed by the first fault
	fault  error         // set before broken is closed

	wake func() // called by the first fault; nil while the file is being opened
}

// newBrokenDB returns a database of which every access returns fault. It stands
// for a file that is not open.
func newBrokenDB(path string, fault error) *guardedDB {
	g := &guardedDB{path: path, broken: make(chan struct{})}
	g.markBroken(fault)
	return g
}

// newGuardedDB takes over db and closes it if it returns an error.
func newGuardedDB(db *bbolt.DB, f *os.File) (*guardedDB, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	g := &guardedDB{bolt: db, f: f, path: f.Name(), broken: make(chan struct{})}
	g.size.Store(info.Size())
	return g, nil
}

// access calls do, which uses bbolt, and returns its error. do must not start a
// goroutine that uses bbolt, because that one would not be guarded.
func (g *guardedDB) access(do func() error) error {
	select {
	case <-g.broken:
		return g.fault
	default:
	}
	// Read the known size before Stat: if the file grows in between, it only
	// looks larger than before.
	known := g.size.Load()
	info, err := g.f.Stat()
	switch {
	case errors.Is(err, os.ErrClosed):
		return store.ErrClosed
	case err != nil:
		return err
	case info.Size() < known:
		return g.markBroken(errors.New("the file was truncated while it was open"))
	}
	// Of two concurrent stores the smaller size may win; the next access
	// corrects it.
	g.size.Store(info.Size())
	if err = catchFaults(do); errors.Is(err, errFault) {
		return g.markBroken(err)
	}
	return err
}

// markBroken ends all use of the file and returns the error that every access
// gets from now on. The error is not [store.ErrCorrupt], which concerns one
// record: no record was found to be damaged.
func (g *guardedDB) markBroken(reason error) error {
	g.once.Do(func() {
		g.fault = fmt.Errorf("store file unusable: %v", reason)
		close(g.broken)
		if g.wake != nil {
			g.wake()
		}
	})
	return g.fault
}

func (g *guardedDB) isBroken() bool {
	select {
	case <-g.broken:
		return true
	default:
		return false
	}
}

// closeTimeout is how long close waits for bbolt, whose locks a fault may have
// left held.
const closeTimeout = time.Second

// close closes the file. If it is broken and bbolt does not close it in time,
// close releases the file without bbolt, so that it can be opened again. The
// memory that bbolt has mapped then stays mapped until the process ends.
func (g *guardedDB) close() error {
	if g.bolt == nil {
		return nil
	}
	if !g.isBroken() {
		return g.bolt.Close()
	}
	closed := make(chan error, 1)
	go func() { closed <- catchFaults(g.bolt.Close) }()
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case err := <-closed:
		if err == nil {
			return nil
		}
	case <-timer.C:
	}
	// The mapping keeps the lock although the file is closed.
	return errors.Join(unlockFile(g.f), g.f.Close())
}

var errFault = errors.New("a page could not be read or is invalid")

// catchFaults calls do, which uses bbolt, and turns faults of memory-mapped
// reads and panics into errFault. Callbacks of this package's users never run
// inside do, so their panics are not caught.
func catchFaults(do func() error) (err error) {
	before := debug.SetPanicOnFault(true) // for this goroutine only
	defer func() {
		debug.SetPanicOnFault(before)
		if p := recover(); p != nil {
			err = fmt.Errorf("%w (%v)", errFault, p)
		}
	}()
	return do()
}
