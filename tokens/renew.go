package tokens

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// refresh replaces the token of appid under the store's lock, unless somebody else did so while we
// waited for it: what is loaded there is looked at again.
func (b *Broker) refresh(ctx context.Context, appid string, kind Kind, stale wechat.Secret, why reason) (Token, error) {
	var (
		out    *account // what is good now
		fresh  bool     // it was fetched here
		result error    // why there is nothing new, although the record was saved
		epoch  uint64
	)
	err := b.store.Update(ctx, accountKey(appid), func(ctx context.Context, raw []byte) ([]byte, error) {
		epoch = b.cache.epoch(appid)
		acc, err := decodeAccount(raw)
		if err != nil {
			return nil, err
		}
		now := b.now()
		switch {
		case acc == nil && kind == Authorizer:
			return nil, ErrUnknownAccount
		case acc == nil:
			acc = newAccount(kind)
		case acc.IsRevoked:
			return nil, ErrRevoked
		case why == reasonDue && acc.usable(now) && now.Before(acc.refreshAt(appid, b.renewBefore)),
			why != reasonDue && acc.usable(now) && acc.Access != stale.Reveal():
			out = acc // somebody was quicker
			return store.Keep, nil
		}
		if wait := fromMillis(acc.RetryAt); now.Before(wait) {
			result = &unavailableError{reason: acc.Failure, retryAt: wait}
			return store.Keep, nil
		}
		// The token was refused although it is good by our clock. A real expiry never waits here.
		suspect := why == reasonRejected && acc.usable(now) && acc.Access == stale.Reveal()
		if suspect && !acc.Throttle.allows(now) {
			return nil, ErrThrottled
		}
		if result = b.fetch(ctx, appid, kind, acc, stale); result != nil {
			if errors.Is(result, errKeepRecord) {
				return store.Keep, nil
			}
			return encode(acc), nil
		}
		if suspect {
			acc.Throttle.record(now)
		}
		out, fresh = acc, true
		return encode(acc), nil
	})
	switch {
	case errors.Is(err, ErrRevoked):
		b.cache.remove(appid)
		return Token{}, err
	case errors.Is(err, ErrUnknownAccount), errors.Is(err, ErrThrottled):
		return Token{}, err
	case err != nil:
		if errors.Is(err, store.ErrLost) {
			// While we slept somebody else took the lock, and may have renewed.
			epoch := b.cache.epoch(appid)
			if acc, loadErr := b.loadAccount(ctx, appid); loadErr == nil && acc.usable(b.now()) && acc.Access != stale.Reveal() {
				return b.cacheAccount(appid, kind, acc, epoch, why != reasonDue), nil
			}
		}
		if out != nil { // fetched, and lost because it could not be saved: it is not used
			b.count(kind, "store", 0)
		}
		b.log.Error("the store failed during a renewal", "account", appid, "error", err)
		return Token{}, storeFault(err)
	case result != nil:
		if errors.Is(result, ErrRevoked) {
			b.cache.remove(appid)
		}
		return Token{}, result
	}
	if out.Access == stale.Reveal() {
		// WeChat gave the very token that it refused. Sending it again would help nobody.
		return Token{}, ErrThrottled
	}
	epoch = b.cache.bumpEpoch(appid)
	// Whoever has fetched it reads the name, too: one of all replicas.
	if fresh && kind == Authorizer && b.now().Sub(fromMillis(out.ProfiledAt)) >= profileLife {
		b.profiler.enqueue(appid)
	}
	return b.cacheAccount(appid, kind, out, epoch, why != reasonDue), nil
}

// errKeepRecord marks failures that are somebody else's and leave the record as it was.
var errKeepRecord = errors.New("")

// fetch asks WeChat for a new token and notes in acc what came of it. The caller holds the
// account's lock.
func (b *Broker) fetch(ctx context.Context, appid string, kind Kind, acc *account, stale wechat.Secret) error {
	began := b.now()
	grant, err := b.ask(ctx, appid, kind, acc, stale)
	now := b.now()
	switch {
	case err == nil:
		acc.setTokens(grant, now)
		b.count(kind, "ok", now.Sub(began))
		b.log.Info("token renewed", "account", appid, "kind", kind.String(), "token", grant.Access.Fingerprint(), "life", grant.Life)
		return nil
	case errors.Is(err, ErrUnavailable):
		// The component's own trouble, noted there.
		return fmt.Errorf("%w%w", errKeepRecord, err)
	case ctx.Err() != nil && b.life.Err() != nil:
		return fmt.Errorf("%w%w", errKeepRecord, ErrClosed) // we are stopping: nobody's failure
	case errors.Is(err, ErrRevoked):
		acc.markRevoked(0)
		b.count(kind, "refused", now.Sub(began))
		b.log.Warn("WeChat says that the account has withdrawn its authorization", "account", appid)
		return ErrRevoked
	}
	word := "unreachable"
	if wechat.Code(err) != 0 || errors.Is(err, ErrNoTicket) || errors.Is(err, errNoRefreshToken) {
		word = "refused"
	}
	acc.FailureCount++
	acc.ErrCode = wechat.Code(err)
	wait := backoff(acc.FailureCount)
	if acc.ErrCode == wechat.CodeQuota {
		wait = quotaPause
	}
	acc.Failure = explain(kind, err)
	acc.RetryAt = millis(now.Add(wait))
	acc.NoTicket = errors.Is(err, ErrNoTicket) || slices.Contains(ticketCodes, wechat.Code(err))
	b.count(kind, word, now.Sub(began))
	b.log.Warn("no new token", "account", appid, "kind", kind.String(), "reason", acc.Failure, "failures", acc.FailureCount, "retry_in", wait.Round(time.Millisecond))
	return &unavailableError{reason: acc.Failure, retryAt: fromMillis(acc.RetryAt), cause: err}
}

