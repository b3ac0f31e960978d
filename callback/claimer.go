package callback

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"
)

// claimer claims pushes in the store, so that of all processes one handles a
// push, once. The zero value, without a store, lets every push pass. It is safe
// for concurrent use.
//
// While the store is unavailable pushes are handled all the same: users would
// get no replies until it is back, and the [replayGuard] still recognizes what
// this process has handled. Such pushes are counted as unclaimed.
type claimer struct {
	claims  Claims
	timeout time.Duration
	now     func() time.Time
	observe func(event, result string)
	log     *slog.Logger

	mu        sync.Mutex
	isDown    bool
	nextTryAt time.Time
	// unsure holds the pushes that this process has not handled although the
	// store may have their claim, and until when it has: their repeats pass.
	unsure map[string]time.Time
}

// claimRetryPause is the least time between two attempts while the store is
// unavailable. All other pushes do not wait for it.
const claimRetryPause = time.Second

// claimKey returns the key of a push in the store.
func claimKey(signature string) string { return "push/" + signature }

// claim reports whether this is the first process that handles the push.
func (c *claimer) claim(ctx context.Context, event string, p verifiedPush) (first bool) {
	if c.claims == nil {
		return true
	}
	if !c.mayTry() {
		c.observe(event, resultUnclaimed)
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	first, err := c.claims.Claim(ctx, claimKey(p.signature), p.acceptableUntil())
	c.note(err)
	if err != nil {
		c.observe(event, resultUnclaimed)
		return true
	}
	return first || c.takeUnsure(p.signature)
}

// unclaim lets the repeat of a push that was claimed and not handled pass.
// ctx may have ended.
func (c *claimer) unclaim(ctx context.Context, p verifiedPush) {
	if c.claims == nil {
		return
	}
	if !c.mayTry() {
		c.addUnsure(p)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
	defer cancel()
	err := c.claims.Unclaim(ctx, claimKey(p.signature))
	c.note(err)
	if err != nil {
		c.addUnsure(p)
	}
}

// copiedKey returns the second key of a push in plain mode.
func copiedKey(signature string) string { return claimKey(signature) + "/copied" }

// claimCopies remembers that the copies of a push in plain mode are queued, and
// reports whether that was not known yet. A process can be killed between claim
// and the queueing of copies. The repeat then finds the claim alone, and queues
// them. With both the signature is used up, for every body.
//
// For other pushes, and for accounts without copies, it does nothing.
func (c *claimer) claimCopies(
	ctx context.Context, p verifiedPush, account string,
) (first bool, err error) {
	if c.claims == nil || !p.isPlain() || !p.settings.queuesFor(account) {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.storeTime())
	defer cancel()
	return c.claims.Claim(ctx, copiedKey(p.signature), p.acceptableUntil())
}

// unclaimCopies undoes claimCopies. ctx may have ended.
func (c *claimer) unclaimCopies(ctx context.Context, p verifiedPush) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.storeTime())
	defer cancel()
	_ = c.claims.Unclaim(ctx, copiedKey(p.signature))
}

// addUnsure lets the repeat of a push pass whose claim the store may have.
func (c *claimer) addUnsure(p verifiedPush) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	maps.DeleteFunc(c.unsure, func(_ string, until time.Time) bool { return !until.After(now) })
	if c.unsure == nil {
		c.unsure = make(map[string]time.Time)
	}
	if len(c.unsure) < maxReplays {
		c.unsure[p.signature] = p.acceptableUntil()
	}
}

// takeUnsure reports whether addUnsure was called for the push, once.
func (c *claimer) takeUnsure(signature string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.unsure[signature]
	delete(c.unsure, signature)
	return ok
}

// mayTry reports whether the store is to be asked. While it is unavailable one
// caller tries at a time.
func (c *claimer) mayTry() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if c.isDown && now.Before(c.nextTryAt) {
		return false
	}
	if c.isDown {
		c.nextTryAt = now.Add(c.timeout + claimRetryPause)
	}
	return true
}

// note records the result of an attempt, and logs when the state changes.
func (c *claimer) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.nextTryAt = c.now().Add(claimRetryPause)
		if !c.isDown {
			c.log.Error("store unavailable, replayed pushes are recognized in this process only",
				"error", err)
		}
	} else if c.isDown {
		c.log.Info("store available again, replayed pushes are recognized")
	}
	c.isDown = err != nil
}

// storeTime returns how long another question may wait for the store: hardly at
// all while it is unavailable.
func (c *claimer) storeTime() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isDown {
		return c.timeout / 30
	}
	return c.timeout
}
