package state

import "time"

// Grant is what an exchange or a renewal returns for an account.
type Grant struct {
	Account     Account // Account.RefreshToken is the one that works from now on
	AccessToken string  // "" if the account has no API permission
}

// issue returns a new token of the chain. The caller holds s.mu.
func (s *Accounts) issue(c *tokenChain, appid string, kind TokenKind, now time.Time, grace time.Duration) *Token {
	t := &Token{
		Value: s.secrets.Add(newAccessToken()), AppID: appid, Kind: kind,
		Issued: now, Expires: now.Add(s.cfg.TokenLife),
	}
	c.push(t, now, grace)
	s.tokens.put(t.Value, t)
	return t
}

// Token returns the token of that value, if it was issued to an account or to
// the component.
func (s *Accounts) Token(value string) (Token, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, known := s.tokens.get(value); known {
		return *t, true
	}
	return Token{}, false
}

// IssueComponentToken returns a new component_access_token.
func (s *Accounts) IssueComponentToken(now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.issue(&s.component.authorizer, s.cfg.ComponentAppID, ComponentToken, now, s.cfg.Grace).Value
}

// ExchangeCode exchanges an authorization code, once, for tokens
// (api_query_auth). The errcode is 61009 for a code that is unknown, used, or
// void because of a later consent or a revocation, and 61010 for an expired
// one.
func (s *Accounts) ExchangeCode(value string, now time.Time) (Grant, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	code, known := s.codes.get(value)
	if !known || code.used {
		return Grant{}, 61009
	}
	a := s.byAppID[code.appid]
	switch {
	case a == nil || !a.Authorized || code.consent != a.consent:
		return Grant{}, 61009
	case !now.Before(code.expires):
		return Grant{}, 61010
	}
	code.used = true
	if a.NoAPI {
		return Grant{Account: a.Account}, 0
	}
	if a.RefreshToken == "" {
		// Further codes of one consent return the same refresh token.
		a.RefreshToken = s.secrets.Add(newRefreshToken())
	}
	t := s.issue(&a.authorizer, a.AppID, AuthorizerToken, now, s.cfg.Grace)
	return Grant{Account: a.Account, AccessToken: t.Value}, 0
}

// Refresh renews the access token of an account (api_authorizer_token).
func (s *Accounts) Refresh(appid, refreshToken string, now time.Time) (Grant, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.byAppID[appid]
	switch {
	case a == nil || !a.Authorized:
		return Grant{}, 61003
	case a.NoAPI:
		return Grant{}, 61007
	case !a.acceptsRefreshToken(refreshToken, now):
		return Grant{}, 61023
	}
	if s.cfg.RotateRefreshTokens {
		a.oldRefreshToken, a.oldRefreshTokenUntil = a.RefreshToken, now.Add(s.cfg.Grace)
		a.RefreshToken = s.secrets.Add(newRefreshToken())
	}
	t := s.issue(&a.authorizer, a.AppID, AuthorizerToken, now, s.cfg.Grace)
	return Grant{Account: a.Account, AccessToken: t.Value}, 0
}

// acceptsRefreshToken reports whether the refresh token works: the current one,
// or for a while the one that rotation replaced. The caller holds the lock of
// Accounts.
func (a *account) acceptsRefreshToken(value string, now time.Time) bool {
	if value == "" || a.refreshTokenInvalid {
		return false
	}
	return value == a.RefreshToken || value == a.oldRefreshToken && now.Before(a.oldRefreshTokenUntil)
}

// BySecret returns the account that has this app secret of its own. The
// component has a secret but is no such account (61024).
func (s *Accounts) BySecret(appid, secret string) (Account, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, code := s.bySecret(appid, secret)
	if code != 0 {
		return Account{}, code
	}
	return a.Account, 0
}

// bySecret is BySecret for callers that hold s.mu.
func (s *Accounts) bySecret(appid, secret string) (*account, int) {
	a := s.byAppID[appid]
	switch {
	case appid == "":
		return nil, 41002
	case appid == s.cfg.ComponentAppID:
		return nil, 61024
	case a == nil:
		return nil, 40013
	case secret == "":
		return nil, 41004
	case a.Secret == "" || a.Secret != secret:
		return nil, 40125
	}
	return a, 0
}

// OwnToken returns a new token of an account with a secret (/cgi-bin/token).
// Each call replaces the token of the last one.
func (s *Accounts) OwnToken(appid, secret string, now time.Time) (Token, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, code := s.bySecret(appid, secret)
	if code != 0 {
		return Token{}, code
	}
	return *s.issue(&a.own, a.AppID, AppToken, now, s.cfg.Grace), 0
}

const (
	// stableMargin is how long before its end a stable token is replaced; half
	// its lifetime if that is shorter.
	stableMargin = 5 * time.Minute
	// A forced renewal works once in forcePause and forceLimit times a day.
	forcePause = 30 * time.Second
	forceLimit = 20
)

// StableToken returns the stable token of an account (getStableAccessToken):
// the same one until shortly before its end, unless force asks for a new one.
// Then the old one is invalid at once.
func (s *Accounts) StableToken(appid, secret string, force bool, now time.Time) (Token, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, code := s.bySecret(appid, secret)
	if code != 0 {
		return Token{}, code
	}
	if force {
		if a.forcedDay != day(now) {
			a.forcedDay, a.forced = day(now), 0
		}
		if a.forced >= forceLimit {
			return Token{}, 45009
		}
	}
	t := a.stable.current
	switch margin := min(stableMargin, s.cfg.TokenLife/2); {
	case force && (t == nil || t.Refusal(now) != 0 || !now.Before(a.forcedAt.Add(forcePause))):
		a.forcedAt = now
		a.forced++
		t = s.issue(&a.stable, a.AppID, AppToken, now, 0)
	case t == nil || !now.Before(t.Expires.Add(-margin)):
		t = s.issue(&a.stable, a.AppID, AppToken, now, s.cfg.Grace)
	}
	return *t, 0
}
