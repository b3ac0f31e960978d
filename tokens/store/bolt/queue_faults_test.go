package bolt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/bolt"
)

// event returns the entry of an event for the service orders.
func event(appid, id string) store.QueueEntry {
	return store.QueueEntry{
		QueueKey: store.QueueKey{Service: "orders", AppID: appid, ID: id},
		Payload:  []byte("payload of " + appid + "/" + id),
		Created:  time.UnixMilli(1_700_000_000_000),
	}
}

// addEvents adds entries, each of which must be new.
func addEvents(t testing.TB, s *bolt.Store, entries ...store.QueueEntry) {
	t.Helper()
	for _, e := range entries {
		if added, err := s.Queue().Add(t.Context(), time.Hour, e); err != nil || added != 1 {
			t.Fatalf("add: got %d, error %v, want 1", added, err)
		}
	}
}

// takeEvents returns the entries of the service orders that are due.
func takeEvents(t testing.TB, s *bolt.Store) []store.TakenEntry {
	t.Helper()
	taken, err := s.Queue().Take(t.Context(), map[string]int{"orders": 100}, store.MaxQueuePause)
	if err != nil {
		t.Fatalf("take: %v", err)
	}
	return taken
}

func settle(t testing.TB, s *bolt.Store, e store.TakenEntry, o store.QueueOutcome) {
	t.Helper()
	if err := s.Queue().Settle(t.Context(), e, o); err != nil {
		t.Fatalf("settle: %v", err)
	}
}

// contents returns everything that the queue of s has: its entries and sizes.
func contents(t testing.TB, s *bolt.Store) string {
	t.Helper()
	sizes, err := s.Queue().Sizes(t.Context())
	text := fmt.Sprintln(sizes, err)
	err = s.Queue().Scan(t.Context(), func(e store.QueueEntry) bool {
		text += fmt.Sprintf("%+v\n", e)
		return true
	})
	if err != nil {
		t.Fatalf("scan: %v", err)
	}
	return text
}

// filledQueue makes a queue with entries that are waiting, failed (for the
// longest pause), dead, and taken, in four lanes.
func filledQueue(t testing.TB, s *bolt.Store) {
	t.Helper()
	for _, appid := range []string{"a", "b", "c", "d"} {
		addEvents(t, s, event(appid, "1"), event(appid, "2"), event(appid, "3"))
	}
	for _, e := range takeEvents(t, s) {
		switch e.AppID {
		case "b":
			settle(t, s, e, store.QueueOutcome{
				Result: store.QueueFailed, Pause: store.MaxQueuePause, Error: "refused",
			})
		case "c":
			settle(t, s, e, store.QueueOutcome{Result: store.QueueDead, Error: "late"})
		case "d":
			settle(t, s, e, store.QueueOutcome{Result: store.QueueDelivered})
		}
	}
}

// TestQueueSurvivesReopening × closed and opened × compacted: the queue has the
// same entries and sizes. After a restart, a lane that was taken is due, and one
// whose pause lasts is not. What was delivered is still known. Opening changes
// nothing in the file.
func TestQueueSurvivesReopening(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, path string){
		"reopened": func(*testing.T, string) {},
		"compacted": func(t *testing.T, path string) {
			if _, _, err := bolt.Compact(t.Context(), path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.db")
			s := open(t, path)
			filledQueue(t, s)
			before := contents(t, s)
			mustClose(t, s)
			change(t, path)
			file := read(t, path)
			s = open(t, path)
			if after := contents(t, s); after != before {
				t.Errorf("got %s, want %s", after, before)
			}
			var due []string
			for _, e := range takeEvents(t, s) {
				due = append(due, e.AppID+"/"+e.ID)
			}
			slices.Sort(due)
			if fmt.Sprint(due) != "[a/1 c/2 d/2]" {
				t.Errorf("due after a restart: got %v, want a/1, c/2 and d/2", due)
			}
			added, err := s.Queue().Add(t.Context(), time.Hour, event("d", "1"))
			if err != nil || added != 0 {
				t.Errorf("delivered before: got %d, error %v, want it known", added, err)
			}
			mustClose(t, s)
			if !bytes.Equal(file, read(t, path)) {
				t.Error("opening and taking has changed the file")
			}
		})
	}
}

