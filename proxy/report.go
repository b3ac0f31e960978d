package proxy

import (
	"context"
	"log/slog"
	"net/http"
)

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
	loud := c.p.log.Enabled(context.Background(), level) && !c.p.shares.quiet(c.problem, c.now)
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
