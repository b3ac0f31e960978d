package callback

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

const (
	// replayLife is how long a push is remembered in memory.
	replayLife = time.Hour
	// maxReplays is the maximum number of pushes that are remembered, about 1
	// MiB. Only pushes that WeChat signed count, so a third party cannot
	// displace any. The store remembers those that were displaced.
	maxReplays = 8192

	// replyShare is how long the reply to a push is kept for repeats of the
	// same bytes.
	replyShare = time.Minute
	// maxReplayReplies is the maximum size of these replies in bytes. Repeats
	// of a push whose reply was displaced get success.
	maxReplayReplies = 16 << 20
)

var errOtherAccount = errors.New("made for another account")

// replayGuard remembers the pushes that this process has handled, with their
// replies, so that a repeat gets the same reply and is not handled again. It
// forgets those that failed, because WeChat repeats them. The [claimer] does
// the same for all processes and across restarts; this guard asks nothing, and
// also works without a store.
//
// A push is identified by its msg_signature alone. The signature covers
// timestamp, nonce and Encrypt. Adding them to the key would make it weaker:
// they are joined without separators, so digits can be moved from one to the
// other under the same signature.
type replayGuard struct {
	now func() time.Time

	mu       sync.Mutex
	handled  map[string]*handledPush
	order    []*handledPush           // oldest first
	inFlight map[string]chan struct{} // closed when the handling ends

	replies    []*handledPush // those that have a reply, oldest first
	replyBytes int
}

// handledPush is a remembered push.
type handledPush struct {
	signature string
	body      string // see verifiedPush
	account   string // whose path it came to; "" for events
	at        time.Time
	reply     *reply // nil: success
}

// newReplayGuard returns an empty guard.
func newReplayGuard(now func() time.Time) *replayGuard {
	return &replayGuard{
		now:     now,
		handled: make(map[string]*handledPush), inFlight: make(map[string]chan struct{}),
	}
}

// dedupe begins the handling of a push that came to the path of an account, or
// to that of events. If repeated is not nil, the push was handled before, and
// repeated is its outcome. Otherwise the caller must call end once, with the
// reply if the push was handled.
//
// A push in plain mode whose body is not the one that was handled under its
// signature is rejected.
func (g *replayGuard) dedupe(
	ctx context.Context, p verifiedPush, account, event string,
) (end func(success bool, r *reply), repeated *outcome) {
	before, release, err := g.begin(ctx, p.signature)
	switch {
	case err != nil:
		return nil, failure(http.StatusInternalServerError, event, resultStore, err)
	case before != nil && before.account != account:
		return nil, failure(http.StatusForbidden, event, resultWrongAccount, errOtherAccount)
	case before != nil && before.body != p.body:
		return nil, failure(http.StatusForbidden, event, resultBadSignature, errOtherBody)
	case before != nil:
		return nil, &outcome{
			status: http.StatusOK, event: event, result: resultReplayed, reply: before.reply,
		}
	}
	return func(success bool, r *reply) {
		if !success {
			release(nil)
			return
		}
		release(&handledPush{
			signature: p.signature, body: p.body, account: account, at: g.now(), reply: r,
		})
	}, nil
}

// begin begins the handling of a push with a verified signature. Of two equal
// pushes at the same time, the second waits for the first and takes its place
// if the first fails. before is a copy of what is remembered if the push was
// handled. Otherwise the caller must call end once, with nil if the push was
// not handled. The error is that of ctx while waiting.
func (g *replayGuard) begin(
	ctx context.Context, signature string,
) (before *handledPush, end func(*handledPush), err error) {
	for {
		g.mu.Lock()
		g.expire()
		if known := g.handled[signature]; known != nil {
			before := *known
			g.mu.Unlock()
			return &before, nil, nil
		}
		first, busy := g.inFlight[signature]
		if !busy {
			done := make(chan struct{})
			g.inFlight[signature] = done
			g.mu.Unlock()
			return nil, func(h *handledPush) { g.end(signature, done, h) }, nil
		}
		g.mu.Unlock()
		select {
		case <-first:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// end remembers the push and releases waiting copies in one step. Between two
// steps, a copy would find it neither in flight nor handled.
func (g *replayGuard) end(signature string, done chan struct{}, h *handledPush) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.inFlight, signature)
	close(done)
	if h == nil {
		return
	}
	g.handled[signature] = h
	g.order = append(g.order, h)
	if h.reply != nil {
		g.replies = append(g.replies, h)
		g.replyBytes += len(h.reply.body)
	}
	g.expire()
}

// expire forgets replies and pushes that are too old, and the oldest if there
// are too many.
func (g *replayGuard) expire() {
	now := g.now()
	n := 0
	for n < len(g.replies) &&
		(g.replyBytes > maxReplayReplies || len(g.replies)-n > maxReplays ||
			now.Sub(g.replies[n].at) >= replyShare) {
		g.replyBytes -= len(g.replies[n].reply.body)
		g.replies[n].reply = nil
		n++
	}
	g.replies = g.replies[n:]

	n = max(0, len(g.order)-maxReplays)
	for n < len(g.order) && now.Sub(g.order[n].at) >= replayLife {
		n++
	}
	for _, h := range g.order[:n] {
		delete(g.handled, h.signature)
	}
	// append copies the rest to new memory from time to time, which frees the
	// front.
	g.order = g.order[n:]
}
