package tokens

import (
	"context"
	"errors"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"wxproxy/tokens/store"
)

// storeWatcher keeps the cache in step with a store that other processes write
// to. While the store is unavailable, cached tokens serve on; they are compared
// when it is back.
type storeWatcher struct {
	store    store.Watcher
	accounts *accounts
	cache    *cache
	tasks    *taskGroup

	appids       func() []string                     // cached accounts that can be enumerated
	emptied      func(context.Context) (bool, error) // whether all records may have been deleted
	onAllChanged func(context.Context)               // called when any record may have changed
	nameChanged  func(userName string)               // "": any name may have changed
}

// maxComparisons is how many accounts are compared concurrently. 100,000
// accounts take some seconds.
const maxComparisons = 16

// compareRetryPause is how long to wait for a store that does not respond.
const compareRetryPause = time.Second

// run follows the store until the Broker is closed.
func (w *storeWatcher) run() {
	w.store.Watch(w.tasks.background, func(keys []string) {
		if keys == nil {
			w.compareAll()
			return
		}
		for _, key := range keys {
			if appid, ok := strings.CutPrefix(key, accountPrefix); ok {
				w.compare(appid)
			} else if userName, ok := strings.CutPrefix(key, namePrefix); ok {
				w.nameChanged(userName)
			}
		}
	})
}

// compareAll compares each cached account with the store, and drops those that
// cannot be enumerated.
func (w *storeWatcher) compareAll() {
	w.cache.dropUnscheduled()
	w.nameChanged("")
	var g errgroup.Group
	g.SetLimit(maxComparisons)
	for _, appid := range w.appids() {
		g.Go(func() error { w.compare(appid); return nil })
	}
	_ = g.Wait()
	ctx, cancel := context.WithTimeout(w.tasks.background, taskTimeout)
	defer cancel()
	w.onAllChanged(ctx)
}

// compare evicts appid unless the store holds the cached token. It retries
// until the store responds. The epoch is bumped first, so that a reader that
// loaded the record before the change does not cache it afterwards; see
// cache.put.
//
// Comparing instead of evicting means that this process's own changes evict
// nothing, and that a store that comes and goes costs nothing.
func (w *storeWatcher) compare(appid string) {
	w.cache.bumpEpoch(appid)
	for {
		agrees, err := w.agrees(appid)
		switch {
		case err == nil && agrees:
			return
		case err == nil, errors.Is(err, store.ErrCorrupt):
			// Also if nothing was cached: a new entry may still be invisible.
			w.cache.remove(appid)
			return
		}
		select {
		case <-time.After(compareRetryPause):
		case <-w.tasks.background.Done():
			return
		}
	}
}

// agrees reports whether the store holds the cached token of appid. If the
// store was emptied, a missing record says nothing about the account, and the
// token may well be valid.
func (w *storeWatcher) agrees(appid string) (bool, error) {
	e, ok := w.cache.getStale(appid)
	if !ok {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(w.tasks.background, taskTimeout)
	defer cancel()
	acc, err := w.accounts.load(ctx, appid)
	if err != nil {
		return false, err
	}
	if acc == nil {
		return w.emptied(ctx)
	}
	return !acc.IsRevoked && acc.Access == e.token.Value.Reveal(), nil
}

// storeEmptied reports whether the store lost both records that the component
// has there after its first ticket, and that no operator deletes together.
func storeEmptied(ctx context.Context, s store.Store, component string) (bool, error) {
	if component == "" {
		return false, nil
	}
	for _, key := range []string{accountKey(component), ticketKey(component)} {
		if _, err := s.Load(ctx, key); !errors.Is(err, store.ErrNotFound) {
			return false, err
		}
	}
	return true, nil
}
