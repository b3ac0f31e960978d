package callback

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

const (
	// replayLife is how long a push is remembered. WeChat's own repeats arrive
	// within minutes.
	replayLife = time.Hour
	// maxReplays is the maximum number of pushes that are remembered, about 1
	// MiB. A component gets six tickets an hour and two pushes for each account
	// that authorizes it. Only pushes that WeChat signed count, so a third
	// party cannot displace any.
	maxReplays = 8192
)

var errReplay = errors.New("push was handled before")

// replayGuard remembers the pushes that were handled successfully, so that a
// push that was observed on its way cannot be handled again. It forgets those
// that failed, because WeChat repeats them.
//
// A push that it no longer remembers, also after a restart, does no harm when
// it is repeated. Events are ordered by CreateTime wherever they are stored: an
// older ticket, authorization or revocation changes nothing, and a code can be
// exchanged only once.
//
// A push is identified by its msg_signature alone. The signature covers
// timestamp, nonce and Encrypt. Adding them to the key would make it weaker:
// they are joined without separators, so digits can be moved from one to the
// other under the same signature.
type replayGuard struct {
	mu       sync.Mutex
	handled  map[string]struct{}
	order    []handledPush            // oldest first
	inFlight map[string]chan struct{} // closed when the handling ends
}

// handledPush is a remembered push.
type handledPush struct {
	signature string
	at        time.Time
}

// newReplayGuard returns an empty guard.
func newReplayGuard() *replayGuard {
	return &replayGuard{
		handled: make(map[string]struct{}), inFlight: make(map[string]chan struct{}),
	}
}

// dedupe is begin with its failures as outcomes. If rejected is nil, the caller
// must call end once.
func (g *replayGuard) dedupe(
	ctx context.Context, signature, event string,
) (end func(success bool), rejected *outcome) {
	end, fresh, err := g.begin(ctx, signature)
	switch {
	case err != nil:
		return nil, failure(http.StatusInternalServerError, event, resultStore, err)
	case !fresh:
		return nil, failure(http.StatusConflict, event, resultReplayed, errReplay)
	}
	return end, nil
}

// begin begins the handling of a push with a verified signature. Of two equal
// pushes at the same time, the second waits for the first and takes its place
// if the first fails. fresh is false if the push was handled before. If fresh
// is true, the caller must call end once. The error is that of ctx while
// waiting.
func (g *replayGuard) begin(
	ctx context.Context, signature string,
) (end func(success bool), fresh bool, err error) {
	for {
		g.mu.Lock()
		g.expire()
		if _, known := g.handled[signature]; known {
			g.mu.Unlock()
			return nil, false, nil
		}
		first, busy := g.inFlight[signature]
		if !busy {
			done := make(chan struct{})
			g.inFlight[signature] = done
			g.mu.Unlock()
			return func(success bool) { g.end(signature, done, success) }, true, nil
		}
		g.mu.Unlock()
		select {
		case <-first:
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
}

// end remembers the push and releases waiting copies in one step. Between two
// steps, a copy would find it neither in flight nor handled.
func (g *replayGuard) end(signature string, done chan struct{}, success bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.inFlight, signature)
	close(done)
	if success {
		g.handled[signature] = struct{}{}
		g.order = append(g.order, handledPush{signature, time.Now()})
		g.expire()
	}
}

// expire forgets pushes that are too old, and the oldest if there are too many.
func (g *replayGuard) expire() {
	n := max(0, len(g.order)-maxReplays)
	for n < len(g.order) && time.Since(g.order[n].at) >= replayLife {
		n++
	}
	for _, h := range g.order[:n] {
		delete(g.handled, h.signature)
	}
	// append copies the rest to new memory from time to time, which frees the
	// front.
	g.order = g.order[n:]
}
