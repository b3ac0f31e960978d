// Package callback serves the listener that WeChat and merchants' browsers
// reach from the internet.
//
// It verifies and decrypts WeChat's pushes. Authorization events are stored
// before they are answered with success, messages of accounts are passed to
// services, and the pages of package pages let merchants authorize the
// component.
//
// A request that WeChat has not signed learns nothing except that the listener
// exists. It is never answered with success, and nothing of its content is
// stored or logged.
package callback

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"wxproxy/callback/pages"
	"wxproxy/callback/queue"
	"wxproxy/internal/recovery"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

const (
	eventsPath = "/component/events"
	healthPath = "/healthz"
)

// Handler serves all paths of the callback listener. It is safe for concurrent
// use. Call Close when no more requests are served.
type Handler struct {
	log      *slog.Logger
	observe  func(event, result string)
	settings atomic.Pointer[settings]
	// rejections bounds the log of rejected pushes, for each result label: of
	// those that WeChat has not signed, and of those that it has. With a wrong
	// clock the latter are all of them.
	rejections *logLimit

	events         *eventHandler // nil: no events are accepted
	eventTimeout   time.Duration
	messages       *messageHandler
	messageTimeout time.Duration
	pages          *pages.Handler

	services *http.Client
	outbox   *outbox
	queue    *queue.Queue
	now      func() time.Time
}

// New returns a Handler for c.
func New(c Config) *Handler {
	c = c.withDefaults()
	h := &Handler{
		log: c.Log, observe: c.Observe, now: c.Now, rejections: newLogLimit(c.Now),
		eventTimeout: c.Timeout, messageTimeout: c.MessageTimeout,
		pages: pages.New(c.pages()), services: newServiceClient(),
	}
	h.outbox = newOutbox(func(cause any) { logPanic(c.Log, "background job", cause) })
	h.Reconfigure(c)
	if c.Queue == nil {
		c.Queue = store.NewMemory().(store.Queuer).Queue()
	}
	// It delivers from now on, with the settings above.
	h.queue = queue.New(queue.Config{
		Store: c.Queue, Deliver: h.deliver, Service: h.service,
		Limits: c.QueueLimits, StoreAhead: c.StoreAhead, Observe: c.Delivered, Log: c.Log,
	})

	// Events and messages share the guard: a push is a repeat on either path.
	replays := newReplayGuard(c.Now)
	claims := &claimer{
		claims: c.Claims, timeout: c.ClaimTimeout, now: c.Now, observe: c.Observe, log: c.Log,
	}
	copies := &copier{queue: h.queue, now: c.Now}
	if c.Accounts != nil {
		h.events = &eventHandler{
			accounts: c.Accounts, replays: replays, claims: claims, copies: copies,
			now: c.Now, log: c.Log,
		}
	}
	h.messages = &messageHandler{
		replays: replays, claims: claims, copies: copies, now: c.Now,
		isFor: c.IsFor, isAnothers: c.IsAnothers,
		services: h.services, log: c.Log,
		checker: &releaseChecker{exchange: c.ExchangeCode, outbox: h.outbox, log: c.Log},
	}
	return h
}

// Queue returns the queue of events for services. It is closed by Close.
func (h *Handler) Queue() *queue.Queue { return h.queue }

// service returns how long events are tried for a service, and whether it is
// configured.
func (h *Handler) service(name string) (keep time.Duration, ok bool) {
	f := h.settings.Load().service(name)
	if f == nil {
		return 0, false
	}
	if f.Keep <= 0 {
		return queue.DefaultKeep, true
	}
	return f.Keep, true
}

// Close waits until deliveries and jobs in flight have ended. When ctx ends, it
// cancels the rest and returns the error of ctx. Queued events stay in the
// queue.
func (h *Handler) Close(ctx context.Context) error {
	queued := make(chan error, 1)
	go func() { queued <- h.queue.Close(ctx) }()
	err := errors.Join(h.outbox.close(ctx), <-queued)
	h.services.CloseIdleConnections()
	return err
}

