// Package console serves the admin listener: a page and JSON for operators, and
// metrics for Prometheus.
//
// /healthz and /readyz need no authentication, because orchestrators and load
// balancers have no key. All other paths require the key, if one is configured,
// and reject requests that a browser sends on behalf of another site; see
// guard.go. Nothing is redirected, and paths are compared without
// normalization: //metrics is not /metrics.
package console

import (
	"context"
	"crypto/sha256"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"wxproxy/internal/peerlimit"
	"wxproxy/internal/recovery"
	"wxproxy/wechat"
)

// Config configures a [Handler]. The zero value is legal: always ready, no
// metrics, no authentication.
type Config struct {
	// Ready returns what keeps requests from being answered, and nil for
	// nothing. Clients see its text without authentication, one line for each
	// joined error, so it must contain no secret. It may take two seconds and
	// never runs twice at the same time. nil means always ready.
	Ready func(ctx context.Context) error

	// Metrics answers on /metrics. nil disables it.
	Metrics http.Handler

	// Key is required on every path but /healthz and /readyz. Empty disables
	// authentication.
	Key wechat.Secret

	// KeyRejected counts a wrong key. Its argument is "admin". It must not
	// block. nil disables it.
	KeyRejected func(listener string)

	// Log receives panics, and denied requests that hint at an attack, but
	// never a key, a query or a body. nil discards them.
	Log *slog.Logger

	// Loopback says that the listener has a loopback address. It then rejects
	// requests for another host's name, which a browser was tricked into
	// sending.
	Loopback bool

	// Accounts and Stats provide the JSON below /api/ and the page. Set both or
	// none; nil disables JSON and page.
	Accounts Accounts
	Stats    Stats

	// Explain dry-runs a request, see [Explanation]. appid and caller may be
	// empty. Its errors wrap [ErrQuestion], or are those of package tokens. nil
	// disables it.
	Explain func(appid, method, path, caller string) (Explanation, error)

	// Export backs up the store. nil disables it.
	Export Exporter

	// Events provides the JSON below /api/events. nil disables it.
	Events Events

	// About is shown as it is.
	About About
}

// Handler serves the admin listener. It is safe for concurrent use.
type Handler struct {
	state     atomic.Pointer[state]
	made      time.Time // when the handler was made
	wrongKeys *peerlimit.Limiter
}

// More wrong keys than maxWrongKeys from one address within wrongKeyWindow get
// 429.
const (
	maxWrongKeys   = 10
	wrongKeyWindow = time.Minute
)

// state is the configuration of one request. A request keeps its state when
// Reconfigure is called while it is served.
type state struct {
	ready    *readiness
	log      *slog.Logger
	loopback bool
	hasKey   bool
	key      [sha256.Size]byte
	// wrongKeys counts wrong keys by address, over all configurations.
	wrongKeys   *peerlimit.Limiter
	keyRejected func(listener string)
	routes      map[string]route

	accounts Accounts // nil disables JSON and page
	stats    Stats
	explain  func(appid, method, path, caller string) (Explanation, error)
	export   Exporter
	events   Events // nil disables the JSON about events
	about    About
}

// route is the handler of one path.
type route struct {
	methods []string
	open    bool // no authentication
	serve   func(http.ResponseWriter, *http.Request)
}

// New returns a handler with a configuration. [NewServer] returns the server
// for it.
func New(c Config) *Handler {
	h := &Handler{made: time.Now(), wrongKeys: peerlimit.New(maxWrongKeys, wrongKeyWindow)}
	h.Reconfigure(c)
	return h
}

// Reconfigure replaces the configuration for requests that arrive from now on.
func (h *Handler) Reconfigure(c Config) {
	s := &state{
		log: c.Log, loopback: c.Loopback, ready: &readiness{probe: c.Ready},
		accounts: c.Accounts, stats: c.Stats, explain: c.Explain, about: c.About,
		export: c.Export, events: c.Events,
		wrongKeys: h.wrongKeys, keyRejected: c.KeyRejected,
	}
	if s.about.Started.IsZero() {
		s.about.Started = h.made
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if !c.Key.IsEmpty() {
		s.hasKey, s.key = true, sha256.Sum256([]byte(c.Key.Reveal()))
	}
	read := []string{http.MethodGet, http.MethodHead}
	healthz := func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, "ok") }
	s.routes = map[string]route{
		"/healthz": {methods: read, open: true, serve: healthz},
		"/readyz":  {methods: read, open: true, serve: s.ready.serve},
	}
	if c.Metrics != nil {
		s.routes["/metrics"] = route{methods: read, serve: c.Metrics.ServeHTTP}
	}
	if c.Accounts != nil {
		s.api()
		s.page()
	}
	h.state.Store(s)
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := h.state.Load()
	recovery.Serve(w,
		func(w *recovery.ResponseWriter) { s.route(w, r) },
		s.reportPanic,
		func(w http.ResponseWriter) { failAfterPanic(w, r) })
}

// route serves one request.
func (s *state) route(w http.ResponseWriter, r *http.Request) {
	// No response may be cached, or be taken for another type than it says.
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")

	to, known := s.routes[r.URL.Path]
	if !known {
		to, known = s.accountRoute(r.URL)
	}
	if !known {
		to, known = s.eventRoute(r.URL)
	}
	if !to.open && !s.authorize(w, r) {
		return
	}
	switch {
	case !known:
		// The response does not quote the path, which can contain anything.
		fail(w, r, &fault{status: http.StatusNotFound, msg: "not found"})
	case !slices.Contains(to.methods, r.Method):
		w.Header().Set("Allow", strings.Join(to.methods, ", "))
		fail(w, r, &fault{status: http.StatusMethodNotAllowed, msg: "method not allowed",
			hint: "allowed methods: " + w.Header().Get("Allow")})
	default:
		to.serve(w, r)
	}
}

// reply sends a text. net/http omits the body if the method is HEAD.
func reply(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, text)
}
