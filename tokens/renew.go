package tokens

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/singleflight"

	"wxproxy/tokens/governor"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// renewer returns tokens from the store, and renews them. It is safe for
// concurrent use: in one process callers share a flight, and processes share
// the account's lock in the store.
type renewer struct {
	accounts    *accounts
	cache       *cache
	tasks       *taskGroup
	renewBefore time.Duration
	now         func() time.Time
	log         *slog.Logger
	observer    Observer // may be nil

	kind func(appid string) Kind
	// clockIsFarOff reports whether this machine's clock is of no use; see
	// clocks.farOff.
	clockIsFarOff func() bool
	// fetch asks WeChat for a new token; see fetcher.fetch.
	fetch func(ctx context.Context, appid string, kind Kind, refresh, stale wechat.Secret) (fetched, error)
	// checkGate returns the error with which the request for a token would be
	// rejected; see gate.check.
	checkGate func(ctx context.Context, kind Kind, appid string) error
	// discover looks for an authorizer that has no record. It returns nil if
	// there is one now.
	discover func(ctx context.Context, appid string) error
	// recheck asks WeChat in the background about a revoked account, if that is
	// due.
	recheck func(appid string, acc *account)
	// schedule schedules the early renewal of a token.
	schedule func(appid string, e *entry, wait time.Duration) bool
	// onFetch is called after a new token was saved.
	onFetch func(appid string, acc *account)

	flights    singleflight.Group
	unanswered unanswered
}

// token returns a token of appid that differs from stale. ctx bounds the wait,
// not the renewal, which other callers may be waiting for.
//
// Callers that want the same thing share one flight. Its key holds the stale
// token and not only the appid. Otherwise this could happen:
//
//  1. caller 1: A is not cached; start a flight; read token T0 from the store
//  2. caller 2: T0 was rejected; join the flight of caller 1
//  3. caller 1: return T0
//  4. caller 2: get T0, the token that was rejected
//
// Early renewals have a flight of their own, because they are for a token that
// is still valid: a caller that only needs any token must not wait for WeChat.
func (r *renewer) token(
	ctx context.Context, appid string, stale wechat.Secret, why reason,
) (Token, error) {
	key, insists := appid+"\x00"+stale.Reveal(), governor.Insists(ctx)
	if why == reasonDue {
		key = appid + "\x01"
	} else if insists {
		key = appid + "\x02" + stale.Reveal() // others may be rejected by a breaker
	}
	if err := ctx.Err(); err != nil {
		return Token{}, err
	}
	ch := r.flights.DoChan(key, func() (any, error) {
		var t Token
		// The flight is a task of its own, not its callers': it goes on when
		// they give up, and Close waits for it.
		err := r.tasks.run(r.tasks.ctx, taskTimeout, func(ctx context.Context) (err error) {
			if why == reasonDue {
				ctx = governor.WithClass(ctx, governor.Early)
			} else if insists {
				ctx = governor.Insist(ctx)
			}
			t, err = r.loadOrRenew(ctx, tokenRequest{appid, r.kind(appid), stale, why})
			return err
		})
		return t, err
	})
	select {
	case res := <-ch:
		if res.Err != nil {
			return Token{}, res.Err
		}
		return res.Val.(Token), nil
	case <-ctx.Done():
		return Token{}, ctx.Err()
	}
}

// loadOrRenew returns the stored token, and renews it only if it does not
// serve. It decides twice: first without the account's lock, because most calls
// need none, and again in renew, because the record may change before the lock
// is held.
func (r *renewer) loadOrRenew(ctx context.Context, want tokenRequest) (Token, error) {
	epoch := r.cache.epoch(want.appid) // before the load; see cache.put
	acc, err := r.accounts.load(ctx, want.appid)
	if err != nil {
		return Token{}, err
	}
	d := r.decide(want, acc)
	switch {
	case d.action == fetchNew:
		if err := r.paused(ctx, want); err != nil {
			return Token{}, err
		}
		t, err := r.renew(ctx, want)
		if !errors.Is(err, ErrUnknownAccount) {
			return t, err
		}
		// The store has lost the record while this call waited for its lock.
	case d.action == useStored:
		return r.cacheAccount(want, acc, epoch), nil
	case !errors.Is(d.err, ErrUnknownAccount):
		r.recheck(want.appid, acc)
		return Token{}, r.denied(want, d.err)
	}
	if e, ok := r.cache.getUnchecked(want.appid); ok &&
		want.why == reasonMissing && !e.token.Value.Equal(want.stale) {
		return e.token, nil // the store has lost the record; that says nothing about the token
	}
	// Its authorization may have been pushed a moment ago, or its push lost.
	if err := r.discover(ctx, want.appid); err != nil {
		return Token{}, err
	}
	return r.loadOrRenew(ctx, want)
}

