// Package bolt implements a store in one local file with bbolt, for a single
// wxproxy process. It needs no database server. Use [OpenFile], which encrypts
// the records; [Open] returns the store without encryption.
//
// It adds three things to bbolt:
//
//   - A file is verified before bbolt opens it, and bbolt's memory-mapped reads
//     are guarded. A damaged file gives an error instead of a crash.
//   - Each record has a checksum. A flipped bit is never returned as a token.
//   - Concurrent updates share one commit, and so one sync of the disk.
//
// # Operating systems
//
// The package works on Linux, macOS, FreeBSD and Windows:
//
//   - One process: bbolt locks the file, with flock on Unix systems and
//     LockFileEx on Windows. The lock ends with the process. Do not put the
//     file on a network file system, where such locks are unreliable.
//   - Permissions: the file has mode 0600 on Unix systems. On Windows it
//     inherits the permissions of its folder.
//   - Durability: each commit is synced, on macOS with F_FULLFSYNC. A new
//     file's folder is synced too, except on Windows, which has no such
//     operation.
//   - Changes by other programs: Unix systems allow the open file to be
//     replaced or truncated, which Ping and the guard detect. Windows forbids
//     both.
//   - Disk errors: Windows reports those after which the file is opened again
//     on Unix systems (EIO) with other codes; see committer.save.
package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"wxproxy/internal/clock"
	"wxproxy/tokens/store"
)

// The file's buckets. bbolt sorts them by name, and the verifier has to know
// the format before it reads a record: "meta" precedes "records".
var (
	metaBucket    = []byte("meta")
	formatKey     = []byte("format")
	recordsBucket = []byte("records")
)

// format is the version of the content of the buckets. bbolt has a version of
// its own for its pages. oldestFormat is the first version that can be read: it
// differs in the names of the records only, see package namespace.
const (
	format       = "2"
	oldestFormat = "1"
)

// Store is an open file. It is safe for concurrent use.
//
// After a disk error, or if the file was damaged or replaced while it was open,
// it verifies the file and opens it again; see recovery.
type Store struct {
	path     string
	session  atomic.Pointer[session] // replaced when the file is opened again
	locks    *store.KeyLocks
	queue    queue
	recovery recovery
	closed   atomic.Bool // set when Close has waited for the updates in flight
	close    func() error

	now  func() time.Time // when claims end; tests replace it
	disk func() error     // fails commits in tests; nil otherwise
}

// session is the file from one opening to the next. Its committer ends with it:
// a fault may leave it blocked in bbolt's locks.
type session struct {
	db      *guardedDB
	commits *committer
}

var (
	_ store.Store    = (*Store)(nil)
	_ store.Upgrader = (*Store)(nil)
)

// newStore takes over db. accept may be nil; see recovery.accept.
func newStore(db *guardedDB, accept func(ctx context.Context, s store.Store) error) *Store {
	s := &Store{path: db.path, locks: store.NewKeyLocks(), now: clock.Now}
	if faultFile != "" {
		s.disk = fileFault
	}
	s.queue.s = s
	s.recovery.init(s, accept)
	s.begin(db)
	s.close = sync.OnceValue(func() error {
		// In this order: the last updates still need the committer.
		err := s.locks.Close()
		s.closed.Store(true)
		s.recovery.stop()
		return errors.Join(err, s.session.Load().end())
	})
	return s
}

// begin makes db the open database. Its session writes until it is ended.
func (s *Store) begin(db *guardedDB) {
	clock := func() time.Time { return s.now() }
	disk := func() error {
		if s.disk == nil {
			return nil
		}
		return s.disk()
	}
	n := &session{db: db, commits: newCommitter(db, clock, disk)}
	db.wake = s.recovery.wake
	s.session.Store(n)
	go n.commits.run()
}

