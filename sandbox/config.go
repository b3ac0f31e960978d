package sandbox

import (
	"errors"
	"time"

	"wxproxy/wechat"
)

// The identity of the component if [Config] names no other. All values are
// well-formed, and none exists at WeChat.
const (
	DefaultComponentAppID  = "wx5a9dbc0000c0ffee"
	DefaultComponentSecret = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
	DefaultMessageToken    = "sandboxMessageToken"
	DefaultEncodingAESKey  = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
)

// IdleTimeout is how long WeChat keeps an idle connection open. It is not
// documented; users have observed it. Set it on the [http.Server] of the
// sandbox.
const IdleTimeout = 20 * time.Second

// Defaults of [Config], which are WeChat's.
const (
	defaultTokenLife  = 2 * time.Hour
	defaultGrace      = 5 * time.Minute
	defaultTicketLife = 12 * time.Hour
	// WeChat waits five seconds for the response to a push.
	defaultPushTimeout = 5 * time.Second
)

// Config holds the settings of a [WeChat]. The zero value is valid: a component
// with the default identity, WeChat's lifetimes, no pushes.
type Config struct {
	ComponentAppID  string // default: DefaultComponentAppID
	ComponentSecret string // default: DefaultComponentSecret
	MessageToken    string // default: DefaultMessageToken
	EncodingAESKey  string // 43 characters; default: DefaultEncodingAESKey

	// PushURL is the base URL of a callback listener, such as
	// http://127.0.0.1:8081. Authorization events are sent to PushURL +
	// "/component/events". Without it nothing is pushed, which is no error.
	// [WeChat.SetPushURL] changes it.
	PushURL string

	// TokenLife is the lifetime of access tokens. Default: two hours. In tests
	// it can be a fraction of a second; expires_in is in whole seconds, rounded
	// down, and at least 1.
	TokenLife time.Duration
	// Grace is how long a replaced access token still works. It applies to the
	// previous token only; older ones are invalid at once. Default: five minutes.
	// A negative value means no grace.
	Grace time.Duration
	// TicketLife is the lifetime of a component_verify_ticket. Default: twelve
	// hours.
	TicketLife time.Duration
	// PushTimeout is how long a callback can take to respond to a push.
	// Default: five seconds. A test that does not depend on it can set more, so
	// that it passes on a busy machine.
	PushTimeout time.Duration
	// RotateRefreshTokens issues a new refresh token with each renewal.
	// WeChat's do not change in practice, but its staff has described what
	// happens if they do: the old one works for Grace.
	RotateRefreshTokens bool

	// Gzip compresses JSON responses to requests with Accept-Encoding: gzip,
	// which Go's client sends on its own. A [Fault] can compress regardless of
	// the request.
	Gzip bool

	// ControlHosts are further host names under which /sandbox/ is served. IP
	// addresses, names without a dot, and names below .localhost, .test and
	// .internal are always allowed, because no attacker's web site has one.
	ControlHosts []string

	// AuthorizeHost is the host from which merchants come to a consent page and
	// to which they return (授权发起页域名), with its port if it has one. If it
	// is empty any host works, as long as both are the same.
	AuthorizeHost string

	// Now returns the time. Default: [time.Now]. It must be safe for concurrent
	// use and must not call the sandbox.
	Now func() time.Time

	// Observe is called with each request after it was recorded and before the
	// response is written. It runs in the goroutine that serves the request,
	// several at once, with no lock held. It must not change the slices and
	// maps of the Call. nil disables it.
	Observe func(Call)
}

// complete replaces zero values by the defaults.
func (c *Config) complete() {
	setDefault(&c.ComponentAppID, DefaultComponentAppID)
	setDefault(&c.ComponentSecret, DefaultComponentSecret)
	setDefault(&c.MessageToken, DefaultMessageToken)
	setDefault(&c.EncodingAESKey, DefaultEncodingAESKey)
	setDefault(&c.TokenLife, defaultTokenLife)
	setDefault(&c.Grace, defaultGrace)
	setDefault(&c.TicketLife, defaultTicketLife)
	setDefault(&c.PushTimeout, defaultPushTimeout)
	c.Grace = max(c.Grace, 0)
	if c.Now == nil {
		c.Now = time.Now
	}
}

// check reports the first field that is not valid. The message token, the key
// and the push URL are checked where they are used.
func (c *Config) check() error {
	switch {
	case !wechat.IsAppID(c.ComponentAppID):
		return errors.New("sandbox: malformed ComponentAppID: want wx and 16 characters of 0-9, a-z")
	case c.TokenLife < 0:
		return errors.New("sandbox: negative TokenLife")
	case c.TicketLife < 0:
		return errors.New("sandbox: negative TicketLife")
	case c.PushTimeout < 0:
		return errors.New("sandbox: negative PushTimeout")
	}
	return nil
}

// setDefault sets *field to value if it is zero.
func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
