//go:build unix

package redis_test

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/storetest"
)

// TestQueueContract uses a user with the permissions of docs/redis.md: those
// did not change when the queue was added.
func TestQueueContract(t *testing.T) {
	r := start(t)
	r.do("ACL " + documentedACL(t))
	at := strings.Replace(r.url(), "://", "://wxproxy:"+password+"@", 1)
	var db atomic.Int64
	storetest.RunQueue(t, func(t *testing.T) store.Store {
		return open(t, fmt.Sprintf("%s/%d", at, db.Add(1)), patient)
	})
}

// TestQueueOfFullRedis: with its memory full, Redis rejects Add. All that is in
// the queue can be delivered, also after a failed try.
func TestQueueOfFullRedis(t *testing.T) {
	r := start(t)
	q := open(t, r.url(), patient).Queue()
	addEvents(t, q, event("a", "1"), event("a", "2"), event("b", "3"))
	r.do("CONFIG SET maxmemory 1")
	if _, err := q.Add(t.Context(), time.Hour, event("a", "4")); !mentions(err, "OOM", r.addr()) {
		t.Errorf("add: got error %v, want OOM with the address", err)
	}
	settle(t, q, takeEvents(t, q, 1, time.Minute)[0], store.QueueFailed)
	if got := deliverAll(t, q); !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("delivered: got %v, want 1, 2 and 3", got)
	}
}

// TestProcessesShareQueue: three stores add and take concurrently. Each entry
// is delivered once, in the order of its lane.
func TestProcessesShareQueue(t *testing.T) {
	r := start(t)
	storetest.AddersAndTakers(t,
		open(t, r.url(), patient), open(t, r.url(), patient), open(t, r.url(), patient))
}

// event returns an entry for the service orders.
func event(appid, id string) store.QueueEntry {
	return store.QueueEntry{
		QueueKey: store.QueueKey{Service: "orders", AppID: appid, ID: id},
		Payload:  []byte("payload of " + id), Created: time.UnixMilli(1_700_000_000_123),
	}
}

func addEvents(t testing.TB, q store.Queue, entries ...store.QueueEntry) {
	t.Helper()
	for _, e := range entries {
		if n, err := q.Add(t.Context(), time.Hour, e); n != 1 || err != nil {
			t.Fatalf("add of %v: got %d, error %v, want 1", e.QueueKey, n, err)
		}
	}
}

// takeEvents takes entries of the service orders.
func takeEvents(t testing.TB, q store.Queue, n int, lease time.Duration) []store.TakenEntry {
	t.Helper()
	taken, err := q.Take(t.Context(), map[string]int{"orders": n}, lease)
	if err != nil {
		t.Fatal(err)
	}
	return taken
}

func settle(t testing.TB, q store.Queue, e store.TakenEntry, result store.QueueResult) {
	t.Helper()
	if err := q.Settle(t.Context(), e, store.QueueOutcome{Result: result}); err != nil {
		t.Fatal(err)
	}
}

// deliverAll delivers entries of the service orders until there are none, and
// returns their ids, sorted.
func deliverAll(t testing.TB, q store.Queue) (ids []string) {
	t.Helper()
	eventually(t, "an empty queue", func() bool {
		for _, e := range takeEvents(t, q, 100, time.Minute) {
			ids = append(ids, e.ID)
			settle(t, q, e, store.QueueDelivered)
		}
		sizes, err := q.Sizes(t.Context())
		return err == nil && sizes["orders"].Waiting == 0
	})
	slices.Sort(ids)
	return ids
}

