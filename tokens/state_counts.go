package tokens

import (
	"context"
	"sync"
	"time"

	"wxproxy/tokens/store"
)

// stateCounter counts the authorizers by state. It reads all records, so a
// count serves for a while. It is safe for concurrent use.
type stateCounter struct {
	store store.Store
	tasks *taskGroup
	now   func() time.Time

	mu      sync.Mutex
	counts  map[State]int // nil if unknown
	until   time.Time     // from then on they are counted again
	running chan struct{} // closed when the count that runs is done; nil if none does
}

const (
	countsLifetime = 2 * time.Second
	// countsWait is how long get waits for a count before it returns the
	// previous one. Counting a million accounts takes longer.
	countsWait = time.Second
	// countTimeout bounds one count.
	countTimeout = 2 * time.Minute
)

// get returns the numbers of accounts; see [Stats.AccountCounts].
func (c *stateCounter) get() (counts AccountCounts, known bool) {
	c.mu.Lock()
	// One goroutine counts for all callers.
	if (c.counts == nil || !c.now().Before(c.until)) && c.running == nil {
		c.running = make(chan struct{})
		go c.count()
	}
	running := c.running
	c.mu.Unlock()
	if running != nil {
		select {
		case <-running:
		case <-time.After(countsWait):
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	counts = AccountCounts{
		Active: c.counts[Active], Revoked: c.counts[Revoked], Failing: c.counts[Failing],
		Forgotten: c.counts[Forgotten],
	}
	return counts, c.counts != nil
}

// count reads all records. A slow count serves twenty times as long as it took,
// so that counting never takes more than a twentieth of the time.
func (c *stateCounter) count() {
	ctx, cancel := context.WithTimeout(c.tasks.ctx, countTimeout)
	defer cancel()
	began, counts := c.now(), map[State]int{}
	err := listRecords(ctx, c.store, accountPrefix, func(_ string, acc *account) bool {
		if acc.Kind == Authorizer.String() {
			counts[acc.state()]++
		}
		return true
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts = nil // a count that failed leaves the numbers unknown, not as they were
	if err == nil {
		now := c.now()
		c.counts, c.until = counts, now.Add(max(countsLifetime, 20*now.Sub(began)))
	}
	close(c.running)
	c.running = nil
}
