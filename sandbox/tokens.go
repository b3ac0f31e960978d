package sandbox

import "wxproxy/sandbox/internal/state"

// TokenKind says what an access token stands for and which endpoint issues it.
// The zero value means that a request carried no token, or an unknown one.
type TokenKind = state.TokenKind

// The kinds of access tokens.
const (
	ComponentToken  = state.ComponentToken  // from api_component_token
	AuthorizerToken = state.AuthorizerToken // from api_query_auth and api_authorizer_token
	AppToken        = state.AppToken        // from /cgi-bin/token and /cgi-bin/stable_token
	UserToken       = state.UserToken       // an end user's, from OAuth
)

// Ticket returns the newest component_verify_ticket. It makes one if there is
// none that works; nothing is pushed.
func (s *WeChat) Ticket() string { return s.state.Tickets.Current(s.cfg.Now()) }

// ExpireTickets ends the lifetime of all tickets (61005), as if nothing had
// been pushed for half a day.
func (s *WeChat) ExpireTickets() { s.state.Tickets.ExpireAll(s.cfg.Now()) }

// CurrentToken returns the newest access token of that appid, whether it still
// works or not: the component's or the authorizer's. For an account without an
// authorization it is the token of stable_token, else that of /cgi-bin/token.
// It returns "" if there is none.
func (s *WeChat) CurrentToken(appid string) string { return s.state.Accounts.CurrentToken(appid) }

// AuthorizerRefreshToken returns the refresh token of the account. It is ""
// before its code was exchanged and after it revoked the authorization.
func (s *WeChat) AuthorizerRefreshToken(appid string) string {
	a, _ := s.state.Accounts.FindAuthorizer(appid)
	return a.RefreshToken
}

// Expire ends the lifetime of the current tokens of the account or the
// component now (42001). It reports whether there was one.
func (s *WeChat) Expire(appid string) bool { return s.state.Accounts.Expire(appid, s.cfg.Now()) }

// Supersede renews the tokens of the account or the component as another client
// would: there are new ones, and the ones before get 40001 without grace. It
// reports whether there was one to supersede.
func (s *WeChat) Supersede(appid string) bool {
	return s.state.Accounts.Supersede(appid, s.cfg.Now())
}

// KillRefreshToken makes the refresh token of the account invalid (61023) until
// its merchant consents again. WeChat still shows it in
// api_get_authorizer_info, so reading it again does not help. It reports
// whether there was one.
func (s *WeChat) KillRefreshToken(appid string) bool {
	return s.state.Accounts.KillRefreshToken(appid)
}

// ReplaceRefreshToken gives the account another refresh token, which it
// returns. The old one gets 61023; api_get_authorizer_info and
// api_get_authorizer_list return the new one, so reading it again helps. It
// returns "" if there was none to replace.
func (s *WeChat) ReplaceRefreshToken(appid string) string {
	return s.state.Accounts.ReplaceRefreshToken(appid)
}
