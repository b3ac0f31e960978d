package proxy

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"wxproxy/internal/returnticket"
	"wxproxy/proxy/standin"
	"wxproxy/proxy/transport"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// Tokens supplies access tokens. [tokens.Broker] implements it. The appids that
// its methods receive share memory with the request: an implementation must
// clone what it keeps after it has returned.
type Tokens interface {
	// Cached returns the token of an account if it is in memory.
	Cached(appid string) (tokens.Token, bool)
	// Token returns the token of an account. It may fetch one.
	Token(ctx context.Context, appid string) (tokens.Token, error)
	// Renew returns a token other than stale, which WeChat has rejected.
	Renew(ctx context.Context, appid string, stale wechat.Secret) (tokens.Token, error)
	// CheckAccount reports whether there is such an account: nil,
	// ErrUnknownAccount, ErrRevoked, ErrForgotten, or why that is not certain. It does not
	// ask WeChat.
	CheckAccount(ctx context.Context, appid string) error
}

// Observer counts events. Its methods are called concurrently and must not
// block.
type Observer interface {
	CallStarted()
	// CallDone ends a call. upstream is the time spent waiting for WeChat, 0 if
	// WeChat was not called.
	CallDone(caller, credential string, code int, took, upstream time.Duration)
	// TokenUsed reports a token that was injected. hit means that it was
	// cached.
	TokenUsed(credential string, hit bool)
	// Retried reports that WeChat rejected a token with errcode, and what
	// became of the second attempt: ok, refused_again, no_token or unreachable.
	Retried(credential string, errcode int, result string)
	// WeChatError reports a response with an errcode other than 0.
	WeChatError(errcode int)
	// Redacted reports a response in which credentials were masked.
	Redacted()
	// KeyRejected reports a request with a wrong key. listener is "proxy".
	KeyRejected(listener string)
}

// Config configures a Proxy. Upstream and Tokens are required. Every other zero
// value is legal.
type Config struct {
	Component    string                   // the component's appid
	Apps         map[string]wechat.Secret // own accounts and their app secrets
	DefaultAppID string                   // for requests that name no account
	Routes       []wechat.Endpoint        // rows before the built-in table
	Callers      []Caller                 // empty disables authentication
	Hosts        []string                 // names in Host that are accepted then; "*" is all
	Upstream     string                   // base URL, http or https
	Roots        *x509.CertPool           // CAs for Upstream; default: the system's
	Timeout      time.Duration            // of a request; default: 60s
	MaxBody      int                      // of a request, bytes; default: 32 MiB
	OwnCalls     int                      // connections to WeChat that others use
	// ForwardHeaders are the names of headers that WeChat receives besides
	// those that are always forwarded; see [ForwardHeaderProblem].
	ForwardHeaders []string
	Tokens         Tokens // used by New only

	// IdleTimeout bounds the reading of a request, the time between two of
	// them, and each stall of a response; default: 100s. Used by New only.
	IdleTimeout time.Duration
	// StandInKey signs stand-ins. All replicas need the same, of
	// [standin.KeySize] bytes or more. Another key invalidates all stand-ins.
	// If it is empty, New makes one that is lost when the process ends, and
	// Reconfigure keeps the present one.
	StandInKey []byte
	// StandIns is used instead of StandInKey unless it is nil. Its keys may
	// change at any time.
	StandIns *standin.Signer
	// Exchange exchanges an authorization code and keeps the tokens. Its errors
	// are WeChat's ([wechat.Code]) or those of Tokens. nil disables
	// api_query_auth.
	Exchange func(ctx context.Context, code wechat.Secret) (tokens.Authorization, error)
	// Redeem returns what a ticket says, once, after permit has returned nil for
	// its account. Otherwise it returns the error of permit, and the ticket can
	// still be redeemed. Its own errors are those of
	// [returnticket.Redeemer.Redeem]. nil: no ticket is valid.
	Redeem redeemFunc
	// Revalidate is called if WeChat's response to a request for appid may mean
	// that its authorization has ended (61003, 42007). It must not block. nil
	// disables it.
	Revalidate func(appid string, errcode int)

	Observer Observer     // used by New only; nil disables it
	Watch    func(Call)   // receives each call that has ended; used by New only; nil disables it
	Log      *slog.Logger // used by New only; nil disables it
}

// redeemFunc is the type of [Config.Redeem].
type redeemFunc = func(
	ctx context.Context, ticket string, permit func(appid string) error,
) (returnticket.Authorization, error)

// settings is a Config prepared for use. It is never changed: a reload replaces
// it, and a call keeps the one with which it began.
type settings struct {
	component    []byte // nil if none is configured
	apps         map[string]wechat.Secret
	defaultAppID []byte // nil if none is configured
	table        *wechat.Table
	callers      callerSet
	signer       *standin.Signer
	exchange     func(context.Context, wechat.Secret) (tokens.Authorization, error)
	redeem       redeemFunc
	revalidate   func(appid string, errcode int)
	upstream     *transport.Upstream
	timeout      time.Duration
	maxBody      int

	forwardHeaders []string // besides those that are always forwarded
	hosts          []string // besides IP addresses, localhost and WeChat's
	anyHost        bool     // every Host is accepted
}

// newSettings prepares c. old are the present settings, nil at first. What
// callers have used of their rates is taken over, and so is the signing key if
// c has none.
func newSettings(c Config, old *settings, readAhead *transport.Budget) (*settings, error) {
	s := &settings{
		apps: c.Apps, table: wechat.NewTable(c.Routes, wechat.Endpoints),
		exchange: c.Exchange, redeem: c.Redeem, revalidate: c.Revalidate,
		timeout: c.Timeout, maxBody: c.MaxBody,
		forwardHeaders: c.ForwardHeaders,
		hosts:          c.Hosts, anyHost: slices.Contains(c.Hosts, "*"),
	}
	for _, name := range c.ForwardHeaders {
		if problem := ForwardHeaderProblem(name); problem != "" {
			return nil, fmt.Errorf("the header %q %s", name, problem)
		}
	}
	if c.Component != "" {
		s.component = []byte(c.Component)
	}
	if c.DefaultAppID != "" {
		s.defaultAppID = []byte(c.DefaultAppID)
	}
	if s.timeout <= 0 {
		s.timeout = 60 * time.Second
	}
	if s.maxBody <= 0 {
		s.maxBody = 32 << 20
	}
	var err error
	upstream := transport.UpstreamConfig{URL: c.Upstream, Roots: c.Roots, ReadAhead: readAhead}
	if s.upstream, err = transport.NewUpstream(upstream); err != nil {
		return nil, err
	}
	var present callerSet
	if old != nil {
		present = old.callers
	}
	if c.StandIns != nil {
		s.signer = c.StandIns
	} else if len(c.StandInKey) == 0 && old != nil {
		s.signer = old.signer
	} else if s.signer, err = standin.NewSigner(c.StandInKey); err != nil {
		return nil, err
	}
	s.callers, err = newCallerSet(c.Callers, s.signer, present)
	return s, err
}
