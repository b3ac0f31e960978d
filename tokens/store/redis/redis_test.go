//go:build unix

package redis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/redis"
	"wxproxy/tokens/store/storetest"
)

var sealKey = []byte(strings.Repeat("k", store.KeySize))

func TestStoreContract(t *testing.T) {
	r := start(t)
	var db atomic.Int64
	storetest.Run(t, func(t *testing.T) store.Store {
		return open(t, fmt.Sprintf("%s/%d", r.url(), db.Add(1)), patient)
	})
}

func TestSealedStoreContract(t *testing.T) {
	r := start(t)
	var db atomic.Int64
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := redis.OpenSealed(t.Context(), fmt.Sprintf("%s/%d", r.url(), db.Add(1)), sealKey, patient)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		if _, ok := store.As[store.Watcher](s); !ok {
			t.Error("the sealed store is not a Watcher")
		}
		return s
	})
}

// TestTwoProcessesLoseNoUpdate: two stores make 100 concurrent updates of one
// key each.
func TestTwoProcessesLoseNoUpdate(t *testing.T) {
	r := start(t)
	const n = 100
	var all sync.WaitGroup
	for range 2 {
		s := open(t, r.url(), patient)
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
	want(t, open(t, r.url(), patient), "n", strconv.Itoa(2*n))
	if locks := r.do("KEYS *lock*"); locks != "" {
		t.Errorf("locks left in Redis: got %s, want none", locks)
	}
}

// TestProcessesClaimOnce: three stores claim the same keys concurrently, and
// each key is granted once. Claims end by themselves in Redis, and the key of a
// sealed store's claim is not readable there.
func TestProcessesClaimOnce(t *testing.T) {
	r := start(t)
	stores := []store.Store{open(t, r.url(), patient), open(t, r.url(), patient), open(t, r.url(), patient)}
	storetest.ConcurrentClaims(t, stores...)
	name := "wxproxy:{0c}:claim:a" // TestKeysInRedisDoNotChange says why 0c
	claim := func(key string, left time.Duration) {
		t.Helper()
		if first, err := stores[0].Claim(t.Context(), key, time.Now().Add(left)); err != nil || !first {
			t.Fatalf("claim: got %v, error %v, want true", first, err)
		}
	}
	claim("a", time.Hour)
	left, err := strconv.Atoi(strings.TrimPrefix(r.do("PTTL "+name), ":"))
	if err != nil || left <= 0 || left > int(time.Hour.Milliseconds()) {
		t.Errorf("time left of the claim: got %d ms, error %v, want up to an hour", left, err)
	}
	sealed, err := redis.OpenSealed(t.Context(), r.url()+"/1", sealKey, patient)
	if err != nil {
		t.Fatal(err)
	}
	defer sealed.Close()
	if _, err := sealed.Claim(t.Context(), "confidential", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if keys := r.do("SELECT 1", "KEYS *"); !strings.Contains(keys, ":claim:") || strings.Contains(keys, "confidential") {
		t.Errorf("keys of a sealed store: got %s, want a hashed claim", keys)
	}
}

// TestLostReplyToClaim: the reply to a claim is lost, and the library sends it
// again. A result without an error is right nevertheless: the second attempt
// finds the claim of the first.
func TestLostReplyToClaim(t *testing.T) {
	r := start(t)
	between := startRelay(t, r.addr(), nil)
	s, direct := open(t, between.url(), shortLease), open(t, r.url(), shortLease)
	until := time.Now().Add(time.Hour)
	for i, tried := 0, 0; tried < 5; i++ {
		// A connection, and the script in Redis: the claim goes out at once.
		if _, err := s.Claim(t.Context(), fmt.Sprint("before/", i), until); err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprint("key/", i)
		between.dropReplies.Store(true)
		returned := make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			eventually(t, "the claim reaches Redis", func() bool {
				select {
				case <-returned:
					return true
				default:
					return strings.Contains(r.do("KEYS *"), ":claim:"+key)
				}
			})
			between.dropReplies.Store(false)
		})
		first, err := s.Claim(t.Context(), key, until)
		close(returned)
		all.Wait()
		if err != nil {
			continue // the second reply was lost, too
		}
		tried++
		if !first {
			t.Fatal("claim with a lost reply: got false, want true")
		}
		if first, err := direct.Claim(t.Context(), key, until); err != nil || first {
			t.Fatalf("second claim: got %v, error %v, want false", first, err)
		}
	}
}

func TestWrongSealKeyIsRejected(t *testing.T) {
	r := start(t)
	s, err := redis.OpenSealed(t.Context(), r.url(), sealKey, patient)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", "a refresh token")
	s.Close()
	other := []byte(strings.Repeat("o", store.KeySize))
	_, err = redis.OpenSealed(t.Context(), r.url(), other, patient)
	if !errors.Is(err, store.ErrWrongKey) || !mentions(err, r.addr()) {
		t.Errorf("got error %v, want ErrWrongKey with the address", err)
	}
	for i := range 16 {
		if all := r.do(fmt.Sprintf("HGETALL wxproxy:{%02x}:records", i)); strings.Contains(all, "refresh token") {
			t.Error("a record is readable in Redis")
		}
	}
	again, err := redis.OpenSealed(t.Context(), r.url(), sealKey, patient)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	want(t, again, "a", "a refresh token")
}

