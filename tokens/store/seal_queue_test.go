package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/storetest"
)

func TestSealedQueueContract(t *testing.T) {
	storetest.RunQueue(t, func(t *testing.T) store.Store { return seal(t, store.NewMemory()) })
}

func queueOf(t testing.TB, s store.Store) store.Queue {
	t.Helper()
	q, ok := store.As[store.Queuer](s)
	if !ok {
		t.Fatal("the store has no queue")
	}
	return q.Queue()
}

func queueKey(id string) store.QueueKey {
	return store.QueueKey{Service: "orders", AppID: "a", ID: id}
}

func addEvents(t testing.TB, q store.Queue, ids ...string) {
	t.Helper()
	for _, id := range ids {
		e := store.QueueEntry{QueueKey: queueKey(id), Payload: []byte("payload of " + id)}
		if n, err := q.Add(t.Context(), time.Hour, e); n != 1 || err != nil {
			t.Fatalf("add: got %d, error %v, want 1", n, err)
		}
	}
}

func takeEvents(t testing.TB, q store.Queue) []store.TakenEntry {
	t.Helper()
	taken, err := q.Take(t.Context(), map[string]int{"orders": 10}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return taken
}

func findEvent(t testing.TB, q store.Queue, id string) store.QueueEntry {
	t.Helper()
	found, err := q.Find(t.Context(), id)
	if err != nil || len(found) != 1 {
		t.Fatalf("find %s: got %d entries, error %v, want 1", id, len(found), err)
	}
	return found[0]
}

// TestDamagedEntryIsDead takes an entry whose payload is not sealed × was
// changed × cut × emptied × is that of another entry × has an unknown key. It
// is dead at once, and the next one of its lane is taken. It is counted as
// damaged, and can be dropped.
func TestDamagedEntryIsDead(t *testing.T) {
	for name, damage := range map[string]func(sealed, other []byte) []byte{
		"not sealed":  func(sealed, _ []byte) []byte { return []byte("payload of 1") },
		"changed":     func(sealed, _ []byte) []byte { sealed[len(sealed)/2] ^= 1; return sealed },
		"cut":         func(sealed, _ []byte) []byte { return sealed[:len(sealed)-1] },
		"emptied":     func(sealed, _ []byte) []byte { return nil },
		"moved":       func(_, other []byte) []byte { return other },
		"unknown key": func(sealed, _ []byte) []byte { sealed[1] ^= 1; return sealed },
	} {
		inner := store.NewMemory()
		q, raw := queueOf(t, seal(t, inner)), queueOf(t, inner)
		addEvents(t, q, "1", "2")
		before := findEvent(t, raw, "1").Payload
		if bytes.Contains(before, []byte("payload")) {
			t.Fatalf("stored payload: got %q, want it encrypted", before)
		}
		damaged := damage(bytes.Clone(before), findEvent(t, raw, "2").Payload)
		if err := raw.Replace(t.Context(), queueKey("1"), before, damaged); err != nil {
			t.Fatal(err)
		}
		if _, n := left(t, inner, sealKey); n != 1 {
			t.Errorf("%s: got %d damaged entries, want 1", name, n)
		}
		taken := takeEvents(t, q)
		if len(taken) != 1 || taken[0].ID != "2" || string(taken[0].Payload) != "payload of 2" {
			t.Errorf("%s: got %v, want the next entry of the lane", name, taken)
		}
		e := findEvent(t, q, "1")
		if !e.Dead || e.Payload != nil || e.Error != "the event is damaged: it cannot be decrypted" {
			t.Errorf("%s: got %+v, want a dead entry without payload", name, e)
		}
		if err := q.Drop(t.Context(), e.QueueKey); err != nil {
			t.Errorf("%s: drop: %v", name, err)
		}
	}
}

// TestForeignEntryWaits: a process that lacks the key of an entry, while the
// key of the store is changed, gives it back. A process that has the key
// delivers it.
func TestForeignEntryWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := store.NewMemory()
		before := queueOf(t, keyed(t, inner, sealKey))
		after := queueOf(t, keyed(t, inner, wrongKey, sealKey))
		addEvents(t, after, "1")
		if taken := takeEvents(t, before); len(taken) != 0 {
			t.Fatalf("taken without the key: got %v, want none", taken)
		}
		e := findEvent(t, after, "1")
		if e.Dead || e.Error != "this process does not have the key of the event" {
			t.Errorf("after that: got %+v, want a waiting entry that says so", e)
		}
		time.Sleep(time.Until(e.Next))
		taken := takeEvents(t, after)
		if len(taken) != 1 || string(taken[0].Payload) != "payload of 1" {
			t.Errorf("taken with the key: got %v, want the entry", taken)
		}
	})
}

// TestKeyChangeOfQueue seals the entries of a queue, waiting × dead, with
// another key. Until that is done, a start without the key before is refused.
// There are no records at all.
func TestKeyChangeOfQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		oldKey, newKey := sealKey, wrongKey
		inner := store.NewMemory()
		before := queueOf(t, keyed(t, inner, oldKey))
		for i := range 100 {
			addEvents(t, before, fmt.Sprint("old", i))
		}
		if err := before.Expire(t.Context(), queueKey("old7"), "test"); err != nil {
			t.Fatal(err)
		}
		s := keyed(t, inner, newKey, oldKey)
		q := queueOf(t, s)
		addEvents(t, q, "new")
		if n, damaged := left(t, inner, newKey, oldKey); n != 100 || damaged != 0 {
			t.Errorf("before: got %d entries left and %d damaged, want 100 and 0", n, damaged)
		}
		_, err := store.Seal(t.Context(), inner, newKey)
		if !errors.Is(err, store.ErrWrongKey) || !mentions(err, "queue/orders/a/old", "previous_key") {
			t.Errorf("Seal without the key before: got error %v, want ErrWrongKey", err)
		}
		reseal(t, s)
		if n, damaged := left(t, inner, newKey); n != 0 || damaged != 0 {
			t.Errorf("after: got %d entries left and %d damaged, want none", n, damaged)
		}
		after, opened := queueOf(t, keyed(t, inner, newKey)), 0
		err = after.Scan(t.Context(), func(e store.QueueEntry) bool {
			if string(e.Payload) == "payload of "+e.ID && e.Dead == (e.ID == "old7") {
				opened++
			}
			return true
		})
		if err != nil || opened != 101 {
			t.Errorf("entries that open: got %d, error %v, want 101", opened, err)
		}
	})
}
