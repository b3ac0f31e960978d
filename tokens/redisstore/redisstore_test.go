package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"wxproxy/tokens"
	"wxproxy/tokens/redisstore"
	"wxproxy/tokens/storetest"
)

var someKey = []byte(strings.Repeat("k", tokens.KeySize))

func TestBare(t *testing.T) {
	r := start(t)
	var db atomic.Int64
	storetest.Run(t, func(t *testing.T) tokens.Store {
		return open(t, fmt.Sprintf("%s/%d", r.url(), db.Add(1)), redisstore.Options{})
	})
}

func TestSealed(t *testing.T) {
	r := start(t)
	var db atomic.Int64
	storetest.Run(t, func(t *testing.T) tokens.Store {
		s, err := redisstore.OpenSealed(t.Context(), fmt.Sprintf("%s/%d", r.url(), db.Add(1)), someKey, redisstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		if _, ok := s.(tokens.Watcher); !ok {
			t.Error("sealed, the store cannot be watched")
		}
		return s
	})
}

// TestTwoCount: two processes' stores, 100 updates at once in each, and none is lost. Nobody waits for ever.
func TestTwoCount(t *testing.T) {
	r := start(t)
	const n = 100
	var all sync.WaitGroup
	for range 2 {
		s := open(t, r.url(), redisstore.Options{})
		for range n {
			all.Go(func() {
				err := s.Update(t.Context(), "n", func(_ context.Context, old []byte) ([]byte, error) {
					i, _ := strconv.Atoi(string(old))
					return []byte(strconv.Itoa(i + 1)), nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	want(t, open(t, r.url(), redisstore.Options{}), "n", strconv.Itoa(2*n))
	if locks := r.do("KEYS *lock*"); locks != "" {
		t.Errorf("left behind: %s", locks)
	}
}

func TestWrongKey(t *testing.T) {
	r := start(t)
	s, err := redisstore.OpenSealed(t.Context(), r.url(), someKey, redisstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", "a refresh token")
	s.Close()
	other := []byte(strings.Repeat("o", tokens.KeySize))
	if _, err := redisstore.OpenSealed(t.Context(), r.url(), other, redisstore.Options{}); !errors.Is(err, tokens.ErrWrongKey) || !strings.Contains(err.Error(), r.addr()) {
		t.Error(err)
	}
	// What is there was not touched, and says nothing to who can read it.
	for i := range 16 {
		if all := r.do(fmt.Sprintf("HGETALL wxproxy:{%02x}:records", i)); strings.Contains(all, "refresh token") {
			t.Error("a record is readable")
		}
	}
	again, err := redisstore.OpenSealed(t.Context(), r.url(), someKey, redisstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	want(t, again, "a", "a refresh token")
}

func TestFormat(t *testing.T) {
	r := start(t)
	open(t, r.url(), redisstore.Options{})
	if v := r.do("GET wxproxy:{00}:format"); v != "1" {
		t.Errorf("format %q", v)
	}
	r.do("SET wxproxy:{00}:format 2")
	if _, err := redisstore.Open(t.Context(), r.url(), redisstore.Options{}); !errors.Is(err, tokens.ErrCorrupt) || !strings.Contains(err.Error(), `format "2"`) {
		t.Error(err)
	}
}

func BenchmarkLoad(b *testing.B) {
	s := open(b, start(b).url(), redisstore.Options{})
	put(b, s, "a", strings.Repeat("r", 600))
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := s.Load(b.Context(), "a"); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkUpdate(b *testing.B) {
	s := open(b, start(b).url(), redisstore.Options{})
	var n atomic.Int64
	record := []byte(strings.Repeat("r", 600))
	b.RunParallel(func(p *testing.PB) {
		key := fmt.Sprint("account/", n.Add(1))
		for p.Next() {
			if err := s.Update(b.Context(), key, func(context.Context, []byte) ([]byte, error) { return record, nil }); err != nil {
				b.Error(err)
			}
		}
	})
}
