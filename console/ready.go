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

// readyWait is what Config.Ready is given. Orchestrators usually give up after some seconds
// themselves, and then nobody would read the reason.
const readyWait = 2 * time.Second

var errReadyLate = errors.New("not known: the check did not answer within 2 s")

// readiness asks once for all who want to know at the same time: the path is open, and nobody
// shall be able to put load on the store through it.
type readiness struct {
	ask func(context.Context) error

	mu  sync.Mutex
	now *asking // nil: nobody is asking
}

// asking is one run of ask. It may outlive its context, if ask does not heed it; until it is
// back there is no other, so that goroutines do not pile up.
type asking struct {
	ctx   context.Context
	done  chan struct{}
	err   error // to be read after done
	panic any   // likewise: what ask panicked with, nil if it did not
}

func (q *readiness) serve(w http.ResponseWriter, r *http.Request) {
	if err := q.get(r.Context()); err != nil {
		reply(w, http.StatusServiceUnavailable, strings.TrimRight(err.Error(), "\n")+"\n")
		return
	}
	reply(w, http.StatusOK, "ready")
}

// get waits for the answer, until it is late or the client has left.
func (q *readiness) get(client context.Context) error {
	if q.ask == nil {
		return nil
	}
	a := q.join()
	select {
	case <-a.done:
	case <-client.Done():
		return client.Err() // nobody reads it
	case <-a.ctx.Done():
		select { // both may be true: an answer that is there counts
		case <-a.done:
		default:
			return errReadyLate
		}
	}
	if a.panic != nil {
		panic(a.panic) // to each who asked, each with a request to answer
	}
	return a.err
}

// join gives the asking that is under way, or begins one. Its context is not a client's: the
// first to ask may leave while others wait.
func (q *readiness) join() *asking {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.now != nil {
		return q.now
	}
	ctx, cancel := context.WithTimeout(context.Background(), readyWait)
	a := &asking{ctx: ctx, done: make(chan struct{})}
	q.now = a
	go func() {
		defer func() {
			if cause := recover(); cause != nil {
				// With the stack of where it happened: it is thrown again elsewhere.
				a.panic = relayed(fmt.Sprintf("%s in Config.Ready\n%s", describePanic(cause), debug.Stack()))
			}
			q.mu.Lock()
			q.now = nil
			q.mu.Unlock()
			close(a.done)
			cancel()
		}()
		a.err = q.ask(ctx)
	}()
	return a
}