// decide is decide for this machine's clock. If that is far off, every stored
// token seems to be expired, or issued in the future, and so does every new one
// to the other replicas. They would replace each other's tokens all the time:
//
//  1. replica 1: the token has expired; save T1
//  2. replica 2: T1 has expired; save T2 (must not happen)
//
// So the stored token serves until WeChat rejects it.
func (r *renewer) decide(want tokenRequest, acc *account) decision {
	if acc != nil && !acc.IsRevoked && acc.Access != "" &&
		acc.Access != want.stale.Reveal() && r.clockIsFarOff() {
		return decision{action: useStored}
	}
	return decide(want, acc, r.now(), r.renewBefore)
}

// denied returns err, and evicts an account that is revoked or forgotten.
func (r *renewer) denied(want tokenRequest, err error) error {
	if errors.Is(err, ErrRevoked) || errors.Is(err, ErrForgotten) {
		r.cache.remove(want.appid)
	}
	return err
}

// renew replaces the stored token under the account's lock: decide, fetch,
// settle, save. The new token is given to callers only after it was saved, or
// after the save has failed and the grant is kept; see unsavedStore:
//
//  1. wxproxy: fetch; WeChat replaces the refresh token; the save fails
//  2. wxproxy: give the access token to callers (must not happen)
//  3. wxproxy: crash; the store holds a refresh token that is no longer valid
//
// While the store is known to be unwritable, nothing is fetched at all.
func (r *renewer) renew(ctx context.Context, want tokenRequest) (Token, error) {
	var (
		d     decision
		s     settlement
		saved *account // the record with a token that serves
		epoch uint64
		grant *unsavedChange
	)
	err := r.accounts.update(ctx, want.appid, func(ctx context.Context, acc *account) (*account, error) {
		epoch = r.cache.epoch(want.appid)
		d = r.decide(want, acc)
		switch d.action {
		case deny:
			return nil, d.err
		case useStored:
			saved = acc
			return nil, nil
		}
		if d.err = r.paused(ctx, want); d.err != nil {
			return nil, d.err
		}
		from := acc.clone()
		if acc == nil {
			acc = newAccount(want.kind)
		}
		s = r.fetchAndSettle(ctx, want, d, acc)
		if lost := context.Cause(ctx); s.err != nil && errors.Is(lost, store.ErrLost) {
			return nil, lost // the request was canceled, which says nothing about WeChat
		}
		if s.err == nil {
			saved = acc
			grant = r.accounts.store.addGrant(want.appid, from, acc)
		}
		if !s.save {
			return nil, nil
		}
		if errors.Is(s.err, ErrRevoked) {
			if err := r.accounts.report(ctx, want.appid, from, false); err != nil {
				return nil, err
			}
		}
		return acc, nil
	})
	switch {
	case d.err != nil:
		return Token{}, r.denied(want, d.err)
	case err != nil:
		return r.recoverFromStoreError(ctx, want, grant, err)
	case s.err != nil:
		return Token{}, r.denied(want, s.err)
	}
	_ = r.accounts.store.finish(grant, nil)
	if saved.Access == want.stale.Reveal() {
		// WeChat returned the token that it rejected. It would reject it again.
		return Token{}, ErrThrottled
	}
	epoch = r.cache.supersede(want.appid, epoch)
	if d.action == fetchNew {
		r.onFetch(want.appid, saved)
	}
	return r.cacheAccount(want, saved, epoch), nil
}

