package tokens

import (
	"hash/fnv"
	"time"

	"wxproxy/wechat"
)

// Kind is the kind of an account. It decides how its token is fetched.
type Kind uint8

const (
	Authorizer Kind = iota // an account that authorized the component
	Component              // the component itself
	App                    // an own account, with an app secret of its own
)

// String returns the kind as metrics and operators see it.
func (k Kind) String() string {
	switch k {
	case Component:
		return "component"
	case App:
		return "app"
	}
	return "authorizer"
}

// account is the record of one account. Times of wxproxy's clock are Unix
// milliseconds. WeChat's CreateTime is in Unix seconds. Zero means never. The
// two clocks may differ, so their times are never compared with each other.
type account struct {
	recordFormat
	Kind string `json:"kind"`

	Access    string `json:"access,omitempty"`
	Refresh   string `json:"refresh,omitempty"`
	IssuedAt  int64  `json:"issued,omitempty"`
	ExpiresAt int64  `json:"expires,omitempty"`

	AuthorizedAt int64 `json:"authorized,omitempty"` // CreateTime of the newest authorization
	RevokedAt    int64 `json:"revoked,omitempty"`    // CreateTime of the newest revocation
	IsRevoked    bool  `json:"gone,omitempty"`       // the revocation is the newer of the two
	// SeenAt is the Date of a response that proves that the account authorizes
	// the component: one that exchanged a browser's code, or said so. In
	// seconds, by WeChat's clock; 0 if a push has dated that authorization.
	SeenAt int64 `json:"seen,omitempty"`
	// FoundAt is when WeChat first answered that a revoked account does not
	// authorize the component. Until that is confirmed, Refresh is kept, and
	// not used. 0 if it was pushed or confirmed.
	FoundAt int64 `json:"found,omitempty"`
	// CheckedAt is when WeChat last said that a revoked account is not
	// authorized, by a push or an answer.
	CheckedAt int64 `json:"checked,omitempty"`
	// ForgottenAt is when an operator forgot the account. Such a record is a
	// tombstone: IsRevoked is set, so that earlier versions serve no token
	// either, and the record holds no secret.
	ForgottenAt int64 `json:"forgotten,omitempty"`
	// IsRestorable lets a comparison with WeChat's list bring a forgotten
	// account back.
	IsRestorable    bool   `json:"restore,omitempty"`
	CodeFingerprint string `json:"code,omitempty"` // of the code that was exchanged last

	FailureCount int    `json:"failures,omitempty"` // failed renewals since the last success
	Failure      string `json:"failure,omitempty"`  // why the last one failed
	ErrCode      int    `json:"errcode,omitempty"`  // WeChat's errcode for it; 0 if there was none
	RetryAt      int64  `json:"retry_at,omitempty"` // no renewal before then
	NoTicket     bool   `json:"no_ticket,omitempty"`

	Throttle renewalThrottle `json:"storm,omitzero"`

	Name       string `json:"name,omitempty"`      // nickname
	Type       string `json:"type,omitempty"`      // such as "mini program"
	UserName   string `json:"user_name,omitempty"` // original id (gh_…)
	ProfiledAt int64  `json:"profiled,omitempty"`  // when the three were read
}

// newAccount returns the record of an account of which nothing is known yet.
func newAccount(kind Kind) *account {
	return &account{recordFormat: currentFormat, Kind: kind.String()}
}

// expiryMargin is how long before its expiry a token is no longer sent, so that
// it does not expire on its way to WeChat. It is at most a twentieth of the
// lifetime, so that a token of a few seconds can be sent at all.
func (a *account) expiryMargin() time.Duration {
	return min(5*time.Second, a.lifetime()/20)
}

func (a *account) lifetime() time.Duration {
	return time.Duration(a.ExpiresAt-a.IssuedAt) * time.Millisecond
}

// usable reports whether the token may be sent. A nil account has none.
func (a *account) usable(now time.Time) bool {
	return a != nil && !a.IsRevoked && a.Access != "" && now.Before(a.usableUntil())
}

// usableUntil is the time from which the token is no longer sent.
func (a *account) usableUntil() time.Time { return fromMillis(a.ExpiresAt).Add(-a.expiryMargin()) }

// maxTokenLife is the longest lifetime that package wechat returns.
const maxTokenLife = 24 * time.Hour

