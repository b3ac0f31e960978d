package state

import (
	"regexp"
	"time"

	"wxproxy/sandbox/internal/random"
)

// TokenKind says what an access token stands for and which endpoint issues it.
type TokenKind string

// The kinds of access tokens. The zero value means no known token.
const (
	ComponentToken  TokenKind = "component"  // api_component_token
	AuthorizerToken TokenKind = "authorizer" // api_query_auth, api_authorizer_token
	AppToken        TokenKind = "app"        // /cgi-bin/token and /cgi-bin/stable_token
	UserToken       TokenKind = "user"       // an end user's, from OAuth
)

// Token is an access token that was issued. It holds no pointers to accounts,
// so that a hundred thousand old ones cost little.
type Token struct {
	Value       string
	AppID       string
	Kind        TokenKind
	OpenID      string // of a UserToken
	Issued      time.Time
	Expires     time.Time // 42001 from then on
	invalidFrom time.Time // 40001 from then on, because it was replaced; zero for the current one
}

// Refusal returns the errcode that a request with the token gets at that time,
// 0 if the token is good.
func (t *Token) Refusal(now time.Time) int {
	switch {
	case !now.Before(t.Expires):
		return 42001
	case !t.invalidFrom.IsZero() && !now.Before(t.invalidFrom):
		return 40001
	}
	return 0
}

// tokenChain is the succession of tokens from one endpoint for one account.
// Only the last two matter: WeChat accepts the previous token for a while
// (grace).
type tokenChain struct{ current, previous *Token }

// invalidate makes both tokens of the chain invalid at once (40001).
func (c *tokenChain) invalidate(now time.Time) {
	for _, t := range []*Token{c.current, c.previous} {
		if t != nil && (t.invalidFrom.IsZero() || t.invalidFrom.After(now)) {
			t.invalidFrom = now
		}
	}
}

// push makes t the current token. The one it replaces works for another grace;
// the one before that is invalid at once. So two renewals in a row invalidate a
// token that clients may still use.
func (c *tokenChain) push(t *Token, now time.Time, grace time.Duration) {
	if c.previous != nil && c.previous.invalidFrom.After(now) {
		c.previous.invalidFrom = now
	}
	if c.current != nil && c.current.invalidFrom.IsZero() {
		c.current.invalidFrom = now.Add(grace)
	}
	c.previous, c.current = c.current, t
}

// wellFormedToken is the form of an access token.
var wellFormedToken = regexp.MustCompile(`^[0-9]{1,3}_[0-9A-Za-z_-]{32,512}$`)

// WellFormedToken reports whether s has the form of an access token. An unknown
// one of that form gets 40001, because it may have been issued once; any other
// string gets 40014.
func WellFormedToken(s string) bool { return wellFormedToken.MatchString(s) }

// The forms are WeChat's: a number and base64url for access tokens, a word and
// "@@@" for everything else. A query needs the "@" percent-encoded, which some
// clients forget; values that contain it find such clients.
func newAccessToken() string  { return "98_" + random.Base64(80) }
func newTicket() string       { return "ticket@@@" + random.Base64(64) }
func newRefreshToken() string { return "refreshtoken@@@" + random.Base64(32) }
func newPreAuthCode() string  { return "preauthcode@@@" + random.Base64(48) }
func newAuthCode() string     { return "queryauthcode@@@" + random.Base64(48) }
