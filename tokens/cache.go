package tokens

import (
	"hash/maphash"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/ristretto/v2"

	"wxproxy/wechat"
)

// Token is an access token that is good by our clock.
type Token struct {
	// Escaped is the token as it stands in a query. It is a secret like Value.
	Escaped string
	Value   wechat.Secret
	Kind    Kind
	// Hit: it was in memory; otherwise it had to be read or fetched first.
	Hit bool
}

// entry is what the cache holds of an account.
type entry struct {
	token         Token
	sendableUntil time.Time    // never sent afterwards
	refreshAt     time.Time    // to be renewed from then on
	used          atomic.Bool  // since it was put in; an unused account is not renewed ahead
	recheckAt     atomic.Int64 // Unix nanoseconds: from then on the store is looked at while it serves
	generation    uint64       // of the cache when it was put in, where nobody lists it; 0: it is listed
}

// cache puts ristretto in front of the store. It only makes things faster: a new key is
// invisible until ristretto's buffers drain, and a set may be dropped under load, so a miss
// says nothing and the store is asked.
type cache struct {
	c          *ristretto.Cache[string, *entry]
	now        func() time.Time
	seed       maphash.Seed
	epochs     [1024]atomic.Uint64 // by hash of the appid: changed by each write to the store
	generation atomic.Uint64       // entries that nobody lists are good while this is as it was when they were put in
	evicted    atomic.Uint64
	dropped    atomic.Uint64
}

func newCache(size int64, now func() time.Time) (*cache, error) {
	k := &cache{now: now, seed: maphash.MakeSeed()}
	k.generation.Store(1)
	var err error
	k.c, err = ristretto.NewCache(&ristretto.Config[string, *entry]{
		NumCounters:        10 * size,
		MaxCost:            size,
		BufferItems:        64,
		IgnoreInternalCost: true,
		OnEvict: func(i *ristretto.Item[*entry]) {
			// Entries whose time is up leave by the same door; they were not pushed out.
			if i.Expiration.IsZero() || time.Now().Before(i.Expiration) {
				k.evicted.Add(1)
			}
		},
	})
	return k, err
}

// get gives the entry of appid if it may be sent without more ado. It does not keep appid.
func (k *cache) get(appid string) (*entry, bool) {
	e, ok := k.c.Get(appid)
	if !ok {
		return nil, false
	}
	if now := k.now(); !now.Before(e.sendableUntil) || now.UnixNano() >= e.recheckAt.Load() || !k.valid(e) {
		return nil, false
	}
	return e, true
}

// getStale gives the entry of appid if it may be sent, though the store may know something newer.
func (k *cache) getStale(appid string) (*entry, bool) {
	e, ok := k.c.Get(appid)
	if !ok || !k.now().Before(e.sendableUntil) || !k.valid(e) {
		return nil, false
	}
	return e, true
}

func (k *cache) valid(e *entry) bool { return e.generation == 0 || e.generation == k.generation.Load() }

// dropUnscheduled drops the entries that nobody lists. First the epochs: an entry that is on its way in either has the old
// number, or is refused.
func (k *cache) dropUnscheduled() {
	for i := range k.epochs {
		k.epochs[i].Add(1)
	}
	k.generation.Add(1)
}

// epoch and put keep a reader from putting in what it read before somebody wrote:
//
//	reader: e := epoch(a); load the record
//	writer:                                  save a new record; touch(a); put the new entry
//	reader: put the old entry, e is outdated → removed at once
func (k *cache) epoch(appid string) uint64 { return k.slot(appid).Load() }

func (k *cache) bumpEpoch(appid string) uint64 { return k.slot(appid).Add(1) }

func (k *cache) slot(appid string) *atomic.Uint64 {
	return &k.epochs[maphash.String(k.seed, appid)%uint64(len(k.epochs))]
}

// put keeps e for at most ttl.
func (k *cache) put(appid string, e *entry, ttl time.Duration, epoch uint64) {
	if ttl <= 0 || k.epoch(appid) != epoch {
		return
	}
	if !k.c.SetWithTTL(appid, e, 1, ttl) {
		k.dropped.Add(1)
	}
	if k.epoch(appid) != epoch {
		k.c.Del(appid)
	}
}

func (k *cache) remove(appid string) {
	k.bumpEpoch(appid)
	k.c.Del(appid)
}

func (k *cache) close() { k.c.Close() }

func newEntry(a *account, kind Kind, due time.Time) *entry {
	return &entry{
		token:         Token{Escaped: url.QueryEscape(a.Access), Value: wechat.NewSecret(a.Access), Kind: kind},
		sendableUntil: a.sendableUntil(),
		refreshAt:     due,
	}
}
