package tokens

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"wxproxy/wechat"
)

// reason is why a token is wanted.
type reason uint8

const (
	reasonMissing  reason = iota // none is cached
	reasonRejected               // WeChat rejected the stale one
	reasonDue                    // the cached one is due for renewal
)

// tokenRequest asks for a token that differs from stale.
type tokenRequest struct {
	appid string
	kind  Kind
	stale wechat.Secret // the token that WeChat rejected; empty if none was
	why   reason
}

// action is what to do about a tokenRequest.
type action uint8

const (
	useStored action = iota // the stored token serves: another caller or process renewed it
	fetchNew
	deny
)

// decision is the result of decide.
type decision struct {
	action action
	err    error // if action is deny
	// suspect is set for a new token if the rejected one should have been
	// valid. Such renewals are throttled. Those after an ordinary expiry never
	// are.
	suspect bool
}

// decide returns what to do about r, given the stored record, which is nil if
// there is none. It is called under the account's lock with the record as it is
// there, whatever was read before:
//
//  1. caller 1: A0 was rejected; lock; A0 is stored; fetch and save A1; unlock
//  2. caller 2: A0 was rejected; wait for the lock
//  3. caller 2: A1 is stored, which is not the rejected token: return it
//
// So any number of rejections of one token cost one renewal, in all processes
// together, and no clock is involved.
func decide(r tokenRequest, stored *account, now time.Time, renewBefore time.Duration) decision {
	switch {
	case stored == nil && r.kind == Authorizer:
		return decision{action: deny, err: ErrUnknownAccount}
	case stored == nil:
		return decision{action: fetchNew}
	case stored.IsRevoked:
		return decision{action: deny, err: stored.ended()}
	}
	usable, rejected := stored.usable(now), stored.Access == r.stale.Reveal()
	if usable && r.why == reasonDue && now.Before(stored.renewAt(r.appid, renewBefore, now)) {
		return decision{action: useStored}
	}
	if usable && r.why != reasonDue && !rejected {
		return decision{action: useStored}
	}
	if retryAt := stored.retryAt(now); now.Before(retryAt) {
		err := &unavailableError{reason: stored.Failure, retryAt: retryAt}
		return decision{action: deny, err: err}
	}
	suspect := usable && rejected // usable tokens are not empty, so r.stale was given
	if suspect && !stored.Throttle.allows(now) {
		return decision{action: deny, err: ErrThrottled}
	}
	return decision{action: fetchNew, suspect: suspect}
}

// settlement is what a fetch led to.
type settlement struct {
	save   bool   // the record changed
	result string // for the metrics: ok, refused, unreachable; "" is not counted
	err    error  // for the caller; nil if there is a new token
}

// settle records in acc what a fetch returned. It changes nothing for failures
// that are not the account's own: a component without a token, a Broker that is
// closing, and WeChat not answering, which is the matter of this process and
// must not make other replicas wait; see unanswered.
//
// A failure never removes a token that is still valid. It is noted beside the
// token, which serves on until it expires.
func settle(
	acc *account, r tokenRequest, d decision, f fetched, fetchErr error, now time.Time,
) settlement {
	if errors.Is(fetchErr, ErrUnavailable) || errors.Is(fetchErr, ErrClosed) {
		return settlement{err: fetchErr}
	}
	if !f.recovered.IsEmpty() {
		acc.Refresh = f.recovered.Reveal() // kept even if the fetch failed
	}
	switch {
	case fetchErr == nil:
		acc.setTokens(f.grant, now)
		if d.suspect {
			acc.Throttle.record(now)
		}
		return settlement{save: true, result: "ok"}
	case errors.Is(fetchErr, ErrRevoked):
		acc.markFound(now)
		return settlement{save: true, result: "refused", err: ErrRevoked}
	}
	if isUnanswered(fetchErr) {
		return settlement{save: !f.recovered.IsEmpty(), result: "unreachable",
			err: &unavailableError{reason: failureText(r.kind, fetchErr), cause: fetchErr}}
	}
	acc.FailureCount++
	acc.ErrCode = wechat.Code(fetchErr)
	pause := backoff(acc.FailureCount)
	if acc.ErrCode == wechat.CodeQuota {
		pause = quotaPause
	}
	acc.Failure = failureText(r.kind, fetchErr)
	acc.RetryAt = millis(now.Add(pause))
	acc.NoTicket = isTicketError(fetchErr)
	return settlement{save: true, result: "refused", err: &unavailableError{
		reason: acc.Failure, retryAt: fromMillis(acc.RetryAt), cause: fetchErr,
	}}
}

// quotaPause follows errcode 45009: the day's quota of the token endpoint is
// exhausted, and every further attempt would fail.
const quotaPause = 30 * time.Minute

// backoff returns the pause after n failures in a row: a second at first, a
// minute at most. Up to a quarter is subtracted at random, so that accounts
// that failed together are not retried together.
func backoff(n int) time.Duration {
	d := min(time.Second<<min(n-1, 6), time.Minute)
	return d - time.Duration(rand.Int64N(int64(d/4)))
}

// failureText describes a failed renewal and tells the operator what to do.
func failureText(kind Kind, err error) string {
	text := "token renewal failed: "
	if kind == Component {
		text = "component token unavailable: "
	}
	hint := ""
	switch wechat.Code(err) {
	case wechat.CodeInvalidSecret, wechat.CodeInvalidCredential:
		if kind != Authorizer {
			hint = "check the app secret"
		}
	case wechat.CodeTicketExpired, wechat.CodeTicketInvalid,
		wechat.CodeInvalidTicket, codeMissingTicket:
		hint = "WeChat pushes a new ticket every ten minutes: " +
			"check that it reaches the callback listener"
	case codeComponentIP, codeOwnAccountIP:
		hint = "add this machine's outgoing IP address to the component's IP allowlist, " +
			"and publish the change"
	case wechat.CodeRefreshTokenInvalid, wechat.CodeInvalidRefreshToken,
		wechat.CodeRefreshTokenExpired, wechat.CodePasswordChanged:
		hint = "the account has to authorize the component again"
	case wechat.CodeNotAuthorized:
		hint = "the account revoked its authorization, or never gave it"
	case wechat.CodeQuota:
		hint = "the daily quota is exhausted: wxproxy retries every half hour; " +
			"/cgi-bin/component/clear_quota/v2 resets it, ten times a month"
	}
	if hint != "" {
		hint = " (" + hint + ")"
	}
	return fmt.Sprint(text, err, hint)
}
