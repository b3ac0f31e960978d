package bolt_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/bolt"
)

// grown makes a store at path whose file is mostly free pages, and returns its
// records.
func grown(t *testing.T, path string) map[string]string {
	t.Helper()
	s, records := open(t, path), map[string]string{}
	var all sync.WaitGroup
	for i := range 400 {
		key := fmt.Sprintf("k%03d", i)
		if i%20 == 0 {
			records[key] = key
		}
		all.Go(func() { put(t, s, key, strings.Repeat("r", 8192)) })
	}
	all.Wait()
	for i := range 400 {
		key := fmt.Sprintf("k%03d", i)
		all.Go(func() {
			if _, keep := records[key]; keep {
				put(t, s, key, key)
			} else if err := s.Update(t.Context(), key, deleteRecord); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if first, err := s.Claim(t.Context(), "claim", inAnHour()); err != nil || !first {
		t.Fatalf("Claim: got %v, error %v", first, err)
	}
	mustClose(t, s)
	return records
}

// wantRecords opens the store at path, with Open's verification, and compares
// its records.
func wantRecords(t *testing.T, path string, records map[string]string) {
	t.Helper()
	s, got := open(t, path), map[string]string{}
	defer mustClose(t, s)
	err := s.List(t.Context(), "", "", func(key string, record []byte) bool {
		got[key] = string(record)
		return true
	})
	if err != nil || !maps.Equal(got, records) {
		t.Fatalf("got %d records, error %v, want %d: %.300q", len(got), err, len(records), got)
	}
}

// TestCompact makes a file smaller, and keeps its records, its claims and its
// mode.
func TestCompact(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	records := grown(t, path)
	before, after, err := bolt.Compact(t.Context(), path)
	if err != nil || after >= before/4 {
		t.Errorf("got %d bytes from %d, error %v, want a quarter at most", after, before, err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != after {
		t.Errorf("size: got %v, error %v, want %d", info, err, after)
	}
	wantMode(t, path, 0o600)
	wantRecords(t, path, records)
	s := open(t, path)
	if first, err := s.Claim(t.Context(), "claim", inAnHour()); err != nil || first {
		t.Errorf("Claim: got %v, error %v, want it claimed", first, err)
	}
	if _, _, err := bolt.Compact(t.Context(), path); !errors.Is(err, store.ErrInUse) {
		t.Errorf("a store in use: got error %v, want ErrInUse", err)
	}
	put(t, s, "after", "the attempt")
	mustClose(t, s)
	_, _, err = bolt.Compact(t.Context(), path+"2")
	if !mentions(err, path+"2", "does not exist") {
		t.Errorf("a missing file: got error %v", err)
	}
	wantFiles(t, path, "a.db")
}

// TestProcessThatWaitedUsesTheNewFile opens a store again and again while it is
// compacted: an open that has waited for the lock of the old file must not
// return that one, which has no name any more.
func TestProcessThatWaitedUsesTheNewFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	grown(t, path)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := range 15 {
				s, err := bolt.Open(t.Context(), path)
				if errors.Is(err, store.ErrInUse) {
					continue
				}
				if err != nil {
					t.Errorf("Open: %v", err)
					return
				}
				if err := s.Ping(t.Context()); err != nil {
					t.Errorf("Ping: %v", err)
				}
				put(t, s, fmt.Sprint("new", i), fmt.Sprint(n))
				if err := s.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
				want, err := bolt.Open(t.Context(), path)
				if err == nil {
					got, _ := want.Load(t.Context(), fmt.Sprint("new", i))
					if string(got) != fmt.Sprint(n) {
						t.Errorf("record: got %q, want %d", got, n)
					}
					want.Close()
				}
			}
		})
		all.Go(func() {
			for range 15 {
				_, _, err := bolt.Compact(t.Context(), path)
				if err != nil && !errors.Is(err, store.ErrInUse) {
					t.Errorf("Compact: %v", err)
				}
			}
		})
	}
	all.Wait()
}

// compactUntilKilled compacts the store at path for ever.
func compactUntilKilled(path string) {
	for {
		if _, _, err := bolt.Compact(context.Background(), path); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("done")
	}
}

// TestCompactionSurvivesKill kills a process that compacts, 40 times × at once
// to 5 compactions later: the store is complete each time, and what the process
// has left behind is removed by the next compaction.
func TestCompactionSurvivesKill(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.db")
	records := grown(t, path)
	for range 40 {
		child := exec.Command(self)
		child.Env = append(os.Environ(), compactEnv+"="+path)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range rand.N(6) {
			if !lines.Scan() || lines.Text() != "done" {
				t.Fatalf("output of the child: got %q, want done", lines.Text())
			}
		}
		<-time.After(rand.N(20 * time.Millisecond))
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = child.Wait() // "signal: killed"
		wantRecords(t, path, records)
	}
	if _, _, err := bolt.Compact(t.Context(), path); err != nil {
		t.Error(err)
	}
	wantFiles(t, path, "a.db")
}

// fillWith returns a function that puts records, and then returns err.
func fillWith(records map[string]string, err error) func(func(string, []byte) error) error {
	return func(put func(string, []byte) error) error {
		for _, key := range slices.Sorted(maps.Keys(records)) {
			if err := put(key, []byte(records[key])); err != nil {
				return err
			}
		}
		return err
	}
}

// TestImport × a missing, an empty, a filled file × with and without replace ×
// a source that fails at its end: the file has the new records and no others,
// or is as it was.
func TestImport(t *testing.T) {
	records := map[string]string{"seal/check": "check"}
	for i := range 3000 { // several transactions
		records[fmt.Sprintf("k%05d", i)] = strings.Repeat("r", 2000)
	}
	present := map[string]string{"old": "record"}
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		before  map[string]string // nil: no file
		replace bool
		fails   error
		want    error
	}{
		"missing":               {nil, false, nil, nil},
		"missing, replace":      {nil, true, nil, nil},
		"missing, fails":        {nil, false, broken, broken},
		"empty":                 {map[string]string{}, false, nil, nil},
		"empty but for a check": {map[string]string{"seal/check": "other"}, false, nil, nil},
		"filled":                {present, false, nil, store.ErrNotEmpty},
		"filled, replace":       {present, true, nil, nil},
		"filled, replace fails": {present, true, broken, broken},
	} {
		path := filepath.Join(t.TempDir(), "a.db")
		if c.before != nil {
			s := open(t, path)
			for key, record := range c.before {
				put(t, s, key, record)
			}
			mustClose(t, s)
		}
		err := bolt.Import(t.Context(), path, c.replace, fillWith(records, c.fails))
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: got error %v, want %v", name, err, c.want)
		}
		switch {
		case c.want == nil:
			wantRecords(t, path, records)
			wantMode(t, path, 0o600)
		case c.before != nil:
			wantRecords(t, path, c.before)
		default:
			if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: got error %v, want no file", name, err)
			}
			continue
		}
		wantFiles(t, path, "a.db")
	}
}

// A store in use is not replaced, whatever the operator wants.
func TestImportIntoStoreInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, path)
	put(t, s, "a", "one")
	err := bolt.Import(t.Context(), path, true, fillWith(map[string]string{"b": "two"}, nil))
	if !errors.Is(err, store.ErrInUse) {
		t.Errorf("got error %v, want ErrInUse", err)
	}
	want(t, s, "a", "one")
	put(t, s, "a", "two")
}

func inAnHour() time.Time { return time.Now().Add(time.Hour) }
