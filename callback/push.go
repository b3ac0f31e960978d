package callback

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"wxproxy/internal/recovery"
)

// success is the response by which WeChat knows that it need not repeat a push:
// seven bytes, with nothing around them.
const success = "success"

// errInternal is the error of a push whose handling panicked.
var errInternal = errors.New("internal error")

// pushKind is what differs between the paths that receive pushes.
type pushKind struct {
	account string // in the path; "" on the path of events
	event   string // event label until the push has been read
	timeout time.Duration
	handle  func(context.Context, verifiedPush) outcome
}

// outcome is how a push was handled: the response, and what is counted and
// logged.
type outcome struct {
	status int
	event  string // event label; default: that of the path
	result string // result label
	err    error  // for the log; quotes nothing of the push

	reply *reply // in place of success, if the status is 200
	note  string // for the log: what replied to the message; "" if nothing did

	// done, if set, is called once after the response. delivered reports
	// whether the sender was still connected.
	done func(delivered bool)
}

// reply is the body of a response that is not "success".
type reply struct{ body, contentType string }

// failure returns the outcome of a push that was not handled. event is "" if it
// is not known or not verified.
func failure(status int, event, result string, err error) *outcome {
	return &outcome{status: status, event: event, result: result, err: err}
}

// servePush reads a push, verifies it, handles it and responds, all within the
// timeout of its kind.
func (h *Handler) servePush(w *recovery.ResponseWriter, r *http.Request, kind pushKind) {
	// If the handling panics, this outcome is reported. WeChat repeats the
	// push.
	out := *failure(http.StatusInternalServerError, kind.event, resultStore, errInternal)
	report := sync.OnceFunc(func() { h.report(r, out) })
	defer report()

	deadline := time.Now().Add(kind.timeout)
	// A sender that disconnects has still sent a ticket, so the end of the
	// connection does not end the work.
	ctx, cancel := context.WithDeadline(context.WithoutCancel(r.Context()), deadline)
	defer cancel()

	if raw, rejected := readPush(w, r, deadline); rejected != nil {
		out = *rejected
	} else if push, rejected := h.settings.Load().verify(raw, kind.account); rejected != nil {
		out = *rejected
	} else {
		out = kind.handle(ctx, push)
	}
	if out.event == "" {
		out.event = kind.event
	}

	delivered := false
	// Ask before responding: a client that has its response can disconnect.
	connected := r.Context().Err() == nil
	if out.done != nil {
		defer func() { out.done(delivered) }()
	}
	respond(w, out)
	if out.done != nil {
		// Count before flushing, so that a client that has the response also
		// sees the metric.
		report()
		delivered = http.NewResponseController(w).Flush() == nil && connected
	}
}

// respond writes the response to a push.
func respond(w http.ResponseWriter, out outcome) {
	if out.status != http.StatusOK {
		fail(w, out.status)
		return
	}
	body := success
	if out.reply != nil {
		body = out.reply.body
		w.Header().Set("Content-Type", out.reply.contentType)
	}
	// Without a length, flushing would make the response chunked.
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write([]byte(body)) // fails if the client has disconnected
}

// report counts and logs the outcome of a push. Of the request it logs only
// what cannot hold a secret: with the signature in the query, a push could be
// repeated.
func (h *Handler) report(r *http.Request, out outcome) {
	h.observe(out.event, out.result)
	suppressed := 0
	if out.status >= 400 && out.status < 500 {
		// Most of them need no key: any client on the internet can send them.
		var ok bool
		if suppressed, ok = h.rejections.allow(out.result); !ok {
			return
		}
	}
	level, message := slog.LevelWarn, "push rejected"
	switch {
	case out.status == http.StatusOK && out.err != nil:
		message = "push accepted, invalid reply from service"
	case out.status == http.StatusOK && out.event == eventMessage:
		level, message = slog.LevelDebug, "push accepted" // one for each message of a user
	case out.status == http.StatusOK:
		level, message = slog.LevelInfo, "push accepted"
	case out.result == resultUndelivered:
		level, message = slog.LevelError, "push not delivered, WeChat repeats it"
	case out.status >= http.StatusInternalServerError:
		level, message = slog.LevelError, "push not stored, WeChat repeats it"
	}
	attrs := []slog.Attr{
		slog.String("event", out.event), slog.String("result", out.result),
		slog.Int("status", out.status), slog.String("method", r.Method),
		slog.String("path", r.URL.Path), slog.Int("query_bytes", len(r.URL.RawQuery)),
	}
	if suppressed > 0 {
		attrs = append(attrs, slog.Int("not_logged", suppressed))
	}
	if out.note != "" {
		attrs = append(attrs, slog.String("answered_by", out.note))
	}
	if out.err != nil {
		attrs = append(attrs, slog.Any("error", out.err))
	}
	h.log.LogAttrs(r.Context(), level, message, attrs...)
}
