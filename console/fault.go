package console

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

// fault is an error response of the admin listener.
type fault struct {
	status     int
	msg        string
	hint       string        // what to do about it
	retryAfter time.Duration // 0 omits the header
}

// Error implements the error interface.
func (f *fault) Error() string { return f.msg }

// toFault is the one place that turns the broker's errors into responses. The
// text of an unknown error is only logged, because it can contain anything.
func (s *state) toFault(err error, appid string) *fault {
	var f *fault
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, tokens.ErrRevoked):
		return &fault{http.StatusGone, "account " + appid + " has revoked its authorization",
			"the merchant has to authorize again", 0}
	case errors.Is(err, tokens.ErrForgotten):
		return &fault{http.StatusGone, "account " + appid + " was forgotten by an operator",
			"POST /api/accounts/" + appid + "/refresh brings it back if WeChat knows it", 0}
	case errors.Is(err, tokens.ErrThrottled):
		return &fault{http.StatusTooManyRequests, tokens.ErrThrottled.Error(),
			"find the cause of the rejections: requests with the wrong kind of token, " +
				"or another program that renews tokens", time.Minute}
	case errors.Is(err, tokens.ErrUnavailable), errors.Is(err, tokens.ErrNoTicket):
		return &fault{http.StatusServiceUnavailable, err.Error(),
			"try again after the time in Retry-After", tokens.RetryAfter(err, time.Now())}
	case errors.Is(err, tokens.ErrUnknownAccount):
		return &fault{http.StatusNotFound, "unknown account " + appid,
			"an account is known from its authorization on; POST /api/sync reads the authorizers from WeChat", 0}
	case errors.Is(err, tokens.ErrClosed):
		return &fault{http.StatusServiceUnavailable, "wxproxy is stopping",
			"try again after it has restarted", time.Second}
	case errors.Is(err, wechat.ErrUnreachable), wechat.Code(err) != 0:
		return &fault{http.StatusBadGateway, err.Error(),
			"WeChat rejected the request or did not respond; see docs/errors.md for its errcodes", 0}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &fault{http.StatusServiceUnavailable, "timeout", "try again", time.Second}
	}
	s.log.Error("admin request failed", "account", appid, "error", err)
	return &fault{http.StatusInternalServerError,
		"internal error; the log of wxproxy has the details", "", 0}
}

// isAPI reports whether responses on path are JSON, errors included.
func isAPI(path string) bool { return strings.HasPrefix(path, "/api/") }

// fail responds with f, as JSON below /api/ and as text elsewhere.
func fail(w http.ResponseWriter, r *http.Request, f *fault) {
	f.setRetryAfter(w)
	if !isAPI(r.URL.Path) {
		reply(w, f.status, f.msg+"\n")
		return
	}
	replyJSON(w, f.status, struct {
		Error string `json:"error"`
		Hint  string `json:"hint,omitempty"`
	}{f.msg, f.hint})
}

// replyJSON sends v on one line.
func replyJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic("BUG: encoding a response: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
}

// setRetryAfter sets the Retry-After header, in whole seconds.
func (f *fault) setRetryAfter(w http.ResponseWriter) {
	if f.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(f.retryAfter.Seconds()))))
	}
}
