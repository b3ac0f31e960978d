//go:build unix

package redis_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"wxproxy/tokens/store"
)

// watcher records what Watch has reported.
type watcher struct {
	mu         sync.Mutex
	keys       []string // since the last waitFor or waitForReset
	resetCount int      // reports that every record of some buckets may have changed

	data map[int]string // identity of each bucket's data, as reported last
}

// watch starts watching s, and returns after the first report of each bucket: a
// change before it is not reported by name.
func watch(t *testing.T, s store.Watcher) *watcher {
	t.Helper()
	w := &watcher{data: map[int]string{}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Watch(ctx, func(c store.Changes) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.keys = append(w.keys, c.Keys...); len(c.Unknown) > 0 {
				w.resetCount++
			}
			maps.Copy(w.data, c.Unknown)
		})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	eventually(t, "a report of each bucket", func() bool { return len(w.identities()) == 16 })
	w.waitForReset(t, 0)
	return w
}

// waitForReset waits for more than before reports that every record may have
// changed, and clears the keys.
func (w *watcher) waitForReset(t *testing.T, before int) {
	t.Helper()
	eventually(t, "a report that every record may have changed", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.resetCount <= before {
			return false
		}
		w.keys = nil
		return true
	})
}

// identities returns the identity of each bucket's data.
func (w *watcher) identities() map[int]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.data)
}

func (w *watcher) resets() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.resetCount
}

// reported reports whether all keys were reported by name.
func (w *watcher) reported(keys ...string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, key := range keys {
		if !slices.Contains(w.keys, key) {
			return false
		}
	}
	return true
}

// waitFor waits until all keys were reported, and clears the keys.
func (w *watcher) waitFor(t *testing.T, keys ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("reports of %q", keys), func() bool { return w.reported(keys...) })
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keys = nil
}

// waitForChangeOf changes key until the change is reported by name. After an
// outage, another connection may be made at any time. Its report covers earlier
// changes, without their names.
func (w *watcher) waitForChangeOf(t *testing.T, s store.Store, key string) {
	t.Helper()
	n, changedAt := 0, time.Time{}
	eventually(t, "a report of "+key+" by name", func() bool {
		if time.Since(changedAt) > 3*time.Second {
			n++
			put(t, s, key, fmt.Sprint(n))
			changedAt = time.Now()
		}
		return w.reported(key)
	})
}

func TestWatchReportsChanges(t *testing.T) {
	t.Parallel()
	r := start(t)
	a, b := open(t, r.url(), patient), open(t, r.url(), patient)
	w := watch(t, b)
	before := w.resets()
	var keys []string
	for i := range 50 {
		keys = append(keys, fmt.Sprint("k/", i))
		put(t, a, keys[i], "one")
	}
	w.waitFor(t, keys...)
	put(t, b, "own", "one")
	w.waitFor(t, "own")
	for range 10 {
		put(t, a, "k/1", "two")
	}
	w.waitFor(t, "k/1")
	if err := a.Update(t.Context(), "k/2", deleteRecord); err != nil {
		t.Fatal(err)
	}
	w.waitFor(t, "k/2")

	// Updates that change nothing are not reported: deleting a missing record,
	// and Keep.
	for _, key := range []string{"k/2", "none"} {
		if err := a.Update(t.Context(), key, deleteRecord); err != nil {
			t.Fatal(err)
		}
	}
	keep := func(context.Context, []byte) ([]byte, error) { return store.Keep, nil }
	if err := a.Update(t.Context(), "k/3", keep); err != nil {
		t.Fatal(err)
	}
	put(t, a, "end", "one")
	eventually(t, "a report of the last change", func() bool { return w.reported("end") })
	for _, key := range []string{"k/2", "none", "k/3"} {
		if w.reported(key) {
			t.Errorf("%s was reported, but did not change", key)
		}
	}
	if got := w.resets(); got != before {
		t.Errorf("reports that every record may have changed: got %d more, want none", got-before)
	}
}

// TestWatchDetectsEmptiedRedis makes more changes after Redis was emptied than
// there were before.
func TestWatchDetectsEmptiedRedis(t *testing.T) {
	t.Parallel()
	r := start(t)
	a, b := open(t, r.url(), patient), open(t, r.url(), patient)
	put(t, a, "a", "one")
	w := watch(t, b)
	before := w.resets()
	r.do("FLUSHALL")
	for range 20 {
		put(t, a, "a", "two")
	}
	w.waitForReset(t, before)
	eventually(t, "the format is written again", func() bool { return r.do("GET wxproxy:{00}:format") == "2" })
}

