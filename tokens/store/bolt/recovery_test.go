package bolt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/bolt"
)

// failingDisk is a disk that fails writes while an error is set.
type failingDisk struct {
	err    atomic.Pointer[error]
	writes atomic.Int64 // commits that were tried
}

func (d *failingDisk) write() error {
	d.writes.Add(1)
	if err := d.err.Load(); err != nil {
		return &fs.PathError{Op: "write", Path: "a.db", Err: *err}
	}
	return nil
}

func (d *failingDisk) fail(err error) { d.err.Store(&err) }
func (d *failingDisk) repair()        { d.err.Store(nil) }

func openOn(t *testing.T, disk *failingDisk) (s *bolt.Store, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "a.db")
	s = open(t, path)
	s.FailCommits(disk.write)
	return s, path
}

// eventually waits until ok returns nil.
func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; <-time.After(time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: got error %v after a minute", what, err)
		}
	}
}

// TestDiskErrorsPass: while commits fail with ENOSPC, EROFS, EDQUOT or EIO,
// updates, claims and Ping return the error, and reads go on. When the disk
// works again, so does the store, with all records that were acknowledged and
// none that was not, also in the file.
func TestDiskErrorsPass(t *testing.T) {
	for _, errno := range []syscall.Errno{
		syscall.ENOSPC, syscall.EROFS, syscall.EDQUOT, syscall.EIO,
	} {
		t.Run(errno.Error(), func(t *testing.T) {
			t.Parallel()
			var disk failingDisk
			s, path := openOn(t, &disk)
			put(t, s, "a", "one")
			disk.fail(errno)
			for range 3 {
				_, claim := s.Claim(t.Context(), "claim", time.Now().Add(time.Hour))
				for what, err := range map[string]error{
					"update": s.Update(t.Context(), "a", replaceWith("two")),
					"claim":  claim,
					"ping":   s.Ping(t.Context()),
				} {
					if !errors.Is(err, errno) || errors.Is(err, store.ErrClosed) {
						t.Errorf("%s: got error %v, want %v", what, err, errno)
					}
				}
				want(t, s, "a", "one")
			}
			disk.repair()
			eventually(t, "ping", func() error { return s.Ping(t.Context()) })
			want(t, s, "a", "one")
			put(t, s, "a", "three")
			first, err := s.Claim(t.Context(), "claim", time.Now().Add(time.Hour))
			if err != nil || !first {
				t.Errorf("claim: got %v, error %v, want true", first, err)
			}
			mustClose(t, s)
			want(t, open(t, path), "a", "three")
		})
	}
}

// TestFullDiskNeedsNoReopening: after ENOSPC the next commit succeeds at once.
func TestFullDiskNeedsNoReopening(t *testing.T) {
	var disk failingDisk
	s, _ := openOn(t, &disk)
	disk.fail(syscall.ENOSPC)
	if err := s.Update(t.Context(), "a", replaceWith("one")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("update: got error %v, want ENOSPC", err)
	}
	disk.repair()
	put(t, s, "a", "one")
}

// TestReopeningUnderLoad: 8 goroutines read and write while the file is opened
// again five times. They get records, the disk's error, or one that is neither
// ErrClosed nor ErrCorrupt. Each acknowledged write is there afterwards.
func TestReopeningUnderLoad(t *testing.T) {
	var disk failingDisk
	s, path := openOn(t, &disk)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	written := make([]string, 8)
	for i := range written {
		key := fmt.Sprint("k", i)
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				value := fmt.Sprint(key, " is ", n)
				err := s.Update(t.Context(), key, replaceWith(value))
				if err == nil {
					written[i] = value
				}
				got, loadErr := s.Load(t.Context(), key)
				if loadErr == nil && err == nil && string(got) != value {
					t.Errorf("load of %s: got %q, want %q", key, got, value)
				}
				for _, err := range []error{err, loadErr} {
					if errors.Is(err, store.ErrClosed) || errors.Is(err, store.ErrCorrupt) {
						t.Errorf("%s: got error %v, want another one", key, err)
					}
				}
			}
		})
	}
	update := func() error { return s.Update(t.Context(), "a", replaceWith("x")) }
	for range 5 {
		disk.fail(syscall.EIO)
		if err := update(); err == nil {
			t.Error("update on a failing disk: got no error")
		}
		disk.repair()
		eventually(t, "update", update)
	}
	cancel()
	all.Wait()
	mustClose(t, s)
	s = open(t, path)
	for i, value := range written {
		got, err := s.Load(t.Context(), fmt.Sprint("k", i))
		if value != "" && (err != nil || string(got) != value) {
			t.Errorf("k%d: got %q, error %v, want %q", i, got, err, value)
		}
	}
}

// TestCloseDuringDiskError: Close returns while the disk fails, and while the
// file is damaged. Afterwards all methods return ErrClosed.
func TestCloseDuringDiskError(t *testing.T) {
	for name, breakIt := range map[string]func(disk *failingDisk, path string) error{
		"I/O error": func(disk *failingDisk, _ string) error { disk.fail(syscall.EIO); return nil },
		"truncated": func(_ *failingDisk, path string) error { return os.Truncate(path, 5000) },
	} {
		if runtime.GOOS == "windows" && name == "truncated" {
			continue // Windows does not let a mapped file be truncated
		}
		var disk failingDisk
		s, path := openOn(t, &disk)
		if err := breakIt(&disk, path); err != nil {
			t.Fatal(err)
		}
		if err := s.Update(t.Context(), "a", replaceWith("one")); err == nil {
			t.Errorf("%s: update: got no error", name)
		}
		if err := s.Close(); err != nil {
			t.Errorf("%s: close: got error %v", name, err)
		}
		_, load := s.Load(t.Context(), "a")
		for what, err := range map[string]error{"load": load, "ping": s.Ping(t.Context())} {
			if !errors.Is(err, store.ErrClosed) {
				t.Errorf("%s, %s: got error %v, want ErrClosed", name, what, err)
			}
		}
	}
}

