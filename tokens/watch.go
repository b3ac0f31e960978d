package tokens

import (
	"context"
	"strings"
	"sync"
	"time"

	"wxproxy/tokens/store"
)

// storeWatcher keeps the cache in step with a store that other processes write
// to. While the store is unavailable, cached tokens serve on; they are compared
// when it is back. The zero value of the fields in the second half is ready for
// use. It is safe for concurrent use.
type storeWatcher struct {
	store    store.Watcher
	accounts *accounts
	cache    *cache
	tasks    *taskGroup

	appids      func() []string       // cached accounts that can be enumerated
	nameChanged func(userName string) // "": any name may have changed
	// onUnknown is called when every record of some parts may have changed. It
	// gets the identities of their data, by part, and does not wait for the
	// store.
	onUnknown func(parts map[int]string)
	kind      func(appid string) Kind

	mu sync.Mutex
	// waiting has the accounts to be compared, by part. The value is set if the
	// part may have lost records.
	waiting map[int]map[string]bool
	workers map[int]int // goroutines that compare them, by part
}

const (
	// partWorkers is how many accounts of one part of the store are compared
	// concurrently. 100,000 accounts in 16 parts take some seconds.
	partWorkers = 2
	// compareRetryPause is how long to wait for a part that does not respond.
	compareRetryPause = time.Second
)

// run follows the store until the Broker is closed.
func (w *storeWatcher) run() {
	w.store.Watch(w.tasks.background, func(c store.Changes) {
		w.expect(c)
		for _, key := range c.Keys {
			if appid, ok := strings.CutPrefix(key, accountPrefix); ok {
				w.enqueue(appid, false)
			} else if userName, ok := strings.CutPrefix(key, namePrefix); ok {
				w.nameChanged(userName)
			}
		}
		if len(c.Unknown) > 0 {
			w.compareParts(c.Unknown)
		}
	})
}

// expect prevents that a reader caches what it has loaded before the changes,
// and makes visible what others have cached before:
//
//  1. reader: load the old record; put it; it is not visible yet
//  2. here:   it is not cached, so it need not be compared (must not happen)
func (w *storeWatcher) expect(c store.Changes) {
	for _, key := range c.Keys {
		if appid, ok := strings.CutPrefix(key, accountPrefix); ok {
			w.cache.bumpEpoch(appid)
		}
	}
	if len(c.Unknown) > 0 {
		w.cache.dropUnscheduled()
	}
	w.cache.settle()
}

// compareParts compares each cached account in parts with the store, and those
// that cannot be enumerated when they are used next.
func (w *storeWatcher) compareParts(parts map[int]string) {
	w.nameChanged("")
	w.onUnknown(parts)
	for _, appid := range w.appids() {
		if _, ok := parts[w.store.PartOf(accountKey(appid))]; ok {
			w.enqueue(appid, true)
		}
	}
}

// enqueue compares appid soon, if it is cached. mayBeLost is set if its part may
// have lost records. The caller has called expect.
//
// Each part of the store has its own queue, which is bounded by the number of
// cached accounts: a part that does not respond must not delay the others.
func (w *storeWatcher) enqueue(appid string, mayBeLost bool) {
	if _, ok := w.cache.getStale(appid); !ok {
		return // what a reader is about to put is invalid
	}
	part := w.store.PartOf(accountKey(appid))
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting == nil {
		w.waiting, w.workers = map[int]map[string]bool{}, map[int]int{}
	}
	if w.waiting[part] == nil {
		w.waiting[part] = map[string]bool{}
	}
	w.waiting[part][appid] = w.waiting[part][appid] || mayBeLost
	if w.workers[part] < partWorkers {
		w.workers[part]++
		go w.compareWaiting(part)
	}
}

// next takes an account of a part that is to be compared. If there is none the
// calling worker has to end.
func (w *storeWatcher) next(part int) (appid string, mayBeLost, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for appid, mayBeLost := range w.waiting[part] {
		delete(w.waiting[part], appid)
		return appid, mayBeLost, true
	}
	delete(w.waiting, part)
	w.workers[part]--
	return "", false, false
}

// compareWaiting compares the accounts of a part that wait. It retries until
// the store responds, or the Broker is closed.
func (w *storeWatcher) compareWaiting(part int) {
	for {
		appid, mayBeLost, ok := w.next(part)
		if !ok {
			return
		}
		for w.compare(appid, mayBeLost) != nil {
			select {
			case <-time.After(compareRetryPause):
			case <-w.tasks.background.Done():
				return
			}
		}
	}
}

// compare evicts appid if the store says something else than its cached token.
// A record that is missing or damaged says nothing: the store may have lost it,
// while the token is valid. Nor does one without a token, which is how the
// comparison with WeChat's list restores a record that was lost. If the store
// may have lost records, a missing one is restored from the cache.
//
// Comparing instead of evicting means that this process's own changes evict
// nothing, and that a store that comes and goes costs nothing.
func (w *storeWatcher) compare(appid string, mayBeLost bool) error {
	e, ok := w.cache.getStale(appid)
	if !ok {
		return nil
	}
	return w.tasks.run(w.tasks.background, taskTimeout, func(ctx context.Context) error {
		acc, err := w.accounts.load(ctx, appid)
		switch {
		case err != nil:
			return err
		case acc == nil && mayBeLost:
			return w.accounts.restore(ctx, appid, w.kind(appid))
		case acc == nil:
			return nil
		case acc.IsRevoked, acc.Access != "" && acc.Access != e.token.Value.Reveal():
			w.cache.remove(appid)
		}
		return nil
	})
}