// hasWrongTimes reports whether a wrong clock wrote when the token was issued
// and expires: more than a day ahead, or more than a day after each other. Then
// it is not known until when WeChat accepts the token. It serves, and is due.
//
// A clock that is off by less than a day is not noticed here. Replicas with
// different clocks would replace each other's tokens again and again. WeChat
// rejects such a token when it has expired, and then it is renewed.
func (a *account) hasWrongTimes(now time.Time) bool {
	return fromMillis(a.IssuedAt).Sub(now) > maxTokenLife || a.lifetime() > maxTokenLife
}

// issuedSince reports whether the token was issued at the time t or later. It
// was not if a wrong clock says so.
func (a *account) issuedSince(t, now time.Time) bool {
	return a.IssuedAt >= millis(t) && elapsed(now, a.IssuedAt) != longAgo
}

// shortLifetime bounds the lifetimes of which at least a tenth is reserved for
// the renewal, even if the configuration says less.
const shortLifetime = time.Hour

// renewAt is when the token becomes due: `before` ahead of its expiry, and a
// little earlier by a pseudorandom amount. Without that, accounts that were
// authorized together would be renewed together forever. The amount depends on
// the appid alone, so that all replicas compute the same time.
//
// A `before` that is more than half of the lifetime is replaced with a tenth. A
// token with wrong times is due now.
func (a *account) renewAt(appid string, before time.Duration, now time.Time) time.Time {
	if a.hasWrongTimes(now) {
		return now
	}
	lifetime := a.lifetime()
	if before > lifetime/2 {
		before = 0
	}
	if lifetime <= shortLifetime {
		before = max(before, lifetime/10)
	} else if before == 0 {
		before = lifetime / 10
	}
	h := fnv.New32a()
	h.Write([]byte(appid))
	jitter := before / 8 * time.Duration(h.Sum32()%1024) / 1024
	return fromMillis(a.ExpiresAt).Add(-before - jitter)
}

// setTokens replaces the tokens with those of g and clears the failures. A
// response without a refresh token leaves the stored one valid.
func (a *account) setTokens(g wechat.Grant, now time.Time) {
	a.Access, a.IssuedAt, a.ExpiresAt = g.Access.Reveal(), millis(now), millis(now.Add(g.Life))
	if !g.Refresh.IsEmpty() {
		a.Refresh = g.Refresh.Reveal()
	}
	a.clearFailures()
}

// longestPause is the longest pause that wxproxy ever makes, before a renewal
// or any other request.
const longestPause = quotaPause

// retryAt returns the time before which no renewal is tried, which may have
// passed. A stored time further ahead than longestPause was written by a wrong
// clock and means now.
func (a *account) retryAt(now time.Time) time.Time {
	t := fromMillis(a.RetryAt)
	if t.Sub(now) > longestPause {
		return time.Time{}
	}
	return t
}

func (a *account) clearFailures() {
	a.FailureCount, a.Failure, a.ErrCode, a.RetryAt, a.NoTicket = 0, "", 0, 0, false
}

// applyAuthorization replaces everything that belonged to an older
// authorization. g holds what a code was exchanged for, or only the refresh
// token from WeChat's list. created is the time of the authorization by
// WeChat's clock, in Unix seconds.
func (a *account) applyAuthorization(g wechat.Grant, created int64, now time.Time) {
	a.Refresh = "" // the old one is invalid, even if g has none
	if g.Access.IsEmpty() {
		a.Access, a.IssuedAt, a.ExpiresAt, a.Refresh = "", 0, 0, g.Refresh.Reveal()
		a.clearFailures()
	} else {
		a.setTokens(g, now)
	}
	a.IsRevoked, a.AuthorizedAt, a.Throttle = false, max(a.AuthorizedAt, created), renewalThrottle{}
	a.ForgottenAt, a.IsRestorable = 0, false
	a.FoundAt, a.CheckedAt = 0, 0
	if a.Refresh == "" {
		a.FailureCount, a.Failure = 1, errNoRefreshToken.Error()
	}
}

// markRevoked notes a revocation that WeChat pushed and removes the tokens,
// which WeChat no longer accepts. created is the push's CreateTime in Unix
// seconds.
func (a *account) markRevoked(created int64, now time.Time) {
	a.end(now)
	a.RevokedAt, a.Refresh, a.FoundAt = max(a.RevokedAt, created), "", 0
}

