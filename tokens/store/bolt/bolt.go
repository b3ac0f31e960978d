// Package bolt keeps records in one file of this machine, with bbolt: for a single
// wxproxy, with no database to run beside it. [OpenFile] is what a program wants, [Open]
// the bare store without encryption.
//
// What it adds to bbolt: a file is looked through before bbolt gets it, so that a damaged one
// is a sentence and not a crash; each record carries a checksum; updates that come
// together share one commit.
package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"wxproxy/tokens/store"
)

// The file's buckets. bbolt keeps them in the order of their names, and the format has to be
// known before a record is looked at: "meta" comes before "records".
var (
	metaBucket    = []byte("meta")
	formatKey     = []byte("format")
	recordsBucket = []byte("records")
)

// format is that of what lies in the buckets; bbolt has one of its own for its pages.
const format = "1"

// Store is an open file. It is safe for concurrent use.
type Store struct {
	file    *file
	locks   *store.KeyLocks
	commits *committer
	close   func() error
}

var _ store.Store = (*Store)(nil)

func newStore(f *file) *Store {
	s := &Store{file: f, locks: store.NewKeyLocks(), commits: newCommitter(f)}
	s.close = sync.OnceValue(func() error {
		err := s.locks.Close()
		s.commits.stop()
		return errors.Join(err, f.close())
	})
	return s
}

// Load implements [store.Store].
func (s *Store) Load(ctx context.Context, key string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	record, err := s.read(key)
	if err == nil && record == nil {
		err = store.ErrNotFound
	}
	return record, err
}

// Update implements [store.Store]; see [store.KeyLocks.Update] for the context that fn gets.
// Once fn has returned, the end of ctx is of no account: whether a record was saved must be known.
func (s *Store) Update(ctx context.Context, key string, fn func(ctx context.Context, old []byte) ([]byte, error)) error {
	if len(key) > bbolt.MaxKeySize {
		return fmt.Errorf("a record's key has %d bytes, more than %d", len(key), bbolt.MaxKeySize)
	}
	return s.locks.Update(ctx, key, (*medium)(s), fn)
}

func (s *Store) read(key string) (record []byte, err error) {
	err = s.view(func(b *bbolt.Bucket) error {
		record, err = unpack([]byte(key), b.Get([]byte(key)))
		return err
	})
	return record, err
}

// write returns nil when the record is on the disk.
func (s *Store) write(key string, record []byte) error {
	w := &write{key: []byte(key), done: make(chan error, 1)}
	if record != nil {
		w.value = pack(w.key, record)
	}
	return s.fault(s.commits.commit(w))
}

// medium is the Store as its locks see it: without locks.
type medium Store

func (m *medium) Read(key string) ([]byte, error)       { return (*Store)(m).read(key) }
func (m *medium) Write(key string, record []byte) error { return (*Store)(m).write(key, record) }

// page is how many records one read transaction gives to List. While it is open bbolt cannot
// use again what writers free, and the file grows.
const page = 1000

// List implements [store.Store]. It reads up to 1,000 records at a time, and yield runs with no
// transaction open; what is written meanwhile behind the last page is seen, before it is not.
func (s *Store) List(ctx context.Context, prefix, after string, yield func(key string, record []byte) bool) error {
	type entry struct {
		key    string
		record []byte
	}
	entries := make([]entry, 0, 64)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		entries = entries[:0]
		var damage error
		err := s.view(func(b *bbolt.Bucket) error {
			c := b.Cursor()
			k, v := c.Seek([]byte(max(prefix, after)))
			if k != nil && string(k) == after {
				k, v = c.Next()
			}
			for ; k != nil && bytes.HasPrefix(k, []byte(prefix)) && len(entries) < page; k, v = c.Next() {
				var record []byte
				if record, damage = unpack(k, v); damage != nil {
					return nil
				}
				entries = append(entries, entry{string(k), record})
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !yield(e.key, e.record) {
				return nil
			}
		}
		if damage != nil { // the good ones before it were yielded
			return s.fault(damage)
		}
		if len(entries) < page {
			return nil
		}
		after = entries[page-1].key
	}
}

// Ping implements [store.Store]. It fails as well when a failing disk has put an end to writing, and when
// the file was removed or replaced under the running store, whose writes would then be gone with the process.
func (s *Store) Ping(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.view(func(*bbolt.Bucket) error { return nil }); err != nil {
		return err
	}
	if failed := s.commits.failed.Load(); failed != nil {
		return s.fault(*failed)
	}
	open, err := s.file.f.Stat()
	if err != nil {
		return s.fault(err)
	}
	if named, err := os.Stat(s.file.at); err != nil || !os.SameFile(named, open) {
		return fmt.Errorf("the store file %s is not there any more, or another was put in its place", s.file.at)
	}
	return nil
}

// Close implements [store.Store]; see [store.KeyLocks.Close] for how long it waits.
func (s *Store) Close() error { return s.close() }

// view reads the records in a short transaction.
func (s *Store) view(read func(*bbolt.Bucket) error) error {
	return s.fault(s.file.access(func() error {
		return s.file.db.View(func(tx *bbolt.Tx) error { return read(tx.Bucket(recordsBucket)) })
	}))
}

// fault is the one place where an error of bbolt becomes one of ours.
func (s *Store) fault(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolterrors.ErrDatabaseNotOpen), errors.Is(err, os.ErrClosed), errors.Is(err, store.ErrClosed):
		return store.ErrClosed
	}
	return located(s.file.at, err)
}

// located says in which file it was, unless err does already.
func located(path string, err error) error {
	if errors.As(err, new(*fs.PathError)) || errors.As(err, new(*atFile)) {
		return err
	}
	return &atFile{path, err}
}

type atFile struct {
	path string
	err  error
}

func (e *atFile) Error() string { return e.path + ": " + e.err.Error() }
func (e *atFile) Unwrap() error { return e.err }
