// Package storetest holds the tests that every [store.Store] passes, whatever
// database it uses. A new database calls [Run] in its tests.
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

// Run runs one subtest for each rule of the contract, in parallel. open must
// return a new, empty store for each call; Run closes it. Nothing else may
// write to the store meanwhile.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, c := range []struct {
		name string
		test func(s suite)
	}{
		{"load and update", loadAndUpdate},
		{"nil deletes", nilDeletes},
		{"Keep changes nothing", keepChangesNothing},
		{"an error changes nothing", errorChangesNothing},
		{"empty key is rejected", emptyKeyIsRejected},
		{"unusual keys", unusualKeys},
		{"large records", largeRecords},
		{"records are copied", recordsAreCopied},
		{"list is in key order", listIsInKeyOrder},
		{"list starts after a key", listStartsAfterKey},
		{"list stops early", listStopsEarly},
		{"list of many pages", listOfManyPages},
		{"canceled context", canceledContext},
		{"damaged records are moved", damagedRecordsAreMoved},
		{"good records are not moved", goodRecordsAreNotMoved},

		{"no update is lost", noUpdateIsLost},
		{"keys have separate locks", keysHaveSeparateLocks},
		{"load does not wait for a lock", loadDoesNotWait},
		{"waiter leaves when its context ends", waiterLeaves},
		{"waiters leave while the lock is passed on", waitersLeaveDuringHandover},
		{"the caller's context cancels fn", callerCancelsFn},
		{"record returned after cancellation is saved", lateRecordIsSaved},
		{"panic unlocks", panicUnlocks},
		{"nested updates", nestedUpdates},

		{"claims are granted once", claimsAreGrantedOnce},
		{"claims end", claimsEnd},
		{"claims are rejected", claimsAreRejected},
		{"concurrent claims", concurrentClaims},

		{"closed store rejects everything", closedStoreRejects},
		{"close waits for updates in flight", closeWaits},
		{"close rejects waiters", closeRejectsWaiters},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			// A store that blocks forever fails its test instead of the whole
			// run. The bound is generous: a busy machine must pass.
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			store := open(t)
			defer store.Close()
			c.test(suite{T: t, Store: store, ctx: ctx})
		})
	}
}

// suite is the store of one subtest, with its helpers.
type suite struct {
	*testing.T
	store.Store
	ctx context.Context
}

// noError reports an error of what. The test continues, so that it also reports
// what the error has led to.
func (s suite) noError(what string, err error) {
	s.Helper()
	if err != nil {
		s.Errorf("%s: got error %v, want none", what, err)
	}
}

// put saves record under key.
func (s suite) put(key, record string) {
	s.Helper()
	err := s.Update(s.ctx, key, replaceWith(record))
	if err != nil {
		s.Fatalf("update of %q: %v", key, err)
	}
}

// want fails unless key holds record.
func (s suite) want(key, record string) {
	s.Helper()
	got, err := s.Load(s.ctx, key)
	if err != nil || string(got) != record {
		s.Fatalf("load of %q: got %.80q, error %v, want %.80q", key, got, err, record)
	}
}

// wantNone fails unless there is no record under key.
func (s suite) wantNone(key string) {
	s.Helper()
	if got, err := s.Load(s.ctx, key); !errors.Is(err, store.ErrNotFound) || got != nil {
		s.Fatalf("load of %q: got %.80q, error %v, want ErrNotFound", key, got, err)
	}
}

// wantKeys fails unless List returns exactly want. Each record must be "record
// of KEY".
func (s suite) wantKeys(prefix, after string, want ...string) {
	s.Helper()
	var got []string
	err := s.List(s.ctx, prefix, after, func(key string, record []byte) bool {
		if string(record) != "record of "+key {
			s.Errorf("list: got %.80q under %q, want its own record", record, key)
		}
		got = append(got, key)
		return true
	})
	if err != nil || !slices.Equal(got, want) {
		s.Fatalf("list of %q after %q: got %.200q, error %v, want %.200q", prefix, after, got, err, want)
	}
}

