package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// readyTimeout is how long Config.Ready may take. Orchestrators usually give up
// after some seconds themselves, and then they would not read the reason.
const readyTimeout = 2 * time.Second

var errReadyTimeout = errors.New("unknown: the check timed out after 2 s")

// readiness collapses concurrent checks into one. Its endpoint is not
// authenticated and must not let clients load the store.
type readiness struct {
	probe func(context.Context) error // nil for always ready

	mu      sync.Mutex
	current *check // nil while none runs
}

// check is one run of the probe. A probe that ignores its context can outlive
// it. Until it returns, no other check starts, so that goroutines do not
// accumulate.
type check struct {
	ctx   context.Context
	done  chan struct{}
	err   error // set before done is closed
	panic any   // like err: the cause if the probe panicked, else nil
}

// serve answers on /readyz.
func (q *readiness) serve(w http.ResponseWriter, r *http.Request) {
	if err := q.get(r.Context()); err != nil {
		reply(w, http.StatusServiceUnavailable, strings.TrimRight(err.Error(), "\n")+"\n")
		return
	}
	reply(w, http.StatusOK, "ready")
}

// get waits for the result of a check, for its timeout, or for client to end.
func (q *readiness) get(client context.Context) error {
	if q.probe == nil {
		return nil
	}
	c := q.join()
	select {
	case <-c.done:
	case <-client.Done():
		return client.Err()
	case <-c.ctx.Done():
		// Both channels can be ready at the same time. Prefer the result.
		select {
		case <-c.done:
		default:
			return errReadyTimeout
		}
	}
	if c.panic != nil {
		// In the goroutine of each client, where the panic is turned into a
		// response.
		panic(c.panic)
	}
	return c.err
}

// join returns the running check, or starts one. Its context is not a client's,
// because the client that started it can leave while others wait.
func (q *readiness) join() *check {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.current != nil {
		return q.current
	}
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	c := &check{ctx: ctx, done: make(chan struct{})}
	q.current = c
	go func() {
		defer func() {
			if cause := recover(); cause != nil {
				// With the stack of this goroutine: the panic is raised again
				// in another one.
				c.panic = relayed(fmt.Sprintf("%s in Config.Ready\n%s", describePanic(cause),
					debug.Stack()))
			}
			q.mu.Lock()
			q.current = nil
			q.mu.Unlock()
			close(c.done)
			cancel()
		}()
		c.err = q.probe(ctx)
	}()
	return c
}