// TestQueueFollowsRemovedFile removes the file while it is open: the queue is
// in the one that is written again, and its reservations stay.
func TestQueueFollowsRemovedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, path)
	s.ExpectRemovedFile(time.Millisecond)
	filledQueue(t, s)
	takeEvents(t, s)
	before := contents(t, s)
	if err := os.Remove(path); err != nil {
		t.Skipf("an open file cannot be removed here: %v", err)
	}
	eventually(t, "store after its file was removed", func() error { return s.Ping(t.Context()) })
	if after := contents(t, s); after != before {
		t.Errorf("got %s, want %s", after, before)
	}
	if taken := takeEvents(t, s); len(taken) != 0 {
		t.Errorf("take: got %v, want the reservations to hold", taken)
	}
	addEvents(t, s, event("e", "1"))
	mustClose(t, s)
	s = open(t, path)
	if _, err := s.Queue().Find(t.Context(), "1"); err != nil {
		t.Errorf("find after a restart: %v", err)
	}
}

// TestQueueDiskErrors: while commits fail with ENOSPC or EIO, each change
// returns the error, nothing of it is there, and the lane of a try that could
// not be settled stays reserved. When the disk works again, so does the queue.
func TestQueueDiskErrors(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EIO} {
		var disk failingDisk
		s, path := openOn(t, &disk)
		filledQueue(t, s)
		addEvents(t, s, event("e", "1"))
		taken := takeEvents(t, s)
		before := contents(t, s)
		disk.fail(errno)
		q, ctx := s.Queue(), t.Context()
		_, add := q.Add(ctx, time.Hour, event("a", "4"), event("a", "5"))
		dead := event("c", "1").QueueKey
		for what, err := range map[string]error{
			"add":     add,
			"settle":  q.Settle(ctx, taken[0], store.QueueOutcome{Result: store.QueueDelivered}),
			"restore": q.Restore(ctx, event("f", "1")),
			"revive":  q.Revive(ctx, dead),
			"expire":  q.Expire(ctx, event("a", "3").QueueKey, "late"),
			"drop":    q.Drop(ctx, dead),
			"replace": q.Replace(ctx, dead, event("c", "1").Payload, []byte("new")),
		} {
			if !errors.Is(err, errno) {
				t.Errorf("%v: %s: got error %v", errno, what, err)
			}
		}
		if taken := takeEvents(t, s); len(taken) != 0 {
			t.Errorf("%v: take: got %v, want the reservations to hold", errno, taken)
		}
		if after := contents(t, s); after != before {
			t.Errorf("%v: got %s, want %s", errno, after, before)
		}
		disk.repair()
		eventually(t, "add after "+errno.Error(), func() error {
			_, err := q.Add(ctx, time.Hour, event("a", "4"), event("a", "5"))
			return err
		})
		settle(t, s, taken[0], store.QueueOutcome{Result: store.QueueDelivered})
		state := contents(t, s)
		mustClose(t, s)
		if after := contents(t, open(t, path)); after != state {
			t.Errorf("%v: after a restart: got %s, want %s", errno, after, state)
		}
	}
}

// TestDamagedQueueDelaysNothing damages each part of an entry in the file × the
// first one of its lane × one behind it: the value, the payload, the number,
// the key. The others are delivered in their order. A damaged entry is dead
// without a payload, and can be dropped, also when it was revived.
func TestDamagedQueueDelaysNothing(t *testing.T) {
	for _, bucket := range []string{"queue_entries", "queue_payloads", "queue_ids"} {
		for n := range 2 {
			t.Run(fmt.Sprint(bucket, n), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "a.db")
				s := open(t, path)
				addEvents(t, s, event("a", "1"), event("a", "2"), event("a", "3"))
				addEvents(t, s, event("b", "1"))
				mustClose(t, s)
				edit(t, path, func(tx *bbolt.Tx) error {
					b := tx.Bucket([]byte(bucket))
					c := b.Cursor()
					k, v := c.First()
					if n == 1 {
						k, v = c.Next()
					}
					if bucket == "queue_ids" && n == 1 {
						k, v = c.Next() // the first two are those of event 1
					}
					return b.Put(k, append(bytes.Clone(v[:len(v)-1]), v[len(v)-1]^0x10))
				})
				s = open(t, path)
				damaged := fmt.Sprint(n + 1)
				wantDelivered(t, s, damaged, bucket != "queue_ids")
			})
		}
	}
}

