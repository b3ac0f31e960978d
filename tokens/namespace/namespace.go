// Package namespace gives the records of a store names that say which platform
// they belong to, so that one store can hold several platforms.
//
// Package tokens names its records KIND/NAME, such as "account/APPID". In the
// database they have these names:
//
//	platform/COMPONENT/KIND/NAME  records of a platform, by its component's appid
//	own/account/APPID             own accounts, which belong to no platform
//	key/NAME                      signing keys, which all platforms share
//
// Up to version 1 of the stores' formats, the names in the database were those
// of package tokens. [Namespace.Move] gives such records their new names.
package namespace

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"wxproxy/tokens/store"
)

// Prefixes of keys, as package tokens uses them and as the database has them.
const (
	accountPrefix  = "account/"
	keyPrefix      = "key/"
	platformPrefix = "platform/"
	ownPrefix      = "own/"
)

// Platform says whose records a [Namespace] shows. The zero value is a wxproxy
// without a component and without own accounts.
type Platform struct {
	Component string // appid; "" if there is none
	// Own reports whether an appid is that of an own account. nil: none is.
	Own func(appid string) bool
}

// prefix returns how the names of the platform's records begin in the database.
func (p *Platform) prefix() string { return platformPrefix + p.Component + "/" }

// isOwn reports whether key is the record of an own account. The component is
// none, whatever the configuration says.
func (p *Platform) isOwn(key string) bool {
	appid, ok := strings.CutPrefix(key, accountPrefix)
	return ok && appid != p.Component && p.Own != nil && p.Own(appid)
}

// stored returns the name that the record key has in the database.
func (p *Platform) stored(key string) string {
	switch {
	case strings.HasPrefix(key, keyPrefix):
		return key
	case p.isOwn(key):
		return ownPrefix + key
	}
	return p.prefix() + key
}

// key is the reverse of stored. ok is false for records that the platform does
// not have: those of other platforms, and those of an account from a time at
// which it was of another kind.
func (p *Platform) key(stored string) (key string, ok bool) {
	if strings.HasPrefix(stored, keyPrefix) {
		return stored, true
	}
	if key, ok := strings.CutPrefix(stored, ownPrefix); ok {
		return key, p.isOwn(key)
	}
	key, ok = strings.CutPrefix(stored, p.prefix())
	return key, ok && !p.isOwn(key)
}

// Kind returns the kind of a record, such as "account", by its name in the
// database.
func Kind(stored string) string {
	if rest, ok := strings.CutPrefix(stored, platformPrefix); ok {
		_, stored, _ = strings.Cut(rest, "/")
	}
	kind, _, _ := strings.Cut(strings.TrimPrefix(stored, ownPrefix), "/")
	return kind
}

// Namespace is the part of a store that belongs to one platform. It is safe for
// concurrent use.
//
// An account that becomes an own account, or an authorizer again, has another
// record from then on. The record of its former kind stays in the database, and
// serves if the account changes back.
type Namespace struct {
	inner    store.Store
	log      *slog.Logger
	platform atomic.Pointer[Platform]

	moving atomic.Bool // a Move runs in the background
	moves  sync.WaitGroup
}

// New returns the namespace of p in inner. log must not be nil.
func New(inner store.Store, p Platform, log *slog.Logger) *Namespace {
	n := &Namespace{inner: inner, log: log}
	n.Configure(p)
	return n
}

// Configure replaces the platform, after the configuration has changed.
func (n *Namespace) Configure(p Platform) { n.platform.Store(&p) }

// Store returns the store whose keys are those of package tokens. It is a
// [store.Watcher] if the inner store is one. Closing it closes the inner store.
func (n *Namespace) Store() store.Store {
	v := &view{Store: n.inner, n: n}
	if w, ok := store.As[store.Watcher](n.inner); ok {
		return &watchingView{v, w}
	}
	return v
}

// view is the store of a Namespace. Claims have no platform: what is claimed is
// derived from what WeChat signed, which no two platforms have in common.
type view struct {
	store.Store // the inner one
	n           *Namespace
}

// Unwrap returns the inner store, see [store.As].
func (v *view) Unwrap() store.Store { return v.Store }