// Stores in use have these keys, and processes of two versions share them while
// wxproxy is updated: another name would hide records, or let both versions
// hold the same lock.
func TestKeysInRedisDoNotChange(t *testing.T) {
	r := start(t)
	// "a" belongs into bucket 12, "b" into bucket 5: FNV-1a of 32 bits, modulo
	// 16.
	r.do("SET wxproxy:{00}:format 1", "HSET wxproxy:{0c}:records a one", "ZADD wxproxy:{0c}:names 0 a",
		"HSET wxproxy:{0c}:head n 1 id x", "ZADD wxproxy:{0c}:changes 1 a")
	s := open(t, r.url(), patient)
	want(t, s, "a", "one")
	var during string
	err := s.Update(t.Context(), "b", func(context.Context, []byte) ([]byte, error) {
		during = r.do("KEYS *lock*")
		return []byte("two"), nil
	})
	if lock := "wxproxy:{05}:lock:b"; err != nil || during != lock {
		t.Errorf("locks during an update: got %q, error %v, want %q", during, err, lock)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("Ping: %v", err)
	}
	if _, err := s.Claim(t.Context(), "a", time.Now().Add(time.Hour)); err != nil {
		t.Errorf("Claim: %v", err)
	}
	got := strings.Fields(r.do("KEYS *"))
	slices.Sort(got)
	keys := []string{
		"wxproxy:{00}:format", "wxproxy:{00}:ping",
		"wxproxy:{05}:changes", "wxproxy:{05}:head", "wxproxy:{05}:names", "wxproxy:{05}:records",
		"wxproxy:{0c}:changes", "wxproxy:{0c}:claim:a", "wxproxy:{0c}:head", "wxproxy:{0c}:names", "wxproxy:{0c}:records",
	}
	if !slices.Equal(got, keys) {
		t.Errorf("keys: got %q, want %q", got, keys)
	}
	for command, want := range map[string]string{
		"HGET wxproxy:{05}:records b":        "two",
		"ZSCORE wxproxy:{05}:names b":        "0",
		"ZSCORE wxproxy:{05}:changes b":      "1",
		"HGET wxproxy:{05}:head n":           "1",
		"ZRANGE wxproxy:{0c}:changes 0 -1":   "a",
		"HKEYS wxproxy:{0c}:head":            "n id",
		"ZRANGEBYLEX wxproxy:{0c}:names - +": "a",
		"HGET wxproxy:{0c}:records a":        "one",
	} {
		if got := r.do(command); got != want {
			t.Errorf("%s: got %q, want %q", command, got, want)
		}
	}
}

// A Redis with format 1 keeps it until the store is upgraded. A newer format is
// not lowered.
func TestUpgrade(t *testing.T) {
	r := start(t)
	r.do("SET wxproxy:{00}:format 1")
	s := open(t, r.url(), patient)
	for _, c := range []struct{ before, after string }{
		{"SET wxproxy:{00}:format 1", "2"},
		{"GET wxproxy:{00}:format", "2"},
		{"SET wxproxy:{00}:format 3", "3"},
		{"DEL wxproxy:{00}:format", "2"},
	} {
		r.do(c.before)
		if err := s.Upgrade(t.Context()); err != nil {
			t.Errorf("Upgrade: %v", err)
		}
		if got := r.do("GET wxproxy:{00}:format"); got != c.after {
			t.Errorf("format after %s and Upgrade: got %q, want %q", c.before, got, c.after)
		}
	}
}

func TestNewerFormatIsRejected(t *testing.T) {
	r := start(t)
	open(t, r.url(), patient)
	if v := r.do("GET wxproxy:{00}:format"); v != "2" {
		t.Errorf("format: got %q, want 2", v)
	}
	r.do("SET wxproxy:{00}:format 3")
	_, err := redis.Open(t.Context(), r.url(), patient)
	if !errors.Is(err, store.ErrCorrupt) || !mentions(err, `format "3"`) {
		t.Errorf("got error %v, want ErrCorrupt with the format", err)
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
	replace := func(context.Context, []byte) ([]byte, error) { return record, nil }
	b.RunParallel(func(p *testing.PB) {
		key := fmt.Sprint("account/", n.Add(1))
		for p.Next() {
			if err := s.Update(b.Context(), key, replace); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkClaim(b *testing.B) {
	s := open(b, start(b).url(), redis.Options{})
	var n atomic.Int64
	until := time.Now().Add(time.Hour)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if first, err := s.Claim(b.Context(), fmt.Sprint(n.Add(1)), until); err != nil || !first {
				b.Errorf("got %v, error %v, want true", first, err)
			}
		}
	})
}

// TestTime checks that the store says what time it is in Redis, and nothing
// once it is closed.
func TestTime(t *testing.T) {
	s := open(t, start(t).url(), redis.Options{})
	before := time.Now()
	got, err := s.Time(t.Context())
	if err != nil || got.Before(before.Add(-time.Second)) || got.After(time.Now().Add(time.Second)) {
		t.Errorf("Time: got %v, error %v, want the time of this machine, %v", got, err, before)
	}
	s.Close()
	if got, err := s.Time(t.Context()); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Time after Close: got %v, error %v, want %v", got, err, store.ErrClosed)
	}
}
