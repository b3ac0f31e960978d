package bolt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/bolt"
)

// intactFile makes a store without encryption. Its tree has branches, free
// pages and a record that overflows its page. It returns the file and the
// records.
func intactFile(t testing.TB) (file []byte, records map[string]string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, path)
	records = map[string]string{}
	for i := range 30 {
		key := fmt.Sprintf("account/wx%016d", i)
		records[key] = strings.Repeat(fmt.Sprint("record ", i, " "), 50)
		put(t, s, key, records[key])
	}
	records["big"] = strings.Repeat("overflow ", 1000)
	put(t, s, "big", records["big"])
	put(t, s, "deleted", records["big"])
	err := s.Update(t.Context(), "deleted", deleteRecord)
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	return read(t, path), records
}

// opens writes file to path and opens it. It returns false if Open returned
// ErrCorrupt and left the file unchanged. It returns true if the store holds
// records, or what they were before the last commit. A record may be damaged if
// it is reported as such, and can be replaced. Everything else fails the test.
func opens(t *testing.T, path string, file []byte, records map[string]string) (ok bool) {
	t.Helper()
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := bolt.Open(t.Context(), path)
	if err != nil {
		// The damaged bytes may be the number of the format.
		if !errors.Is(err, store.ErrCorrupt) && !strings.Contains(err.Error(), "a newer wxproxy wrote it") {
			t.Fatalf("Open: got error %v, want ErrCorrupt", err)
		}
		if !bytes.Equal(file, read(t, path)) {
			t.Fatal("Open changed a file that it rejected")
		}
		return false
	}
	defer s.Close()
	n := 0
	var damaged []string
	err = s.List(t.Context(), "", "", func(key string, record []byte) bool {
		if key == "deleted" { // by the last commit, which a lost meta page undoes
			return true
		}
		n++
		if record == nil {
			damaged = append(damaged, key)
		} else if string(record) != records[key] {
			t.Errorf("record %q: got %.80q, want %.80q", key, record, records[key])
		}
		return true
	})
	if t.Failed() || err != nil || n != len(records) {
		t.Fatalf("got %d records, error %v, want %d", n, err, len(records))
	}
	put(t, s, "after", "it can be written")
	for _, key := range damaged {
		_, load := s.Load(t.Context(), key)
		update := s.Update(t.Context(), key, replaceWith("x"))
		if !errors.Is(load, store.ErrDamaged) || !errors.Is(update, store.ErrDamaged) {
			t.Fatalf("%q: got error %v from Load and %v from Update, want ErrDamaged",
				key, load, update)
		}
		put(t, s, key, "it can be replaced")
		if _, err := s.Load(t.Context(), store.DamagedPrefix+key); err != nil {
			t.Fatalf("%q: got error %v for the moved record", key, err)
		}
	}
	return true
}

func TestTruncatedFileIsDetected(t *testing.T) {
	file, records := intactFile(t)
	path := filepath.Join(t.TempDir(), "a.db")
	if !opens(t, path, file, records) {
		t.Fatal("the intact file was rejected")
	}
	rejected := 0
	sizes := []int{1, 15, 16, 79, 80, 81, 1024, 4095, 4096, 4097, 4176, 8191, 8192, len(file) - 1}
	for size := 12288; size < len(file); size += 4096 {
		sizes = append(sizes, size, size+1+rand.N(4094))
	}
	for _, size := range sizes {
		if !opens(t, path, file[:size], records) {
			rejected++
		}
	}
	if rejected < 20 {
		t.Errorf("got %d of %d truncated files rejected, want at least 20", rejected, len(sizes))
	}
}

// TestBitFlipIsNeverReturned flips single bits all over the file. None of them
// crashes the process, and none is returned as part of a record.
func TestBitFlipIsNeverReturned(t *testing.T) {
	file, records := intactFile(t)
	path := filepath.Join(t.TempDir(), "a.db")
	pageSize := os.Getpagesize()
	rejected, tries := 0, 0
	flip := func(at int) {
		tries++
		file[at] ^= 1 << rand.N(8)
		before := bytes.Clone(file)
		if !opens(t, path, before, records) {
			rejected++
		}
		if t.Failed() {
			t.Fatalf("after a flip in byte %d of page %d", at%pageSize, at/pageSize)
		}
	}
	clean := bytes.Clone(file)
	for page := 0; page < len(file); page += pageSize {
		for range 12 { // the header and the elements are at the beginning
			flip(page + rand.N(120))
			copy(file, clean)
		}
		for range 6 {
			flip(page + rand.N(pageSize))
			copy(file, clean)
		}
	}
	t.Logf("%d of %d flips were rejected", rejected, tries)
	if rejected < tries/10 {
		t.Errorf("got %d of %d flips rejected, want a tenth", rejected, tries)
	}
}

// TestWrongEntryCountIsDetected flips each bit of each page's number of
// entries. Undetected, that would make records disappear.
func TestWrongEntryCountIsDetected(t *testing.T) {
	file, records := intactFile(t)
	path := filepath.Join(t.TempDir(), "a.db")
	pageSize := os.Getpagesize()
	for at := 2*pageSize + 10; at < len(file); at += pageSize {
		for bit := range 16 {
			changed := bytes.Clone(file)
			changed[at+bit/8] ^= 1 << (bit % 8)
			opens(t, path, changed, records)
			if t.Failed() {
				t.Fatalf("with bit %d of the count of page %d", bit, at/pageSize)
			}
		}
	}
}

