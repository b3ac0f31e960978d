package pages

import (
	"crypto/sha256"
	"sync"
	"time"
)

const (
	// maxAttempts is how many codes that WeChat rejects one state can bring.
	// Further codes with that state are limited like those without one:
	// otherwise one page would buy any number of calls to WeChat.
	maxAttempts = 3
	// maxAttemptStates bounds the memory, to about 1 MB. It is more than all
	// clients of a process can get in the life of a state, 1,560.
	maxAttemptStates = 10_000
)

// attempts counts the codes that each state has brought, except for those that
// WeChat did not reject. It is safe for concurrent use. now must be set.
type attempts struct {
	now func() time.Time

	mu     sync.Mutex
	states map[[sha256.Size]byte]*attempt
}

// attempt is the count of one state.
type attempt struct {
	count int
	first time.Time
}

// take counts a code that a valid state brings. It reports false, and counts
// nothing, if the state has no attempts left.
func (c *attempts) take(sealed string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := sha256.Sum256([]byte(sealed))
	a := c.states[key]
	switch {
	case a == nil:
		if c.states == nil {
			c.states = make(map[[sha256.Size]byte]*attempt)
		}
		now := c.now()
		if len(c.states) >= maxAttemptStates {
			c.evict(now)
		}
		a = &attempt{first: now}
		c.states[key] = a
	case a.count >= maxAttempts:
		return false
	}
	a.count++
	return true
}

// giveBack undoes take for a code that WeChat did not reject.
func (c *attempts) giveBack(sealed string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := sha256.Sum256([]byte(sealed))
	if a := c.states[key]; a != nil {
		if a.count--; a.count <= 0 {
			delete(c.states, key)
		}
	}
}

// evict removes the states that have expired, or any one if none has.
func (c *attempts) evict(now time.Time) {
	for key, a := range c.states {
		if now.Sub(a.first) >= stateLife {
			delete(c.states, key)
		}
	}
	for key := range c.states {
		if len(c.states) < maxAttemptStates {
			return
		}
		delete(c.states, key)
	}
}
