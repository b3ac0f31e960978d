package callback

import (
	"context"
	"sync"
	"time"
)

const (
	// A push is remembered for an hour: WeChat's own repeats come within minutes.
	replayAge = time.Hour
	// And 8,192 of them at most, which is about 1 MiB. A component gets six tickets an hour
	// and two pushes for each account that comes; only what WeChat has signed is counted,
	// so that no stranger can push anything out.
	replayCount = 8192
)

// replays remembers the pushes that were handled with success, so that nobody who has seen
// one go by can have it handled again. Those that failed it forgets: WeChat is to repeat them.
//
// What has fallen out, or was there before a restart, does no harm when it comes again:
// CreateTime puts events in order wherever they are kept. An older ticket, an older authorization and an
// older withdrawal change nothing, and a code can be exchanged only once.
//
// A push is known by its msg_signature alone. That covers timestamp, nonce and Encrypt; together
// with them it would be a weaker key, because joined without separators they can be cut
// elsewhere under the same signature.
type replays struct {
	mu       sync.Mutex
	handled  map[string]struct{}
	order    []handled                // oldest first
	underway map[string]chan struct{} // closed when the handling has ended
}

type handled struct {
	signature string
	at        time.Time
}

func newReplays() *replays {
	return &replays{handled: make(map[string]struct{}), underway: make(map[string]chan struct{})}
}

// begin asks to handle the push with a verified signature. Of two equal ones at the same time the
// second waits for the first, and takes its place if that fails. fresh false: it has been handled. With fresh
// true, end must be called, once. The error is ctx's, while waiting.
func (r *replays) begin(ctx context.Context, signature string) (end func(success bool), fresh bool, err error) {
	for {
		r.mu.Lock()
		r.expire()
		if _, known := r.handled[signature]; known {
			r.mu.Unlock()
			return nil, false, nil
		}
		first, busy := r.underway[signature]
		if !busy {
			done := make(chan struct{})
			r.underway[signature] = done
			r.mu.Unlock()
			return func(success bool) { r.end(signature, done, success) }, true, nil
		}
		r.mu.Unlock()
		select {
		case <-first:
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
}

// end remembers and lets go in one step: in between, a waiting copy would find neither.
func (r *replays) end(signature string, done chan struct{}, success bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.underway, signature)
	close(done)
	if success {
		r.handled[signature] = struct{}{}
		r.order = append(r.order, handled{signature, time.Now()})
		r.expire()
	}
}

// expire drops what is too old or too much.
func (r *replays) expire() {
	n := max(0, len(r.order)-replayCount)
	for n < len(r.order) && time.Since(r.order[n].at) >= replayAge {
		n++
	}
	for _, h := range r.order[:n] {
		delete(r.handled, h.signature)
	}
	// append moves what is left to new memory from time to time, so the front is freed.
	r.order = r.order[n:]
}
