package sandbox

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"time"

	"wxproxy/wechat"
)

// The identity of the component where [Config] names no other. All are well-formed, and none of them
// exists at WeChat.
const (
	DefaultComponentAppID  = "wx5a9dbc0000c0ffee"
	DefaultComponentSecret = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
	DefaultMessageToken    = "sandboxMessageToken"
	DefaultEncodingAESKey  = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
)

// IdleTimeout is after what time WeChat closes a connection on which nothing happens. It is seen by
// users, not documented. Give it to the http.Server in front of the sandbox.
const IdleTimeout = 20 * time.Second

const (
	defaultTokenLife  = 2 * time.Hour
	defaultGrace      = 5 * time.Minute
	defaultTicketLife = 12 * time.Hour
	// WeChat pushes a ticket every ten minutes.
	ticketInterval = 10 * time.Minute
	// WeChat waits five seconds for the answer to a push.
	pushTimeout = 5 * time.Second
	// What life an authorization code has: a pushed one an hour, the one in the merchant's browser ten minutes.
	pushedCodeLife   = time.Hour
	redirectCodeLife = 10 * time.Minute
	preAuthCodeLife  = 10 * time.Minute
)

// Config is what a sandbox can be told. The zero value is legal: a component of the default
// identity, WeChat's life spans, no pushes.
type Config struct {
	ComponentAppID  string // "": DefaultComponentAppID
	ComponentSecret string // "": DefaultComponentSecret
	MessageToken    string // "": DefaultMessageToken
	EncodingAESKey  string // 43 characters; "": DefaultEncodingAESKey

	// PushURL is the base of a callback listener, such as http://127.0.0.1:8081. Authorization events go to
	// PushURL + "/component/events". "": nothing is pushed, and nothing fails for that. [WeChat.SetPushURL]
	// changes it.
	PushURL string

	// TokenLife is the life of access tokens. 0: two hours. It may be a fraction of a second, in tests;
	// expires_in is whole seconds, rounded down, and at least 1.
	TokenLife time.Duration
	// Grace is how long a replaced access token lives on: only the previous one, an older one is dead at once. 0:
	// five minutes. Negative: none.
	Grace time.Duration
	// TicketLife is how long a component_verify_ticket can be used. 0: twelve hours.
	TicketLife time.Duration
	// RotateRefreshTokens gives a new refresh token with each renewal. WeChat's do not change in practice,
	// but its staff said what happens if they do: the old one stays good for Grace.
	RotateRefreshTokens bool

	// Gzip compresses JSON answers to requests that say Accept-Encoding: gzip. The zero value does not, and Go's
	// clients say it by themselves. A [Fault] can compress whatever was asked for.
	Gzip bool

	// ControlHosts are further host names under which /sandbox/ may be reached. Always allowed are IP
	// addresses, localhost, and names without a dot or ending in .test, .internal or .localhost, because no web site
	// of an attacker has one of these.
	ControlHosts []string

	// AuthorizeHost is the host from which merchants have to come to the consent page, and to which they go back
	// (授权发起页域名), with its port if it has one. "": any, so long as both are the same.
	AuthorizeHost string

	// Now is the clock. nil: time.Now. It must be safe for concurrent use and must not call the sandbox.
	Now func() time.Time

	// Observe is shown each call after it was noted and before it is answered, in the goroutine that serves it,
	// with no lock held: several at once. It may be nil. The slices and maps of the Call must not be changed.
	Observe func(Call)
}

// appidPattern is looser than what WeChat has been seen to give out (hexadecimal digits), as its
// documentation has others in examples.
var appidPattern = regexp.MustCompile(`^wx[0-9a-z]{16}$`)

// New makes a WeChat that nobody has authorized yet. The error says which field of c is not usable.
func New(c Config) (*WeChat, error) {
	orElse(&c.ComponentAppID, DefaultComponentAppID)
	orElse(&c.ComponentSecret, DefaultComponentSecret)
	orElse(&c.MessageToken, DefaultMessageToken)
	orElse(&c.EncodingAESKey, DefaultEncodingAESKey)
	orElse(&c.TokenLife, defaultTokenLife)
	orElse(&c.Grace, defaultGrace)
	orElse(&c.TicketLife, defaultTicketLife)
	c.Grace = max(c.Grace, 0)
	if c.Now == nil {
		c.Now = time.Now
	}
	switch {
	case !appidPattern.MatchString(c.ComponentAppID):
		return nil, errors.New("sandbox: ComponentAppID must be wx and 16 characters of 0-9, a-z")
	case c.TokenLife < 0:
		return nil, errors.New("sandbox: TokenLife is negative")
	case c.TicketLife < 0:
		return nil, errors.New("sandbox: TicketLife is negative")
	}
	crypt, err := wechat.NewCrypt(wechat.NewSecret(c.MessageToken), wechat.NewSecret(c.EncodingAESKey), c.ComponentAppID)
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	s := &WeChat{
		cfg:         c,
		crypt:       crypt,
		endpoints:   table(),
		accounts:    make(map[string]*account),
		tokens:      newBook[*token](maxTokens),
		codes:       newBook[*authCode](maxTokens),
		preAuths:    newBook[*preAuthCode](maxTokens),
		logins:      newBook[login](maxLogins),
		tickets:     newBook[time.Time](maxTokens),
		spent:       newBook[bool](maxTokens),
		userRefresh: newBook[*token](maxTokens),
		media:       newMediaStore(),
		pusher:      &http.Client{Timeout: pushTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
	s.component = account{appid: c.ComponentAppID, authorized: true}
	if err := s.SetPushURL(c.PushURL); err != nil {
		return nil, err
	}
	s.remember(c.ComponentSecret)
	s.remember(c.MessageToken)
	s.remember(c.EncodingAESKey)
	return s, nil
}

func orElse[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
