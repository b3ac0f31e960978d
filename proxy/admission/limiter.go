// Package admission decides how many requests may be in flight at WeChat at a
// time, in total and for one key (the proxy uses the account's appid as key).
// It knows nothing about HTTP.
//
// Three mechanisms work together. The [Limiter] hands out slots. A request that
// gets none waits in a queue, which serves the newest request first and lets
// keys take turns. While more is asked than the CPUs can do, the overload
// controller lowers the limit, so that requests wait in the queue, where they
// cost little.
package admission

import (
	"errors"
	"hash/maphash"
	"sync/atomic"
	"time"
)

// Errors of [Limiter.Acquire] for a request that waited in the queue in vain.
var (
	// ErrLimit means that the limit for all keys together was reached.
	ErrLimit = errors.New("concurrency limit reached")
	// ErrKeyLimit means that the key had its share while others needed slots.
	ErrKeyLimit = errors.New("concurrency limit of this key reached")
)

// Limiter limits the number of requests in flight. Each of them holds a
// connection to WeChat, which is an open file. When WeChat is slow, requests
// pile up. Without a limit they would use up the file descriptors of the
// process. Without a limit per key, the one account for which WeChat is slow
// would take the slots of all others.
//
// All methods are safe for concurrent use.
type Limiter struct {
	maxLimit int64        // bound for limit, set by the file descriptors
	limit    atomic.Int64 // current limit, lower while the CPUs are overloaded
	total    atomic.Int64 // slots in use
	seed     maphash.Seed
	// perKey counts the slots in use by hash of the key. Two keys can share a
	// counter, and then share a limit: a table of all accounts would need a
	// lock and would have to be cleaned up.
	perKey [counters]atomic.Int32
	queue  queue
}

// counters is how many counters there are for all keys.
const counters = 4096

// One key may use any number of slots until 1/fairnessThreshold of all slots is
// in use. From then on it gets new slots only while it has fewer than
// 1/perKeyFraction of them.
const (
	fairnessThreshold = 2
	perKeyFraction    = 8
)

// Slot is the right to have one request in flight. The zero value holds none.
// Slots of keys that share a counter are equal.
type Slot struct{ counter uint16 } // index of the counter, plus one

// NewLimiter returns a limiter of at most maxLimit slots, for which a request
// waits queueTimeout (see [QueueTimeout]). [Limiter.Run] must run for requests
// to leave the queue in time.
func NewLimiter(maxLimit int, queueTimeout time.Duration) *Limiter {
	l := &Limiter{
		maxLimit: int64(maxLimit), seed: maphash.MakeSeed(), queue: queue{timeout: queueTimeout},
	}
	l.limit.Store(l.maxLimit)
	return l
}

// TryAcquire takes a slot for key without waiting and reports whether it got
// one. The slot must be given to [Limiter.Release].
func (l *Limiter) TryAcquire(key []byte) (Slot, bool) {
	slot := l.slot(key)
	if l.take(slot) != nil {
		return Slot{}, false
	}
	return slot, true
}

// slot returns the slot to take for key, which is not taken yet.
func (l *Limiter) slot(key []byte) Slot {
	return Slot{uint16(maphash.Bytes(l.seed, key)%counters) + 1}
}

// inFlight returns the counter of slot.
func (l *Limiter) inFlight(slot Slot) *atomic.Int32 { return &l.perKey[slot.counter-1] }

// take takes slot, or returns ErrLimit or ErrKeyLimit. The total limit is
// exact. The limit per key is not: concurrent requests of one key may all read
// its counter before the first of them increments it.
func (l *Limiter) take(slot Slot) error {
	limit := l.limit.Load()
	for {
		total := l.total.Load()
		switch {
		case total >= limit:
			return ErrLimit
		case total >= limit/fairnessThreshold &&
			int64(l.inFlight(slot).Load()) >= max(limit/perKeyFraction, 1):
			return ErrKeyLimit
		case l.total.CompareAndSwap(total, total+1):
			l.inFlight(slot).Add(1)
			return nil
		}
	}
}

// Release returns a slot and admits waiting requests that may have it.
// Releasing the zero slot does nothing.
func (l *Limiter) Release(slot Slot) {
	if slot.counter == 0 {
		return
	}
	l.inFlight(slot).Add(-1)
	l.total.Add(-1)
	if l.queue.length.Load() > 0 {
		l.admitReleased(slot)
	}
}

// InFlight returns the number of slots in use.
func (l *Limiter) InFlight() int { return int(l.total.Load()) }

// Waiting returns the number of requests that wait for a slot.
func (l *Limiter) Waiting() int { return int(l.queue.length.Load()) }

// setLimit changes the limit, to maxLimit at most. Requests in flight keep
// their slots even if there are more of them.
func (l *Limiter) setLimit(limit int64) {
	l.limit.Store(min(limit, l.maxLimit))
	l.admitAll()
}