// TestPingCommitsRarely: 100 pings that follow each other cost a commit or two.
func TestPingCommitsRarely(t *testing.T) {
	var disk failingDisk
	s, _ := openOn(t, &disk)
	began := time.Now()
	for range 100 {
		if err := s.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	n, limit := disk.writes.Load(), 2+int64(time.Since(began)/(5*time.Second))
	if n == 0 || n > limit {
		t.Errorf("commits: got %d, want 1 to %d", n, limit)
	}
}

// TestOverwrittenFileIsOpenedAgain: the file of an open store is truncated,
// overwritten with zeros, or damaged in the middle. It stays unusable and the
// error says why, until a copy of it is written in its place.
func TestOverwrittenFileIsOpenedAgain(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not let a mapped file be truncated")
	}
	file, records := intactFile(t)
	for name, damaged := range map[string][]byte{
		"empty":     {},
		"truncated": file[:len(file)/2],
		"zeros":     make([]byte, len(file)),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.db")
			if err := os.WriteFile(path, file, 0o600); err != nil {
				t.Fatal(err)
			}
			s := open(t, path)
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the error names the damage", func() error {
				if err := s.Ping(t.Context()); !mentions(err, path, store.ErrCorrupt.Error()) {
					return fmt.Errorf("got %w, want one with the path and the damage", err)
				}
				return nil
			})
			if err := os.WriteFile(path, file, 0o600); err != nil {
				t.Fatal(err)
			}
			eventually(t, "ping", func() error { return s.Ping(t.Context()) })
			for key, record := range records {
				want(t, s, key, record)
			}
			put(t, s, "after", "it can be written")
		})
	}
}

// TestReplacedFileIsUsedIfItIsAStore: another file is moved to the path of an
// open store. One that is sealed with the same key is used; one with another
// key, and one that is no store, are not, and the open file stays in use.
func TestReplacedFileIsUsedIfItIsAStore(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not let an open file be replaced")
	}
	key, otherKey := bytes.Repeat([]byte{1}, store.KeySize), bytes.Repeat([]byte{2}, store.KeySize)
	replace := func(t *testing.T, path string, key []byte) {
		t.Helper()
		other := filepath.Join(t.TempDir(), "b.db")
		s := openFile(t, other, key)
		put(t, s, "a", "replaced")
		mustClose(t, s)
		if err := os.Rename(other, path); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "a.db")
	s := openFile(t, path, key)
	put(t, s, "a", "original")
	replace(t, path, otherKey)
	notUsed := func(reason string) {
		t.Helper()
		eventually(t, "the reason is: "+reason, func() error {
			if err := s.Ping(t.Context()); !mentions(err, path, reason) {
				return fmt.Errorf("got %w, want the path and the reason", err)
			}
			return nil
		})
		want(t, s, "a", "original")
		put(t, s, "a", "original")
	}
	notUsed(store.ErrWrongKey.Error())
	if err := os.WriteFile(path+".new", []byte("no store"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	notUsed(store.ErrCorrupt.Error())
	replace(t, path, key)
	eventually(t, "ping", func() error { return s.Ping(t.Context()) })
	want(t, s, "a", "replaced")
	put(t, s, "a", "written")
	mustClose(t, s)
	want(t, openFile(t, path, key), "a", "written")
}

// A file that is removed while it is open, once and again, is written again with
// all records, while 8 goroutines write: each update that succeeded is there
// after the next start. Without that, all updates would be lost with the
// process.
func TestRemovedFileIsWrittenAgain(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an open file cannot be removed on Windows")
	}
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, path)
	s.ExpectRemovedFile(time.Millisecond)
	stop := make(chan struct{})
	var work sync.WaitGroup
	var mu sync.Mutex
	saved := map[string]string{}
	for i := range 8 {
		work.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				key, value := fmt.Sprintf("account/%d/%d", i, n%50), fmt.Sprint(n)
				err := s.Update(t.Context(), key, func(context.Context, []byte) ([]byte, error) {
					return []byte(value), nil
				})
				mu.Lock()
				if err == nil {
					saved[key] = value
				} else {
					delete(saved, key) // it may have been saved
				}
				mu.Unlock()
			}
		})
	}
	for round := range 3 {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		eventually(t, fmt.Sprintf("round %d: the file is there, and can be written", round), func() error {
			return s.Ping(t.Context())
		})
	}
	eventually(t, "100 records are saved", func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(saved) < 100 {
			return fmt.Errorf("got %d", len(saved))
		}
		return nil
	})
	close(stop)
	work.Wait()
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	again := open(t, path)
	for key, want := range saved {
		if got, err := again.Load(t.Context(), key); err != nil || string(got) != want {
			t.Errorf("%s: got %q, error %v, want %q", key, got, err, want)
		}
	}
}

// A store file that was put in the place of the removed one is used.
func TestRemovedFileIsWaitedFor(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an open file cannot be removed on Windows")
	}
	folder := t.TempDir()
	path, other := filepath.Join(folder, "a.db"), filepath.Join(folder, "b.db")
	o := open(t, other)
	if err := o.Update(t.Context(), "k", func(context.Context, []byte) ([]byte, error) {
		return []byte("other"), nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	s := open(t, path)
	s.ExpectRemovedFile(time.Hour)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(t.Context()); err == nil {
		t.Error("Ping without a file: got no error")
	}
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other file is used", func() error {
		got, err := s.Load(t.Context(), "k")
		if err == nil && string(got) != "other" {
			err = fmt.Errorf("got %q", got)
		}
		return err
	})
}
