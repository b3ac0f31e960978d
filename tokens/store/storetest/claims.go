package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/tokens/store"
)

// claim fails the test if Claim returns an error or another result than want.
func (s suite) claim(key string, until time.Time, want bool) {
	s.Helper()
	first, err := s.Claim(s.ctx, key, until)
	if err != nil || first != want {
		s.Errorf("claim of %.80q: got %v, error %v, want %v", key, first, err, want)
	}
}

// claimsAreGrantedOnce claims keys of all kinds twice, then releases them.
// Claims are no records, and do not touch the record with the same key.
func claimsAreGrantedOnce(s suite) {
	s.putAll("a")
	until := time.Now().Add(time.Hour)
	keys := []string{
		"a", "b", " ", "\x00", "a\r\nSET b c", "*", "{a}b", "a/b", "账号", "\xff",
		string(bytes.Repeat([]byte("k"), 1024)),
	}
	for _, key := range keys {
		s.claim(key, until, true)
		s.claim(key, until, false)
		s.claim(key, until.Add(time.Hour), false)
	}
	for _, key := range keys {
		s.claim(key, until, false)
		for range 2 { // the second time, there is no claim
			s.noError("unclaim", s.Unclaim(s.ctx, key))
		}
		s.claim(key, until, true)
	}
	s.wantKeys("", "", "a")
	s.wantNone("b")
}

// claimsEnd: a claim ends at its time and not before. A time that has passed
// claims nothing.
func claimsEnd(s suite) {
	s.claim("a", time.Now().Add(time.Hour), true)
	s.claim("past", time.Now().Add(-time.Second), false)
	s.claim("past", time.Time{}, false)
	s.claim("past", time.Now().Add(time.Hour), true)
	s.claim("b", time.Now().Add(50*time.Millisecond), true)
	// Ends at the latest with the context of the test.
	for again := false; !again; {
		var err error
		if again, err = s.Claim(s.ctx, "b", time.Now().Add(time.Hour)); err != nil {
			s.Fatalf("claim of b: %v", err)
		}
	}
	s.claim("b", time.Now().Add(2*time.Hour), false)
	s.claim("a", time.Now().Add(time.Hour), false)
}

// claimsAreRejected: the empty key, and a context that has ended.
func claimsAreRejected(s suite) {
	until := time.Now().Add(time.Hour)
	canceled, cancel := context.WithCancel(s.ctx)
	cancel()
	first, err := s.Claim(canceled, "a", until)
	if !errors.Is(err, context.Canceled) || first {
		s.Errorf("claim: got %v, error %v, want context.Canceled", first, err)
	}
	if err := s.Unclaim(canceled, "a"); !errors.Is(err, context.Canceled) {
		s.Errorf("unclaim: got error %v, want context.Canceled", err)
	}
	s.claim("a", until, true)
	first, err = s.Claim(s.ctx, "", until)
	if !errors.Is(err, store.ErrEmptyKey) || first || !errors.Is(s.Unclaim(s.ctx, ""), store.ErrEmptyKey) {
		s.Errorf("claim of the empty key: got %v, error %v, want ErrEmptyKey", first, err)
	}
}

// concurrentClaims: 40 goroutines claim the same 50 keys.
func concurrentClaims(s suite) { ConcurrentClaims(s.T, s.Store) }

// ConcurrentClaims fails the test unless each of 50 keys is granted to exactly
// one of 40 goroutines for each store. All stores must use one database.
func ConcurrentClaims(t *testing.T, stores ...store.Store) {
	t.Helper()
	const keys, callers = 50, 40
	until := time.Now().Add(time.Hour)
	var granted [keys]atomic.Int32
	var all sync.WaitGroup
	for _, s := range stores {
		for c := range callers {
			all.Go(func() {
				for i := range keys {
					k := (i + c) % keys
					first, err := s.Claim(t.Context(), fmt.Sprint("key/", k), until)
					if err != nil {
						t.Errorf("claim: %v", err)
					}
					if first {
						granted[k].Add(1)
					}
				}
			})
		}
	}
	all.Wait()
	for k := range granted {
		if n := granted[k].Load(); n != 1 {
			t.Errorf("key %d was granted %d times, want once", k, n)
		}
	}
}