// TestQueueKeysInRedis adds an event to bucket 12, and takes it. Processes of
// two versions share the queue while wxproxy is updated, so its keys do not
// change. All begin with wxproxy:{0c}:queue:, and hardly any are left when the
// queue is empty.
func TestQueueKeysInRedis(t *testing.T) {
	r := start(t)
	q := open(t, r.url(), patient).Queue()
	keys := func() string {
		names := strings.Fields(r.do("KEYS wxproxy:*queue:*"))
		isClock := func(name string) bool { return strings.HasSuffix(name, ":clock") }
		names = slices.DeleteFunc(names, isClock) // each bucket has one
		slices.Sort(names)
		for i, name := range names {
			short, ok := strings.CutPrefix(name, "wxproxy:{0c}:queue:")
			if !ok {
				t.Errorf("key %q: want wxproxy:{0c}:queue: at its beginning", name)
			}
			names[i] = short
		}
		return strings.Join(names, " ")
	}
	if _, err := q.Add(t.Context(), 0, event("a", "1")); err != nil {
		t.Fatal(err)
	}
	want := "due:orders events items order seq sizes waiting:orders"
	if got := keys(); got != want {
		t.Errorf("keys after Add: got %s, want %s", got, want)
	}
	seq := r.do("GET wxproxy:{0c}:queue:seq")
	for command, want := range map[string]string{
		"HGETALL items":                  "orders/a/1 payload of 1",
		"ZRANGE order 0 -1 WITHSCORES":   "orders/a/0" + seq + "/1 0",
		"ZRANGE waiting:orders 0 0":      "a/0" + seq + "/1",
		"ZSCORE waiting:orders a/0SEQ/1": "1700000000123",
		"ZRANGE due:orders 0 -1":         "a",
		"HGETALL sizes":                  "orders 12",
		"HSTRLEN events 1":               ":64",
		"TYPE known:orders/a/1":          "+none",
	} {
		name, rest, _ := strings.Cut(command, " ")
		rest = strings.Replace(rest, "SEQ", seq, 1)
		if got := r.do(name + " wxproxy:{0c}:queue:" + rest); got != want {
			t.Errorf("%s: got %q, want %q", command, got, want)
		}
	}
	addEvents(t, q, event("a", "2"))
	if got := deliverAll(t, q); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("delivered: got %v, want 1 and 2", got)
	}
	if got, want := keys(), "known:orders/a/2 seq"; got != want {
		t.Errorf("keys of an empty queue: got %s, want %s", got, want)
	}
	if format := r.do("GET wxproxy:{00}:format"); format != "2" {
		t.Errorf("format: got %s, want 2", format)
	}
}

// TestQueueListPages lists 3,000 entries of 2 services and 3 accounts, waiting
// × dead, that were pushed in another order than they are in, some of them at
// the same time. Pages of 700, of all × one service × one account, have each
// entry once, waiting ones first, and the oldest first.
func TestQueueListPages(t *testing.T) {
	t.Parallel()
	r := start(t)
	q := open(t, r.url(), patient).Queue()
	var all []store.QueueEntry
	for i := range 3000 {
		e := event([]string{"a", "b", "c"}[i%3], fmt.Sprint(i))
		e.Service = []string{"orders", "audit"}[i%2]
		e.Created = e.Created.Add(time.Duration(i*7919%1000) * time.Second)
		e.Dead = i%5 == 0
		all = append(all, e)
	}
	if err := q.Restore(t.Context(), all...); err != nil {
		t.Fatal(err)
	}
	for _, f := range []store.QueueFilter{
		{}, {Service: "audit"}, {AppID: "a"}, {Service: "orders", AppID: "c"},
		{AppID: "b", State: store.DeadEntries}, {State: store.WaitingEntries},
	} {
		want := 0
		for _, e := range all {
			if (f.Service == "" || f.Service == e.Service) && (f.AppID == "" || f.AppID == e.AppID) &&
				(f.State == store.AnyQueueState || e.Dead == (f.State == store.DeadEntries)) {
				want++
			}
		}
		seen := map[store.QueueKey]bool{}
		var last store.QueueEntry
		for offset := 0; ; offset += 700 {
			total, page, err := q.List(t.Context(), f, offset, 700)
			if err != nil || total != want {
				t.Fatalf("%+v: got %d in total, error %v, want %d", f, total, err, want)
			}
			for _, e := range page {
				if last.Dead && !e.Dead || last.Dead == e.Dead && e.Created.Before(last.Created) {
					t.Fatalf("%+v: got %v after %v, want the oldest first", f, e, last)
				}
				seen[e.QueueKey], last = true, e
			}
			if len(page) < 700 {
				break
			}
		}
		if len(seen) != want {
			t.Errorf("%+v: got %d entries, want %d", f, len(seen), want)
		}
	}
}
