package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"wxproxy/proxy/admission"
	"wxproxy/proxy/transport"
	"wxproxy/tokens"
)

// problem is an error of ours, as the caller sees it: an HTTP status, and JSON with WeChat's fields, so
// that every SDK takes it for the failure that it is.
type problem struct {
	status     int
	errcode    int // WeChat's own, where msg is what WeChat says; 0: ours, which is the negative status
	msg        string
	hint       string
	retryAfter time.Duration
}

func (p *problem) Error() string { return p.msg }

func problemf(status int, hint, format string, args ...any) *problem {
	return &problem{status: status, hint: hint, msg: fmt.Sprintf(format, args...)}
}

// Problems that need no details; made once.
var (
	errNoTarget = &problem{status: http.StatusBadRequest, msg: "for which account is this call?",
		hint: "put the appid in front of the path (/wx…/cgi-bin/…), send the header X-WX-APPID, or set [proxy] default_appid"}
	errPath = &problem{status: http.StatusBadRequest, msg: "the path cannot be forwarded as it is",
		hint: "send it plainly: no dot segments, empty segments, backslashes, control characters or semicolons, no % / \\ . in escaped form, no letters other than UTF-8"}
	errQuery = &problem{status: http.StatusBadRequest, msg: "the query holds spaces, control characters or #",
		hint: "percent-encode them"}
	errNotHTTP = &problem{status: http.StatusBadRequest, msg: "this is not a proper HTTP request", hint: "check the client"}
	errHeader  = &problem{status: http.StatusBadRequest, msg: "a header holds control characters", hint: "send plain text in headers"}
	errAction  = &problem{status: http.StatusBadRequest, msg: "the parameter action occurs with different values", hint: "it decides which token the call needs: send it once"}
	errBrowser = &problem{status: http.StatusForbidden, msg: "calls from web pages are not taken",
		hint: "this listener is for servers; a page must ask its own server"}
	errConnect = &problem{status: http.StatusMethodNotAllowed, msg: "CONNECT is not possible: wxproxy has to see the call to put the token in",
		hint: "use http://api.weixin.qq.com/… through this proxy (it goes out by TLS), or make this address the base URL"}
	errForeignHost     = &problem{status: http.StatusForbidden, msg: "only calls to WeChat are forwarded", hint: "the host must be api.weixin.qq.com or one of its regional names"}
	errNoComponent     = &problem{status: http.StatusBadRequest, msg: "this call needs the component's token, and no component is configured", hint: "fill in [component]"}
	errComponentTarget = &problem{status: http.StatusBadRequest, msg: "this call needs the token of an account, and the appid given is the component's",
		hint: "name the account that the call is for"}
	errTooLarge = &problem{status: http.StatusRequestEntityTooLarge, msg: "the request body is over the limit", hint: "raise [proxy] max_request_body, or send less; where callers have keys, a call without one may have 64 KiB"}
	errNoRoom   = &problem{status: http.StatusServiceUnavailable, msg: "as many calls are under way as there is room for", retryAfter: time.Second,
		hint: "WeChat answers slowly, or more is asked than one wxproxy can do: try again, start more replicas, raise the limit of open files"}
	errNoShare = &problem{status: http.StatusServiceUnavailable, msg: "too many calls of this account are under way", retryAfter: time.Second,
		hint: "WeChat answers them slowly, and others need room, too: try again"}
	errBodies = &problem{status: http.StatusServiceUnavailable, msg: "the bodies of other calls take all the memory that there is for them", retryAfter: time.Second,
		hint: "large uploads take turns: try again, send fewer at the same time, start more replicas"}
	errDefect = &problem{status: http.StatusInternalServerError, msg: "a defect of wxproxy's own", hint: "please report it with what the log says about this request id"}
)

// problemOf turns what the broker or the exchange with WeChat said into what the caller is told: the
// one place where errors become statuses.
func problemOf(err error, appid string, now time.Time) *problem {
	var p *problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, admission.ErrLimit):
		return errNoRoom
	case errors.Is(err, admission.ErrKeyLimit):
		return errNoShare
	case errors.Is(err, tokens.ErrRevoked):
		return problemf(http.StatusGone, "the account has to authorize the component again", "account %s has withdrawn its authorization", appid)
	case errors.Is(err, tokens.ErrUnavailable):
		p = problemf(http.StatusServiceUnavailable, "try again after the time in Retry-After", "no token can be had for %s: %s", appid, err)
		p.retryAfter = tokens.RetryAfter(err, now)
		return p
	case errors.Is(err, tokens.ErrUnknownAccount):
		return problemf(http.StatusNotFound, "check the appid; an account is known from its authorization on", "account %s has not authorized this component", appid)
	case errors.Is(err, tokens.ErrClosed):
		return &problem{status: http.StatusServiceUnavailable, msg: "wxproxy is stopping", hint: "ask another replica", retryAfter: time.Second}
	case errors.Is(err, transport.ErrTimeout):
		return problemf(http.StatusGatewayTimeout, "the call may have been carried out; [proxy] timeout sets how long is waited", "WeChat took too long")
	case errors.Is(err, transport.ErrUnreachable):
		return problemf(http.StatusBadGateway, "the call was not sent; it may be repeated", "WeChat could not be reached: %s", err)
	case errors.Is(err, transport.ErrBroken):
		return problemf(http.StatusBadGateway, "the call may have been carried out", "WeChat broke off: %s", err)
	case errors.Is(err, context.DeadlineExceeded):
		return &problem{status: http.StatusServiceUnavailable, msg: "no token came in time for " + appid, hint: "try again", retryAfter: time.Second}
	}
	return errDefect
}

// write makes p the answer.
func (p *problem) write(resp *fasthttp.Response) {
	resp.Reset()
	resp.Header.SetNoDefaultContentType(true)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	code, msg := -p.status, "wxproxy: "+p.msg
	if p.errcode != 0 {
		code, msg = p.errcode, p.msg
	}
	// Cannot fail: a number and two strings.
	_ = enc.Encode(struct {
		ErrCode int    `json:"errcode"`
		ErrMsg  string `json:"errmsg"`
		Hint    string `json:"hint,omitempty"`
	}{code, msg, p.hint})
	resp.SetStatusCode(p.status)
	resp.Header.SetContentType("application/json")
	if p.status == http.StatusUnauthorized {
		resp.Header.Set("WWW-Authenticate", `Bearer realm="wxproxy"`)
	}
	if p.retryAfter > 0 {
		resp.Header.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.retryAfter.Seconds()))))
	}
	resp.SetBody(bytes.TrimRight(b.Bytes(), "\n"))
}
