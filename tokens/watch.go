package tokens

import (
	"context"
	"errors"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"wxproxy/tokens/store"
)

// watchStore keeps what is in memory in step with a store that other processes write to. While the store is away, what is in
// memory goes on being used; it is compared when the store is back.
func (b *Broker) watchStore(w store.Watcher) {
	w.Watch(b.maintenance.ctx, func(keys []string) {
		if keys == nil {
			b.compareAll()
			return
		}
		for _, key := range keys {
			if appid, ok := strings.CutPrefix(key, accountPrefix); ok {
				b.compare(appid)
			}
		}
	})
}

// compareReaders ask the store at the same time: 100,000 accounts take some seconds.
const compareReaders = 16

// compareAll compares each account in memory, and drops those that cannot be listed.
func (b *Broker) compareAll() {
	b.cache.dropUnscheduled()
	var g errgroup.Group
	g.SetLimit(compareReaders)
	for _, appid := range b.earlyRefresher.appids() {
		g.Go(func() error { b.compare(appid); return nil })
	}
	_ = g.Wait()
	b.restoreKeys()
	b.maintenance.wake() // the store may be empty
}

// compare drops the token of appid from memory if the store has another one, or none. It tries until the store answers.
func (b *Broker) compare(appid string) {
	// First: who has read the record before now puts it into memory no more.
	b.cache.bumpEpoch(appid)
	for {
		same, err := b.agreesWithStore(appid)
		switch {
		case err == nil && same:
			return
		case err == nil, errors.Is(err, store.ErrCorrupt):
			// Also where nothing was found in memory: what was put there a moment ago may not be visible yet.
			b.cache.remove(appid)
			return
		}
		select {
		case <-time.After(time.Second):
		case <-b.maintenance.ctx.Done():
			return
		}
	}
}

// agreesWithStore says whether memory and store agree on appid.
func (b *Broker) agreesWithStore(appid string) (bool, error) {
	e, ok := b.cache.getStale(appid)
	if !ok {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(b.maintenance.ctx, renewTimeout)
	defer cancel()
	acc, err := b.loadAccount(ctx, appid)
	if err != nil {
		return false, err
	}
	if acc == nil {
		// In a store that was emptied the missing record says nothing about the account, and the token may well be good.
		return b.storeEmptied(ctx)
	}
	return !acc.IsRevoked && acc.Access == e.token.Value.Reveal(), nil
}

// storeEmptied says that the store has lost both things that the component has there after its first ticket, and that no operator
// removes together.
func (b *Broker) storeEmptied(ctx context.Context) (bool, error) {
	component := b.Component()
	if component == "" {
		return false, nil
	}
	for _, key := range []string{accountKey(component), ticketKey(component)} {
		if _, err := b.store.Load(ctx, key); !errors.Is(err, store.ErrNotFound) {
			return false, err
		}
	}
	return true, nil
}

// restoreKeys gives our keys back to a store that was emptied: what was signed with them stays good, and a process that starts
// now signs as we do.
func (b *Broker) restoreKeys() {
	ctx, cancel := context.WithTimeout(b.maintenance.ctx, renewTimeout)
	defer cancel()
	for name, key := range b.keys.all() {
		var other bool
		err := b.store.Update(ctx, secretKey(name), func(_ context.Context, raw []byte) ([]byte, error) {
			r, err := decodeSecret(raw)
			if err != nil || r != nil {
				other = r != nil && string(r.Key) != string(key)
				return store.Keep, err
			}
			return encode(&secretRecord{Version: recordVersion, Key: key}), nil
		})
		if other {
			b.log.Error("the store has another signing key than this process: restart it, or stand-ins of one are refused by the other", "key", name)
		}
		if err != nil && ctx.Err() == nil {
			b.log.Warn("a signing key could not be given back to the store", "key", name, "error", err)
		}
	}
}
