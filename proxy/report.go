package proxy

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"time"

	"wxproxy/proxy/admission"
	"wxproxy/proxy/transport"
)

// Headers of the proxy's own, as fasthttp spells them.
var (
	headerNameToken = []byte("X-Wxproxy-Token")
	headerNameID    = []byte("X-Request-Id")
)

// end reports the call; a stream is reported when it is over.
func (c *call) end() {
	if v := recover(); v != nil {
		// The value is not logged: it can quote the request.
		c.p.log.Error("BUG: a call panicked", "stack", string(debug.Stack()))
		c.problem = errDefect
		errDefect.write(&c.cx.Response)
	}
	resp := &c.cx.Response
	c.id = appendRequestID(c.id[:0], c.caller.requestID)
	c.scratch = append(c.scratch[:0], c.word...)
	resp.Header.SetCanonical(headerNameToken, c.scratch)
	resp.Header.SetCanonical(headerNameID, c.id)
	if c.p.leaving.Load() {
		resp.Header.SetConnectionClose()
	}
	conn := transport.ConnOf(c.cx.Conn())
	conn.ExtendDeadline(c.now)
	if stream, ok := resp.BodyStream().(*transport.Stream); ok && c.problem == nil {
		done := *c // the original is used again
		done.detach()
		stream.OnUpstreamDone = c.leaver()
		stream.OnDone = func() {
			done.now = time.Now()
			conn.ExtendDeadline(done.now)
			done.report()
		}
	} else {
		c.leave()
		c.report()
	}
	c.body = transport.Recycle(c.body)
	c.cx, c.target, c.caller, c.shown, c.who, c.plan, c.problem = nil, target{}, caller{}, shown{}, nil, plan{}, nil
	calls.Put(c)
}

// leave gives the call's place back.
func (c *call) leave() {
	c.p.limiter.Release(c.place)
	c.place = admission.Slot{}
}

// leaver is leave for when WeChat's connection is free, which another goroutine finds out.
func (c *call) leaver() func() {
	limiter, place := c.p.limiter, c.place
	c.place = admission.Slot{}
	return func() { limiter.Release(place) }
}

// appendRequestID takes the caller's, if it is fit for logs, or makes one.
func appendRequestID(dst, id []byte) []byte {
	if n := len(id); n > 0 && n <= 128 {
		fit := true
		for _, ch := range id {
			fit = fit && ch > ' ' && ch < 0x7f
		}
		if fit {
			return append(dst, id...)
		}
	}
	const hex = "0123456789abcdef"
	for n, i := rand.Uint64(), 0; i < 16; i, n = i+1, n>>4 {
		dst = append(dst, hex[n&15])
	}
	return dst
}

// detach copies what report needs from the request, which will not outlive the handler.
func (c *call) detach() {
	c.id = append([]byte(nil), c.id...)
	c.target.path = append([]byte(nil), c.target.path...)
	c.plan.appid = append([]byte(nil), c.plan.appid...)
	c.body, c.headers, c.out, c.scratch, c.caller, c.shown = nil, nil, nil, nil, caller{}, shown{}
	c.detached.method, c.detached.status = string(c.cx.Method()), c.cx.Response.StatusCode()
	c.cx = nil
}

func (c *call) report() {
	took := c.now.Sub(c.began)
	method, status := c.detached.method, c.detached.status
	if c.cx != nil {
		status = c.cx.Response.StatusCode()
	}
	c.p.observe.CallDone(c.s.roster.label(c.who), c.credential(), status, took, c.upstream)
	level := slog.LevelDebug
	switch {
	case status >= http.StatusInternalServerError:
		level = slog.LevelWarn
	case c.problem != nil:
		level = slog.LevelInfo
	}
	loud := c.p.log.Enabled(context.Background(), level) && !c.p.quietRefusal(c.problem, c.now)
	if c.p.watch == nil && !loud {
		return
	}
	if c.cx != nil {
		method = string(c.cx.Method())
	}
	seen := Call{RequestID: string(c.id), Caller: c.s.roster.label(c.who), AppID: string(c.plan.appid), Method: clip([]byte(method)), Path: clip(c.target.path),
		Status: status, ErrCode: c.errcode, Token: c.word, Took: took, Upstream: c.upstream}
	if c.problem != nil {
		seen.Error = c.problem.msg
	}
	if c.p.watch != nil {
		c.p.watch(seen)
	}
	if !loud {
		return
	}
	c.p.log.Log(context.Background(), level, "call", "id", seen.RequestID, "caller", seen.Caller, "account", seen.AppID, "method", seen.Method, "path", seen.Path,
		"status", seen.Status, "errcode", seen.ErrCode, "token", seen.Token, "took", seen.Took, "upstream", seen.Upstream, "error", seen.Error)
}

// quietRefusal reports whether a refusal need not be logged: one a second is enough to know of, and thousands would make
// matters worse.
func (p *Proxy) quietRefusal(problem *problem, now time.Time) bool {
	if problem != errNoRoom && problem != errNoShare {
		return false
	}
	second := now.Unix()
	last := p.refusalAt.Load()
	return last == second || !p.refusalAt.CompareAndSwap(last, second)
}

// clip keeps what a caller sent short and printable, for logs.
func clip(b []byte) string {
	const most = 200
	if len(b) > most {
		b = b[:most]
	}
	out := make([]byte, len(b))
	for i, ch := range b {
		if ch < ' ' || ch >= 0x7f {
			ch = '?'
		}
		out[i] = ch
	}
	return string(out)
}
