package tokens

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// Kind says whose token it is; String gives the word that metrics and people see.
type Kind uint8

const (
	Authorizer Kind = iota // an account that authorized the component
	Component              // the component itself
	App                    // an own account, with an app secret of its own
)

func (k Kind) String() string {
	switch k {
	case Component:
		return "component"
	case App:
		return "app"
	}
	return "authorizer"
}

// Keys of the store: what is kept, and for whom.
func accountKey(appid string) string { return "account/" + appid }
func ticketKey(appid string) string  { return "ticket/" + appid }
func codeKey(appid string) string    { return "code/" + appid }
func syncKey(appid string) string    { return "sync/" + appid }
func secretKey(name string) string   { return "key/" + name }

// exchangedCodeKey hides the code: keys of the store are not sealed everywhere.
func exchangedCodeKey(c wechat.Secret) string {
	sum := sha256.Sum256([]byte(c.Reveal()))
	return exchangedCodePrefix + hex.EncodeToString(sum[:])
}

const (
	accountPrefix       = "account/"
	codePrefix          = "code/"
	exchangedCodePrefix = "spent/"
)

// recordVersion is the format of the records below. A record of a later one is not touched.
const recordVersion = 1

// account is all that is kept of an account. Times of ours are Unix milliseconds, WeChat's
// own CreateTime Unix seconds; 0 means never.
type account struct {
	Version int    `json:"v"`
	Kind    string `json:"kind"`

	Access    string `json:"access,omitempty"`
	Refresh   string `json:"refresh,omitempty"`
	IssuedAt  int64  `json:"issued,omitempty"`
	ExpiresAt int64  `json:"expires,omitempty"`

	AuthorizedAt    int64  `json:"authorized,omitempty"` // CreateTime of the newest authorization
	RevokedAt       int64  `json:"revoked,omitempty"`    // CreateTime of the newest withdrawal
	IsRevoked       bool   `json:"gone,omitempty"`       // the withdrawal is what counts
	CodeFingerprint string `json:"code,omitempty"`       // fingerprint of the code exchanged last

	FailureCount int    `json:"failures,omitempty"` // renewals that failed since the last good one
	Failure      string `json:"failure,omitempty"`  // the last one, in words
	ErrCode      int    `json:"errcode,omitempty"`  // the last one's, where WeChat refused
	RetryAt      int64  `json:"retry_at,omitempty"`
	NoTicket     bool   `json:"no_ticket,omitempty"` // it failed for want of a good ticket

	Throttle refreshThrottle `json:"storm,omitzero"`

	Name       string `json:"name,omitempty"`     // nickname
	Type       string `json:"type,omitempty"`     // kind of account, in words
	ProfiledAt int64  `json:"profiled,omitempty"` // when both were read
}

// ticket is the newest component_verify_ticket.
type ticket struct {
	Version         int    `json:"v"`
	Ticket          string `json:"ticket"`
	Created         int64  `json:"created"`         // CreateTime
	Received        int64  `json:"received"`        // by our clock: WeChat's and ours may differ
	PushRequestedAt int64  `json:"asked,omitempty"` // when WeChat was asked last to push again
}

// ticketLife is how long a ticket serves after its push
// (Third-party_Platforms/2.0/api/Before_Develop/component_verify_ticket).
const ticketLife = 12 * time.Hour

// pendingCode is an authorization pendingCode that still has to be exchanged.
type pendingCode struct {
	Version int    `json:"v"`
	Code    string `json:"code"`
	Created int64  `json:"created"`
	Expires int64  `json:"expires"` // Unix milliseconds, by our clock
}

// exchangedCode is an authorization code that has been exchanged: the merchant's browser may come with it again.
type exchangedCode struct {
	Version  int             `json:"v"`
	AppID    string          `json:"appid"`
	At       int64           `json:"at"`
	FuncInfo json.RawMessage `json:"func_info,omitempty"`
}

// syncRecord says when the accounts were compared with WeChat's list.
type syncRecord struct {
	Version int   `json:"v"`
	Begun   int64 `json:"begun"`          // the newest try
	Done    int64 `json:"done,omitempty"` // the newest that came to its end
}

// secretRecord is a key of ours that all replicas share.
type secretRecord struct {
	Version int    `json:"v"`
	Key     []byte `json:"key"`
}

func decode[T any](raw []byte, version func(*T) int) (*T, error) {
	if raw == nil {
		return nil, nil
	}
	v := new(T)
	if err := json.Unmarshal(raw, v); err != nil {
		return nil, fmt.Errorf("%w: a record cannot be read", store.ErrCorrupt)
	}
	if n := version(v); n != recordVersion {
		return nil, fmt.Errorf("%w: a record has format %d, this wxproxy knows %d: it was written by a newer one", store.ErrCorrupt, n, recordVersion)
	}
	return v, nil
}

func decodeAccount(raw []byte) (*account, error) {
	return decode(raw, func(a *account) int { return a.Version })
}

func decodeTicket(raw []byte) (*ticket, error) {
	return decode(raw, func(t *ticket) int { return t.Version })
}

func decodePendingCode(raw []byte) (*pendingCode, error) {
	return decode(raw, func(c *pendingCode) int { return c.Version })
}

func decodeExchangedCode(raw []byte) (*exchangedCode, error) {
	return decode(raw, func(s *exchangedCode) int { return s.Version })
}

func decodeSync(raw []byte) (*syncRecord, error) {
	return decode(raw, func(s *syncRecord) int { return s.Version })
}

func decodeSecret(raw []byte) (*secretRecord, error) {
	return decode(raw, func(r *secretRecord) int { return r.Version })
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("BUG: a record that cannot be encoded: " + err.Error())
	}
	return b
}