// TestWatchDetectsLogOverflow: if more keys have changed than the log of a
// bucket holds, every record may have changed.
func TestWatchDetectsLogOverflow(t *testing.T) {
	t.Parallel()
	r := start(t)
	a, b := open(t, r.url(), patient), open(t, r.url(), patient)
	const head = "wxproxy:{00}:head"
	for i := 0; r.do("EXISTS "+head) == ":0"; i++ {
		put(t, a, fmt.Sprint("first/", i), "one")
	}
	w := watch(t, b)
	before := w.resets()
	// Leave the bucket as 10,000 updates would: same log, higher numbers.
	if id := r.do("HGET " + head + " id"); id == "" {
		t.Fatal("the bucket has no change log")
	}
	add := "ZADD wxproxy:{00}:changes"
	for k := 6001; k <= 10000; k++ {
		add += fmt.Sprintf(" %d k%d", k, k)
	}
	r.do("MULTI", "HSET "+head+" n 10000", "DEL wxproxy:{00}:changes", add, "EXEC")
	w.waitForReset(t, before)
	put(t, a, "after", "one")
	w.waitFor(t, "after")
	// Further changes do not make the log longer.
	for i := range 100 {
		put(t, a, fmt.Sprint("more/", i), "x")
	}
	if got := r.do("ZCARD wxproxy:{00}:changes"); got != ":4000" {
		t.Errorf("length of the log: got %s, want :4000", got)
	}
}

// TestWatchContinuesAfterOutage stops and restarts Redis under a watcher. It
// warns once, reports that every record may have changed, and then reports
// changes.
func TestWatchContinuesAfterOutage(t *testing.T) {
	t.Parallel()
	r := start(t)
	var mu sync.Mutex
	var warnings []string
	o := patient
	o.Warn = func(p string) {
		mu.Lock()
		defer mu.Unlock()
		warnings = append(warnings, p)
	}
	a, b := open(t, r.url(), patient), open(t, r.url(), o)
	w := watch(t, b)
	before := w.resets()
	r.stop()
	eventually(t, "a warning that Redis is unreachable", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(warnings) == 2 // the first is about persistence
	})
	if !r.run() {
		t.Fatal("redis-server does not start again")
	}
	w.waitForReset(t, before)
	w.waitForChangeOf(t, a, "a")
	mu.Lock()
	defer mu.Unlock()
	if len(warnings) != 3 || warnings[2] != "store reachable again" {
		t.Errorf("got warnings %q, want the third to say that the store is reachable", warnings)
	}
}

// TestWatchTellsWhichBucketsLostRecords: the data of a bucket gets another
// identity if its keys are deleted, if it lost its newest changes, and if all of
// Redis is emptied. That of the other buckets stays, and so does that of all
// after a new connection. Processes agree, also one that starts later.
func TestWatchTellsWhichBucketsLostRecords(t *testing.T) {
	t.Parallel()
	r := start(t)
	s := open(t, r.url(), patient)
	for i := range 100 {
		put(t, s, fmt.Sprint("k/", i), "one")
	}
	w, other := watch(t, s), watch(t, open(t, r.url(), patient))
	before := w.identities()
	// lost waits until the identities of exactly these buckets have changed.
	lost := func(what string, buckets ...int) {
		t.Helper()
		eventually(t, what+": other identities", func() bool {
			got := w.identities()
			for i, id := range got {
				if changed := id != before[i]; changed != slices.Contains(buckets, i) {
					return false
				}
			}
			return maps.Equal(got, other.identities())
		})
		before = w.identities()
		if later := watch(t, open(t, r.url(), patient)); !maps.Equal(later.identities(), before) {
			t.Errorf("%s: a process that starts later got the identities %v, want %v",
				what, later.identities(), before)
		}
	}
	if len(before) != 16 {
		t.Fatalf("got identities %v, want 16", before)
	}
	lost("nothing")
	r.do("DEL wxproxy:{0c}:records wxproxy:{0c}:names wxproxy:{0c}:changes wxproxy:{0c}:head")
	lost("keys of a bucket deleted", 12)
	r.do("HINCRBY wxproxy:{05}:head n -1")
	lost("newest change of a bucket lost", 5)
	resets := w.resets()
	r.do("CLIENT KILL TYPE normal")
	w.waitForReset(t, resets)
	lost("connection lost")
	r.do("FLUSHALL")
	var all []int
	for i := range 16 {
		all = append(all, i)
	}
	lost("everything deleted", all...)
	put(t, s, "k/0", "two")
	w.waitFor(t, "k/0")
	lost("record saved after the loss")
}

// TestStoppedNodeDelaysNoOtherBucket: while a node of a cluster does not
// respond, changes in the buckets of the other nodes are reported. When it
// responds again, so are those of its buckets.
func TestStoppedNodeDelaysNoOtherBucket(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t)
	for _, n := range nodes {
		n.do("CONFIG SET cluster-require-full-coverage no")
	}
	s := open(t, "redis+cluster://"+nodes[0].addr()+","+nodes[2].addr(), patient)
	w := watch(t, s)
	eventually(t, "a report of each bucket", func() bool { return len(w.identities()) == 16 })
	var there, elsewhere []string // keys on node 1, and on the others
	for i := range 100 {
		key := fmt.Sprint("k/", i)
		reply, err := nodes[1].try(fmt.Sprintf("EXISTS wxproxy:{%02x}:head", s.PartOf(key)))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(reply, ":") {
			there = append(there, key)
		} else {
			elsewhere = append(elsewhere, key)
		}
	}
	nodes[1].signal(syscall.SIGSTOP)
	for _, key := range elsewhere {
		put(t, s, key, "one")
	}
	w.waitFor(t, elsewhere...)
	nodes[1].signal(syscall.SIGCONT)
	for _, key := range there {
		put(t, s, key, "one")
	}
	w.waitFor(t, there...)
}
