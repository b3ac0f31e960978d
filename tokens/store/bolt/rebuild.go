package bolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"go.etcd.io/bbolt"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/internal/durable"
)

// rebuildTxSize is how many bytes of records are written in one transaction
// while a file is rebuilt. It bounds the memory.
const rebuildTxSize = 4 << 20

// Compact writes the records of the file path into a new, smaller file, which
// then takes its place in one step. It returns the sizes in bytes before and
// after. Whenever the process is killed, path is either file, and both are
// complete.
//
// The disk needs room for both files. Errors are those of [Open]; nothing was
// changed then.
func Compact(ctx context.Context, path string) (before, after int64, err error) {
	s, err := openExisting(ctx, path)
	if err != nil {
		return 0, 0, err
	}
	defer s.Close()
	src := s.session.Load().db
	before = src.size.Load()
	err = rebuild(ctx, s, path, func(dst *bbolt.DB) error {
		return src.access(func() error { return bbolt.Compact(dst, src.bolt, rebuildTxSize) })
	})
	if err != nil {
		return before, 0, withPath(path, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return before, 0, err
	}
	return before, info.Size(), nil
}

// Import makes the file path hold the records that fill puts, as they are, and
// nothing else. Entries of the queue are among them, see [store.ParseExported].
// The keys must ascend. The file appears, or is replaced, in one
// step when fill has returned nil.
//
// A file that holds records is replaced only if replace is true; otherwise the
// error is [store.ErrNotEmpty]. Other errors are those of [Open] and of fill;
// nothing was changed then.
func Import(
	ctx context.Context, path string, replace bool,
	fill func(put func(key string, record []byte) error) error,
) error {
	write := func(db *bbolt.DB) error { return importRecords(db, fill) }
	exists, err := storeExists(path)
	if err != nil {
		return err
	}
	if !exists {
		// If another process creates the file meanwhile, this returns an error.
		err := durable.Create(path, func(name string) error { return writeFile(ctx, name, write) })
		if errors.Is(err, fs.ErrExist) {
			return withPath(path, store.ErrInUse)
		}
		return err
	}
	s, err := openExisting(ctx, path)
	if err != nil {
		return err
	}
	defer s.Close()
	if !replace {
		if err := store.CheckEmpty(ctx, s); err != nil {
			return withPath(path, err)
		}
	}
	if err := rebuild(ctx, s, path, write); err != nil {
		return withPath(path, err)
	}
	return nil
}

// openExisting is Open for a file that must exist. It removes what earlier
// processes have left behind.
func openExisting(ctx context.Context, path string) (*Store, error) {
	exists, err := storeExists(path)
	if err == nil && !exists {
		err = fmt.Errorf("store file %s does not exist", path)
	}
	if err != nil {
		return nil, err
	}
	s, err := Open(ctx, path)
	if err != nil {
		return nil, err
	}
	if err := durable.RemoveLeftovers(path); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// rebuild replaces the file of s by one that write has written. It holds the
// lock of the old file until then, so that no process uses that one. s is not
// usable afterwards.
func rebuild(ctx context.Context, s *Store, path string, write func(*bbolt.DB) error) error {
	return durable.Replace(path, func(name string) error {
		if err := writeFile(ctx, name, write); err != nil {
			return err
		}
		if runtime.GOOS == "windows" { // where an open file cannot be replaced
			return s.Close()
		}
		return nil
	})
}

// writeFile opens the empty file name, calls write with it, and verifies it.
// The file is on the disk when it returns nil.
func writeFile(ctx context.Context, name string, write func(*bbolt.DB) error) error {
	db, err := bbolt.Open(name, 0o600, &bbolt.Options{
		Timeout: lockTimeout, NoSync: true,
		FreelistType: bbolt.FreelistMapType, NoStatistics: true,
	})
	if err != nil {
		return err
	}
	err = catchFaults(func() error { return write(db) })
	if err == nil {
		err = db.Sync()
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	return verifyFile(ctx, name)
}

// importRecords writes the records and the entries of the queue that fill puts
// into db, which is empty.
func importRecords(
	db *bbolt.DB, fill func(put func(key string, record []byte) error) error,
) error {
	if err := db.Update(createBuckets); err != nil {
		return err
	}
	tx, err := db.Begin(true)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // no effect after a commit
	size := 0
	err = fill(func(key string, record []byte) error {
		if size > rebuildTxSize {
			if err := tx.Commit(); err != nil {
				return err
			}
			if tx, err = db.Begin(true); err != nil {
				return err
			}
			size = 0
		}
		size += len(key) + len(record)
		e, isEntry, err := store.ParseExported(key, record)
		switch {
		case err != nil:
			return err
		case isEntry:
			return importEntry(tx, e)
		}
		b := tx.Bucket(recordsBucket)
		b.FillPercent = 0.9 // the keys ascend, so pages need not be split
		return b.Put([]byte(key), encodeValue([]byte(key), record))
	})
	if err != nil {
		return err
	}
	return tx.Commit()
}
