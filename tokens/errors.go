package tokens

import (
	"errors"
	"time"
)

// What the broker says instead of giving a token.
var (
	// ErrUnknownAccount: nobody authorized the component under that appid, as far as we know.
	ErrUnknownAccount = errors.New("this account is not known here")
	// ErrRevoked: the account has withdrawn its authorization.
	ErrRevoked = errors.New("the account has withdrawn its authorization")
	// ErrNoTicket: WeChat has not pushed a component_verify_ticket, or not for 12 hours.
	ErrNoTicket = errors.New("no component_verify_ticket that is younger than 12 hours")
	// ErrThrottled: the account's tokens are refused again and again although they are new;
	// another renewal has to wait.
	ErrThrottled = errors.New("its new tokens are refused again and again, renewals are limited to one a minute")
	// ErrUnavailable: no token can be had at the moment. Errors that wrap it say why.
	ErrUnavailable = errors.New("no token can be had now")
	// ErrStale: what was told is older than what is known, and changed nothing.
	ErrStale = errors.New("older than what is known, ignored")
	// ErrClosed: the broker is shutting down.
	ErrClosed = errors.New("wxproxy is stopping")
)

// unavailableError is ErrUnavailable with its reason and the time from which another try makes sense.
type unavailableError struct {
	reason  string
	retryAt time.Time
	cause   error
}

func (e *unavailableError) Error() string   { return e.reason }
func (e *unavailableError) Unwrap() []error { return []error{ErrUnavailable, e.cause} }

// RetryAfter says how long to wait after err before the same question may have another
// answer, at least a second.
func RetryAfter(err error, now time.Time) time.Duration {
	var u *unavailableError
	if errors.As(err, &u) {
		if d := u.retryAt.Sub(now); d > time.Second {
			return d
		}
	}
	return time.Second
}
