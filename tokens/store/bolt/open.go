package bolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/internal/durable"
)

// lockTimeout is how long Open waits for another process to release the file. A
// wxproxy that is being restarted does so within a second. bbolt would wait
// forever.
const lockTimeout = time.Second

// OpenFile opens the sealed store in the file path, or creates one. key has
// [store.KeySize] bytes. If key is empty, it is kept in the file path + ".key",
// which is created together with the store and never for an existing one.
//
// previous are keys that only open records, see [store.Seal].
//
// It returns the errors of [Open], [store.LoadOrCreateKey] and [store.Seal].
func OpenFile(
	ctx context.Context, path string, key []byte, previous ...[]byte,
) (store.Store, error) {
	exists, err := storeExists(path)
	if err != nil {
		return nil, err
	}
	keySource := "the one given"
	if len(key) == 0 {
		keySource = "the one in " + path + ".key"
		// Create the key first: if the process is killed here, the next start
		// finds a key without a store, which is harmless.
		if key, err = store.LoadOrCreateKey(path+".key", !exists); err != nil {
			return nil, err
		}
	}
	s, err := open(ctx, path, func(ctx context.Context, s store.Store) error {
		_, err := store.Seal(ctx, s, key, previous...)
		return err
	})
	if err != nil {
		return nil, err
	}
	sealed, err := store.Seal(ctx, s, key, previous...)
	if err != nil {
		if errors.Is(err, store.ErrWrongKey) {
			err = fmt.Errorf("%w than %s", err, keySource)
		}
		return nil, errors.Join(withPath(path, err), s.Close())
	}
	return sealed, nil
}

// Open opens the file path, or creates it if it does not exist; its folder must
// exist. Open waits at most one second, and not longer than ctx, for another
// process to close the file.
//
// The whole file is read and verified before it is used, which takes about a
// second per GB.
//
// Errors contain the path. They wrap [store.ErrInUse]; [store.ErrCorrupt] if
// the file is empty, truncated, damaged or not a store; or the error of the
// system. Unless Open succeeds, it changes no byte of an existing file. If it
// does, it makes the file readable for its owner alone.
func Open(ctx context.Context, path string) (*Store, error) { return open(ctx, path, nil) }

// open is Open with a check for files that are opened later; see
// recovery.accept.
func open(
	ctx context.Context, path string, accept func(ctx context.Context, s store.Store) error,
) (*Store, error) {
	exists, err := storeExists(path)
	if err != nil {
		return nil, err
	}
	if !exists {
		// fs.ErrExist: another process has created the store meanwhile.
		if err := create(path); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("creating store file: %w", err)
		}
	}
	db, err := openVerified(ctx, path)
	if err != nil {
		return nil, err
	}
	return newStore(db, accept), nil
}

// OpenReadOnly opens an existing file for reading, as it is: nothing is written,
// and updates fail. Its errors are those of [Open].
func OpenReadOnly(ctx context.Context, path string) (*Store, error) {
	exists, err := storeExists(path)
	if err != nil {
		return nil, err
	}
	if !exists {
		return nil, fmt.Errorf("store file %s does not exist", path)
	}
	db, err := openDB(ctx, path, time.Now().Add(lockTimeout), true)
	if err != nil {
		return nil, err
	}
	if err := verifyFile(ctx, path); err != nil {
		return nil, withPath(path, errors.Join(err, db.close()))
	}
	s := newStore(db, nil)
	db.wake = nil // a fault must not open the file for writing
	return s, nil
}

// openVerified verifies an existing file and opens it.
func openVerified(ctx context.Context, path string) (*guardedDB, error) {
	deadline := time.Now().Add(lockTimeout)
	// Open it for reading first. That takes the lock, too, and reads only the
	// first two pages. If other pages were damaged, opening for writing would
	// crash, so they are verified in between.
	db, err := openDB(ctx, path, deadline, true)
	if err != nil {
		return nil, err
	}
	err = verifyFile(ctx, path)
	if err := errors.Join(err, db.close()); err != nil {
		return nil, withPath(path, err)
	}
	if db, err = openDB(ctx, path, deadline, false); err != nil {
		return nil, err
	}
	info, err := db.f.Stat()
	if err != nil {
		return nil, errors.Join(err, db.close())
	}
	// The records are encrypted, so the mode is a second line of defense. If
	// the file belongs to another user, the mode cannot be changed, and stays.
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		_ = db.f.Chmod(0o600)
	}
	return db, nil
}

// storeExists reports whether path exists. It returns an error if what is there
// cannot be a store, or if no store can be created there.
func storeExists(path string) (bool, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		folder := filepath.Dir(path)
		if info, err := os.Stat(folder); err != nil || !info.IsDir() {
			return false, fmt.Errorf("folder %s of the store file does not exist: "+
				"create it, or put the store elsewhere", folder)
		}
		return false, nil
	case err != nil:
		return false, fmt.Errorf("opening store file: %w", err)
	case !info.Mode().IsRegular():
		return false, fmt.Errorf("store file %s is not a regular file", path)
	case info.Size() == 0:
		// bbolt would turn it into a new store. Then a full disk or a failed
		// restore would look like a first start.
		return false, withPath(path, corrupt("the file is empty: restore it, or move it away to start over"))
	}
	return true, nil
}

// create makes an empty store at path. If two processes do so concurrently, one
// of them gets an error that is fs.ErrExist.
func create(path string) error {
	return durable.Create(path, func(name string) error {
		db, err := bbolt.Open(name, 0o600, &bbolt.Options{Timeout: lockTimeout})
		if err != nil {
			return err
		}
		return errors.Join(db.Update(createBuckets), db.Close())
	})
}

// createBuckets makes a new bbolt file an empty store.
func createBuckets(tx *bbolt.Tx) error {
	meta, err := tx.CreateBucket(metaBucket)
	if err != nil {
		return err
	}
	if _, err := tx.CreateBucket(recordsBucket); err != nil {
		return err
	}
	return meta.Put(formatKey, []byte(format))
}

// openedDB returns db, unless its file was replaced while this process waited
// for it. It closes db if it returns an error.
func openedDB(db *bbolt.DB, f *os.File) (*guardedDB, error) {
	g, err := newGuardedDB(db, f)
	if err != nil {
		return nil, err
	}
	replaced, err := g.isReplaced()
	if err == nil && replaced {
		err = withPath(g.path, store.ErrInUse)
	}
	if err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

// openDB opens an existing file with bbolt. It waits for the file's lock until
// deadline or until the deadline of ctx, whichever comes first.
func openDB(
	ctx context.Context, path string, deadline time.Time, readOnly bool,
) (*guardedDB, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	var db *bbolt.DB
	var f *os.File
	err := catchFaults(func() (err error) {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout:      max(time.Until(deadline), time.Millisecond), // 0 waits forever
			ReadOnly:     readOnly,
			FreelistType: bbolt.FreelistMapType,
			NoStatistics: true,
			// Never create a file: if it was removed after storeExists, that is
			// an error.
			OpenFile: func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
				f, err = os.OpenFile(name, flag&^os.O_CREATE, mode)
				return f, err
			},
		})
		return err
	})
	switch {
	case err == nil:
		return openedDB(db, f)
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, withPath(path, store.ErrInUse)
	case errors.As(err, new(syscall.Errno)): // the system failed, the file may be good
		return nil, fmt.Errorf("opening store file %s: %w", path, err)
	case errors.Is(err, errFault): // bbolt was interrupted before it closed the file
		_ = f.Close()
	}
	return nil, withPath(path, fmt.Errorf("%w: %w", store.ErrCorrupt, err))
}