// quotaPause is kept when the day's quota of a token endpoint is used up: every further try would
// be one too many.
const quotaPause = 30 * time.Minute

// ticketCodes say that the ticket is missing, too old, or wrong.
var ticketCodes = []int{wechat.CodeInvalidTicket, 41020, wechat.CodeTicketExpired, wechat.CodeTicketInvalid}

// errNoRefreshToken: WeChat gave no refresh token at authorization, and gives none now.
var errNoRefreshToken = errors.New("WeChat holds no refresh token for this account: it has no API permission (权限集) that needs one, or its authorization code was never exchanged; its owner has to authorize again, or update the authorization")

// ask is the call itself, by the kind of account.
func (b *Broker) ask(ctx context.Context, appid string, kind Kind, acc *account, stale wechat.Secret) (wechat.Grant, error) {
	s, client := b.secrets.Load(), b.client.Load()
	switch kind {
	case Component:
		return b.askComponent(ctx, appid, s.ComponentSecret)
	case App:
		g, err := client.StableToken(ctx, appid, s.Apps[appid], false)
		if err == nil && !stale.IsEmpty() && g.Access.Equal(stale) {
			// Refused although WeChat still thinks it current.
			g, err = client.StableToken(ctx, appid, s.Apps[appid], true)
		}
		return g, err
	}
	var grant wechat.Grant
	err := b.withComponentToken(ctx, func(component string, token wechat.Secret) error {
		refresh := wechat.NewSecret(acc.Refresh)
		var err error = errNoRefreshToken
		if !refresh.IsEmpty() {
			grant, err = client.AuthorizerToken(ctx, component, token, appid, refresh)
		}
		if err == nil || !refresh.IsEmpty() && !wechat.AuthorizationInDoubt(wechat.Code(err)) {
			return err
		}
		// Ours is gone or refused. WeChat tells the one it holds: after a re-authorization that we
		// were not told of, or a crash between its rotation and our saving it, they differ.
		held, authorized, lookErr := findAuthorizer(ctx, client, component, token, appid)
		switch {
		case lookErr != nil:
			return lookErr
		case !authorized:
			return ErrRevoked
		case held.Refresh.IsEmpty() || held.Refresh.Equal(refresh):
			return err
		}
		b.log.Info("refresh token recovered from WeChat", "account", appid)
		acc.Refresh = held.Refresh.Reveal() // kept even if the renewal fails now
		grant, err = client.AuthorizerToken(ctx, component, token, appid, held.Refresh)
		return err
	})
	return grant, err
}

// withComponentToken calls with the component's token, and once more with a new one if that is refused. Locks
// are always taken in this order: account, then component.
func (b *Broker) withComponentToken(ctx context.Context, call func(component string, token wechat.Secret) error) error {
	component := b.Component()
	if component == "" {
		return ErrUnknownAccount
	}
	t, err := b.Token(ctx, component)
	if err != nil {
		return componentTrouble(err)
	}
	err = call(component, t.Value)
	if !wechat.TokenRefused(wechat.Code(err), true) {
		return err
	}
	again, renewErr := b.Renew(ctx, component, t.Value)
	if renewErr != nil {
		return componentTrouble(renewErr)
	}
	return call(component, again.Value)
}

func componentTrouble(err error) error {
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	return &unavailableError{reason: "the component's token cannot be had: " + err.Error(), cause: err}
}

// backoff is the pause after the nth failure in a row: a second at first, a minute at most, with a
// quarter of chance so that accounts that failed together do not come back together.
func backoff(n int) time.Duration {
	d := time.Second << min(n-1, 6)
	d = min(d, time.Minute)
	return d - time.Duration(rand.Int64N(int64(d/4)))
}

// explain puts a failure into words that tell the operator what to do.
func explain(kind Kind, err error) string {
	whose := "the account's token could not be renewed: "
	if kind == Component {
		whose = "the component's token cannot be had: "
	}
	hint := ""
	switch wechat.Code(err) {
	case wechat.CodeInvalidSecret, wechat.CodeInvalidCredential:
		if kind != Authorizer {
			hint = " (check the app secret)"
		}
	case wechat.CodeTicketExpired, wechat.CodeTicketInvalid, wechat.CodeInvalidTicket, 41020:
		hint = " (WeChat pushes a new ticket every ten minutes: is the callback listener reached?)"
	case 61004, 40164:
		hint = " (register this machine's outgoing address in the component's IP list, and publish the change)"
	case wechat.CodeRefreshTokenInvalid, wechat.CodeInvalidRefreshToken, wechat.CodeRefreshTokenExpired, wechat.CodePasswordChanged:
		hint = " (the account has to authorize the component again)"
	case wechat.CodeNotAuthorized:
		hint = " (the account has withdrawn its authorization, or never gave it)"
	case wechat.CodeQuota:
		hint = " (the day's quota is used up: wxproxy tries again every half hour; /cgi-bin/component/clear_quota/v2 clears it, ten times a month)"
	}
	return whose + err.Error() + hint
}

func (b *Broker) count(kind Kind, result string, took time.Duration) {
	if b.observer != nil {
		b.observer.Refreshed(kind.String(), result, took)
	}
}