// Partitions implements [store.Partitioned]. A store that is none has one.
func (v *view) Partitions() int {
	if p, ok := store.As[store.Partitioned](v.Store); ok {
		return p.Partitions()
	}
	return 1
}

// Partition implements [store.Partitioned].
func (v *view) Partition(key string) int {
	if p, ok := store.As[store.Partitioned](v.Store); ok {
		return p.Partition(v.n.platform.Load().stored(key))
	}
	return 0
}

// PingPartition implements [store.Partitioned].
func (v *view) PingPartition(ctx context.Context, partition int) error {
	if p, ok := store.As[store.Partitioned](v.Store); ok {
		return p.PingPartition(ctx, partition)
	}
	return v.Ping(ctx)
}

// Load implements [store.Store].
func (v *view) Load(ctx context.Context, key string) ([]byte, error) {
	return v.Store.Load(ctx, v.n.platform.Load().stored(key))
}

// Update implements [store.Store].
func (v *view) Update(ctx context.Context, key string, fn store.UpdateFunc) error {
	if key == "" {
		return store.ErrEmptyKey
	}
	return v.Store.Update(ctx, v.n.platform.Load().stored(key), fn)
}

// entry is a record that was read, but not yielded yet.
type entry struct {
	key    string
	record []byte
}

// List implements [store.Store]. It reads the own accounts and the signing keys
// first, which are few, and merges them with the records of the platform.
func (v *view) List(
	ctx context.Context, prefix, after string, yield func(key string, record []byte) bool,
) error {
	p := v.n.platform.Load()
	few, err := v.listFew(ctx, p, prefix, after)
	if err != nil {
		return err
	}
	stopped := false
	// yieldFew yields those of few that precede key; "" means all.
	yieldFew := func(key string) bool {
		for len(few) > 0 && !stopped && (key == "" || few[0].key < key) {
			stopped = !yield(few[0].key, few[0].record)
			few = few[1:]
		}
		return !stopped
	}
	storedAfter := ""
	if after != "" {
		storedAfter = p.prefix() + after
	}
	yieldStored := func(stored string, record []byte) bool {
		if key, ok := p.key(stored); ok {
			stopped = !yieldFew(key) || !yield(key, record)
		}
		return !stopped
	}
	err = v.Store.List(ctx, p.prefix()+prefix, storedAfter, yieldStored)
	if err == nil {
		yieldFew("")
	}
	return err
}

// listFew returns the own accounts and the signing keys that List has to yield,
// in the order of their keys.
func (v *view) listFew(
	ctx context.Context, p *Platform, prefix, after string,
) (few []entry, err error) {
	for _, c := range []struct{ kind, stored string }{ // in the order of kind
		{accountPrefix, ownPrefix},
		{keyPrefix, ""},
	} {
		within := prefix
		if strings.HasPrefix(c.kind, prefix) {
			within = c.kind // prefix covers more than this kind
		} else if !strings.HasPrefix(prefix, c.kind) {
			continue
		}
		err = v.Store.List(ctx, c.stored+within, "", func(stored string, record []byte) bool {
			if key, ok := p.key(stored); ok && key > after {
				few = append(few, entry{key, record})
			}
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	return few, nil
}

// watchingView is the store of a Namespace whose inner store has a change feed.
type watchingView struct {
	*view
	watcher store.Watcher
}

// PartOf implements [store.Watcher].
func (v *watchingView) PartOf(key string) int {
	return v.watcher.PartOf(v.n.platform.Load().stored(key))
}

// Watch implements [store.Watcher]. It passes on changes of the platform's
// records. Records under old names, which a process of an earlier version has
// written, are moved.
func (v *watchingView) Watch(ctx context.Context, changed func(store.Changes)) {
	defer v.n.moves.Wait()
	v.watcher.Watch(ctx, func(stored store.Changes) {
		p := v.n.platform.Load()
		c, hasOld := store.Changes{Unknown: stored.Unknown}, len(stored.Unknown) > 0
		for _, s := range stored.Keys {
			if key, ok := p.key(s); ok {
				c.Keys = append(c.Keys, key)
			} else {
				hasOld = hasOld || hasOldName(s)
			}
		}
		if hasOld {
			v.n.moveInBackground(ctx)
		}
		if len(c.Keys) > 0 || len(c.Unknown) > 0 {
			changed(c)
		}
	})
}