// end stops the committer and closes the file.
func (n *session) end() error {
	n.commits.stop()
	return n.db.close()
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

// Update implements [store.Store]; see [store.KeyLocks.Update] for the context
// of fn. Once fn has returned, Update ignores the end of ctx: the caller must
// know whether its record was saved.
func (s *Store) Update(ctx context.Context, key string, fn store.UpdateFunc) error {
	// bbolt would reject the key in the commit, together with the records of
	// other updates.
	if len(key) > bbolt.MaxKeySize {
		return fmt.Errorf("record key too long: got %d bytes, limit %d", len(key), bbolt.MaxKeySize)
	}
	return s.locks.Update(ctx, key, (*backend)(s), fn)
}

// read returns a copy of the record, or nil if there is none.
func (s *Store) read(key string) (record []byte, err error) {
	err = s.view(func(b *bbolt.Bucket) error {
		record, err = decodeValue([]byte(key), b.Get([]byte(key)))
		return err
	})
	return record, err
}

// write returns nil once the record is on the disk.
func (s *Store) write(key string, record []byte) error {
	// No context: the caller must know whether its record was saved.
	return s.commit(context.Background(), newWrite(func(tx *bbolt.Tx) error {
		k, b := []byte(key), tx.Bucket(recordsBucket)
		if record == nil {
			return b.Delete(k)
		}
		return b.Put(k, encodeValue(k, record))
	}))
}

// commit returns nil once w is on the disk; see [committer.commit].
func (s *Store) commit(ctx context.Context, w *pendingWrite) error {
	return s.convertError(s.session.Load().commits.commit(ctx, w))
}

// Upgrade implements [store.Upgrader].
func (s *Store) Upgrade(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	upgraded := false
	err := s.viewTx(func(tx *bbolt.Tx) error {
		upgraded = string(tx.Bucket(metaBucket).Get(formatKey)) == format
		return nil
	})
	if err != nil || upgraded {
		return err
	}
	return s.commit(ctx, newWrite(func(tx *bbolt.Tx) error {
		return tx.Bucket(metaBucket).Put(formatKey, []byte(format))
	}))
}

// quarantine moves a record to [store.DamagedPrefix], in one commit. The new
// record is the old value as it is in the file, with its checksum.
func (s *Store) quarantine(key string) error {
	moved := []byte(store.DamagedPrefix + key)
	if len(moved) > bbolt.MaxKeySize {
		return fmt.Errorf("%w: key too long to be moved: got %d bytes, limit %d", store.ErrCorrupt,
			len(moved), bbolt.MaxKeySize)
	}
	return s.commit(context.Background(), newWrite(func(tx *bbolt.Tx) error {
		k, b := []byte(key), tx.Bucket(recordsBucket)
		value := b.Get(k)
		if value == nil {
			return nil
		}
		if err := b.Put(moved, encodeValue(moved, value)); err != nil {
			return err
		}
		return b.Delete(k)
	}))
}

// backend is the Store without its locks, as [store.KeyLocks] uses it.
type backend Store

func (b *backend) Read(key string) ([]byte, error)       { return (*Store)(b).read(key) }
func (b *backend) Write(key string, record []byte) error { return (*Store)(b).write(key, record) }
func (b *backend) Quarantine(key string) error           { return (*Store)(b).quarantine(key) }

// listPageSize is how many records List reads in one transaction. While a read
// transaction is open, bbolt cannot reuse the pages that writers free, and the
// file grows.
const listPageSize = 1000

// listEntry is a record that was read, but not yielded yet.
type listEntry struct {
	key    string
	record []byte // nil if it is damaged
}

// List implements [store.Store]. It reads up to 1,000 records at a time and
// calls yield with no transaction open. A record that is written meanwhile is
// included if it belongs after the page that was read last.
func (s *Store) List(
	ctx context.Context, prefix, after string, yield func(key string, record []byte) bool,
) error {
	var page []listEntry
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if page, err = s.readPage(page[:0], prefix, after); err != nil {
			return err
		}
		for _, e := range page {
			if !yield(e.key, e.record) {
				return nil
			}
		}
		if len(page) < listPageSize {
			return nil
		}
		after = page[len(page)-1].key
	}
}

