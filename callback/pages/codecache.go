package pages

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

// maxExchanges is how many exchanged codes are remembered: some 300 bytes each.
const maxExchanges = 10_000

// codeCache remembers which account a code stood for, so that a merchant who reloads the page, or opens it twice, is
// told the same again, and WeChat is not asked. Failures are forgotten: the next one tries again.
type codeCache struct {
	mu    sync.Mutex
	m     map[[sha256.Size]byte]*exchange
	order [][sha256.Size]byte // of those done, oldest first
}

type exchange struct {
	done    chan struct{} // closed when the rest is written
	account tokens.Authorization
	err     error
}

var errExchangePanicked = errors.New("a defect of wxproxy")

// do has code exchanged by f, unless that has happened or is happening. begin, which may refuse, is asked before f is
// called. ctx bounds the waiting for somebody else.
func (x *codeCache) do(ctx context.Context, code wechat.Secret, begin func() error, f func() (tokens.Authorization, error)) (tokens.Authorization, error) {
	key := sha256.Sum256([]byte(code.Reveal()))
	x.mu.Lock()
	if e := x.m[key]; e != nil {
		x.mu.Unlock()
		select {
		case <-e.done:
			return e.account, e.err
		case <-ctx.Done():
			return tokens.Authorization{}, ctx.Err()
		}
	}
	if err := begin(); err != nil {
		x.mu.Unlock()
		return tokens.Authorization{}, err
	}
	e := &exchange{done: make(chan struct{}), err: errExchangePanicked}
	if x.m == nil {
		x.m = make(map[[sha256.Size]byte]*exchange)
	}
	x.m[key] = e
	x.mu.Unlock()

	defer func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		if e.err != nil {
			delete(x.m, key)
		} else if x.order = append(x.order, key); len(x.order) > maxExchanges {
			delete(x.m, x.order[0])
			x.order = x.order[1:]
		}
		close(e.done)
	}()
	e.account, e.err = f()
	return e.account, e.err
}
