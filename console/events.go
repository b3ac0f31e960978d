package console

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"wxproxy/callback/queue"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// Events are the operations on the queue of events; [queue.Queue] implements
// it. Its methods must be safe for concurrent use. The error for an event that
// is not in the queue is [store.ErrNotFound]; any other one means that the
// store does not respond.
type Events interface {
	// Totals returns the size of the queue as it was a short while ago. known
	// is false while the store has not said.
	Totals() (t queue.Totals, known bool)

	// List returns at most limit entries from offset on, waiting ones first and
	// the oldest first, and how many there are, of those that f selects.
	List(ctx context.Context, f store.QueueFilter, offset, limit int) (
		total int, entries []store.QueueEntry, err error)

	// Find returns the entries of an event, sorted by service.
	Find(ctx context.Context, id string) ([]queue.Stored, error)

	// Retry makes the entries of an event due, and Drop removes them: that of
	// one service, or all if service is "". They return how many these are.
	Retry(ctx context.Context, id, service string) (n int, err error)
	Drop(ctx context.Context, id, service string) (n int, err error)

	// RetryAll makes the entries that f selects due, and returns how many these
	// are. It may have done so with some of them if it returns an error.
	RetryAll(ctx context.Context, f store.QueueFilter) (n int, err error)
}

// How long requests about events may take: a store with a million of them has
// to be searched for some.
const (
	eventsTimeout   = time.Minute
	retryAllTimeout = 10 * time.Minute
)

// eventPath is where requests about one event begin.
const eventPath = "/api/events/"

var (
	// eventID matches the ids of events, so that no other text reaches a store.
	eventID = regexp.MustCompile(`^[0-9A-Za-z_-]{1,128}$`)
	// serviceName matches the names of services, configured or not.
	serviceName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)
)

// eventRoutes adds the routes of the queue.
func (s *state) eventRoutes() {
	s.routes["/api/events"] = route{serve: s.serveEvents,
		methods: []string{http.MethodGet, http.MethodHead}}
	s.routes["/api/events/retry"] = route{serve: s.serveRetryAll,
		methods: []string{http.MethodPost}}
}

// eventRoute finds the route of a path below /api/events/ID.
func (s *state) eventRoute(u *url.URL) (route, bool) {
	rest, ok := strings.CutPrefix(u.EscapedPath(), eventPath)
	if !ok || s.events == nil {
		return route{}, false
	}
	id, verb, hasVerb := strings.Cut(rest, "/")
	with := func(serve func(http.ResponseWriter, *http.Request, string) *fault) func(
		http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			f := unknownEvent
			if eventID.MatchString(id) {
				f = serve(w, r, id)
			}
			if f != nil {
				fail(w, r, f)
			}
		}
	}
	switch {
	case !hasVerb:
		return route{methods: []string{http.MethodGet, http.MethodHead, http.MethodDelete},
			serve: with(s.serveEvent)}, true
	case verb == "retry":
		return route{methods: []string{http.MethodPost}, serve: with(s.serveRetry)}, true
	}
	return route{}, false
}

// unknownEvent is the response to requests about an event that is not in the
// queue.
var unknownEvent = &fault{
	status: http.StatusNotFound,
	msg:    "unknown event",
	hint: "an event is kept until its services have accepted it, or an operator drops it; " +
		"GET /api/events lists those that are kept",
}

// eventFault turns an error of the queue into a response. The text of an error
// of the store is only logged.
func (s *state) eventFault(err error) *fault {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return unknownEvent
	case errors.Is(err, store.ErrClosed):
		return &fault{http.StatusServiceUnavailable, "wxproxy is stopping",
			"try again after it has restarted", time.Second}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return s.toFault(err, "")
	}
	s.log.Warn("queue of events unavailable", "error", err)
	return &fault{http.StatusServiceUnavailable, "the store of the queue does not respond",
		"try again after the time in Retry-After; /readyz and the log of wxproxy say why",
		5 * time.Second}
}

// eventFilter returns the filter that a query describes. It may have the
// parameters in also, too. An unknown one is reported: a filter with a typing
// error would select too much.
func eventFilter(r *http.Request, also ...string) (store.QueueFilter, url.Values, *fault) {
	var filter store.QueueFilter
	q, f := onlyParameters(r, append(also, "state", "service", "appid")...)
	if f != nil {
		return filter, nil, f
	}
	switch q.Get("state") {
	case "":
	case waitingEvent:
		filter.State = store.WaitingEntries
	case deadEvent:
		filter.State = store.DeadEntries
	default:
		return filter, nil, &fault{status: http.StatusBadRequest, msg: "unknown state",
			hint: "the state of an event is waiting or dead"}
	}
	if filter.Service, f = serviceOf(q); f != nil {
		return filter, nil, f
	}
	filter.AppID = q.Get("appid")
	if filter.AppID != "" && !wechat.IsAppID(filter.AppID) {
		return filter, nil, badAppID
	}
	return filter, q, nil
}