// loadAndUpdate saves a record, then appends to it.
func loadAndUpdate(s suite) {
	s.wantNone("a")
	err := s.Update(s.ctx, "a", func(ctx context.Context, old []byte) ([]byte, error) {
		if old != nil {
			s.Errorf("old of a new record: got %q, want nil", old)
		}
		if err := ctx.Err(); err != nil {
			s.Errorf("context of fn: got error %v, want nil", err)
		}
		return []byte("one"), nil
	})
	s.noError("update", err)
	s.want("a", "one")
	err = s.Update(s.ctx, "a", func(_ context.Context, old []byte) ([]byte, error) {
		return append(old, " and two"...), nil
	})
	s.noError("update", err)
	s.want("a", "one and two")
	s.wantNone("b")
	s.wantNone("A")
	s.noError("ping", s.Ping(s.ctx))
}

// nilDeletes deletes a record twice, and saves it again afterwards.
func nilDeletes(s suite) {
	none := func(context.Context, []byte) ([]byte, error) { return nil, nil }
	s.put("a", "one")
	s.put("b", "record of b")
	for range 2 { // the second time, there is no record
		s.noError("update", s.Update(s.ctx, "a", none))
		s.wantNone("a")
	}
	s.wantKeys("", "", "b")
	s.put("a", "two")
	s.want("a", "two")
}

// keepChangesNothing returns Keep for a missing and for an existing record.
func keepChangesNothing(s suite) {
	keep := func(context.Context, []byte) ([]byte, error) { return store.Keep, nil }
	s.noError("update", s.Update(s.ctx, "a", keep))
	s.wantNone("a")
	s.put("a", "one")
	s.noError("update", s.Update(s.ctx, "a", keep))
	s.want("a", "one")
}

// errorChangesNothing returns an error together with each kind of result. The
// update function also overwrites old, which must not change the stored record.
func errorChangesNothing(s suite) {
	failure := errors.New("failure of fn")
	s.put("a", "one")
	for _, record := range [][]byte{[]byte("two"), nil, store.Keep} {
		err := s.Update(s.ctx, "a", func(_ context.Context, old []byte) ([]byte, error) {
			copy(old, "XXX")
			return record, failure
		})
		if !errors.Is(err, failure) {
			s.Fatalf("got error %v, want that of fn", err)
		}
		s.want("a", "one")
	}
}

// emptyKeyIsRejected: no database can be relied on to keep an empty key.
func emptyKeyIsRejected(s suite) {
	err := s.Update(s.ctx, "", func(context.Context, []byte) ([]byte, error) {
		s.Error("fn was called with an empty key")
		return []byte("x"), nil
	})
	if err == nil {
		s.Error("update of the empty key: got no error")
	}
	s.wantNone("")
}

// unusualKeys uses keys that a database could take for syntax, for a pattern,
// for a path, or for invalid text.
func unusualKeys(s suite) {
	keys := []string{
		" ", "\x00", "\x00\x00", "\n", "a\r\nSET b c", "%s%n", "*", "?[a-z]*", "{a}b",
		"../../etc/passwd", "a/b/c", "a//b",
		"account/wx0123456789abcdef", "账号", "\xff\xfe", "\xff", "'; --", string(bytes.Repeat([]byte("k"), 1024)),
	}
	for _, key := range keys {
		s.put(key, "record of "+key)
	}
	for _, key := range keys {
		s.want(key, "record of "+key)
	}
	// Go compares strings by their bytes, as List must.
	slices.Sort(keys)
	s.wantKeys("", "", keys...)
	s.wantKeys("\xff", "", "\xff", "\xff\xfe")
	s.wantKeys("*", "", "*")
	s.wantKeys("", "\xff", "\xff\xfe")
}

// largeRecords saves records around the page size of databases, up to 64 KiB.
func largeRecords(s suite) {
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

// recordsAreCopied changes every slice that was given to the store or returned
// by it. The stored record must not change.
func recordsAreCopied(s suite) {
	record := []byte("record of a")
	var old []byte
	for range 2 {
		err := s.Update(s.ctx, "a", func(_ context.Context, o []byte) ([]byte, error) { old = o; return record, nil })
		s.noError("update", err)
		copy(record, "XXXXXX") // changes the caller's slice, not the stored record
		s.want("a", "record of a")
		copy(record, "record")
	}
	copy(old, "XXXXXX")
	got, err := s.Load(s.ctx, "a")
	s.noError("load", err)
	copy(got, "XXXXXX")
	var listed []byte
	err = s.List(s.ctx, "", "", func(_ string, record []byte) bool { listed = record; return true })
	if err != nil || string(listed) != "record of a" {
		s.Fatalf("list: got %q, error %v, want the unchanged record", listed, err)
	}
	copy(listed, "XXXXXX")
	s.want("a", "record of a")
}
