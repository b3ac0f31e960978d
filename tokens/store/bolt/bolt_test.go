package bolt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/bolt"
	"wxproxy/tokens/store/storetest"
)

func TestBare(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, filepath.Join(t.TempDir(), "a.db")) })
}

func TestSealed(t *testing.T) {
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
	if err := s.Update(t.Context(), key, func(context.Context, []byte) ([]byte, error) { return []byte(record), nil }); err != nil {
		t.Fatal(err)
	}
}

func want(t testing.TB, s store.Store, key, record string) {
	t.Helper()
	if got, err := s.Load(t.Context(), key); err != nil || string(got) != record {
		t.Fatalf("%q: %.80q, %v; want %.80q", key, got, err, record)
	}
}

func closed(t testing.TB, s store.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := openFile(t, path, nil)
	put(t, s, "a", "one")
	closed(t, s)
	before := read(t, path)
	s = openFile(t, path, nil)
	want(t, s, "a", "one")
	closed(t, s)
	if !bytes.Equal(before, read(t, path)) {
		t.Error("opening and closing changed the file")
	}
	wantFiles(t, path, "a.db", "a.db.key")
	for _, name := range []string{path, path + ".key"} {
		if info, err := os.Stat(name); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
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

// wantFiles: no other file is beside the store, such as one that was half made.
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
		t.Errorf("files %q, want %q", got, names)
	}
}

func TestSecretsAreNotInTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := openFile(t, path, nil)
	put(t, s, "account/wx0", "a refresh token")
	closed(t, s)
	if b := read(t, path); bytes.Contains(b, []byte("refresh token")) || !bytes.Contains(b, []byte("account/wx0")) {
		t.Error("the record is in the file as it is, or its key is not")
	}
}

func TestInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := openFile(t, path, nil)
	put(t, s, "a", "one")
	for _, wait := range []time.Duration{time.Millisecond, time.Minute} {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		begin := time.Now()
		_, err := bolt.OpenFile(ctx, path, nil)
		cancel()
		if !errors.Is(err, store.ErrInUse) || !strings.Contains(err.Error(), path) {
			t.Errorf("opened twice: %v", err)
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("it took %v to say so", took)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := bolt.Open(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("opened with an ended context: %v", err)
	}
	want(t, s, "a", "one")
}

// TestOpenedAtOnce: of many first starts one gets the store, and the others hear that it is in use;
// nobody's key or file replaces another's.
func TestOpenedAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	var all sync.WaitGroup
	stores := make(chan store.Store, 8)
	for range cap(stores) {
		all.Go(func() {
			switch s, err := bolt.OpenFile(t.Context(), path, nil); {
			case err == nil:
				stores <- s
			case !errors.Is(err, store.ErrInUse):
				t.Error(err)
			}
		})
	}
	all.Wait()
	close(stores)
	n := 0
	for s := range stores {
		n++
		put(t, s, "a", "one")
		closed(t, s)
	}
	if n != 1 {
		t.Errorf("%d opened it", n)
	}
	want(t, openFile(t, path, nil), "a", "one")
	wantFiles(t, path, "a.db", "a.db.key")
}

func TestPingNoticesTheFileGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := openFile(t, path, nil)
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("the file is gone: %v", err)
	}
	if err := os.WriteFile(path, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(t.Context()); err == nil {
		t.Error("the file was replaced, and nobody says so")
	}
}

func TestKeyTooLong(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "a.db"))
	put(t, s, "a", "one")
	long := strings.Repeat("k", 40_000)
	err := s.Update(t.Context(), long, func(context.Context, []byte) ([]byte, error) { return []byte("x"), nil })
	if err == nil || len(err.Error()) > 200 {
		t.Errorf("a key of 40,000 bytes: %.300v", err)
	}
	if _, err := s.Load(t.Context(), long); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	put(t, s, "b", "two") // it has not spoiled the commits of others
}

// TestParallel has 500 writers share commits while the file grows under as many readers.
func TestParallel(t *testing.T) {
	s := openFile(t, filepath.Join(t.TempDir(), "a.db"), nil)
	record := strings.Repeat("r", 3000)
	put(t, s, "a", "one")
	var all sync.WaitGroup
	for i := range 500 {
		key := fmt.Sprint("k", i)
		all.Go(func() {
			err := s.Update(t.Context(), key, func(context.Context, []byte) ([]byte, error) { return []byte(record), nil })
			if err != nil {
				t.Error(err)
			}
			if got, err := s.Load(t.Context(), key); err != nil || string(got) != record {
				t.Errorf("%q: %.80q, %v", key, got, err)
			}
		})
		all.Go(func() {
			for range 100 {
				if got, err := s.Load(t.Context(), "a"); err != nil || string(got) != "one" {
					t.Errorf("%q, %v", got, err)
					return
				}
			}
		})
	}
	all.Wait()
}
