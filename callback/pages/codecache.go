package pages

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

// maxCodes is the maximum number of exchanged codes that are remembered, about
// 300 bytes each.
const maxCodes = 10_000

var errInternal = errors.New("internal error")

// codeCache remembers which account a code stood for. If a merchant reloads the
// page, or opens it twice, it shows the same result without another call to
// WeChat. Failures are forgotten, so that the next request tries again.
//
// The zero value is an empty cache. It is safe for concurrent use.
type codeCache struct {
	mu      sync.Mutex
	entries map[codeKey]*codeEntry
	order   []codeKey // of exchanged codes, oldest first
}

// codeKey identifies a code and the state that came with it: nothing is shared
// between two states. The codes themselves are not kept in memory.
type codeKey [sha256.Size]byte

// codeKeyOf returns the key of a code, which has no space, and a state.
func codeKeyOf(code wechat.Secret, state string) codeKey {
	return sha256.Sum256([]byte(code.Reveal() + " " + state))
}

// codeEntry is a code that is being exchanged or was exchanged.
type codeEntry struct {
	done    chan struct{} // closed after the fields below were written
	account tokens.Authorization
	err     error
}

// do returns the account that a code stands for: from exchange, or from another
// call of do with the same key. ctx limits only the wait for another call.
func (c *codeCache) do(
	ctx context.Context, key codeKey, exchange func() (tokens.Authorization, error),
) (tokens.Authorization, error) {
	c.mu.Lock()
	if e := c.entries[key]; e != nil {
		c.mu.Unlock()
		select {
		case <-e.done:
			return e.account, e.err
		case <-ctx.Done():
			return tokens.Authorization{}, ctx.Err()
		}
	}
	e := &codeEntry{done: make(chan struct{}), err: errInternal} // stays so if exchange panics
	if c.entries == nil {
		c.entries = make(map[codeKey]*codeEntry)
	}
	c.entries[key] = e
	c.mu.Unlock()

	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if e.err != nil {
			delete(c.entries, key)
		} else if c.order = append(c.order, key); len(c.order) > maxCodes {
			delete(c.entries, c.order[0])
			c.order = c.order[1:]
		}
		close(e.done)
	}()
	e.account, e.err = exchange()
	return e.account, e.err
}
