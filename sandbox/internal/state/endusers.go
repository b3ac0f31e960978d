package state

import (
	"sync"
	"time"
)

// Lifetimes of an end user's tokens (网页授权).
const (
	UserTokenLife        = 2 * time.Hour
	userRefreshTokenLife = 30 * 24 * time.Hour
)

// EndUsers holds what end users of the accounts have: login codes that were
// used, and OAuth tokens. It is safe for concurrent use.
type EndUsers struct {
	secrets *SecretList

	mu      sync.Mutex           // guards everything below
	used    boundedMap[struct{}] // appid and login code; a code works once
	access  boundedMap[*Token]
	refresh boundedMap[*Token]
}

func newEndUsers(secrets *SecretList) *EndUsers {
	return &EndUsers{
		secrets: secrets,
		used:    newBoundedMap[struct{}](maxTokens),
		access:  newBoundedMap[*Token](maxTokens),
		refresh: newBoundedMap[*Token](maxTokens),
	}
}

// UseCode uses up a login code of that account, and reports whether it was new.
func (e *EndUsers) UseCode(appid, code string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := appid + " " + code
	if _, used := e.used.get(key); used {
		return false
	}
	e.used.put(key, struct{}{})
	return true
}

// UserGrant is a pair of OAuth tokens.
type UserGrant struct{ AccessToken, RefreshToken, OpenID string }

// Issue returns new OAuth tokens for that user of that account.
func (e *EndUsers) Issue(appid, openid string, now time.Time) UserGrant {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.issue(appid, openid, now)
}

// issue is Issue for callers that hold e.mu.
func (e *EndUsers) issue(appid, openid string, now time.Time) UserGrant {
	put := func(m *boundedMap[*Token], kind TokenKind, life time.Duration) string {
		value := newAccessToken()
		m.put(value, &Token{Value: value, AppID: appid, Kind: kind, OpenID: openid, Expires: now.Add(life)})
		return e.secrets.Add(value)
	}
	return UserGrant{
		AccessToken:  put(&e.access, UserToken, UserTokenLife),
		RefreshToken: put(&e.refresh, "", userRefreshTokenLife), // no access token of any kind
		OpenID:       openid,
	}
}

// Refresh returns new tokens for a user's refresh token, which stays good. The
// errcode is 40030 for an unknown one or one of another account, and 42002 for
// an expired one.
func (e *EndUsers) Refresh(appid, refreshToken string, now time.Time) (UserGrant, int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	t, known := e.refresh.get(refreshToken)
	switch {
	case !known || t.AppID != appid:
		return UserGrant{}, 40030
	case !now.Before(t.Expires):
		return UserGrant{}, 42002
	}
	return e.issue(appid, t.OpenID, now), 0
}

// Token returns the end user's access token of that value.
func (e *EndUsers) Token(value string) (Token, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t, known := e.access.get(value); known {
		return *t, true
	}
	return Token{}, false
}
