// Package console serves the operator and Prometheus: the admin listener.
//
// Two paths are open to everybody who reaches the listener, /healthz and /readyz, because
// those who ask there (an orchestrator, a load balancer) have no key and no name to call us by.
// All others ask for the key, where one is configured, and keep the operator's own browser
// from being used against it; see guard.go. Nothing is ever redirected, and paths are compared
// as they are: //metrics is not /metrics.
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

	"wxproxy/internal/recovery"
	"wxproxy/wechat"
)

// Config says what the admin listener shows, and to whom. Its zero value is legal: always
// ready, no metrics, open to everybody.
type Config struct {
	// Ready says what is missing for calls to be answered, nil for nothing. Its text is shown as
	// it is, without a key, one line for each of joined errors: it must hold no secret.
	// It has two seconds, and is never run twice at the same time. nil: always ready.
	Ready func(ctx context.Context) error
	// Metrics answers on /metrics; nil: nothing does.
	Metrics http.Handler
	// Key is asked for on everything but /healthz and /readyz; empty: none is.
	Key wechat.Secret
	// Log is told of panics and of refusals that hint at an attack; nil: nobody is. It never sees
	// a key, a query or a body.
	Log *slog.Logger
	// Loopback says that the listener's address is one: requests for another host's name, which a
	// browser was tricked into sending here, are then refused.
	Loopback bool

	// Accounts and Gauges are what the JSON under /api/ and the page / speak of; nil: neither is there.
	// Where one is given the other is needed.
	Accounts Accounts
	Gauges   Gauges
	// Explain says what would become of a call, see [Explanation]. appid and caller may be empty. Its
	// errors wrap [ErrQuestion], or are those of package tokens. nil: nothing is explained.
	Explain func(appid, method, path, caller string) (Explanation, error)
	About   About
}

// Handler answers the admin listener. It is safe for concurrent use.
type Handler struct {
	state atomic.Pointer[state]
	made  time.Time
}

// state is all that one request needs, so that a Reconfigure in the middle of it changes
// nothing for it.
type state struct {
	ready    *readiness
	log      *slog.Logger
	loopback bool
	hasKey   bool
	key      [sha256.Size]byte
	routes   map[string]route

	accounts Accounts // nil: no JSON, no page
	gauges   Gauges
	explain  func(appid, method, path, caller string) (Explanation, error)
	about    About
}

// route is what one path answers.
type route struct {
	methods []string
	open    bool // to everybody, from everywhere
	serve   func(http.ResponseWriter, *http.Request)
}

// New makes a handler; see [NewServer] for what it runs in.
func New(c Config) *Handler {
	h := &Handler{made: time.Now()}
	h.Reconfigure(c)
	return h
}

// Reconfigure swaps everything at once, for requests that arrive from now on.
func (h *Handler) Reconfigure(c Config) {
	s := &state{
		log: c.Log, loopback: c.Loopback, ready: &readiness{ask: c.Ready},
		accounts: c.Accounts, gauges: c.Gauges, explain: c.Explain, about: c.About,
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
	s.routes = map[string]route{
		"/healthz": {methods: read, open: true, serve: func(w http.ResponseWriter, _ *http.Request) {
			reply(w, http.StatusOK, "ok")
		}},
		"/readyz": {methods: read, open: true, serve: s.ready.serve},
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
	// No answer here is for a cache, nor for guessing what else it might be.
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")

	to, known := s.routes[r.URL.Path]
	if !known {
		to, known = s.accountRoute(r.URL)
	}
	if !to.open && !s.admit(w, r) {
		return
	}
	switch {
	case !known:
		// Without a list of what there is, and without the path: it may be anything.
		fail(w, r, &fault{status: http.StatusNotFound, msg: "not found"})
	case !slices.Contains(to.methods, r.Method):
		w.Header().Set("Allow", strings.Join(to.methods, ", "))
		fail(w, r, &fault{status: http.StatusMethodNotAllowed, msg: "method not allowed", hint: "this path answers to " + w.Header().Get("Allow")})
	default:
		to.serve(w, r)
	}
}

// reply sends a text. net/http leaves the body out where the method is HEAD.
func reply(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, text)
}