// TestEmptiedStoreIsIntact deletes all records of small and larger stores.
func TestEmptiedStoreIsIntact(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	for _, n := range []int{1, 3, 300} {
		s := open(t, path)
		for i := range n {
			put(t, s, fmt.Sprint("k", i), strings.Repeat("x", 10+i*5))
		}
		for i := range n {
			err := s.Update(t.Context(), fmt.Sprint("k", i), deleteRecord)
			if err != nil {
				t.Fatal(err)
			}
		}
		mustClose(t, s)
		mustClose(t, open(t, path))
	}
}

// TestOneLostMetaPageIsTolerated: bbolt survives a power failure by keeping two
// meta pages. Losing both is an error.
func TestOneLostMetaPageIsTolerated(t *testing.T) {
	file, records := intactFile(t)
	path := filepath.Join(t.TempDir(), "a.db")
	pageSize := os.Getpagesize()
	for _, at := range []int{0, pageSize} {
		one := bytes.Clone(file)
		clear(one[at : at+pageSize])
		if !opens(t, path, one, records) {
			t.Errorf("rejected with the meta page at %d lost", at)
		}
	}
	clear(file[:2*pageSize])
	if opens(t, path, file, records) {
		t.Error("opened with both meta pages lost")
	}
}

// TestFileOverwrittenWhileOpen truncates or overwrites the file of an open
// store. Unguarded, reading a missing page would be a signal that ends the
// process, and reading an invalid one a panic that leaves bbolt locked. Both
// must be errors, and Close must return.
func TestFileOverwrittenWhileOpen(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not let a mapped file be truncated")
	}
	file, _ := intactFile(t)
	for name, overwrite := range map[string]func(path string) error{
		"truncated": func(path string) error { return os.Truncate(path, 0) },
		"half":      func(path string) error { return os.Truncate(path, int64(len(file))/2) },
		"zeros": func(path string) error {
			return errors.Join(os.Truncate(path, 0), os.Truncate(path, int64(len(file))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.db")
			if err := os.WriteFile(path, file, 0o600); err != nil {
				t.Fatal(err)
			}
			s := open(t, path)
			if err := overwrite(path); err != nil {
				t.Fatal(err)
			}
			update := func() error {
				return s.Update(t.Context(), "big", replaceWith("x"))
			}
			_, load := s.Load(t.Context(), "big")
			for name, err := range map[string]error{
				"load":   load,
				"list":   s.List(t.Context(), "", "", func(string, []byte) bool { return true }),
				"update": update(),
				"again":  update(),
				"ping":   s.Ping(t.Context()),
			} {
				// ErrCorrupt would mean that a record is damaged.
				if err == nil || errors.Is(err, store.ErrCorrupt) || !mentions(err, path) {
					t.Errorf("%s: got error %v, want another one than ErrCorrupt", name, err)
				}
			}
			mustClose(t, s)
		})
	}
}

// TestFaultReachesWaitingUpdates: updates that wait for a commit get the error
// of a file that breaks meanwhile.
func TestFaultReachesWaitingUpdates(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not let a mapped file be truncated")
	}
	file, _ := intactFile(t)
	path := filepath.Join(t.TempDir(), "a.db")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, path)
	var all, inside sync.WaitGroup
	inside.Add(50)
	for i := range 50 {
		all.Go(func() {
			err := s.Update(t.Context(), fmt.Sprint("k", i), func(context.Context, []byte) ([]byte, error) {
				inside.Done()
				inside.Wait()
				if i == 0 {
					clear(file)
					return nil, os.WriteFile(path, file, 0o600)
				}
				return []byte("x"), nil
			})
			// Updates that were committed before the fault have no error.
			if err != nil && !mentions(err, path) {
				t.Errorf("update %d: got error %v, want nil or one with the path", i, err)
			}
		})
	}
	all.Wait()
	mustClose(t, s)
}

// FuzzOpen opens arbitrary files: Open returns, and either rejects the file
// without changing it or opens a store that works.
func FuzzOpen(f *testing.F) {
	file, _ := intactFile(f)
	f.Add(file, 0, []byte{})
	f.Add(file, 16, []byte{0})
	f.Add(file, 8192, []byte{3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 255, 255})
	f.Add([]byte("hello"), 0, []byte{})
	f.Fuzz(func(t *testing.T, file []byte, at int, change []byte) {
		if at >= 0 && at < len(file) {
			file = bytes.Clone(file)
			copy(file[at:], change)
		}
		path := filepath.Join(t.TempDir(), "a.db")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := bolt.Open(t.Context(), path)
		if err != nil {
			if !bytes.Equal(file, read(t, path)) {
				t.Error("Open changed a file that it rejected")
			}
			return
		}
		defer s.Close()
		if err := s.List(t.Context(), "", "", func(string, []byte) bool { return true }); err != nil {
			t.Errorf("list after a successful open: got error %v", err)
		}
		put(t, s, "after", "it can be written")
	})
}
