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

// spentKey hides the code: keys of the store are not sealed everywhere.
func spentKey(c wechat.Secret) string {
	sum := sha256.Sum256([]byte(c.Reveal()))
	return spentPrefix + hex.EncodeToString(sum[:])
}

const (
	accountPrefix = "account/"
	codePrefix    = "code/"
	spentPrefix   = "spent/"
)

// recordVersion is the format of the records below. A record of a later one is not touched.
const recordVersion = 1

// account is all that is kept of an account. Times of ours are Unix milliseconds, WeChat's
// own CreateTime Unix seconds; 0 means never.
type account struct {
	Version int    `json:"v"`
	Kind    string `json:"kind"`

	Access  string `json:"access,omitempty"`
	Refresh string `json:"refresh,omitempty"`
	Issued  int64  `json:"issued,omitempty"`
	Expires int64  `json:"expires,omitempty"`

	Authorized int64  `json:"authorized,omitempty"` // CreateTime of the newest authorization
	Revoked    int64  `json:"revoked,omitempty"`    // CreateTime of the newest withdrawal
	Gone       bool   `json:"gone,omitempty"`       // the withdrawal is what counts
	Code       string `json:"code,omitempty"`       // fingerprint of the code exchanged last

	Failures int    `json:"failures,omitempty"` // renewals that failed since the last good one
	Failure  string `json:"failure,omitempty"`  // the last one, in words
	ErrCode  int    `json:"errcode,omitempty"`  // the last one's, where WeChat refused
	RetryAt  int64  `json:"retry_at,omitempty"`
	NoTicket bool   `json:"no_ticket,omitempty"` // it failed for want of a good ticket

	Storm storm `json:"storm,omitzero"`

	Name     string `json:"name,omitempty"`     // nickname
	Type     string `json:"type,omitempty"`     // kind of account, in words
	Profiled int64  `json:"profiled,omitempty"` // when both were read
}

// ticket is the newest component_verify_ticket.
type ticket struct {
	Version  int    `json:"v"`
	Ticket   string `json:"ticket"`
	Created  int64  `json:"created"`         // CreateTime
	Received int64  `json:"received"`        // by our clock: WeChat's and ours may differ
	Asked    int64  `json:"asked,omitempty"` // when WeChat was asked last to push again
}

// ticketLife is how long a ticket serves after its push
// (Third-party_Platforms/2.0/api/Before_Develop/component_verify_ticket).
const ticketLife = 12 * time.Hour

// code is an authorization code that still has to be exchanged.
type code struct {
	Version int    `json:"v"`
	Code    string `json:"code"`
	Created int64  `json:"created"`
	Expires int64  `json:"expires"` // Unix milliseconds, by our clock
}

// spent is an authorization code that has been exchanged: the merchant's browser may come with it again.
type spent struct {
	Version  int             `json:"v"`
	AppID    string          `json:"appid"`
	At       int64           `json:"at"`
	FuncInfo json.RawMessage `json:"func_info,omitempty"`
}

