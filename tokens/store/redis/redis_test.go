package redis_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/redis"
	"wxproxy/tokens/store/storetest"
)

var someKey = []byte(strings.Repeat("k", store.KeySize))

func TestBare(t *testing.T) {
	r := start(t)
	var db atomic.Int64
	storetest.Run(t, func(t *testing.T) store.Store {
		return open(t, fmt.Sprintf("%s/%d", r.url(), db.Add(1)), redis.Options{})
	})
}

func TestSealed(t *testing.T) {
	r := start(t)
	var db atomic.Int64
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := redis.OpenSealed(t.Context(), fmt.Sprintf("%s/%d", r.url(), db.Add(1)), someKey, redis.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		if _, ok := s.(store.Watcher); !ok {
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
		s := open(t, r.url(), redis.Options{})
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
	want(t, open(t, r.url(), redis.Options{}), "n", strconv.Itoa(2*n))
	if locks := r.do("KEYS *lock*"); locks != "" {
		t.Errorf("left behind: %s", locks)
	}
}

func TestWrongKey(t *testing.T) {
	r := start(t)
	s, err := redis.OpenSealed(t.Context(), r.url(), someKey, redis.Options{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", "a refresh token")
	s.Close()
	other := []byte(strings.Repeat("o", store.KeySize))
	if _, err := redis.OpenSealed(t.Context(), r.url(), other, redis.Options{}); !errors.Is(err, store.ErrWrongKey) || !strings.Contains(err.Error(), r.addr()) {
		t.Error(err)
	}
	// What is there was not touched, and says nothing to who can read it.
	for i := range 16 {
		if all := r.do(fmt.Sprintf("HGETALL wxproxy:{%02x}:records", i)); strings.Contains(all, "refresh token") {
			t.Error("a record is readable")
		}
	}
	again, err := redis.OpenSealed(t.Context(), r.url(), someKey, redis.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	want(t, again, "a", "a refresh token")
}

func TestFormat(t *testing.T) {
	r := start(t)
	open(t, r.url(), redis.Options{})
	if v := r.do("GET wxproxy:{00}:format"); v != "1" {
		t.Errorf("format %q", v)
	}
	r.do("SET wxproxy:{00}:format 2")
	if _, err := redis.Open(t.Context(), r.url(), redis.Options{}); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), `format "2"`) {
		t.Error(err)
	}
}

func BenchmarkLoad(b *testing.B) {
	s := open(b, start(b).url(), redis.Options{})
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
	s := open(b, start(b).url(), redis.Options{})
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