// markFound notes that WeChat answered that the account does not authorize the
// component, although no push has said so. One such answer can be wrong, so the
// refresh token is kept until [account.confirm].
func (a *account) markFound(now time.Time) {
	a.end(now)
	a.FoundAt = millis(now)
}

// end removes the access token.
func (a *account) end(now time.Time) {
	a.IsRevoked, a.CheckedAt = true, millis(now)
	a.Access, a.IssuedAt, a.ExpiresAt = "", 0, 0
	a.clearFailures()
	a.Throttle = renewalThrottle{}
}

const (
	// recheckPause is the least time between two answers of WeChat about a
	// revoked account, and between the push of a revocation and the first.
	recheckPause = time.Minute
	// confirmAfter is how long after the first answer that an account is not
	// authorized a second one confirms it.
	confirmAfter = 10 * time.Minute
)

// confirm notes that WeChat answered once more that a revoked account does not
// authorize the component.
func (a *account) confirm(now time.Time) {
	a.CheckedAt = millis(now)
	if a.FoundAt != 0 && elapsed(now, a.FoundAt) >= confirmAfter {
		a.Refresh, a.FoundAt = "", 0
	}
}

// recheckDue reports whether WeChat may be asked about a revoked account.
func (a *account) recheckDue(now time.Time) bool {
	return a != nil && a.IsRevoked && !a.isForgotten() && elapsed(now, a.CheckedAt) >= recheckPause
}

// reinstate makes the account active, because WeChat says that it authorizes
// the component. The refresh token is WeChat's, or else the one that was kept.
// created is the CreateTime of the authorization, or 0, and date the one of the
// response, or zero.
func (a *account) reinstate(refresh wechat.Secret, created int64, date, now time.Time) {
	if refresh.IsEmpty() {
		refresh = wechat.NewSecret(a.Refresh)
	}
	a.applyAuthorization(wechat.Grant{Refresh: refresh}, created, now)
	if created == 0 {
		a.dateUnpushed(date)
	}
}

// dateUnpushed dates an authorization that no push has dated yet: date is the
// one of a response of WeChat that proves it. It is no older than a revocation
// that is known, because that was known before WeChat responded, and the clocks
// of WeChat's servers may differ by some seconds. A response without a date
// counts as that old.
func (a *account) dateUnpushed(date time.Time) {
	a.SeenAt = max(a.SeenAt, unixSeconds(date), a.RevokedAt)
}

// newestAuthorization returns the time of the newest authorization that is
// known, in Unix seconds by WeChat's clock.
func (a *account) newestAuthorization() int64 { return max(a.AuthorizedAt, a.SeenAt) }

// outdates reports whether the account is known to have authorized after a
// revocation that WeChat pushed. Of two events in the same second, the one that
// arrives last counts as the newer, unless it was recorded before.
func (a *account) outdates(revoked int64) bool {
	return revoked < a.newestAuthorization() || !a.IsRevoked && a.RevokedAt != 0 && revoked <= a.RevokedAt
}

// markForgotten makes the record a tombstone: it removes the tokens and the
// original id, and keeps what the operator's list shows and what tells old
// events from new ones.
func (a *account) markForgotten(now time.Time) {
	a.markRevoked(0, now)
	a.ForgottenAt, a.IsRestorable = millis(now), false
	a.UserName, a.ProfiledAt = "", 0
}

// isForgotten reports whether an operator forgot the account. A nil account is
// not forgotten.
func (a *account) isForgotten() bool { return a != nil && a.ForgottenAt != 0 }

// ended returns why the account has no token and gets none: ErrForgotten,
// ErrRevoked, or nil if it is authorized.
func (a *account) ended() error {
	switch {
	case a.isForgotten():
		return ErrForgotten
	case a.IsRevoked:
		return ErrRevoked
	}
	return nil
}

// State is the state of an authorization, as metrics and operators see it.
type State string

const (
	Active  State = "active"
	Revoked State = "revoked" // the account revoked its authorization
	Failing State = "failing" // the last renewal failed; the token may still be valid
	// Forgotten: an operator forgot the account, and it has not authorized
	// since.
	Forgotten State = "forgotten"
)

// States are all states.
func States() []State { return []State{Active, Failing, Revoked, Forgotten} }

func (a *account) state() State {
	switch {
	case a.isForgotten():
		return Forgotten
	case a.IsRevoked:
		return Revoked
	case a.FailureCount > 0:
		return Failing
	}
	return Active
}
