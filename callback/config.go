package callback

import (
	"context"
	"log/slog"
	"time"

	"wxproxy/callback/pages"
	"wxproxy/callback/queue"
	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// Tickets stores what the component needs for its own token.
type Tickets interface {
	// PutTicket stores a component_verify_ticket; it is durable when PutTicket
	// returns nil. created is the push's CreateTime. The error is
	// tokens.ErrStale if a newer ticket is known.
	PutTicket(ctx context.Context, ticket wechat.Secret, created time.Time) error
}

// EventSink stores what accounts decide about their authorization.
type EventSink interface {
	// Authorize stores an authorization code; it is durable when Authorize
	// returns nil. The code is exchanged later, in the background. expires is
	// the end of the code's validity, zero if it is unknown. The error is
	// tokens.ErrStale if a newer authorization or revocation is known.
	Authorize(
		ctx context.Context, appid string, code wechat.Secret, expires, created time.Time,
	) error
	// UpdateAuthorization is Authorize for updateauthorized. The error is also
	// tokens.ErrStale if an operator has forgotten the account.
	UpdateAuthorization(
		ctx context.Context, appid string, code wechat.Secret, expires, created time.Time,
	) error
	// MarkRevoked stores durably that the account revoked its authorization.
	// The error is tokens.ErrStale if a newer authorization is known.
	MarkRevoked(ctx context.Context, appid string, created time.Time) error
}

// Accounts stores authorization events. *tokens.Broker implements it. Its
// methods are called concurrently. Their context ends at the deadline of the
// response, but not when the connection is closed.
type Accounts interface {
	Tickets
	EventSink
}

// Claims remembers pushes for all processes and across restarts. A
// [wxproxy/tokens/store.Store] implements it.
type Claims interface {
	// Claim reports whether key was free, and then remembers it until a time.
	Claim(ctx context.Context, key string, until time.Time) (first bool, err error)
	// Unclaim makes key free before that.
	Unclaim(ctx context.Context, key string) error
}

// Config configures a Handler. The zero value answers /healthz, and 404 to all
// other paths.
type Config struct {
	// ComponentAppID is the component's appid, which every event must name.
	// Without it no push is accepted.
	ComponentAppID string
	// Crypts verify and decrypt pushes: first the one with the current key,
	// then, if there is one, the one with the previous key. Without any no push
	// is accepted.
	Crypts []*wechat.Crypt
	// Apps are own accounts whose pushes are accepted on their paths.
	Apps []App
	// Accounts stores authorization events; nil: no events are accepted.
	Accounts Accounts

	// MaxAge is how old a push may be by the time that WeChat has signed;
	// default: 15m. It does not limit the age of tickets.
	MaxAge time.Duration
	// Claims makes sure that one process handles a push, and handles it once.
	// nil: only this process remembers pushes, for an hour.
	Claims Claims
	// IsFor reports whether a message to userName, the original id of an
	// account (gh_…), may be for the account appid. It is called concurrently.
	// nil: all messages are accepted on every account's path.
	IsFor func(ctx context.Context, appid, userName string) (bool, error)

	// IsAnothers reports whether userName is known to be the original id of
	// another account than appid. It is asked about messages that were made for
	// an own account, in place of IsFor, which may conclude that the name
	// belongs to appid. It is called concurrently. nil: it is not.
	IsAnothers func(ctx context.Context, appid, userName string) (bool, error)

	// Pages configures the pages on which merchants authorize. Its
	// ComponentAppID and its Log are replaced by those of this Config.
	Pages pages.Config

	// Forwards decide which services get which messages and events: the first
	// that matches and is not ModeQueue replies, and all others of ModeQueue get
	// a copy. What none matches is answered with success.
	Forwards []Forward
	// Queue keeps what services get later; nil: it is kept in memory.
	Queue store.Queue
	// QueueLimits bound it, for each service.
	QueueLimits queue.Limits
	// StoreAhead returns how far the clock of the queue is ahead of this
	// machine's; nil: not at all.
	StoreAhead func() time.Duration
	// Delivered is called after each try to deliver something from the queue,
	// with "ok", "failed" or "dead"; nil disables it.
	Delivered func(result string)
	// ExchangeCode exchanges an authorization code that WeChat's release
	// checker sends in a message, and SendText sends a text to a user of an
	// account. If either is nil, such a message is treated like all others.
	ExchangeCode func(ctx context.Context, code wechat.Secret) (tokens.Authorization, error)
	SendText     func(ctx context.Context, appid, openid, text string) error

	// Now is the clock; default: time.Now.
	Now func() time.Time
	// ClaimTimeout limits the wait for Claims, so that time is left for the
	// service; default: 1.5s.
	ClaimTimeout time.Duration
	// Timeout limits the time for reading and storing an authorization event;
	// default: 4s, because WeChat waits for 5 s.
	Timeout time.Duration
	// MessageTimeout limits the time for reading a message and getting the
	// service's reply; default: 4.5s.
	MessageTimeout time.Duration

	// Observe is called once for each push, with values of [Events] and
	// [Results]; nil disables it.
	Observe func(event, result string)
	// Log receives the log; nil disables it.
	Log *slog.Logger
}

const (
	defaultTimeout        = 4 * time.Second
	defaultMessageTimeout = 4500 * time.Millisecond
	defaultClaimTimeout   = 1500 * time.Millisecond
	defaultMaxAge         = 15 * time.Minute
)

// withDefaults returns c with defaults in place of zero values.
func (c Config) withDefaults() Config {
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.MessageTimeout <= 0 {
		c.MessageTimeout = defaultMessageTimeout
	}
	if c.ClaimTimeout <= 0 {
		c.ClaimTimeout = defaultClaimTimeout
	}
	if c.MaxAge <= 0 {
		c.MaxAge = defaultMaxAge
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Observe == nil {
		c.Observe = func(string, string) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// pages returns the configuration of the pages.
func (c Config) pages() pages.Config {
	p := c.Pages
	p.ComponentAppID, p.Log = c.ComponentAppID, c.Log
	return p
}

// settings holds what an operator can change while the handler serves. One push
// uses one set from beginning to end.
type settings struct {
	component string
	crypts    []*wechat.Crypt // the current key's first
	apps      map[string]App  // own accounts by appid
	maxAge    time.Duration
	forwards  []Forward
	sendText  func(ctx context.Context, appid, openid, text string) error
}

// service returns the first rule for a service, nil if it is not configured.
func (s *settings) service(name string) *Forward {
	for i := range s.forwards {
		if s.forwards[i].Name == name {
			return &s.forwards[i]
		}
	}
	return nil
}

// acceptsPushes reports whether there is a component whose pushes can be
// verified.
func (s *settings) acceptsPushes() bool {
	return s.component != "" && len(s.crypts) > 0
}
