package tokens

import (
	"context"
	"errors"
	"time"
)

// Errors of the Broker. Others are those of the store, of the [wechat.Client],
// and of the caller's context.
var (
	// ErrUnknownAccount: no account with that appid is known to have authorized
	// the component.
	ErrUnknownAccount = errors.New("unknown account")
	// ErrRevoked: the account revoked its authorization.
	ErrRevoked = errors.New("authorization revoked by the account")
	// ErrForgotten: an operator forgot the account; see [Broker.Forget].
	ErrForgotten = errors.New("account was forgotten by an operator")
	// ErrNoTicket: WeChat has pushed no component_verify_ticket for 12 hours.
	ErrNoTicket = errors.New("no component_verify_ticket received within 12 hours")
	// ErrThrottled: WeChat rejects the account's tokens although they are new,
	// so renewals are limited; see renewalThrottle.
	ErrThrottled = errors.New("new tokens are rejected repeatedly, " +
		"renewals are limited to one a minute")
	// ErrUnavailable: no token is available now. Errors that wrap it say why,
	// and [RetryAfter] when to try again.
	ErrUnavailable = errors.New("no token available")
	// ErrStale: the event is older than what is known, and changed nothing.
	ErrStale = errors.New("event is older than the recorded state")
	// ErrForeignState: the authorization code was exchanged before, and came
	// with another state then.
	ErrForeignState = errors.New("authorization code was used with another state")
	// ErrClosed: the Broker is closed.
	ErrClosed = errors.New("wxproxy is stopping")
)

// Errcodes (全局返回码) that only package tokens acts on.
const (
	codeMissingTicket = 41020 // api_component_token without a ticket
	codeOAuthInvalid  = 40029 // the code is not one
	codeOAuthUsed     = 40163 // the code was exchanged
	codeComponentIP   = 61004 // the address is not in the component's list
	codeOwnAccountIP  = 40164 // the address is not in the own account's list
)

// unavailableError is an ErrUnavailable with its reason.
type unavailableError struct {
	reason  string
	retryAt time.Time // no renewal is tried before; zero if unknown
	cause   error     // may be nil
}

func (e *unavailableError) Error() string   { return e.reason }
func (e *unavailableError) Unwrap() []error { return []error{ErrUnavailable, e.cause} }

// storeUnavailable begins the texts of errors of the store.
const storeUnavailable = "store unavailable: "

// storeError makes an error of the store an ErrUnavailable, except that of the
// caller's context.
func storeError(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &unavailableError{reason: storeUnavailable + err.Error(), cause: err}
}

// RetryAfter returns how long to wait after err before another attempt makes
// sense: at least a second, and at most the longest pause that wxproxy makes.
func RetryAfter(err error, now time.Time) time.Duration {
	var u *unavailableError
	if errors.As(err, &u) {
		return min(max(u.retryAt.Sub(now), time.Second), longestPause)
	}
	return time.Second
}
