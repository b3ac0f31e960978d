package sandbox

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Kind says what an account is at WeChat.
type Kind int

// The kinds. The zero value is an official account.
const (
	OfficialAccount Kind = iota // 公众号
	MiniProgram                 // 小程序
)

func (k Kind) String() string {
	if k == MiniProgram {
		return "mini program"
	}
	return "official account"
}

// account is one account at WeChat: what it is, what it has allowed, what it was told.
type account struct {
	appid  string
	kind   Kind
	secret string // its own, "" where only the component may call for it
	noAPI  bool   // has no API permission: api_query_auth gives no tokens

	authorized bool
	authTime   time.Time
	consent    int // counts consents: codes of an earlier one are void
	refresh    string
	// oldRefresh is one that was rotated away; it is good until the time beside it.
	oldRefresh      string
	oldRefreshUntil time.Time
	refreshDead     bool // KillRefreshToken

	authorizer chain // of the component's authorization; of the component itself, its own
	own        chain // of /cgi-bin/token
	stable     chain // of /cgi-bin/stable_token
	forcedAt   time.Time
	forcedDay  string
	forced     int // times on forcedDay

	usage      map[string]int // path → calls on usageDay
	usageDay   string
	clearMonth string
	cleared    int // times in clearMonth

	options   map[string]string
	privacy   json.RawMessage
	menu      json.RawMessage
	tags      []tag
	lastTag   int
	committed bool
	released  bool
	auditID   int // of the last audit; 0: none was asked for
}

// originalID is the account's other name (原始ID).
func (a *account) originalID() string {
	sum := sha256.Sum256([]byte(a.appid))
	return "gh_" + hex.EncodeToString(sum[:6])
}

// openid names an end user as this account sees them: the same seed gives the same user.
func (a *account) openid(seed string) string {
	sum := sha256.Sum256([]byte(a.appid + " " + seed))
	return "o" + base64.RawURLEncoding.EncodeToString(sum[:])[:27]
}

// errUnknown is what methods and the control door say of an appid that was never added.
var errUnknown = errors.New("sandbox: there is no account of that appid")

// AccountOption is what AddAccount can be told of an account beyond its kind.
type AccountOption func(*account)

// WithSecret gives the account an app secret of its own: /cgi-bin/token, /cgi-bin/stable_token
// and the /sns/ calls that need one work for it.
func WithSecret(secret string) AccountOption { return func(a *account) { a.secret = secret } }

// WithoutAPIPermission makes an account for which api_query_auth gives neither token, as it happens with some
// accounts at WeChat.
func WithoutAPIPermission() AccountOption { return func(a *account) { a.noAPI = true } }

// WithAuthorization makes an account that authorized the component at that time, and whose code somebody has exchanged: it
// is listed with a refresh token, and nothing is pushed.
func WithAuthorization(at time.Time) AccountOption {
	return func(a *account) {
		a.authorized, a.authTime, a.refresh = true, at, newRefresh()
		a.consent++
	}
}

// AddAccount makes an account that has not authorized the component. Its appid is wx and 16 characters of
// 0-9, a-z, and nobody else's: everything else is an error.
func (s *WeChat) AddAccount(appid string, kind Kind, options ...AccountOption) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.account(appid) != nil {
		return errors.New("sandbox: there is an account of that appid already")
	}
	_, err := s.add(appid, kind, options...)
	return err
}

func (s *WeChat) add(appid string, kind Kind, options ...AccountOption) (*account, error) {
	switch {
	case !appidPattern.MatchString(appid):
		return nil, fmt.Errorf("sandbox: an appid is wx and 16 characters of 0-9, a-z")
	case len(s.order) >= maxAccounts:
		return nil, errors.New("sandbox: too many accounts")
	}
	a := &account{appid: appid, kind: kind}
	for _, o := range options {
		o(a)
	}
	s.remember(a.secret)
	s.remember(a.refresh)
	s.accounts[appid] = a
	s.order = append(s.order, a)
	return a, nil
}

// day and month are by China's calendar, as WeChat's quotas are.
func day(t time.Time) string   { return t.In(china).Format(time.DateOnly) }
func month(t time.Time) string { return t.In(china).Format("2006-01") }

var china = time.FixedZone("CST", 8*3600)
