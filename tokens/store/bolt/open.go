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

// patience is how long Open waits for another process to let go of the file, as one that
// is being restarted does. bbolt would wait for ever.
const patience = time.Second

// OpenFile opens the sealed store in the file path, or makes one. key has [store.KeySize] bytes;
// with none it is in the file path + ".key", made together with the store and never without it.
//
// Errors are those of [Open], [store.LoadOrCreateKey] and [store.Seal].
func OpenFile(ctx context.Context, path string, key []byte) (store.Store, error) {
	exists, err := look(path)
	if err != nil {
		return nil, err
	}
	from := "the one given"
	if len(key) == 0 {
		from = "the one in " + path + ".key"
		// The key first: a store that is cut off here has a key and no file, and begins anew.
		if key, err = store.LoadOrCreateKey(path+".key", !exists); err != nil {
			return nil, err
		}
	}
	s, err := Open(ctx, path)
	if err != nil {
		return nil, err
	}
	sealed, err := store.Seal(ctx, s, key)
	if err != nil {
		if errors.Is(err, store.ErrWrongKey) {
			err = fmt.Errorf("%w than %s", err, from)
		}
		return nil, errors.Join(located(path, err), s.Close())
	}
	return sealed, nil
}

// Open opens the file path, or makes it where it does not exist (its folder must). It waits
// a second at most, and not after ctx, for another process to close it.
//
// The whole file is read and checked before it is used, which takes about a second per GB.
// Errors: store.ErrInUse, store.ErrCorrupt (empty, truncated or damaged, or no store at
// all), or that of the file system, each with the path. No byte of an existing file changes where Open
// fails; where it does not, others lose the right to read the file.
func Open(ctx context.Context, path string) (*Store, error) {
	exists, err := look(path)
	if err != nil {
		return nil, err
	}
	if !exists {
		if err := create(path); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("the store file cannot be made: %w", err)
		}
	}
	until := time.Now().Add(patience)
	// First for reading: that takes a lock, too, and bbolt reads the two first pages only. What
	// it would make of the others, were they damaged, is a crash.
	f, err := openBolt(ctx, path, until, true)
	if err != nil {
		return nil, err
	}
	err = verifyFile(ctx, path)
	if err := errors.Join(err, f.close()); err != nil {
		return nil, located(path, err)
	}
	if f, err = openBolt(ctx, path, until, false); err != nil {
		return nil, err
	}
	info, err := f.f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	// The records are sealed, so this is a second fence: where the file is another's, whose
	// mode we may not change, it has to do without.
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		_ = f.f.Chmod(0o600)
	}
	return newStore(f), nil
}

// look says whether there is a file, and refuses what cannot be one of ours by its looks.
func look(path string) (exists bool, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		folder := filepath.Dir(path)
		if info, err := os.Stat(folder); err != nil || !info.IsDir() {
			return false, fmt.Errorf("the folder %s of the store file does not exist: make it, or put the store elsewhere", folder)
		}
		return false, nil
	case err != nil:
		return false, fmt.Errorf("the store file cannot be opened: %w", err)
	case !info.Mode().IsRegular():
		return false, fmt.Errorf("the store file %s is not a regular file", path)
	case info.Size() == 0:
		// bbolt would make a new store of it, and a disk that was full, or a restore that went
		// wrong, would pass for a first start.
		return false, located(path, damaged("the file is empty; restore it, or move it away to begin anew"))
	}
	return true, nil
}

// create makes an empty store at path. Two processes that start concurrently do
// not replace each other's file: the second gets an error that is fs.ErrExist.
func create(path string) error {
	return durable.Create(path, func(name string) error {
		db, err := bbolt.Open(name, 0o600, &bbolt.Options{Timeout: patience})
		if err != nil {
			return err
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			meta, err := tx.CreateBucket(metaBucket)
			if err != nil {
				return err
			}
			if _, err := tx.CreateBucket(recordsBucket); err != nil {
				return err
			}
			return meta.Put(formatKey, []byte(format))
		})
		return errors.Join(err, db.Close())
	})
}

func openBolt(ctx context.Context, path string, until time.Time, readOnly bool) (*file, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		until = deadline
	}
	var db *bbolt.DB
	var f *os.File
	err := guard(func() (err error) {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout:      max(time.Until(until), time.Millisecond), // 0 would be for ever
			ReadOnly:     readOnly,
			FreelistType: bbolt.FreelistMapType,
			NoStatistics: true,
			// Never a new file: if it went away since we looked, that is an error.
			OpenFile: func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
				f, err = os.OpenFile(name, flag&^os.O_CREATE, mode)
				return f, err
			},
		})
		return err
	})
	switch {
	case err == nil:
		return newFile(db, f)
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, located(path, store.ErrInUse)
	case errors.As(err, new(syscall.Errno)): // the system's, not the file's fault
		return nil, fmt.Errorf("the store file %s cannot be opened: %w", path, err)
	case errors.Is(err, errFault): // bbolt has not let go of the file
		_ = f.Close()
	}
	return nil, located(path, fmt.Errorf("%w: %w", store.ErrCorrupt, err))
}
