package sandbox

import (
	"time"

	"wxproxy/sandbox/internal/state"
)

// Kind is the type of an account at WeChat. The zero value is an official
// account.
type Kind = state.Kind

// The kinds of accounts.
const (
	OfficialAccount = state.OfficialAccount // 公众号
	MiniProgram     = state.MiniProgram     // 小程序
)

// AccountOption changes what [WeChat.AddAccount] adds.
type AccountOption func(*state.Account)

// WithSecret gives the account an app secret of its own, so that
// /cgi-bin/token, /cgi-bin/stable_token and the /sns/ endpoints that need a
// secret work for it.
func WithSecret(secret string) AccountOption {
	return func(a *state.Account) { a.Secret = secret }
}

// WithoutAPIPermission makes api_query_auth return no tokens for the account,
// as happens with some accounts at WeChat.
func WithoutAPIPermission() AccountOption {
	return func(a *state.Account) { a.NoAPI = true }
}

// WithAuthorization adds an account that authorized the component at that time
// and whose code was exchanged: it is listed with a refresh token. Nothing is
// pushed.
func WithAuthorization(at time.Time) AccountOption {
	return func(a *state.Account) { a.Authorized, a.AuthTime = true, at }
}

// AddAccount adds an account, which has not authorized the component unless an
// option says so. It returns an error if the appid is not wx and 16 characters
// of 0-9, a-z, or if there is an account of that appid.
func (s *WeChat) AddAccount(appid string, kind Kind, options ...AccountOption) error {
	a := state.Account{AppID: appid, Kind: kind}
	for _, option := range options {
		option(&a)
	}
	return s.state.Accounts.Add(a)
}

// Accounts returns the appids of all accounts, the component excepted, in the
// order in which they were added.
func (s *WeChat) Accounts() []string { return s.state.Accounts.AppIDs() }

// Secrets returns every secret of the platform: the configured ones, and the
// last 200,000 tickets, tokens, refresh tokens and authorization codes. A test
// looks for them where they must not be, percent-encoded as well, since some
// contain "@".
func (s *WeChat) Secrets() []string { return s.state.PlatformSecrets.All() }

// UserSecrets returns what callers can receive but no log may contain: end
// users' tokens and session keys, jsapi tickets, pre-auth codes.
func (s *WeChat) UserSecrets() []string { return s.state.UserSecrets.All() }
