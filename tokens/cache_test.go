package tokens

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"wxproxy/tokens/store"
)

// dropUnscheduled invalidates what cannot be enumerated, and what a reader that
// started before is about to put.
func TestDropUnscheduled(t *testing.T) {
	c, err := newCache(1000, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	put := func(appid string, generation, epoch uint64) {
		e := &entry{usableUntil: time.Now().Add(time.Hour), generation: generation}
		c.put(appid, e, time.Hour, epoch)
		c.entries.Wait() // ristretto shows a new key only then
	}
	before, epoch := c.generation.Load(), c.epoch("late")
	put("scheduled", 0, c.epoch("scheduled"))
	put("unscheduled", before, c.epoch("unscheduled"))
	c.dropUnscheduled()
	put("late", 0, epoch)
	put("old generation", before, c.epoch("old generation"))
	put("new generation", c.generation.Load(), c.epoch("new generation"))
	for appid, want := range map[string]bool{
		"scheduled": true, "unscheduled": false, "late": false,
		"old generation": false, "new generation": true,
	} {
		if _, got := c.getStale(appid); got != want {
			t.Errorf("%s: got cached %t, want %t", appid, got, want)
		}
	}
}

// An entry that is put right after another one replaces it, also while ristretto
// has not made the first one visible yet. It may be missing.
func TestPutReplacesInvisibleEntry(t *testing.T) {
	c, err := newCache(1000, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for i := range 1000 {
		appid := fmt.Sprint("account ", i)
		var last *entry
		for range 2 {
			last = &entry{usableUntil: time.Now().Add(time.Hour)}
			c.put(appid, last, time.Hour, c.epoch(appid))
		}
		c.settle()
		if got, ok := c.getStale(appid); ok && got != last {
			t.Fatalf("account %d: got the first entry, want the last one or none", i)
		}
	}
}

// tellingStore tells its watcher of changes once.
type tellingStore struct {
	store.Store
	changes store.Changes
}

func (s tellingStore) Watch(_ context.Context, changed func(store.Changes)) { changed(s.changes) }
func (s tellingStore) PartOf(string) int                                    { return 0 }

// Readers that have loaded records before these changed cache them while the
// watcher is told of the changes: of 1,000 accounts that another process marked
// as revoked, by key or as records that may have changed. None stays cached,
// although ristretto does not show at once what is put.
func TestReaderCachesNothingDuringNews(t *testing.T) {
	const accountsTold = 1000
	for _, byKey := range []bool{true, false} {
		c, err := newCache(2*accountsTold, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		s := tellingStore{Store: store.NewMemory()}
		tasks := newTaskGroup()
		log := slog.New(slog.DiscardHandler)
		us := newUnsavedStore(
			s.Store, func(string) error { return nil }, tasks, time.Now, log)
		appids, epochs := make([]string, accountsTold), make([]uint64, accountsTold)
		for i := range appids {
			appids[i] = fmt.Sprintf("wx%016d", i)
			revoked := newAccount(Authorizer)
			revoked.IsRevoked = true
			err := changeRecord(t.Context(), s.Store, accountKey(appids[i]),
				func(*account) (*account, error) { return revoked, nil })
			if err != nil {
				t.Fatal(err)
			}
			s.changes.Keys = append(s.changes.Keys, namePrefix+appids[i], accountKey(appids[i]))
			epochs[i] = c.epoch(appids[i])
		}
		read := func(i int) {
			e := newEntry(&account{
				Access: "A", IssuedAt: millis(time.Now()),
				ExpiresAt: millis(time.Now().Add(time.Hour)),
			}, Authorizer)
			e.recheckAt.Store(time.Now().Add(time.Hour).UnixNano())
			c.put(appids[i], e, time.Hour, epochs[i])
		}
		told := 0
		w := &storeWatcher{
			store: s, cache: c, tasks: tasks, onUnknown: func(map[int]string) {},
			accounts: &accounts{store: us, cache: c, now: time.Now, log: log},
			appids: func() []string {
				for i := range appids {
					read(i)
				}
				return appids
			},
			nameChanged: func(userName string) {
				if userName != "" { // the next change is of the account
					read(told)
					told++
				}
			},
		}
		if !byKey {
			w.store = tellingStore{s.Store, store.Changes{Unknown: map[int]string{0: "other"}}}
		}
		w.run()
		c.settle()
		cached := 0
		for range 1000 {
			cached = 0
			for _, appid := range appids {
				if _, ok := c.getStale(appid); ok {
					cached++
				}
			}
			if cached == 0 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if cached > 0 {
			t.Errorf("by key %v: got %d old tokens cached, want none", byKey, cached)
		}
	}
}