// wantDelivered delivers what is due. If the event damaged of account a must be
// dead, it revives it and lets Take find it once more, and then drops it.
func wantDelivered(t *testing.T, s *bolt.Store, damaged string, dead bool) {
	t.Helper()
	var got, want []string
	for _, id := range []string{"1", "2", "3"} {
		if id != damaged || !dead {
			want = append(want, id)
		}
	}
	deliver := func() {
		for taken := takeEvents(t, s); len(taken) > 0; taken = takeEvents(t, s) {
			for _, e := range taken {
				if e.AppID == "a" {
					got = append(got, e.ID)
				}
				settle(t, s, e, store.QueueOutcome{Result: store.QueueDelivered})
			}
		}
	}
	deliver()
	if !slices.Equal(got, want) {
		t.Errorf("delivered: got %v, want %v", got, want)
	}
	if !dead {
		if _, err := s.Queue().Find(t.Context(), "2"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("find: got error %v, want ErrNotFound", err)
		}
		return
	}
	key := event("a", damaged).QueueKey
	_, listed, err := s.Queue().List(t.Context(), store.QueueFilter{}, 0, 10)
	if err != nil || len(listed) != 1 || !listed[0].Dead || listed[0].QueueKey != key ||
		listed[0].Error == "" {
		t.Fatalf("list: got %+v, error %v, want a dead entry", listed, err)
	}
	if err := s.Queue().Revive(t.Context(), key); err != nil {
		t.Errorf("revive: %v", err)
	}
	deliver()
	err = s.Queue().Drop(t.Context(), key)
	if err != nil && !errors.Is(err, store.ErrNotFound) { // an intact payload was delivered
		t.Errorf("drop: %v", err)
	}
	if sizes, err := s.Queue().Sizes(t.Context()); err != nil || len(sizes) != 0 {
		t.Errorf("sizes: got %v, error %v, want none", sizes, err)
	}
}

// TestBitFlipInQueue flips single bits all over a file with a queue: the file
// is rejected as damaged, or every entry that is taken has the payload that was
// added. Nothing panics, and the queue can be used.
func TestBitFlipInQueue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, path)
	for i := range 40 {
		e := event(fmt.Sprint("account", i%7), fmt.Sprint(i))
		e.Payload = bytes.Repeat(e.Payload, 1+i*4) // the last ones overflow their page
		addEvents(t, s, e)
	}
	mustClose(t, s)
	file := read(t, path)
	rejected := 0
	const tries = 300
	for range tries {
		flipped := bytes.Clone(file)
		flipped[rand.N(len(file))] ^= 1 << rand.N(8)
		if err := os.WriteFile(path, flipped, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := bolt.Open(t.Context(), path)
		if err != nil {
			rejected++
			continue
		}
		for _, e := range takeEvents(t, s) {
			var i int
			fmt.Sscan(e.ID, &i)
			want := event(e.AppID, e.ID)
			if !bytes.Equal(e.Payload, bytes.Repeat(want.Payload, 1+i*4)) {
				t.Fatalf("taken: got %.100q for event %s", e.Payload, e.ID)
			}
			settle(t, s, e, store.QueueOutcome{Result: store.QueueDelivered})
		}
		contents(t, s)
		addEvents(t, s, event("new", "new"))
		mustClose(t, s)
	}
	t.Logf("%d of %d flips were rejected", rejected, tries)
	if rejected > tries*3/4 {
		t.Errorf("got %d of %d flips rejected, want a quarter to be used", rejected, tries)
	}
}

// TestFileWithoutQueueIsUnchanged: opening a file of an earlier version and
// asking for its queue writes nothing.
func TestFileWithoutQueueIsUnchanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, path)
	put(t, s, "a", "one")
	mustClose(t, s)
	before := read(t, path)
	s = open(t, path)
	if got := contents(t, s); got != "map[] <nil>\n" {
		t.Errorf("got %s, want an empty queue", got)
	}
	if taken := takeEvents(t, s); len(taken) != 0 {
		t.Errorf("take: got %v, want none", taken)
	}
	_, err := s.Queue().Find(context.Background(), "1")
	if drop := s.Queue().Drop(t.Context(), event("a", "1").QueueKey); err != drop ||
		!errors.Is(drop, store.ErrNotFound) {
		t.Errorf("find and drop: got errors %v and %v, want ErrNotFound", err, drop)
	}
	mustClose(t, s)
	if !bytes.Equal(before, read(t, path)) {
		t.Error("an empty queue has changed the file")
	}
}