// readPage appends the next records to page.
func (s *Store) readPage(page []listEntry, prefix, after string) ([]listEntry, error) {
	err := s.view(func(b *bbolt.Bucket) error {
		c := b.Cursor()
		k, v := c.Seek([]byte(max(prefix, after)))
		if k != nil && string(k) == after {
			k, v = c.Next()
		}
		inRange := func() bool { return k != nil && bytes.HasPrefix(k, []byte(prefix)) }
		for ; inRange() && len(page) < listPageSize; k, v = c.Next() {
			record, _ := decodeValue(k, v) // nil if it is damaged
			page = append(page, listEntry{string(k), record})
		}
		return nil
	})
	return page, err
}

// pingKey is the key in the bucket meta that Ping writes: the time of the last
// Ping that wrote, in Unix milliseconds. Earlier versions ignore it.
var pingKey = []byte("ping")

// pingPause is how long a successful commit proves that the file can be
// written. A probe every second costs one small commit in five seconds.
const pingPause = 5 * time.Second

// Ping implements [store.Store]. It makes a small commit, because only a commit
// shows whether the disk is full, read-only or broken. It makes none if another
// commit succeeded within five seconds.
//
// It also fails if the file was removed or replaced while the store is open:
// its writes would be lost when the process ends. If the new file is a store
// with the same key, it is used from then on.
func (s *Store) Ping(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.view(func(*bbolt.Bucket) error { return nil }); err != nil {
		return err
	}
	n := s.session.Load()
	if err := s.checkPath(n.db); err != nil {
		return err
	}
	if n.commits.succeededWithin(pingPause) {
		return nil
	}
	return s.commit(ctx, newWrite(func(tx *bbolt.Tx) error {
		at := strconv.FormatInt(time.Now().UnixMilli(), 10)
		return tx.Bucket(metaBucket).Put(pingKey, []byte(at))
	}))
}

// checkPath returns an error if the path does not name the open file db, and
// starts the recovery: it opens another file that is there, and writes one that
// was removed again.
func (s *Store) checkPath(db *guardedDB) error {
	open, err := db.f.Stat()
	if err != nil {
		return s.convertError(err)
	}
	named, err := os.Stat(s.path)
	if err == nil && os.SameFile(named, open) {
		return nil
	}
	s.recovery.wake()
	if err != nil {
		return fmt.Errorf("store file %s was removed while it is open", s.path)
	}
	reason := ""
	if err := s.recovery.rejected.Load(); err != nil && *err != nil {
		reason = fmt.Sprintf(", and the new file cannot be used: %v", *err)
	}
	return fmt.Errorf("store file %s was replaced while it is open%s", s.path, reason)
}

// Close implements [store.Store]; see [store.KeyLocks.Close] for how long it
// waits.
func (s *Store) Close() error { return s.close() }

// view calls read with the records, in a short transaction.
func (s *Store) view(read func(*bbolt.Bucket) error) error {
	return s.viewTx(func(tx *bbolt.Tx) error { return read(tx.Bucket(recordsBucket)) })
}

// viewTx calls read in a short transaction.
func (s *Store) viewTx(read func(*bbolt.Tx) error) error {
	return s.viewIn(s.session.Load(), read)
}

// viewIn is viewTx in a certain session.
func (s *Store) viewIn(n *session, read func(*bbolt.Tx) error) error {
	return s.convertError(n.db.access(func() error { return n.db.bolt.View(read) }))
}

// errReopening is returned while the file is closed in order to open it again.
var errReopening = errors.New("it is being verified and opened again")

// convertError turns an error of bbolt or the system into one of the store. It
// is the only place that does.
func (s *Store) convertError(err error) error {
	switch {
	case err == nil:
		return nil
	case s.closed.Load():
		return store.ErrClosed
	case errors.Is(err, bolterrors.ErrDatabaseNotOpen), errors.Is(err, os.ErrClosed),
		errors.Is(err, store.ErrClosed):
		err = errReopening
	}
	return withPath(s.path, err)
}

// withPath adds the file's path to err, unless err contains it already.
func withPath(path string, err error) error {
	if errors.As(err, new(*fs.PathError)) || errors.As(err, new(*pathError)) {
		return err
	}
	return &pathError{path, err}
}

// pathError is err with the path of the store file. fs.PathError would add the
// name of an operation.
type pathError struct {
	path string
	err  error
}

func (e *pathError) Error() string { return e.path + ": " + e.err.Error() }
func (e *pathError) Unwrap() error { return e.err }
