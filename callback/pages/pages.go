// Package pages serves the two pages on which a merchant authorizes the
// component: /authorize, from which the merchant goes to WeChat, and
// /authorized, to which WeChat sends the merchant back with a code.
//
// Both pages are reached from the internet without credentials. They cost calls
// to WeChat, so they are rate limited, and they never show a code.
package pages

import (
	"bytes"
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"wxproxy/internal/returnticket"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// The paths of the two pages.
const (
	AuthorizePath  = "/authorize"
	AuthorizedPath = "/authorized"
)

// CodeExchanger makes the calls to WeChat that the pages need. *tokens.Broker
// implements it. Its methods are called concurrently. Their errors wrap those
// of package tokens or WeChat's error response, and quote no code.
type CodeExchanger interface {
	// PreAuthCode fetches a new pre_auth_code, which is valid for life.
	PreAuthCode(ctx context.Context) (code wechat.Secret, life time.Duration, err error)
	// ExchangeReturned returns the account that an authorization code stands
	// for. When it returns nil, the account's tokens are stored durably. A code
	// that was exchanged before, or is being exchanged because a push brought
	// it too, is not an error: its account is returned without another call to
	// WeChat, but only for the state that came with the code. Before WeChat is
	// asked, admit is called, and its error is returned.
	ExchangeReturned(
		ctx context.Context, code wechat.Secret, state string, admit func() error,
	) (tokens.Authorization, error)
}

// Config configures a Handler. The zero value answers 404 to every request.
type Config struct {
	// ComponentAppID is the component's appid; without it there is nothing to
	// authorize, and the pages answer 404.
	ComponentAppID string
	// CodeExchanger calls WeChat; nil disables the pages.
	CodeExchanger CodeExchanger
	// PublicURL is the scheme and host at which the internet reaches the pages.
	// While it is empty, /authorize explains to the operator that it is
	// missing.
	PublicURL string
	// ReturnTo lists the URL prefixes to which merchants may be redirected
	// afterwards. An empty list allows no redirect.
	ReturnTo []string
	// LoginBase is the scheme and host of a sandbox whose pages stand in for
	// WeChat's; default: WeChat's own two hosts.
	LoginBase string
	// StateKey signs the state that returns with the merchant: 32 bytes, the
	// same in all replicas. Default: a random key. A merchant that is at WeChat
	// during a restart then sees the success page instead of being redirected.
	StateKey []byte
	// Tickets signs the ticket that return_to receives; nil: it receives none.
	Tickets *returnticket.Signer
	// Observe is called once for each request of a page, with values of [Pages]
	// and [Results]; nil disables it.
	Observe func(page, result string)
	// Now returns the current time; default: time.Now.
	Now func() time.Time
	// Log receives the log; nil disables it.
	Log *slog.Logger
}

// Handler serves the pages. It is safe for concurrent use.
type Handler struct {
	exchanger CodeExchanger
	stateKey  []byte
	tickets   *returnticket.Signer
	now       func() time.Time
	observe   func(page, result string)
	log       *slog.Logger
	settings  atomic.Pointer[settings]

	// Opening the page and coming back have separate limits, so that made-up
	// codes on /authorized cannot keep merchants from starting.
	pageLimiter, codeLimiter *limiter
	attempts                 attempts
	codes                    codeCache

	// proxyWarned is when a warning about X-Forwarded-For was logged.
	proxyWarned rate.Sometimes
}

// settings holds what an operator can change while the handler serves. Each
// request uses one set from beginning to end.
type settings struct {
	component string
	publicURL string // without a trailing slash
	returnTo  []string
	loginBase string // without a trailing slash
}

// New returns a Handler for c.
func New(c Config) *Handler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Observe == nil {
		c.Observe = func(string, string) {}
	}
	if len(c.StateKey) == 0 {
		c.StateKey = make([]byte, 32)
		rand.Read(c.StateKey) // never fails
	}
	h := &Handler{
		exchanger: c.CodeExchanger, stateKey: bytes.Clone(c.StateKey), tickets: c.Tickets,
		now: c.Now, observe: c.Observe, log: c.Log,
		pageLimiter: newLimiter(pageLimits, c.Now), codeLimiter: newLimiter(codeLimits, c.Now),
		attempts: attempts{now: c.Now}, proxyWarned: rate.Sometimes{First: 1, Interval: time.Hour},
	}
	h.Reconfigure(c)
	return h
}

// Reconfigure replaces ComponentAppID, PublicURL, ReturnTo and LoginBase by
// those of c and ignores its other fields. Requests in flight keep the settings
// they began with.
func (h *Handler) Reconfigure(c Config) {
	h.settings.Store(&settings{
		component: c.ComponentAppID,
		publicURL: strings.TrimSuffix(c.PublicURL, "/"),
		returnTo:  slices.Clone(c.ReturnTo),
		loginBase: strings.TrimSuffix(c.LoginBase, "/"),
	})
}

// ServeHTTP serves the two pages and answers 404 to everything else. It
// compares paths as they were sent, percent-encoding included.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")

	path := r.URL.EscapedPath()
	switch {
	case path != AuthorizePath && path != AuthorizedPath, !h.enabled():
		fail(w, http.StatusNotFound)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		header.Set("Allow", "GET, HEAD")
		fail(w, http.StatusMethodNotAllowed)
	case path == AuthorizePath:
		h.serveAuthorize(w, r)
	default:
		h.serveAuthorized(w, r)
	}
}

// enabled reports whether there is a component that merchants can authorize.
func (h *Handler) enabled() bool {
	return h.exchanger != nil && h.settings.Load().component != ""
}

// fail responds with the text of the status and nothing else.
func fail(w http.ResponseWriter, status int) {
	http.Error(w, http.StatusText(status), status)
}
