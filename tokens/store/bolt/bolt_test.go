package bolt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/bolt"
	"wxproxy/tokens/store/storetest"
)

func TestStoreContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, filepath.Join(t.TempDir(), "a.db")) })
}

func TestSealedStoreContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return openFile(t, filepath.Join(t.TempDir(), "a.db"), nil) })
}

func open(t testing.TB, path string) *bolt.Store {
	t.Helper()
	s, err := bolt.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func openFile(t testing.TB, path string, key []byte) store.Store {
	t.Helper()
	s, err := bolt.OpenFile(t.Context(), path, key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t testing.TB, s store.Store, key, record string) {
	t.Helper()
	if err := s.Update(t.Context(), key, replaceWith(record)); err != nil {
		t.Fatal(err)
	}
}

func want(t testing.TB, s store.Store, key, record string) {
	t.Helper()
	if got, err := s.Load(t.Context(), key); err != nil || string(got) != record {
		t.Fatalf("load of %q: got %.80q, error %v, want %.80q", key, got, err, record)
	}
}

// mustClose fails the test if Close returns an error.
func mustClose(t testing.TB, s store.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestReopenKeepsRecordsAndFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := openFile(t, path, nil)
	put(t, s, "a", "one")
	mustClose(t, s)
	before := read(t, path)
	s = openFile(t, path, nil)
	want(t, s, "a", "one")
	mustClose(t, s)
	if !bytes.Equal(before, read(t, path)) {
		t.Error("opening and closing changed the file")
	}
	wantFiles(t, path, "a.db", "a.db.key")
	for _, name := range []string{path, path + ".key"} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS != "windows" && info.Mode() != 0o600 {
			t.Errorf("mode of %s: got %v, want 0600", name, info.Mode())
		}
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wantFiles fails unless the folder of path holds exactly these files: no
// temporary file was left behind.
func wantFiles(t *testing.T, path string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(names) {
		t.Errorf("got files %q, want %q", got, names)
	}
}

func TestFileHoldsNoPlaintextRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := openFile(t, path, nil)
	put(t, s, "account/wx0", "a refresh token")
	mustClose(t, s)
	if b := read(t, path); bytes.Contains(b, []byte("refresh token")) || !bytes.Contains(b, []byte("account/wx0")) {
		t.Error("the file contains the plaintext record, or does not contain its key")
	}
}

func TestOpenStoreCannotBeOpenedTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := openFile(t, path, nil)
	put(t, s, "a", "one")
	for _, wait := range []time.Duration{500 * time.Millisecond, 2 * time.Minute} {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		begin := time.Now()
		_, err := bolt.OpenFile(ctx, path, nil)
		expired := ctx.Err() != nil && errors.Is(err, context.DeadlineExceeded)
		if !expired && (!errors.Is(err, store.ErrInUse) || !mentions(err, path)) {
			t.Errorf("second open: got error %v, want ErrInUse with the path", err)
		}
		// It waits for a second at most, whatever the context allows.
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("second open with %v left took %v, want less than 1m", wait, took)
		}
		cancel()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := bolt.Open(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled context: got error %v, want context.Canceled", err)
	}
	want(t, s, "a", "one")
}

// TestConcurrentFirstOpen: of several processes that create the store, one
// opens it and the others get ErrInUse. No key or file replaces another.
func TestConcurrentFirstOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	var opened []store.Store
	// Each waits for a second at most, so on a busy machine all may give up.
	for round := 0; len(opened) == 0 && round < 60; round++ {
		opened = openConcurrently(t, path, 8)
	}
	if len(opened) != 1 {
		t.Fatalf("got %d open stores, want 1", len(opened))
	}
	put(t, opened[0], "a", "one")
	mustClose(t, opened[0])
	want(t, openFile(t, path, nil), "a", "one")
	wantFiles(t, path, "a.db", "a.db.key")
}

// openConcurrently opens path n times at once, and returns the stores of those
// that succeeded. The others must get ErrInUse.
func openConcurrently(t *testing.T, path string, n int) (opened []store.Store) {
	t.Helper()
	var all sync.WaitGroup
	var mu sync.Mutex
	for range n {
		all.Go(func() {
			s, err := bolt.OpenFile(t.Context(), path, nil)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				opened = append(opened, s)
			} else if !errors.Is(err, store.ErrInUse) {
				t.Errorf("open: got error %v, want ErrInUse", err)
			}
		})
	}
	all.Wait()
	return opened
}

func TestPingDetectsRemovedOrReplacedFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not let an open file be renamed")
	}
	path := filepath.Join(t.TempDir(), "a.db")
	s := openFile(t, path, nil)
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(t.Context()); !mentions(err, path) {
		t.Errorf("removed file: got error %v, want one with the path", err)
	}
	if err := os.WriteFile(path, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(t.Context()); err == nil {
		t.Error("replaced file: got no error")
	}
}

func TestTooLongKeyIsRejected(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "a.db"))
	put(t, s, "a", "one")
	long := strings.Repeat("k", 40_000)
	err := s.Update(t.Context(), long, replaceWith("x"))
	if err == nil || len(err.Error()) > 200 {
		t.Errorf("key of 40,000 bytes: got error %.300v, want a short one", err)
	}
	if _, err := s.Load(t.Context(), long); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("load of it: got error %v, want ErrNotFound", err)
	}
	put(t, s, "b", "two") // later commits succeed
}

// TestClaimsAreReclaimed: 20 rounds of 2,000 claims, each of which ends before
// the next round, need no more space than two rounds. Claims of other lengths
// of life, those that were released, and the last round stay claimed.
func TestClaimsAreReclaimed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, path)
	var now atomic.Int64
	s.SetClock(func() time.Time { return time.UnixMilli(now.Load()) })
	claim := func(key string, life time.Duration, want bool) {
		t.Helper()
		until := time.UnixMilli(now.Load()).Add(life)
		if first, err := s.Claim(t.Context(), key, until); err != nil || first != want {
			t.Errorf("claim of %q: got %v, error %v, want %v", key, first, err, want)
		}
	}
	claim("long", 1000*time.Hour, true)
	claim("released", time.Hour, true)
	if err := s.Unclaim(t.Context(), "released"); err != nil {
		t.Fatal(err)
	}
	claim("released", 1000*time.Hour, true)
	var sizes []int64
	for round := range 20 {
		var all sync.WaitGroup
		for i := range 2000 {
			all.Go(func() { claim(fmt.Sprint("push/", round, "/", i), time.Hour, true) })
		}
		all.Wait()
		claim(fmt.Sprint("push/", round, "/7"), time.Hour, false)
		now.Add(2 * time.Hour.Milliseconds())
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, info.Size())
	}
	if last := sizes[len(sizes)-1]; last > 2*sizes[1] {
		t.Errorf("size of the file after each round: got %v, want at most twice that of two rounds", sizes)
	}
	claim("long", time.Hour, false)
	claim("released", time.Hour, false)
	claim("push/19/7", time.Hour, true) // it has ended, whether or not it was removed
	mustClose(t, s)
	s = open(t, path)
	s.SetClock(func() time.Time { return time.UnixMilli(now.Load()) })
	claim("long", time.Hour, false)
	claim("push/19/7", time.Hour, false)
}

// TestTooLongClaimIsRejected: bbolt would reject it in a commit, with the
// writes of others.
func TestTooLongClaimIsRejected(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "a.db"))
	first, err := s.Claim(t.Context(), strings.Repeat("k", 40_000), time.Now().Add(time.Hour))
	if err == nil || first || len(err.Error()) > 200 {
		t.Errorf("claim of 40,000 bytes: got %v, error %.300v, want a short error", first, err)
	}
	put(t, s, "b", "two")
}

// TestConcurrentWritersAndReaders: 500 writers share commits, and the file
// grows while as many goroutines read it.
func TestConcurrentWritersAndReaders(t *testing.T) {
	s := openFile(t, filepath.Join(t.TempDir(), "a.db"), nil)
	record := strings.Repeat("r", 3000)
	put(t, s, "a", "one")
	var all sync.WaitGroup
	for i := range 500 {
		key := fmt.Sprint("k", i)
		all.Go(func() {
			err := s.Update(t.Context(), key, replaceWith(record))
			if err != nil {
				t.Error(err)
			}
			if got, err := s.Load(t.Context(), key); err != nil || string(got) != record {
				t.Errorf("load of %q: got %.80q, error %v", key, got, err)
			}
		})
		all.Go(func() {
			for range 100 {
				if got, err := s.Load(t.Context(), "a"); err != nil || string(got) != "one" {
					t.Errorf("load of a: got %q, error %v, want one", got, err)
					return
				}
			}
		})
	}
	all.Wait()
}

func replaceWith(record string) store.UpdateFunc {
	return func(context.Context, []byte) ([]byte, error) { return []byte(record), nil }
}

func deleteRecord(context.Context, []byte) ([]byte, error) { return nil, nil }

// mentions reports whether err is an error whose text contains all parts.
func mentions(err error, parts ...string) bool {
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			return false
		}
	}
	return err != nil
}
