package proxy

import (
	"sync/atomic"
	"time"
)

// bucket keeps a caller to its rate. It is a token bucket in the form of GCRA: instead of tokens it holds the
// time at which it will be full again, one number, so that no lock is needed.
type bucket struct {
	interval time.Duration // between two calls at the rate
	slack    time.Duration // by how much full may lie ahead: burst-1 intervals
	full     atomic.Int64  // when the bucket is full again, nanoseconds since epoch
}

// epoch is where the buckets count from: with the monotonic clock, which nobody can set back.
var epoch = time.Now()

// newBucket allows rate calls a second, and burst at once (0: as many as rate). nil where rate is 0: no limit.
func newBucket(rate, burst int) *bucket {
	if rate <= 0 {
		return nil
	}
	if burst <= 0 {
		burst = max(1, rate)
	}
	interval := max(time.Second/time.Duration(rate), 1)
	return &bucket{interval: interval, slack: time.Duration(burst-1) * interval}
}

// same reports whether both allow the same.
func (b *bucket) same(o *bucket) bool {
	return b != nil && o != nil && b.interval == o.interval && b.slack == o.slack
}

// take takes one call out, or says after what time there will be one.
func (b *bucket) take(now time.Time) time.Duration {
	at := int64(now.Sub(epoch))
	for {
		full := b.full.Load()
		next := max(full, at)
		if ahead := time.Duration(next - at); ahead > b.slack {
			return ahead - b.slack
		}
		if b.full.CompareAndSwap(full, next+int64(b.interval)) {
			return 0
		}
	}
}
