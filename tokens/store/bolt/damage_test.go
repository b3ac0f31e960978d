package bolt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/bolt"
)

// sound makes a bare store whose tree has branches, free pages and a record that overflows
// its page, and gives the file's bytes and what is in it.
func sound(t testing.TB) (file []byte, records map[string]string) {
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
	put(t, s, "gone", records["big"])
	err := s.Update(t.Context(), "gone", func(context.Context, []byte) ([]byte, error) { return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	closed(t, s)
	return read(t, path), records
}

// reopened writes file to path, opens it and wants one of two things: ErrCorrupt with the bytes
// as they were, or a store that holds exactly records, or what they were before the last commit.
func reopened(t *testing.T, path string, file []byte, records map[string]string) (ok bool) {
	t.Helper()
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := bolt.Open(t.Context(), path)
	if err != nil {
		// The number of the format may be what was damaged.
		if !errors.Is(err, store.ErrCorrupt) && !strings.Contains(err.Error(), "written by a newer one") {
			t.Fatalf("opened with: %v", err)
		}
		if !bytes.Equal(file, read(t, path)) {
			t.Fatal("the file was changed")
		}
		return false
	}
	defer s.Close()
	n := 0
	err = s.List(t.Context(), "", "", func(key string, record []byte) bool {
		if key == "gone" { // deleted by the last commit, which one lost meta page takes back
			return true
		}
		n++
		if string(record) != records[key] {
			t.Errorf("%q became %.80q", key, record)
		}
		return true
	})
	if t.Failed() || err != nil || n != len(records) {
		t.Fatalf("%d of %d records, %v", n, len(records), err)
	}
	put(t, s, "after", "it can be written")
	return true
}

func TestTruncated(t *testing.T) {
	file, records := sound(t)
	path := filepath.Join(t.TempDir(), "a.db")
	if !reopened(t, path, file, records) {
		t.Fatal("the sound file was refused")
	}
	refusals := 0
	sizes := []int{1, 15, 16, 79, 80, 81, 1024, 4095, 4096, 4097, 4176, 8191, 8192, len(file) - 1}
	for size := 12288; size < len(file); size += 4096 {
		sizes = append(sizes, size, size+1+rand.N(4094))
	}
	for _, size := range sizes {
		if !reopened(t, path, file[:size], records) {
			refusals++
		}
	}
	if refusals < 20 {
		t.Errorf("only %d of %d truncated files were refused", refusals, len(sizes))
	}
}

// TestBitFlips turns single bits all over the file: none of them crashes, and none is handed out
// as a record.
func TestBitFlips(t *testing.T) {
	file, records := sound(t)
	path := filepath.Join(t.TempDir(), "a.db")
	pageSize := os.Getpagesize()
	refusals, tries := 0, 0
	flip := func(at int) {
		tries++
		file[at] ^= 1 << rand.N(8)
		before := bytes.Clone(file)
		if !reopened(t, path, before, records) {
			refusals++
		}
		if t.Failed() {
			t.Fatalf("after a flip in byte %d of page %d", at%pageSize, at/pageSize)
		}
	}
	clean := bytes.Clone(file)
	for page := 0; page < len(file); page += pageSize {
		for range 12 { // headers and elements are at the beginning
			flip(page + rand.N(120))
			copy(file, clean)
		}
		for range 6 {
			flip(page + rand.N(pageSize))
			copy(file, clean)
		}
	}
	t.Logf("%d of %d flips were refused", refusals, tries)
	if refusals < tries/10 {
		t.Errorf("only %d of %d flips were refused", refusals, tries)
	}
}

// TestCounts turns each bit of the number of entries of each page, which is how records would disappear.
func TestCounts(t *testing.T) {
	file, records := sound(t)
	path := filepath.Join(t.TempDir(), "a.db")
	pageSize := os.Getpagesize()
	for at := 2*pageSize + 10; at < len(file); at += pageSize {
		for bit := range 16 {
			changed := bytes.Clone(file)
			changed[at+bit/8] ^= 1 << (bit % 8)
			reopened(t, path, changed, records)
			if t.Failed() {
				t.Fatalf("with bit %d of the count of page %d", bit, at/pageSize)
			}
		}
	}
}

// TestEmptied: a store whose records are all deleted again is sound, also after it was large.
func TestEmptied(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	for _, n := range []int{1, 3, 300} {
		s := open(t, path)
		for i := range n {
			put(t, s, fmt.Sprint("k", i), strings.Repeat("x", 10+i*5))
		}
		for i := range n {
			err := s.Update(t.Context(), fmt.Sprint("k", i), func(context.Context, []byte) ([]byte, error) { return nil, nil })
			if err != nil {
				t.Fatal(err)
			}
		}
		closed(t, s)
		closed(t, open(t, path))
	}
}

// TestBothMetaPages: one of them may be lost, that is how bbolt survives a power cut; both not.
func TestBothMetaPages(t *testing.T) {
	file, records := sound(t)
	path := filepath.Join(t.TempDir(), "a.db")
	pageSize := os.Getpagesize()
	for _, at := range []int{0, pageSize} {
		one := bytes.Clone(file)
		clear(one[at : at+pageSize])
		if !reopened(t, path, one, records) {
			t.Errorf("refused with the page at %d empty", at)
		}
	}
	clear(file[:2*pageSize])
	if reopened(t, path, file, records) {
		t.Error("opened with both gone")
	}
}

// TestOverwrittenWhileOpen: the file is cut off, or filled with something else, under the running store.
// Reading what is not there any more is a signal that kills, and nonsense is a panic that leaves
// bbolt locked; here both have to be errors, and Close has to end.
func TestOverwrittenWhileOpen(t *testing.T) {
	file, _ := sound(t)
	for name, overwrite := range map[string]func(path string) error{
		"cut off": func(path string) error { return os.Truncate(path, 0) },
		"a part":  func(path string) error { return os.Truncate(path, int64(len(file))/2) },
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
				return s.Update(t.Context(), "big", func(context.Context, []byte) ([]byte, error) { return []byte("x"), nil })
			}
			_, load := s.Load(t.Context(), "big")
			for name, err := range map[string]error{
				"load":   load,
				"list":   s.List(t.Context(), "", "", func(string, []byte) bool { return true }),
				"update": update(),
				"again":  update(),
				"ping":   s.Ping(t.Context()),
			} {
				if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), path) {
					t.Errorf("%s: %v", name, err)
				}
			}
			closed(t, s)
		})
	}
}

// TestBreaksWhileWriting: updates that wait for a commit hear of the fault as well.
func TestBreaksWhileWriting(t *testing.T) {
	file, _ := sound(t)
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
			// Those that were quick have saved.
			if err != nil && !errors.Is(err, store.ErrCorrupt) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	closed(t, s)
}

// FuzzOpen: whatever the file holds, Open returns.
func FuzzOpen(f *testing.F) {
	file, _ := sound(f)
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
				t.Error("the file was changed")
			}
			return
		}
		defer s.Close()
		if err := s.List(t.Context(), "", "", func(string, []byte) bool { return true }); err != nil {
			t.Errorf("opened, and then: %v", err)
		}
		put(t, s, "after", "it can be written")
	})
}
