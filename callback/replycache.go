package callback

import (
	"context"
	"sync"
	"time"
)

const (
	// replyLife is how long an undelivered reply is kept. WeChat repeats a
	// message twice, after five seconds each.
	replyLife = 30 * time.Second
	// maxReplies is the maximum number of replies that are kept, and
	// maxReplySize the maximum size of one in bytes: together at most 64 MiB.
	// Larger replies are not kept, so the service is asked again.
	maxReplies   = 1024
	maxReplySize = 64 << 10
)

// replyCache makes sure that each message is handled once, although WeChat
// repeats it. A repeat that arrives while the first is being handled waits for
// the same reply. A reply that was not delivered, because WeChat had
// disconnected, is kept for the repeat. A reply that was delivered is
// forgotten, and so is a failure: the repeat then tries again.
//
// Messages are compared by all that is in them, including MsgId, or
// FromUserName and CreateTime, as WeChat advises. A repeat can be encrypted and
// signed anew, so its bytes differ; byte-identical repeats are what
// [replayGuard] recognizes.
//
// The zero value is an empty cache. It is safe for concurrent use.
type replyCache struct {
	mu      sync.Mutex
	entries map[documentID]*replyEntry
	kept    []keptReply // oldest first
}

// replyEntry is a message that is being handled, or its undelivered reply.
type replyEntry struct {
	done    chan struct{} // closed after reply and err were written
	reply   messageReply
	err     error
	settled chan struct{} // closed when it is known whether the reply was delivered

	// Guarded by replyCache.mu.
	isDone, isKept, isSettled bool
}

// keptReply is an entry that waits for a repeat.
type keptReply struct {
	key   documentID
	entry *replyEntry
	since time.Time
}

// do returns the reply to a message: from f, or from another call of do with
// the same key. If it returns no error, the caller must call settle once, with
// whether the reply was delivered. ctx limits only the wait for another call.
func (c *replyCache) do(
	ctx context.Context, key documentID, f func() (messageReply, error),
) (reply messageReply, settle func(delivered bool), err error) {
	for {
		c.mu.Lock()
		c.expire()
		e := c.entries[key]
		if e == nil {
			e = &replyEntry{done: make(chan struct{}), settled: make(chan struct{}), err: errInternal}
			if c.entries == nil {
				c.entries = make(map[documentID]*replyEntry)
			}
			c.entries[key] = e
			c.mu.Unlock()
			c.run(key, e, f)
			return e.reply, func(delivered bool) { c.settle(key, e, delivered) }, e.err
		}
		// A reply that is being delivered to another request is not shared. It
		// is soon either forgotten or kept.
		wait, shared := e.done, !e.isDone || e.isKept
		if !shared {
			wait = e.settled
		}
		c.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return messageReply{}, nil, ctx.Err()
		}
		if shared && e.err == nil {
			return e.reply, func(delivered bool) { c.settle(key, e, delivered) }, nil
		}
		// It failed and was removed, so this call takes its place.
	}
}

// run calls f and removes the entry if f fails or panics.
func (c *replyCache) run(key documentID, e *replyEntry, f func() (messageReply, error)) {
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		e.isDone = true
		if e.err != nil {
			delete(c.entries, key)
		}
		close(e.done)
	}()
	e.reply, e.err = f()
}

// settle forgets a reply that was delivered, and keeps one that was not.
func (c *replyCache) settle(key documentID, e *replyEntry, delivered bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !e.isSettled {
		e.isSettled = true
		defer close(e.settled) // after the entry was removed or kept
	}
	switch {
	case c.entries[key] != e: // another request delivered it, or it was too old
	case delivered, len(e.reply.xml) > maxReplySize:
		delete(c.entries, key)
	case !e.isKept:
		e.isKept = true
		c.kept = append(c.kept, keptReply{key, e, time.Now()})
		c.expire()
	}
}

// expire removes kept replies that are too old, and the oldest if there are too
// many.
func (c *replyCache) expire() {
	n := max(0, len(c.kept)-maxReplies)
	for n < len(c.kept) && time.Since(c.kept[n].since) >= replyLife {
		n++
	}
	for _, k := range c.kept[:n] {
		if c.entries[k.key] == k.entry {
			delete(c.entries, k.key)
		}
	}
	c.kept = c.kept[n:]
}