// fetchAndSettle asks WeChat for a new token and records the result in acc. The
// caller holds the account's lock.
func (r *renewer) fetchAndSettle(
	ctx context.Context, want tokenRequest, d decision, acc *account,
) settlement {
	if err := r.accounts.store.writable(accountKey(want.appid)); err != nil {
		return settlement{err: err}
	}
	began := r.now()
	f, err := r.fetch(ctx, want.appid, want.kind, wechat.NewSecret(acc.Refresh), want.stale)
	if err != nil && !errors.Is(err, ErrUnavailable) && ctx.Err() != nil && r.tasks.stopping() {
		err = ErrClosed
	}
	now := r.now()
	s := settle(acc, want, d, f, err, now)
	switch {
	case errors.Is(context.Cause(ctx), store.ErrLost):
	case isUnanswered(err):
		s.err = r.unanswered.note(want.appid, s.err.Error(), err)
	case !errors.Is(err, ErrUnavailable):
		r.unanswered.answered(want.appid)
	}
	if s.result != "" {
		r.count(want.kind, s.result, now.Sub(began))
	}
	switch {
	case s.err == nil:
		r.log.Info("token renewed", "account", want.appid, "kind", want.kind.String(),
			"token", f.grant.Access.Fingerprint(), "life", f.grant.Life)
	case errors.Is(s.err, ErrRevoked):
		r.log.Warn(msgConfirmedRevoked, "account", want.appid)
	case s.result == "unreachable":
		r.log.Warn("token renewal failed", "account", want.appid, "kind", want.kind.String(),
			"reason", s.err, "retry_after", RetryAfter(s.err, now))
	case s.save:
		r.log.Warn("token renewal failed", "account", want.appid, "kind", want.kind.String(),
			"reason", acc.Failure, "failures", acc.FailureCount,
			"retry_at", fromMillis(acc.RetryAt))
	}
	return s
}

// recoverFromStoreError handles an update that failed. grant is what WeChat
// issued, nil if nothing was fetched. It is kept, and serves from now on,
// unless another process has saved a newer token. That one serves, too, if the
// lock was lost while this process was suspended. So does the unsaved token of
// a renewal for which this one has waited.
func (r *renewer) recoverFromStoreError(
	ctx context.Context, want tokenRequest, grant *unsavedChange, err error,
) (Token, error) {
	if grant != nil {
		r.count(want.kind, "store", 0)
		_ = r.accounts.store.finish(grant, err) // nil: it is kept
	}
	unsaved := len(r.accounts.store.visible(accountKey(want.appid))) > 0
	if unsaved || errors.Is(err, store.ErrLost) {
		// Readers that have loaded the record before must not cache it.
		r.cache.bumpEpoch(want.appid)
		epoch := r.cache.epoch(want.appid)
		acc, loadErr := r.accounts.load(ctx, want.appid)
		if loadErr == nil && acc.usable(r.now()) && acc.Access != want.stale.Reveal() {
			return r.cacheAccount(want, acc, epoch), nil
		}
	}
	r.log.Error("store failed during a token renewal", "account", want.appid, "error", err)
	return Token{}, storeError(err)
}

func (r *renewer) count(kind Kind, result string, took time.Duration) {
	if r.observer != nil {
		r.observer.Refreshed(kind.String(), result, took)
	}
}

// dueRecheckInterval is how long a cached token that is due serves before the
// store is read again: another process may have renewed it.
const dueRecheckInterval = 2 * time.Second

// cacheAccount caches the usable token of acc and schedules its early renewal.
// epoch is the cache's from before acc was read, or from supersede. The token
// counts as used unless it was fetched early, before any caller asked for it.
func (r *renewer) cacheAccount(want tokenRequest, acc *account, epoch uint64) Token {
	appid := want.appid
	now := r.now()
	renewAt := acc.renewAt(appid, r.renewBefore, now)
	e := newEntry(acc, want.kind)
	recheckAt := renewAt
	if !now.Before(renewAt) {
		recheckAt = now.Add(dueRecheckInterval)
	}
	e.recheckAt.Store(recheckAt.UnixNano())
	e.used.Store(want.why != reasonDue)
	generation := r.cache.generation.Load() // before schedule; see cache.dropUnscheduled
	wait := max(renewAt.Sub(now), 0, acc.retryAt(now).Sub(now))
	if r.clockIsFarOff() || !r.schedule(appid, e, wait) {
		e.generation = generation
	}
	r.cache.put(appid, e, e.usableUntil.Sub(now), epoch)
	return e.token
}