// seconds of a CreateTime; a push without one counts as the oldest.
func seconds(t time.Time) int64 { return max(t.Unix(), 0) }

func millis(t time.Time) int64 { return t.UnixMilli() }

func fromMillis(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n)
}

// expiryMargin is kept from the end of a token's life, so that none dies on its way: 5 s, less
// for lives so short that this would be a part of them.
func (a *account) expiryMargin() time.Duration {
	return min(5*time.Second, a.lifetime()/20)
}

func (a *account) lifetime() time.Duration {
	return time.Duration(a.ExpiresAt-a.IssuedAt) * time.Millisecond
}

// usable reports whether the token may be sent.
func (a *account) usable(now time.Time) bool {
	return a != nil && !a.IsRevoked && a.Access != "" && now.Before(a.sendableUntil())
}

// sendableUntil is when the token is not sent any more.
func (a *account) sendableUntil() time.Time { return fromMillis(a.ExpiresAt).Add(-a.expiryMargin()) }

// shortLifetime: of tokens that live no longer than this, the last tenth is always left for renewing.
const shortLifetime = time.Hour

// refreshAt is when the token is to be replaced: before the end of its life by `before`, and a little
// earlier by chance, so that accounts that were authorized together do not renew together.
func (a *account) refreshAt(appid string, before time.Duration) time.Time {
	life := a.lifetime()
	if before > life/2 {
		before = 0
	}
	if life <= shortLifetime {
		before = max(before, life/10)
	} else if before == 0 {
		before = life / 10
	}
	h := fnv.New32a()
	h.Write([]byte(appid))
	jitter := before / 8 * time.Duration(h.Sum32()%1024) / 1024
	return fromMillis(a.ExpiresAt).Add(-before - jitter)
}

// setTokens puts a grant in. An answer without a refresh token leaves the one that is there.
func (a *account) setTokens(g wechat.Grant, now time.Time) {
	a.Access, a.IssuedAt, a.ExpiresAt = g.Access.Reveal(), millis(now), millis(now.Add(g.Life))
	if !g.Refresh.IsEmpty() {
		a.Refresh = g.Refresh.Reveal()
	}
	a.clearFailures()
}

// clearFailures forgets failures.
func (a *account) clearFailures() {
	a.FailureCount, a.Failure, a.ErrCode, a.RetryAt, a.NoTicket = 0, "", 0, 0, false
}

// newAccount is the record of an account of which nothing is known yet.
func newAccount(kind Kind) *account { return &account{Version: recordVersion, Kind: kind.String()} }

// applyAuthorization takes in what a code was exchanged for, or what was read from WeChat's list. created is the time of the authorization by
// WeChat's clock, in Unix seconds.
func (a *account) applyAuthorization(g wechat.Grant, created int64, now time.Time) {
	a.Refresh = "" // a new authorization ends the old one's
	if g.Access.IsEmpty() {
		a.Access, a.IssuedAt, a.ExpiresAt, a.Refresh = "", 0, 0, g.Refresh.Reveal()
		a.clearFailures()
	} else {
		a.setTokens(g, now)
	}
	a.IsRevoked, a.AuthorizedAt, a.Throttle = false, max(a.AuthorizedAt, created), refreshThrottle{}
	if a.Refresh == "" {
		a.FailureCount, a.Failure = 1, errNoRefreshToken.Error()
	}
}

// markRevoked notes that the authorization has ended, at created by WeChat's clock (Unix seconds; 0: not known).
// Its tokens are dead.
func (a *account) markRevoked(created int64) {
	a.IsRevoked, a.RevokedAt = true, max(a.RevokedAt, created)
	a.Access, a.Refresh, a.IssuedAt, a.ExpiresAt = "", "", 0, 0
	a.clearFailures()
	a.Throttle = refreshThrottle{}
}

// State is what becomes of an account, in the words of metrics and operators.
type State string

const (
	Active  State = "active"
	Revoked State = "revoked" // withdrew its authorization
	Failing State = "failing" // its last renewal failed
)

func (a *account) state() State {
	switch {
	case a.IsRevoked:
		return Revoked
	case a.FailureCount > 0:
		return Failing
	}
	return Active
}

// refreshThrottle remembers renewals that were asked for by refusals of a token that should have been
// good. A wrong kind of call or somebody else's refresher causes such refusals without end; a renewal for
// each would use up the day's quota.
type refreshThrottle struct {
	At        []int64 `json:"at,omitempty"` // the last few, Unix milliseconds
	Throttled bool    `json:"raging,omitempty"`
}

const (
	throttleWindow = time.Minute
	throttleLimit  = 3
)

// allows says whether another renewal on a refusal may be made now. Three within a minute are; after
// that one a minute, until two minutes pass without any.
func (s *refreshThrottle) allows(now time.Time) bool {
	if len(s.At) == 0 {
		return true
	}
	last := now.Sub(fromMillis(s.At[len(s.At)-1])) // below 0 where the clock was put back
	if last >= 2*throttleWindow {
		*s = refreshThrottle{}
	}
	return !s.Throttled || last >= throttleWindow
}

// record remembers a renewal that was made. One that failed gave nobody a new token, and does not count.
func (s *refreshThrottle) record(now time.Time) {
	s.At = append(s.At, millis(now))
	s.At = slices.DeleteFunc(s.At, func(at int64) bool { return now.Sub(fromMillis(at)) >= throttleWindow })
	if len(s.At) >= throttleLimit {
		s.Throttled = true
		s.At = s.At[len(s.At)-throttleLimit:]
	}
}
