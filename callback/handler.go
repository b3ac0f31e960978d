// Package callback serves WeChat and merchants' browsers: it takes the pushes of authorization events, verifies and
// decrypts them, and has them stored before it says that they have arrived; it hands messages and events of accounts
// to services; and it shows the pages on which a merchant authorizes the component.
//
// The listener is reached from the internet. Nothing on it tells a stranger more than that
// it exists, and nothing that a stranger sends is answered with success, stored, or printed.
package callback

import (
	"context"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"wxproxy/callback/pages"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// Tickets takes what the component needs for its own token.
type Tickets interface {
	// PutTicket stores a component_verify_ticket, durably when it returns nil. created is
	// the push's CreateTime; tokens.ErrStale: a newer one is known.
	PutTicket(ctx context.Context, ticket wechat.Secret, created time.Time) error
}

// EventSink takes what accounts decide.
type EventSink interface {
	// Authorize stores an authorization code, durably when it returns nil; the exchange happens
	// later, by itself. expires is the code's end, zero where it is unknown. tokens.ErrStale: a
	// newer authorization or withdrawal is known.
	Authorize(ctx context.Context, appid string, code wechat.Secret, expires, created time.Time) error
	// MarkRevoked notes durably that the account took its authorization back. tokens.ErrStale:
	// a newer authorization is known.
	MarkRevoked(ctx context.Context, appid string, created time.Time) error
}

// Accounts is where events go. *tokens.Broker is one. Methods are called at the same time; the
// context ends with the answer's deadline, and not with the connection.
type Accounts interface {
	Tickets
	EventSink
}

// Config of a Handler. The zero value answers /healthz, and 404 on everything else.
type Config struct {
	// ComponentAppID is the component's appid, which every event has to name. "": no events are taken.
	ComponentAppID string
	// Crypts verify and decrypt: the one with the current key, then the one with the
	// previous key, if there is one. None: no events are taken.
	Crypts   []*wechat.Crypt
	Accounts Accounts // nil: no events are taken

	// Pages configures the pages on which merchants authorize. Its ComponentAppID
	// and its Log are replaced by those of this Config.
	Pages pages.Config

	// Forwards say which messages and events go to which services; the first rule that fits decides. None: all are
	// answered with success.
	Forwards []Forward
	// ExchangeCode exchanges an authorization code that WeChat's release checker
	// sends in a message, and SendText sends a text to a user of an account. If
	// either is nil, such a message is treated like all others.
	ExchangeCode func(ctx context.Context, code wechat.Secret) (tokens.Authorization, error)
	SendText     func(ctx context.Context, appid, openid, text string) error

	// Timeout bounds the reading of a push and its storing together. 0: 4 s, as WeChat waits for 5.
	Timeout time.Duration
	// MessageTimeout is the same for messages and events of accounts, the service's answer included. 0: 4.5 s.
	MessageTimeout time.Duration

	// Observe is told of each push once, and of an event that a service did not take once more; the words are
	// those of [Events] and [Results]. nil: nobody counts.
	Observe func(event, result string)
	Log     *slog.Logger // nil: nothing is logged
}

const (
	eventsPath = "/component/events"
	healthPath = "/healthz"

	defaultTimeout        = 4 * time.Second
	defaultMessageTimeout = 4500 * time.Millisecond
)

// Handler answers everything on the callback listener. It is safe for concurrent use. Close it when nothing more is served.
type Handler struct {
	accounts Accounts
	timeout  time.Duration // of authorization events
	observe  func(event, result string)
	log      *slog.Logger
	keys     atomic.Pointer[keys]
	replays  *replays

	messageTimeout time.Duration
	answers        answers
	services       *http.Client
	outbox         *outbox

	pages        *pages.Handler
	exchangeCode func(ctx context.Context, code wechat.Secret) (tokens.Authorization, error)
}

// keys are what may change while the handler serves. One push sees one set of them.
type keys struct {
	component string
	crypts    []*wechat.Crypt
	rules     []Forward
	sendText  func(ctx context.Context, appid, openid, text string) error
}

// New makes a Handler.
func New(c Config) *Handler {
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.MessageTimeout <= 0 {
		c.MessageTimeout = defaultMessageTimeout
	}
	if c.Observe == nil {
		c.Observe = func(string, string) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{
		accounts: c.Accounts, timeout: c.Timeout, observe: c.Observe, log: c.Log, replays: newReplays(),
		pages: pages.New(c.pages()), exchangeCode: c.ExchangeCode,
	}
	h.messageTimeout, h.services = c.MessageTimeout, newServices()
	h.outbox = newOutbox(func(cause any) { h.defect("a job", cause) })
	h.Reconfigure(c)
	return h
}

// Close waits for what is done behind answers: events on their way to services. It ends with ctx, and drops the rest.
func (h *Handler) Close(ctx context.Context) error {
	err := h.outbox.close(ctx)
	h.services.CloseIdleConnections()
	return err
}

// Reconfigure takes the ComponentAppID, the Crypts, the Forwards, SendText, and what [pages.Handler.Reconfigure] takes, of
// c; the rest stays as it was. Pushes and pages under way end with what they began with.
func (h *Handler) Reconfigure(c Config) {
	h.keys.Store(&keys{
		component: c.ComponentAppID, crypts: slices.Clone(c.Crypts),
		rules: cloneRules(c.Forwards), sendText: c.SendText,
	})
	h.pages.Reconfigure(c.pages())
}

// pages returns the configuration of the pages.
func (c Config) pages() pages.Config {
	p := c.Pages
	p.ComponentAppID, p.Log = c.ComponentAppID, c.Log
	return p
}

// ServeHTTP compares paths as they were sent. There is no http.ServeMux, because that one
// answers some paths with a redirect.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w}
	defer h.survive(rec)
	header := rec.Header()
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")

	switch path, account := r.URL.EscapedPath(), accountOf(r.URL.EscapedPath()); {
	case path == healthPath && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		answer(rec, http.StatusOK, "ok")
	case path == healthPath:
		refuseMethod(rec, "GET, HEAD")
	case path == eventsPath && !h.takesEvents(), account != "" && !h.opensPushes():
		h.log.Warn("push refused: no component is configured")
		refuse(rec, http.StatusNotFound)
	case path == eventsPath && r.Method == http.MethodPost:
		h.servePush(rec, r, other, h.timeout, h.takeEvent)
	case account != "" && r.Method == http.MethodPost:
		h.servePush(rec, r, eventMessage, h.messageTimeout, func(ctx context.Context, l letter) outcome { return h.takeMessage(ctx, account, l) })
	case path == eventsPath, account != "":
		refuseMethod(rec, "POST")
	case path == pages.AuthorizePath, path == pages.AuthorizedPath:
		h.pages.ServeHTTP(rec, r)
	default:
		refuse(rec, http.StatusNotFound)
	}
}

func (h *Handler) takesEvents() bool { return h.accounts != nil && h.opensPushes() }

// opensPushes reports whether there is a component to verify and decrypt for.
func (h *Handler) opensPushes() bool {
	k := h.keys.Load()
	return k.component != "" && len(k.crypts) > 0
}

// survive is deferred around each request.
func (h *Handler) survive(w *recorder) {
	cause := recover()
	if cause == nil {
		return
	}
	if cause == http.ErrAbortHandler {
		panic(cause) // a handler's way to break off; net/http knows it
	}
	h.defect("the callback listener", cause)
	if w.begun {
		panic(http.ErrAbortHandler) // half an answer must not be taken for a whole one
	}
	refuse(w, http.StatusInternalServerError)
}

// defect logs a panic. What was panicked with may be anything, a piece of a push too, so only the
// runtime's own words are logged; the stack says the rest.
func (h *Handler) defect(where string, cause any) {
	what := "not the runtime's"
	if e, ok := cause.(runtime.Error); ok {
		what = e.Error()
	}
	h.log.Error("BUG: panic in "+where, "panic", what, "stack", string(debug.Stack()))
}

// recorder knows whether an answer has begun.
type recorder struct {
	http.ResponseWriter
	begun bool
}

func (r *recorder) WriteHeader(status int) {
	r.begun = true
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	r.begun = true
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController through.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func answer(w http.ResponseWriter, status int, text string) {
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // whoever has hung up need not be told
}

// refuse says what the status says anyway, and no more.
func refuse(w http.ResponseWriter, status int) { answer(w, status, http.StatusText(status)+"\n") }

func refuseMethod(w http.ResponseWriter, allowed string) {
	w.Header().Set("Allow", allowed)
	refuse(w, http.StatusMethodNotAllowed)
}
