package tokens

import (
	"hash/maphash"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/ristretto/v2"

	"wxproxy/wechat"
)

// Token is an access token that is valid by wxproxy's clock.
type Token struct {
	// Escaped is the token as it appears in a query. It is a secret like Value.
	Escaped string
	Value   wechat.Secret
	Kind    Kind
	// Hit is set if the token was cached. Otherwise it was read from the store,
	// or fetched from WeChat.
	Hit bool
}

// entry is what the cache holds for one account.
type entry struct {
	token       Token
	usableUntil time.Time    // from then on the token is not sent
	used        atomic.Bool  // a caller got the token; unused tokens are not renewed early
	recheckAt   atomic.Int64 // Unix nanoseconds; from then on the store is read in the background

	// generation is the cache's when the entry was made, if the early renewal
	// does not know the account. Such entries cannot be enumerated, so they are
	// invalidated all at once. 0 means that the account is scheduled.
	generation uint64
}

func newEntry(acc *account, kind Kind) *entry {
	return &entry{
		token: Token{
			Escaped: url.QueryEscape(acc.Access),
			Value:   wechat.NewSecret(acc.Access),
			Kind:    kind,
		},
		usableUntil: acc.usableUntil(),
	}
}

// cache holds the tokens of accounts in front of the store. It is safe for
// concurrent use.
//
// It only makes things faster. ristretto may drop a set under load, and a new
// key stays invisible until its buffers drain. So a miss means nothing, and the
// store is asked.
type cache struct {
	entries *ristretto.Cache[string, *entry]
	now     func() time.Time
	seed    maphash.Seed

	// epochs are counters by hash of the appid. Whatever saves or deletes a
	// token, or learns that another process did, bumps its counter; see put.
	// 1,024 of them make it unlikely that two accounts that change together
	// share one, which would only cost a cache miss.
	epochs     [1024]atomic.Uint64
	generation atomic.Uint64 // entries with another one are invalid; see entry.generation

	evicted atomic.Uint64 // entries that made room for others
	dropped atomic.Uint64 // entries that ristretto did not take
}

// newCache returns a cache for size accounts.
func newCache(size int64, now func() time.Time) (*cache, error) {
	c := &cache{now: now, seed: maphash.MakeSeed()}
	c.generation.Store(1)
	var err error
	c.entries, err = ristretto.NewCache(&ristretto.Config[string, *entry]{
		NumCounters:        10 * size, // what ristretto recommends
		MaxCost:            size,
		BufferItems:        64, // what ristretto recommends
		IgnoreInternalCost: true,
		OnEvict: func(i *ristretto.Item[*entry]) {
			// ristretto reports expired entries here, too. Those are not
			// evictions.
			if i.Expiration.IsZero() || time.Now().Before(i.Expiration) {
				c.evicted.Add(1)
			}
		},
	})
	return c, err
}

// get returns the entry of appid if its token may be sent and the store need
// not be read. It does not keep appid, which may alias a buffer.
func (c *cache) get(appid string) (*entry, bool) {
	e, ok := c.entries.Get(appid)
	if !ok {
		return nil, false
	}
	now := c.now()
	if !now.Before(e.usableUntil) || now.UnixNano() >= e.recheckAt.Load() || !c.current(e) {
		return nil, false
	}
	return e, true
}

// getStale returns the entry of appid if its token may be sent, although the
// store may hold a newer one.
func (c *cache) getStale(appid string) (*entry, bool) {
	e, ok := c.getUnchecked(appid)
	if !ok || !c.current(e) {
		return nil, false
	}
	return e, true
}

// getUnchecked returns the entry of appid if its token may be sent, even if
// dropUnscheduled has invalidated it.
func (c *cache) getUnchecked(appid string) (*entry, bool) {
	e, ok := c.entries.Get(appid)
	return e, ok && c.now().Before(e.usableUntil)
}

func (c *cache) current(e *entry) bool {
	return e.generation == 0 || e.generation == c.generation.Load()
}

// dropUnscheduled invalidates the entries of accounts that the early renewal
// does not know. The epochs are bumped first:
//
//  1. reader: epoch; read the old record; note the old generation
//  2. here:   bump all epochs; bump the generation
//  3. reader: put: the epoch differs, and the entry is not cached
//
// A reader that starts in between has the old generation, so its entry is
// invalid at once.
func (c *cache) dropUnscheduled() {
	for i := range c.epochs {
		c.epochs[i].Add(1)
	}
	c.generation.Add(1)
}

// epoch returns the counter that put compares. Read it before the record.
func (c *cache) epoch(appid string) uint64 { return c.counter(appid).Load() }

// bumpEpoch invalidates what readers are about to put.
func (c *cache) bumpEpoch(appid string) { c.counter(appid).Add(1) }

// supersede returns the epoch for the entry of a record that was just saved.
// epoch must have been read under the account's lock, before the save. If it
// has changed since, another record was saved or seen in the store, and what is
// cached may be either. Then appid is evicted, and put does nothing:
//
//  1. renewal:  lock; save T1; unlock
//  2. exchange: lock; save T2, which replaces T1; unlock; put T2
//  3. renewal:  put T1 (must not happen)
func (c *cache) supersede(appid string, epoch uint64) uint64 {
	if !c.counter(appid).CompareAndSwap(epoch, epoch+1) {
		c.remove(appid)
		return epoch // no longer the current one
	}
	return epoch + 1
}

func (c *cache) counter(appid string) *atomic.Uint64 {
	return &c.epochs[maphash.String(c.seed, appid)%uint64(len(c.epochs))]
}

// put caches e for ttl at most. It does nothing if the epoch of appid changed,
// because then e may be older than what is stored:
//
//  1. reader: read the epoch; load the old record
//  2. writer: save a new record; bump the epoch; put the new entry
//  3. reader: put the old entry (must not stay)
//
// The epoch is compared before and after: the writer may come in between.
//
// The earlier entry is deleted first. ristretto ignores a new key that comes
// while an earlier one still waits in its buffer, and would keep the old token.
func (c *cache) put(appid string, e *entry, ttl time.Duration, epoch uint64) {
	if ttl <= 0 || c.epoch(appid) != epoch {
		return
	}
	c.entries.Del(appid)
	if !c.entries.SetWithTTL(appid, e, 1, ttl) {
		c.dropped.Add(1)
	}
	if c.epoch(appid) != epoch {
		c.entries.Del(appid)
	}
}

// settle waits until all entries that were put are visible. It takes no longer
// than ristretto needs for its buffer.
func (c *cache) settle() { c.entries.Wait() }

// remove evicts appid, and what readers are about to put.
func (c *cache) remove(appid string) {
	c.bumpEpoch(appid)
	c.entries.Del(appid)
}

func (c *cache) close() { c.entries.Close() }
