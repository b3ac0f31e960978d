// Package storetest is what every [store.Store] has to pass, whatever it is made of.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"wxproxy/tokens/store"
)

// Run tests the stores that open makes: an empty one at each call, which Run closes. Nothing else may
// write to it meanwhile.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, c := range []struct {
		name string
		test func(s suite)
	}{
		{"load and update", loadAndUpdate},
		{"delete", deletes},
		{"keep", keeps},
		{"an error leaves the record", errorLeaves},
		{"an empty key is refused", emptyKey},
		{"odd keys", oddKeys},
		{"big records", bigRecords},
		{"records are the caller's own", recordsAreOwn},
		{"list in order", listInOrder},
		{"list from a key on", listAfter},
		{"list stops early", listStops},
		{"list many", listMany},
		{"an ended context", endedContext},

		{"no update is lost", noUpdateIsLost},
		{"keys do not wait for each other", keysAreParallel},
		{"load does not wait", loadDoesNotWait},
		{"a waiter leaves with its context", waiterLeaves},
		{"a waiter that left is not called", waiterThatLeft},
		{"the end of the caller ends fn", callerEndsFn},
		{"what came after the end is saved", lateRecordIsSaved},
		{"a panic unlocks", panicUnlocks},
		{"an update inside an update", nested},

		{"a closed store refuses", closedRefuses},
		{"close waits", closeWaits},
		{"close sends waiters away", closeSendsAway},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			// A store that blocks for ever is a failed test and not a stuck run.
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			store := open(t)
			defer store.Close()
			c.test(suite{T: t, Store: store, ctx: ctx})
		})
	}
}

// suite is one test's store, and what tests do with it.
type suite struct {
	*testing.T
	store.Store
	ctx context.Context
}

func (s suite) put(key, record string) {
	s.Helper()
	err := s.Update(s.ctx, key, func(context.Context, []byte) ([]byte, error) { return []byte(record), nil })
	if err != nil {
		s.Fatalf("update of %q: %v", key, err)
	}
}

// want fails unless key holds record.
func (s suite) want(key, record string) {
	s.Helper()
	got, err := s.Load(s.ctx, key)
	if err != nil || string(got) != record {
		s.Fatalf("load of %q: %.80q, %v; want %.80q", key, got, err, record)
	}
}

func (s suite) wantNone(key string) {
	s.Helper()
	if got, err := s.Load(s.ctx, key); !errors.Is(err, store.ErrNotFound) || got != nil {
		s.Fatalf("load of %q: %.80q, %v; want ErrNotFound", key, got, err)
	}
}

func (s suite) wantKeys(prefix, after string, want ...string) {
	s.Helper()
	var got []string
	err := s.List(s.ctx, prefix, after, func(key string, record []byte) bool {
		if string(record) != "record of "+key {
			s.Errorf("list gives %.80q under %q", record, key)
		}
		got = append(got, key)
		return true
	})
	if err != nil || !slices.Equal(got, want) {
		s.Fatalf("list of %q after %q: %.200q, %v; want %.200q", prefix, after, got, err, want)
	}
}

func loadAndUpdate(s suite) {
	s.wantNone("a")
	err := s.Update(s.ctx, "a", func(ctx context.Context, old []byte) ([]byte, error) {
		if old != nil {
			s.Errorf("old of a new record: %q", old)
		}
		if err := ctx.Err(); err != nil {
			s.Errorf("the context of fn: %v", err)
		}
		return []byte("one"), nil
	})
	if err != nil {
		s.Fatal(err)
	}
	s.want("a", "one")
	err = s.Update(s.ctx, "a", func(_ context.Context, old []byte) ([]byte, error) {
		return append(old, " and two"...), nil
	})
	if err != nil {
		s.Fatal(err)
	}
	s.want("a", "one and two")
	s.wantNone("b")
	s.wantNone("A")
	if err := s.Ping(s.ctx); err != nil {
		s.Error(err)
	}
}

func deletes(s suite) {
	none := func(context.Context, []byte) ([]byte, error) { return nil, nil }
	s.put("a", "one")
	s.put("b", "record of b")
	for range 2 { // the second time there is nothing to delete
		if err := s.Update(s.ctx, "a", none); err != nil {
			s.Fatal(err)
		}
		s.wantNone("a")
	}
	s.wantKeys("", "", "b")
	s.put("a", "two")
	s.want("a", "two")
}

func keeps(s suite) {
	keep := func(context.Context, []byte) ([]byte, error) { return store.Keep, nil }
	if err := s.Update(s.ctx, "a", keep); err != nil {
		s.Fatal(err)
	}
	s.wantNone("a")
	s.put("a", "one")
	if err := s.Update(s.ctx, "a", keep); err != nil {
		s.Fatal(err)
	}
	s.want("a", "one")
}

func errorLeaves(s suite) {
	mine := errors.New("mine")
	s.put("a", "one")
	for _, record := range [][]byte{[]byte("two"), nil, store.Keep} {
		err := s.Update(s.ctx, "a", func(_ context.Context, old []byte) ([]byte, error) {
			copy(old, "XXX")
			return record, mine
		})
		if !errors.Is(err, mine) {
			s.Fatalf("the error of fn became %v", err)
		}
		s.want("a", "one")
	}
}

func emptyKey(s suite) {
	err := s.Update(s.ctx, "", func(context.Context, []byte) ([]byte, error) {
		s.Error("fn was called")
		return []byte("x"), nil
	})
	if err == nil {
		s.Error("an update of the empty key")
	}
	s.wantNone("")
}

func oddKeys(s suite) {
	keys := []string{
		" ", "\x00", "\x00\x00", "\n", "a\r\nSET b c", "%s%n", "*", "?[a-z]*", "{a}b", "../../etc/passwd", "a/b/c", "a//b",
		"account/wx0123456789abcdef", "账号", "\xff\xfe", "\xff", "'; --", string(bytes.Repeat([]byte("k"), 1024)),
	}
	for _, key := range keys {
		s.put(key, "record of "+key)
	}
	for _, key := range keys {
		s.want(key, "record of "+key)
	}
	slices.Sort(keys)
	s.wantKeys("", "", keys...)
	s.wantKeys("\xff", "", "\xff", "\xff\xfe")
	s.wantKeys("*", "", "*")
	s.wantKeys("", "\xff", "\xff\xfe")
}

func bigRecords(s suite) {
	for _, n := range []int{1, 4095, 4096, 65535} {
		record := make([]byte, n)
		for i := range record {
			record[i] = byte(i * 7 >> (i % 5))
		}
		s.put("big", string(record))
		s.want("big", string(record))
	}
	s.put("big", "small again")
	s.want("big", "small again")
}

func recordsAreOwn(s suite) {
	record := []byte("record of a")
	var old []byte
	for range 2 {
		err := s.Update(s.ctx, "a", func(_ context.Context, o []byte) ([]byte, error) { old = o; return record, nil })
		if err != nil {
			s.Fatal(err)
		}
		copy(record, "XXXXXX") // what was given is the store's no more than before
		s.want("a", "record of a")
		copy(record, "record")
	}
	copy(old, "XXXXXX")
	got, err := s.Load(s.ctx, "a")
	if err != nil {
		s.Fatal(err)
	}
	copy(got, "XXXXXX")
	var listed []byte
	err = s.List(s.ctx, "", "", func(_ string, record []byte) bool { listed = record; return true })
	if err != nil || string(listed) != "record of a" {
		s.Fatalf("listed after List: %q, %v", listed, err)
	}
	copy(listed, "XXXXXX")
	s.want("a", "record of a")
}
