package state

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"sync"
	"time"

	"wxproxy/wechat"
)

// Kind is the type of an account at WeChat.
type Kind int

// The kinds. The zero value is an official account.
const (
	OfficialAccount Kind = iota // 公众号
	MiniProgram                 // 小程序
)

// String returns the kind in English, as the pages show it.
func (k Kind) String() string {
	if k == MiniProgram {
		return "mini program"
	}
	return "official account"
}

// Account describes one account at WeChat.
type Account struct {
	AppID        string
	Kind         Kind
	Secret       string // its own app secret, "" if only the component can act for it
	NoAPI        bool   // it has no API permission: api_query_auth returns no tokens
	Authorized   bool   // it has authorized the component
	AuthTime     time.Time
	RefreshToken string // the authorizer_refresh_token; "" before the first exchange
}

// OriginalID returns the account's other name (原始ID), which depends on the
// appid alone.
func (a *Account) OriginalID() string {
	sum := sha256.Sum256([]byte(a.AppID))
	return "gh_" + hex.EncodeToString(sum[:6])
}

// OpenID returns the openid of an end user as this account sees it. The same
// seed stands for the same user.
func (a *Account) OpenID(seed string) string { return OpenID(a.AppID, seed) }

// OpenID returns the openid that account appid has for the user of that seed.
func OpenID(appid, seed string) string {
	sum := sha256.Sum256([]byte(appid + " " + seed))
	return "o" + base64.RawURLEncoding.EncodeToString(sum[:])[:27]
}

// UnionID returns the unionid of the user of that seed, which is the same for
// all accounts of a component.
func UnionID(seed string) string { return OpenID("", seed) }

// account is the record of one account: its description and its credentials.
type account struct {
	Account
	consent int // number of consents so far; codes of an earlier one are void

	// oldRefreshToken is one that rotation replaced. It works until the time
	// beside it.
	oldRefreshToken      string
	oldRefreshTokenUntil time.Time
	refreshTokenInvalid  bool // set by KillRefreshToken, until the next consent

	authorizer tokenChain // from the component's authorization; the component's own tokens
	own        tokenChain // from /cgi-bin/token
	stable     tokenChain // from /cgi-bin/stable_token

	forcedAt  time.Time // last forced renewal of the stable token
	forcedDay string    // the day that forced counts
	forced    int       // forced renewals on that day
}

// chains returns the token chains of the account, the most important one first.
func (a *account) chains() []*tokenChain {
	return []*tokenChain{&a.authorizer, &a.stable, &a.own}
}

// Errors of methods that name an account.
var (
	ErrExists      = errors.New("sandbox: account already exists")
	ErrUnknown     = errors.New("sandbox: unknown appid")
	ErrAppID       = errors.New("sandbox: malformed appid: want wx and 16 characters of 0-9, a-z")
	ErrComponent   = errors.New("sandbox: the component cannot authorize itself")
	ErrNotEligible = errors.New("sandbox: account not eligible for this consent")
	errTooMany     = errors.New("sandbox: too many accounts")
)

// Accounts holds the accounts, and everything that an authorization consists
// of: consents, authorization codes, pre-auth codes, refresh and access tokens.
// The component is an account of its own kind here: it has tokens but
// authorizes nothing.
//
// One lock guards it all, because consents, exchanges and renewals each change
// several of these in one step. It is safe for concurrent use.
type Accounts struct {
	cfg     Config
	secrets *SecretList

	mu        sync.Mutex // guards everything below
	byAppID   map[string]*account
	order     []*account // as they were added
	component account
	tokens    boundedMap[*Token] // by value
	codes     boundedMap[*authCode]
	preAuths  preAuthCodes
}

func newAccounts(c Config, secrets, userSecrets *SecretList) *Accounts {
	return &Accounts{
		cfg:       c,
		secrets:   secrets,
		byAppID:   make(map[string]*account),
		component: account{Account: Account{AppID: c.ComponentAppID, Authorized: true}},
		tokens:    newBoundedMap[*Token](maxTokens),
		codes:     newBoundedMap[*authCode](maxTokens),
		preAuths:  preAuthCodes{secrets: userSecrets, codes: newBoundedMap[*preAuthCode](maxTokens)},
	}
}

// Add adds an account as described. If it is Authorized it counts as exchanged,
// too, and gets a refresh token. It returns ErrExists, ErrAppID, or an error if
// there are too many accounts.
func (s *Accounts) Add(a Account) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.find(a.AppID) != nil {
		return ErrExists
	}
	_, err := s.add(a)
	return err
}

// add adds an account. The caller holds s.mu and knows that the appid is free.
func (s *Accounts) add(spec Account) (*account, error) {
	switch {
	case !wechat.IsAppID(spec.AppID):
		return nil, ErrAppID
	case len(s.order) >= maxAccounts:
		return nil, errTooMany
	}
	a := &account{Account: spec}
	s.secrets.Add(a.Secret)
	if a.Authorized {
		a.RefreshToken = s.secrets.Add(newRefreshToken())
		a.consent++
	}
	s.byAppID[a.AppID] = a
	s.order = append(s.order, a)
	return a, nil
}

// find returns the account of that appid, the component included, or nil. The
// caller holds s.mu.
func (s *Accounts) find(appid string) *account {
	if appid == s.cfg.ComponentAppID {
		return &s.component
	}
	return s.byAppID[appid]
}

// Find returns the account of that appid; it also finds the component.
func (s *Accounts) Find(appid string) (Account, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.find(appid); a != nil {
		return a.Account, true
	}
	return Account{}, false
}

// FindAuthorizer returns the account of that appid; it does not find the
// component.
func (s *Accounts) FindAuthorizer(appid string) (Account, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.byAppID[appid]; a != nil {
		return a.Account, true
	}
	return Account{}, false
}

// AppIDs returns the appids of all accounts but the component, in the order in
// which they were added.
func (s *Accounts) AppIDs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]string, len(s.order))
	for i, a := range s.order {
		out[i] = a.AppID
	}
	return out
}

// Authorized returns one page of the accounts that have authorized, in the
// order in which they were added, and the number of all of them.
func (s *Accounts) Authorized(offset, count int) (page []Account, total int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.order {
		if !a.Authorized {
			continue
		}
		if total >= offset && len(page) < count {
			page = append(page, a.Account)
		}
		total++
	}
	return page, total
}

// OwnSecrets returns the app secrets that the sandbox's user gave to accounts.
func (s *Accounts) OwnSecrets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, a := range s.order {
		if a.Secret != "" {
			out = append(out, a.Secret)
		}
	}
	return out
}