// Reconfigure replaces ComponentAppID, Crypts, Apps, MaxAge, Forwards, SendText
// and what [pages.Handler.Reconfigure] replaces by those of c, and ignores all
// other fields. Requests in flight keep the settings they began with.
func (h *Handler) Reconfigure(c Config) {
	h.settings.Store(&settings{
		component: c.ComponentAppID, crypts: slices.Clone(c.Crypts),
		apps:     cloneApps(c.Apps),
		maxAge:   c.withDefaults().MaxAge,
		forwards: cloneForwards(c.Forwards), sendText: c.SendText,
	})
	h.pages.Reconfigure(c.pages())
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	recovery.Serve(w,
		func(w *recovery.ResponseWriter) { h.route(w, r) },
		func(cause any) { logPanic(h.log, "callback listener", cause) },
		func(w http.ResponseWriter) { fail(w, http.StatusInternalServerError) })
}

// route passes a request to what serves its path. It compares paths as they
// were sent, percent-encoding included. It does not use http.ServeMux, which
// redirects some paths.
func (h *Handler) route(w *recovery.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")

	path := r.URL.EscapedPath()
	account := accountOf(path)
	switch {
	case path == healthPath && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		_, _ = w.Write([]byte("ok"))
	case path == healthPath:
		h.noteWrongAddress(r, rightAddress(path))
		failMethod(w, "GET, HEAD")
	case path == eventsPath, account != "":
		h.routePush(w, r, account)
	case path == pages.AuthorizePath, path == pages.AuthorizedPath:
		h.noteWrongAddress(r, rightAddress(path))
		h.pages.ServeHTTP(w, r)
	default:
		h.noteWrongAddress(r, rightAddress(r.URL.Path))
		fail(w, http.StatusNotFound)
	}
}

// routePush serves the path of an account, or, if account is empty, the path of
// authorization events.
func (h *Handler) routePush(w *recovery.ResponseWriter, r *http.Request, account string) {
	s := h.settings.Load()
	app, isOwn := s.apps[account]
	switch {
	case isOwn && isURLCheck(r):
		h.serveURLCheck(w, r, app)
	case !s.acceptsPushes() && !isOwn, account == "" && h.events == nil:
		h.noteWrongAddress(r, wrongAddress{"unconfigured", unconfiguredHint})
		fail(w, http.StatusNotFound)
	case r.Method != http.MethodPost:
		h.noteWrongAddress(r, wrongAddress{"method", methodHint})
		failMethod(w, "POST")
	case account == "":
		h.servePush(w, r, pushKind{"", eventOther, h.eventTimeout, h.events.handle})
	default:
		handle := func(ctx context.Context, p verifiedPush) outcome {
			return h.messages.handle(ctx, account, p)
		}
		h.servePush(w, r, pushKind{account, eventMessage, h.messageTimeout, handle})
	}
}

// accountOf returns the account in the path /{appid}/events, and "" for every
// other path.
func accountOf(path string) string {
	account, ok := strings.CutSuffix(strings.TrimPrefix(path, "/"), "/events")
	if !ok || !strings.HasPrefix(path, "/") || !wechat.IsAppID(account) {
		return ""
	}
	return account
}

// logPanic logs a panic with what [recovery.Describe] says of its cause, which
// can be a piece of a push.
func logPanic(log *slog.Logger, where string, cause any) {
	log.Error("BUG: panic", "where", where,
		"panic", recovery.Describe(cause), "stack", string(debug.Stack()))
}

// fail responds with the text of the status and nothing else.
func fail(w http.ResponseWriter, status int) {
	http.Error(w, http.StatusText(status), status)
}

// failMethod responds that the path exists, but not for this method.
func failMethod(w http.ResponseWriter, allowed string) {
	w.Header().Set("Allow", allowed)
	fail(w, http.StatusMethodNotAllowed)
}
