package sandbox

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// TokenKind says whose an access token is, and how it was come by.
type TokenKind string

// The kinds. The empty one: the call carried no token, or none that was ever given out.
const (
	ComponentToken  TokenKind = "component"  // api_component_token
	AuthorizerToken TokenKind = "authorizer" // api_query_auth, api_authorizer_token
	AppToken        TokenKind = "app"        // /cgi-bin/token and /cgi-bin/stable_token, with the account's own secret
	UserToken       TokenKind = "user"       // an end user's, by OAuth
)

// token is an access token that was given out. It points to nothing, so that old ones cost little.
type token struct {
	value   string
	appid   string
	kind    TokenKind
	openid  string // of a UserToken
	issued  time.Time
	expires time.Time // 42001 from then on
	deadAt  time.Time // 40001 from then on: replaced; zero: is the current one
}

// refusal gives the errcode with which the token is refused at that time, 0 if it is good.
func (t *token) refusal(now time.Time) int {
	switch {
	case !now.Before(t.expires):
		return 42001
	case !t.deadAt.IsZero() && !now.Before(t.deadAt):
		return 40001
	}
	return 0
}

// chain is the succession of tokens from one source: the current one, and the one before.
type chain struct{ current, previous *token }

// kill makes all of the chain invalid at once (40001).
func (c *chain) kill(now time.Time) {
	for _, t := range []*token{c.current, c.previous} {
		if t != nil && (t.deadAt.IsZero() || t.deadAt.After(now)) {
			t.deadAt = now
		}
	}
}

// issue gives out a new token, and lets the one that it replaces live on for grace. The one before that
// is dead: two renewals in a row kill what everybody still uses. s.mu is held.
func (s *WeChat) issue(c *chain, appid string, kind TokenKind, now time.Time, grace time.Duration) *token {
	if c.previous != nil && c.previous.deadAt.After(now) {
		c.previous.deadAt = now
	}
	if c.current != nil && c.current.deadAt.IsZero() {
		c.current.deadAt = now.Add(grace)
	}
	t := &token{value: newToken(), appid: appid, kind: kind, issued: now, expires: now.Add(s.cfg.TokenLife)}
	c.previous, c.current = c.current, t
	s.tokens.put(t.value, t)
	s.remember(t.value)
	return t
}

// expiresIn is what WeChat says of a new token: whole seconds.
func (s *WeChat) expiresIn() int { return max(1, int(s.cfg.TokenLife/time.Second)) }

// remember adds to [WeChat.Secrets]; s.mu is held, or nobody else knows s yet.
func (s *WeChat) remember(v string) string {
	s.secrets.add(v)
	return v
}

func (s *WeChat) rememberUser(v string) string {
	s.userSecrets.add(v)
	return v
}

// Secrets gives every secret of the platform: the configured ones, and every ticket, token,
// refresh token and authorization code ever given out (the last 200,000). A test looks for them where
// they must not be, in their percent-encoded form as well, since some contain "@".
func (s *WeChat) Secrets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.secrets.values)
}

// UserSecrets gives what was given out that a caller may well see, but no log: end users' tokens and session keys,
// jsapi tickets, pre-auth codes.
func (s *WeChat) UserSecrets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.userSecrets.values)
}

// wellFormed tells a token that was once given out, perhaps, from something that never was one (40014).
var wellFormed = regexp.MustCompile(`^[0-9]{1,3}_[0-9A-Za-z_-]{32,512}$`)

// The forms are WeChat's: a number and base64url for tokens, a word and three "@" for the others. The
// "@" has to be encoded in a query, which some clients forget.
func newToken() string       { return "98_" + random(80) }
func newTicket() string      { return "ticket@@@" + random(64) }
func newRefresh() string     { return "refreshtoken@@@" + random(32) }
func newPreAuthCode() string { return "preauthcode@@@" + random(48) }
func newAuthCode() string    { return "queryauthcode@@@" + random(48) }

// random gives n random bytes in base64url.
func random(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// randomDigits is a nonce as WeChat makes them: a number of nine or ten digits.
func randomDigits() string {
	var b [4]byte
	rand.Read(b[:])
	return strconv.FormatUint(uint64(binary.BigEndian.Uint32(b[:]))|1<<29, 10)
}