// synced says when the accounts were compared with WeChat's list.
type synced struct {
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

func decodeCode(raw []byte) (*code, error) {
	return decode(raw, func(c *code) int { return c.Version })
}

func decodeSpent(raw []byte) (*spent, error) {
	return decode(raw, func(s *spent) int { return s.Version })
}

func decodeSynced(raw []byte) (*synced, error) {
	return decode(raw, func(s *synced) int { return s.Version })
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

// margin is kept from the end of a token's life, so that none dies on its way: 5 s, less
// for lives so short that this would be a part of them.
func (a *account) margin() time.Duration {
	return min(5*time.Second, a.life()/20)
}

func (a *account) life() time.Duration {
	return time.Duration(a.Expires-a.Issued) * time.Millisecond
}

// usable reports whether the token may be sent.
func (a *account) usable(now time.Time) bool {
	return a != nil && !a.Gone && a.Access != "" && now.Before(a.end())
}

// end is when the token is not sent any more.
func (a *account) end() time.Time { return fromMillis(a.Expires).Add(-a.margin()) }

// shortLife: of tokens that live no longer than this, the last tenth is always left for renewing.
const shortLife = time.Hour

// due is when the token is to be replaced: before the end of its life by `before`, and a little
// earlier by chance, so that accounts that were authorized together do not renew together.
func (a *account) due(appid string, before time.Duration) time.Time {
	life := a.life()
	if before > life/2 {
		before = 0
	}
	if life <= shortLife {
		before = max(before, life/10)
	} else if before == 0 {
		before = life / 10
	}
	h := fnv.New32a()
	h.Write([]byte(appid))
	jitter := before / 8 * time.Duration(h.Sum32()%1024) / 1024
	return fromMillis(a.Expires).Add(-before - jitter)
}

// take puts a grant in. An answer without a refresh token leaves the one that is there.
func (a *account) take(g wechat.Grant, now time.Time) {
	a.Access, a.Issued, a.Expires = g.Access.Reveal(), millis(now), millis(now.Add(g.Life))
	if !g.Refresh.IsEmpty() {
		a.Refresh = g.Refresh.Reveal()
	}
	a.forgive()
}

// forgive forgets failures.
func (a *account) forgive() {
	a.Failures, a.Failure, a.ErrCode, a.RetryAt, a.NoTicket = 0, "", 0, 0, false
}

// newAccount is the record of an account of which nothing is known yet.
func newAccount(kind Kind) *account { return &account{Version: recordVersion, Kind: kind.String()} }

// admit takes in what a code was exchanged for, or what was read from WeChat's list. created is the time of the authorization by
// WeChat's clock, in Unix seconds.
func (a *account) admit(g wechat.Grant, created int64, now time.Time) {
	a.Refresh = "" // a new authorization ends the old one's
	if g.Access.IsEmpty() {
		a.Access, a.Issued, a.Expires, a.Refresh = "", 0, 0, g.Refresh.Reveal()
		a.forgive()
	} else {
		a.take(g, now)
	}
	a.Gone, a.Authorized, a.Storm = false, max(a.Authorized, created), storm{}
	if a.Refresh == "" {
		a.Failures, a.Failure = 1, errNoRefreshToken.Error()
	}
}

// leave notes that the authorization has ended, at created by WeChat's clock (Unix seconds; 0: not known).
// Its tokens are dead.
func (a *account) leave(created int64) {
	a.Gone, a.Revoked = true, max(a.Revoked, created)
	a.Access, a.Refresh, a.Issued, a.Expires = "", "", 0, 0
	a.forgive()
	a.Storm = storm{}
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
	case a.Gone:
		return Revoked
	case a.Failures > 0:
		return Failing
	}
	return Active
}

// storm remembers renewals that were asked for by refusals of a token that should have been
// good. A wrong kind of call or somebody else's refresher causes such refusals without end; a renewal for
// each would use up the day's quota.
type storm struct {
	At     []int64 `json:"at,omitempty"` // the last few, Unix milliseconds
	Raging bool    `json:"raging,omitempty"`
}

const (
	stormWindow = time.Minute
	stormLimit  = 3
)

// allows says whether another renewal on a refusal may be made now. Three within a minute are; after
// that one a minute, until two minutes pass without any.
func (s *storm) allows(now time.Time) bool {
	if len(s.At) == 0 {
		return true
	}
	last := now.Sub(fromMillis(s.At[len(s.At)-1])) // below 0 where the clock was put back
	if last >= 2*stormWindow {
		*s = storm{}
	}
	return !s.Raging || last >= stormWindow
}

// note remembers a renewal that was made. One that failed gave nobody a new token, and does not count.
func (s *storm) note(now time.Time) {
	s.At = append(s.At, millis(now))
	s.At = slices.DeleteFunc(s.At, func(at int64) bool { return now.Sub(fromMillis(at)) >= stormWindow })
	if len(s.At) >= stormLimit {
		s.Raging = true
		s.At = s.At[len(s.At)-stormLimit:]
	}
}
