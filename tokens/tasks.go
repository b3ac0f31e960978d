package tokens

import (
	"context"
	"sync"
	"time"

	"wxproxy/tokens/governor"
)

// taskGroup counts the work of a Broker, so that Close can wait for it. It is
// safe for concurrent use.
type taskGroup struct {
	// ctx bounds work that WeChat does not let wxproxy repeat, such as a
	// renewal or the exchange of a code. It ends when Close gives up waiting.
	ctx    context.Context
	cancel context.CancelFunc

	// background bounds work that can be done again at any time, such as the
	// comparison with WeChat's list. It ends when Close begins. Its requests to
	// WeChat come after all others.
	background       context.Context
	cancelBackground context.CancelFunc

	mu     sync.RWMutex // guards closed; held while wg is incremented
	closed bool
	wg     sync.WaitGroup
}

// taskTimeout bounds one task, including the time it waits for locks.
const taskTimeout = 20 * time.Second

func newTaskGroup() *taskGroup {
	g := new(taskGroup)
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.background, g.cancelBackground = context.WithCancel(
		governor.WithClass(g.ctx, governor.Background))
	return g
}

// run calls fn with a context that ends with parent, which is g.ctx or
// g.background, or after timeout; 0 means without a limit. It returns ErrClosed
// if Close was called.
//
// The lock makes sure that a task is either counted before Close waits, or not
// started:
//
//  1. task:  closed? no
//  2. Close: closed = true; wait: no tasks; return; the store is closed
//  3. task:  count itself, use the store
func (g *taskGroup) run(
	parent context.Context, timeout time.Duration, fn func(ctx context.Context) error,
) error {
	g.mu.RLock()
	if g.closed {
		g.mu.RUnlock()
		return ErrClosed
	}
	g.wg.Add(1)
	g.mu.RUnlock()
	defer g.wg.Done()
	if timeout == 0 {
		return fn(parent)
	}
	ctx, cancel := context.WithTimeout(parent, timeout)
	defer cancel()
	return fn(ctx)
}

// stopping reports whether the tasks' context was canceled by Close.
func (g *taskGroup) stopping() bool { return g.ctx.Err() != nil }

// close makes run return ErrClosed and ends background work. It returns false
// if it was called before.
func (g *taskGroup) close() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.closed = true
	g.cancelBackground()
	return true
}

// wait returns when all tasks have ended. When ctx ends it cancels them, waits
// for them to notice, and returns the error of ctx.
func (g *taskGroup) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() { g.wg.Wait(); close(done) }()
	defer g.cancel()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		g.cancel()
		<-done
		return ctx.Err()
	}
}
