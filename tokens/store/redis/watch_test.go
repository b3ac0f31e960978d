package redis_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"wxproxy/tokens/store"
)

// news is what somebody who watches a store has heard.
type news struct {
	mu         sync.Mutex
	keys       []string
	everything int
}

func watch(t *testing.T, s store.Watcher) *news {
	t.Helper()
	n := &news{}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Watch(ctx, func(keys []string) {
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.keys = append(n.keys, keys...); keys == nil {
				n.everything++
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	n.everythingAfter(t, 0)
	return n
}

// everythingAfter waits until everything may have changed more often than before times, and forgets the rest.
func (n *news) everythingAfter(t *testing.T, before int) int {
	t.Helper()
	eventually(t, "everything may have changed", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.everything <= before {
			return false
		}
		n.keys, before = nil, n.everything
		return true
	})
	return before
}

func (n *news) times() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.everything
}

// heard says whether key has changed, by itself.
func (n *news) heard(key string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(n.keys, key)
}

// hears waits for all of want.
func (n *news) hears(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%q changed", want), func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, key := range want {
			if !slices.Contains(n.keys, key) {
				return false
			}
		}
		n.keys = nil
		return true
	})
}

func TestWatch(t *testing.T) {
	t.Parallel()
	r := start(t)
	a, b := open(t, r.url(), quick), open(t, r.url(), quick)
	n := watch(t, b)
	before := n.times()
	var keys []string
	for i := range 50 {
		keys = append(keys, fmt.Sprint("k/", i))
		put(t, a, keys[i], "one")
	}
	n.hears(t, keys...)
	put(t, b, "own", "one")
	n.hears(t, "own")
	for range 10 {
		put(t, a, "k/1", "two")
	}
	n.hears(t, "k/1")
	if err := a.Update(t.Context(), "k/2", func(context.Context, []byte) ([]byte, error) { return nil, nil }); err != nil {
		t.Fatal(err)
	}
	n.hears(t, "k/2")
	// What changed nothing is no news.
	for _, key := range []string{"k/2", "none"} {
		if err := a.Update(t.Context(), key, func(context.Context, []byte) ([]byte, error) { return nil, nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Update(t.Context(), "k/3", func(context.Context, []byte) ([]byte, error) { return store.Keep, nil }); err != nil {
		t.Fatal(err)
	}
	put(t, a, "end", "one")
	eventually(t, "the end is heard", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return slices.Contains(n.keys, "end")
	})
	n.mu.Lock()
	for _, key := range []string{"k/2", "none", "k/3"} {
		if slices.Contains(n.keys, key) {
			t.Errorf("%s is news", key)
		}
	}
	n.mu.Unlock()
	if n.times() != before {
		t.Errorf("everything may have changed %d times more", n.times()-before)
	}
}

// A Redis that was emptied, with more changes afterwards than there were before, is noticed.
func TestWatchEmptied(t *testing.T) {
	t.Parallel()
	r := start(t)
	a, b := open(t, r.url(), quick), open(t, r.url(), quick)
	put(t, a, "a", "one")
	n := watch(t, b)
	before := n.times()
	r.do("FLUSHALL")
	for range 20 {
		put(t, a, "a", "two")
	}
	n.everythingAfter(t, before)
	eventually(t, "the format is written again", func() bool { return r.do("GET wxproxy:{00}:format") == "1" })
}

// Of a bucket in which more keys have changed than its log holds not all is known.
func TestWatchGap(t *testing.T) {
	t.Parallel()
	r := start(t)
	a, b := open(t, r.url(), quick), open(t, r.url(), quick)
	const head = "wxproxy:{00}:head"
	for i := 0; r.do("EXISTS "+head) == ":0"; i++ {
		put(t, a, fmt.Sprint("first/", i), "one")
	}
	n := watch(t, b)
	before := n.times()
	// As 10,000 updates would have left one bucket: numbered on from what was there, in the same log.
	id := r.do("HGET " + head + " id")
	if id == "" {
		t.Fatal("the bucket has no log")
	}
	add := "ZADD wxproxy:{00}:changes"
	for k := 6001; k <= 10000; k++ {
		add += fmt.Sprintf(" %d k%d", k, k)
	}
	r.do("MULTI", "HSET "+head+" n 10000", "DEL wxproxy:{00}:changes", add, "EXEC")
	n.everythingAfter(t, before)
	put(t, a, "after", "one")
	n.hears(t, "after")
	// The log stays as long as it may be.
	for i := range 100 {
		put(t, a, fmt.Sprint("more/", i), "x")
	}
	if got := r.do("ZCARD wxproxy:{00}:changes"); got != ":4000" {
		t.Errorf("the log holds %s", got)
	}
}

// While Redis is away the watch goes on; when it is back everything is compared, and then changes are heard again.
func TestWatchAway(t *testing.T) {
	t.Parallel()
	r := start(t)
	var mu sync.Mutex
	var said []string
	o := quick
	o.Warn = func(p string) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, p)
	}
	a, b := open(t, r.url(), quick), open(t, r.url(), o)
	n := watch(t, b)
	before := n.times()
	r.stop()
	eventually(t, "it is told that Redis is away", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(said) == 2 // the first: nothing is kept on disk
	})
	if !r.run() {
		t.Fatal("redis-server does not start again")
	}
	began := time.Now()
	n.everythingAfter(t, before)
	t.Logf("noticed after %v", time.Since(began))
	// One more connection may have been made meanwhile, for which everything is compared once more, and that says all there
	// is to say of this change: so it is made again, until it is heard by itself.
	var last time.Time
	for i := 0; last.IsZero() || !n.heard("a"); i++ {
		if time.Since(began) > 30*time.Second {
			t.Fatal("no change is heard")
		}
		if time.Since(last) > 3*time.Second {
			put(t, a, "a", fmt.Sprint(i))
			last = time.Now()
		}
		time.Sleep(10 * time.Millisecond)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(said) != 3 || said[2] != "the store answers again" {
		t.Errorf("%q", said)
	}
}
