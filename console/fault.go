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

// fault is an error as an operator's program sees it.
type fault struct {
	status     int
	msg        string
	hint       string
	retryAfter time.Duration // 0: nothing is said
}

func (f *fault) Error() string { return f.msg }

// faultOf turns what the broker said into an answer: the one place where errors become statuses. What
// it does not know is a defect, and its text goes to the log alone.
func (s *state) faultOf(err error, appid string) *fault {
	var f *fault
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, tokens.ErrRevoked):
		return &fault{http.StatusGone, "account " + appid + " has withdrawn its authorization", "it has to authorize the component again", 0}
	case errors.Is(err, tokens.ErrThrottled):
		return &fault{http.StatusTooManyRequests, tokens.ErrThrottled.Error(), "find out who refuses them: a call of the wrong kind, or somebody else who renews", time.Minute}
	case errors.Is(err, tokens.ErrUnavailable), errors.Is(err, tokens.ErrNoTicket):
		return &fault{http.StatusServiceUnavailable, err.Error(), "try again after the time in Retry-After", tokens.RetryAfter(err, time.Now())}
	case errors.Is(err, tokens.ErrUnknownAccount):
		return &fault{http.StatusNotFound, "account " + appid + " is not known here", "an account is known from its authorization on; POST /api/sync asks WeChat who has authorized", 0}
	case errors.Is(err, tokens.ErrClosed):
		return &fault{http.StatusServiceUnavailable, "wxproxy is stopping", "try again when it runs", time.Second}
	case errors.Is(err, wechat.ErrUnreachable), wechat.Code(err) != 0:
		return &fault{http.StatusBadGateway, err.Error(), "this is what WeChat said, or that it said nothing", 0}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &fault{http.StatusServiceUnavailable, "it took too long", "try again", time.Second}
	}
	s.log.Error("a request to the admin listener failed", "account", appid, "error", err)
	return &fault{http.StatusInternalServerError, "it failed in a way that was not foreseen; the log of wxproxy says more", "", 0}
}

// isAPI: paths whose answers are JSON, refusals included.
func isAPI(path string) bool { return strings.HasPrefix(path, "/api/") }

// fail answers f in the form that the path's users read.
func fail(w http.ResponseWriter, r *http.Request, f *fault) {
	f.comeBack(w)
	if !isAPI(r.URL.Path) {
		reply(w, f.status, f.msg+"\n")
		return
	}
	replyJSON(w, f.status, struct {
		Error string `json:"error"`
		Hint  string `json:"hint,omitempty"`
	}{f.msg, f.hint})
}

// replyJSON sends v, on one line.
func replyJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic("BUG: an answer that cannot be encoded: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
}

// comeBack says when another try makes sense.
func (f *fault) comeBack(w http.ResponseWriter) {
	if f.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(f.retryAfter.Seconds()))))
	}
}