// serviceOf returns the query parameter service, "" if there is none.
func serviceOf(q url.Values) (string, *fault) {
	name := q.Get("service")
	if name != "" && !serviceName.MatchString(name) {
		return "", &fault{status: http.StatusBadRequest, msg: "invalid service",
			hint: "a service is the name of a [[forward]] block: letters, digits, _ . and -"}
	}
	return name, nil
}

// onlyParameters returns the query parameters of a request, which may have no
// others than names.
func onlyParameters(r *http.Request, names ...string) (url.Values, *fault) {
	q, f := query(r)
	if f != nil {
		return nil, f
	}
	for name := range q {
		if !slices.Contains(names, name) {
			slices.Sort(names)
			return nil, &fault{status: http.StatusBadRequest, msg: "unknown query parameter",
				hint: "this request takes " + strings.Join(names, ", ")}
		}
	}
	return q, nil
}

// serveEvents is GET /api/events.
func (s *state) serveEvents(w http.ResponseWriter, r *http.Request) {
	filter, q, f := eventFilter(r, "offset", "limit")
	var offset, limit int
	if f == nil {
		offset, f = number(q, "offset", 0, 0)
	}
	if f == nil {
		limit, f = number(q, "limit", 1, defaultLimit)
	}
	if f != nil {
		fail(w, r, f)
		return
	}
	limit = min(limit, maxLimit)
	ctx, cancel := extendDeadlines(w, r, eventsTimeout)
	defer cancel()
	total, list, err := s.events.List(ctx, filter, offset, limit)
	if err != nil {
		fail(w, r, s.eventFault(err))
		return
	}
	out := struct {
		Total  int     `json:"total"` // entries that match
		Offset int     `json:"offset"`
		Limit  int     `json:"limit"`
		Events []event `json:"events"`
	}{total, offset, limit, make([]event, 0, len(list))}
	for _, e := range list {
		out.Events = append(out.Events, newEvent(e))
	}
	replyJSON(w, http.StatusOK, out)
}

// serveEvent is GET and DELETE /api/events/ID. The document holds what users
// wrote, so the log says that it was read. It contains no credentials: events
// are queued without codes.
func (s *state) serveEvent(w http.ResponseWriter, r *http.Request, id string) *fault {
	q, f := onlyParameters(r, "service")
	if f != nil {
		return f
	}
	service, f := serviceOf(q)
	if f != nil {
		return f
	}
	if r.Method == http.MethodDelete {
		n, err := s.events.Drop(r.Context(), id, service)
		if err != nil {
			return s.eventFault(err)
		}
		s.log.Info("event dropped by operator", "event", id, "service", service,
			"dropped", n, "remote", r.RemoteAddr)
		replyJSON(w, http.StatusOK, struct {
			Dropped int `json:"dropped"`
		}{n})
		return nil
	}
	found, err := s.events.Find(r.Context(), id)
	if err != nil {
		return s.eventFault(err)
	}
	shown, ok := newEventDocument(found, service)
	if !ok {
		return unknownEvent
	}
	s.log.Info("event shown to operator", "event", id, "remote", r.RemoteAddr)
	replyJSON(w, http.StatusOK, shown)
	return nil
}

// retried is the response to requests to retry events.
type retried struct {
	Retried int `json:"retried"` // entries that are due now
}

// serveRetry is POST /api/events/ID/retry.
func (s *state) serveRetry(w http.ResponseWriter, r *http.Request, id string) *fault {
	q, f := onlyParameters(r, "service")
	if f != nil {
		return f
	}
	service, f := serviceOf(q)
	if f != nil {
		return f
	}
	n, err := s.events.Retry(r.Context(), id, service)
	if err != nil {
		return s.eventFault(err)
	}
	s.log.Info("event retried by operator", "event", id, "service", service,
		"retried", n, "remote", r.RemoteAddr)
	replyJSON(w, http.StatusOK, retried{n})
	return nil
}

// serveRetryAll is POST /api/events/retry. Without any parameter it is about
// all events.
func (s *state) serveRetryAll(w http.ResponseWriter, r *http.Request) {
	filter, q, f := eventFilter(r)
	if f != nil {
		fail(w, r, f)
		return
	}
	ctx, cancel := extendDeadlines(w, r, retryAllTimeout)
	defer cancel()
	n, err := s.events.RetryAll(ctx, filter)
	if n > 0 || err == nil {
		s.log.Info("events retried by operator", "state", q.Get("state"), "service", filter.Service,
			"account", filter.AppID, "retried", n, "complete", err == nil, "remote", r.RemoteAddr)
	}
	if err != nil {
		fail(w, r, s.eventFault(err))
		return
	}
	replyJSON(w, http.StatusOK, retried{n})
}
