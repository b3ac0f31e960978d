package proxy

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"slices"
	"time"

	"github.com/valyala/fasthttp"

	"wxproxy/proxy/admission"
	"wxproxy/proxy/transport"
	"wxproxy/wechat"
)

// Headers that wxproxy adds to responses, in fasthttp's canonical spelling.
var (
	tokenStatusHeader = []byte("X-Wxproxy-Token")
	requestIDHeader   = []byte("X-Request-Id")
)

// Call describes a call that has ended. It contains no secrets.
type Call struct {
	RequestID string
	TraceID   string // that the caller sent, in a trace header; "" without a valid one
	Caller    string // its name; "" if authentication is disabled, "unknown" without a valid key
	AppID     string // the account that the call was for
	Method    string
	Path      string // without the query
	Status    int
	ErrCode   int    // of the response that the caller received
	Token     string // hit, miss, retried, none
	Took      time.Duration
	Upstream  time.Duration // spent waiting for WeChat
	Error     string        // text of an error that wxproxy generated, or ""
}

// end completes the response, releases what the call holds, and reports it. A
// call whose response is streamed is reported when the stream ends. panicked is
// the value that the call panicked with, or nil.
func (c *call) end(panicked any) {
	if panicked != nil {
		// The value is not logged: it could quote the request.
		c.proxy.log.Error("BUG: a call panicked", "stack", string(debug.Stack()))
		c.err = errInternal
	}
	c.writeError()
	resp := &c.ctx.Response
	c.id = appendRequestID(c.id[:0], c.head.requestID)
	c.statusHeader = append(c.statusHeader[:0], c.tokenStatus...)
	resp.Header.SetCanonical(tokenStatusHeader, c.statusHeader)
	resp.Header.SetCanonical(requestIDHeader, c.id)
	conn := transport.ConnOf(c.ctx.Conn())
	if c.closeConn {
		conn.LingerOnClose()
	}
	if c.closeConn || c.proxy.draining.Load() {
		resp.Header.SetConnectionClose() // here, since writing an error resets the response
	}
	// The idle timeout starts now: the caller can send the next request.
	conn.ExtendDeadline(c.now)
	if stream, ok := resp.BodyStream().(*transport.Stream); ok && c.err == nil {
		detached := c.detach()
		stream.ReadAhead, stream.OnUpstreamDone = c.memory().readAhead, c.slotReleaser()
		stream.OnDone = func() {
			detached.now = time.Now()
			conn.ExtendDeadline(detached.now)
			detached.report()
		}
	} else {
		dropLargeBuffer(resp)
		c.proxy.limiter.Release(c.slot)
		c.report()
	}
	c.recycle()
}

// keptResponse is the size of the buffer for responses that a connection keeps
// while it is idle, bytes.
const keptResponse = 8 << 10

// dropLargeBuffer makes fasthttp forget a large buffer once the response is
// written. It would keep it as long as the connection is open: one caller with
// 10,000 connections could hold 640 MiB.
func dropLargeBuffer(resp *fasthttp.Response) {
	if resp.IsBodyStream() {
		return
	}
	// The body need not be in the buffer: a masked one is not.
	body, buffer := resp.Body(), resp.SwapBody(nil)
	if cap(buffer) <= keptResponse {
		resp.SwapBody(buffer)
	}
	resp.SetBodyRaw(body)
}

// writeError makes c.err the response, if there is an error.
func (c *call) writeError() {
	if c.err == nil {
		return
	}
	c.err.write(&c.ctx.Response)
	if c.err == errMalformedRequest {
		c.closeConn = true // what follows may be a part of the request
	}
	if code := c.err.errcode; code != 0 {
		c.errcode = code
	}
}

// slotReleaser returns a function that releases the slot. The goroutine that
// finds WeChat's connection free calls it, long after c has been recycled.
func (c *call) slotReleaser() func() {
	limiter, slot := c.proxy.limiter, c.slot
	c.slot = admission.Slot{}
	return func() { limiter.Release(slot) }
}

// detach returns a copy of c that outlives the request: all that report needs.
func (c *call) detach() *call {
	d := &call{
		proxy: c.proxy, settings: c.settings,
		start: c.start, now: c.now, upstreamTime: c.upstreamTime,
		id: bytes.Clone(c.id), tokenStatus: c.tokenStatus, errcode: c.errcode, err: c.err,
	}
	d.head.target.path = bytes.Clone(c.head.target.path)
	// fasthttp and recycle reuse the memory of both appids.
	d.decision = c.decision
	d.decision.account, d.decision.tokenOwner = bytes.Clone(c.decision.account), bytes.Clone(c.decision.tokenOwner)
	d.detached.traceID = c.head.traceID()
	d.detached.method, d.detached.status = bytes.Clone(c.ctx.Method()), c.ctx.Response.StatusCode()
	return d
}

// report counts and logs the call.
func (c *call) report() {
	took := c.now.Sub(c.start)
	method, status := c.detached.method, c.detached.status
	if c.ctx != nil {
		method, status = c.ctx.Method(), c.ctx.Response.StatusCode()
	}
	label := c.settings.callers.label(c.decision.caller)
	c.proxy.observer.CallDone(label, c.decision.credential(), status, took, c.upstreamTime)
	// Requests that succeed are logged for debugging only. Errors that wxproxy
	// generates are of interest, and those of servers need attention.
	level := slog.LevelDebug
	switch {
	case status >= http.StatusInternalServerError, c.wrongKey.Count > 0:
		level = slog.LevelWarn
	case c.err != nil:
		level = slog.LevelInfo
	}
	logged := c.proxy.log.Enabled(context.Background(), level) && !c.proxy.suppressLog(c.err, c.now)
	if c.wrongKey.Count > 0 && !c.wrongKey.Log {
		logged = false // a flood of wrong keys must not fill the disk
	}
	if c.proxy.watch == nil && !logged {
		return
	}
	traceID := c.detached.traceID
	if c.ctx != nil {
		traceID = c.head.traceID()
	}
	// fasthttp reuses the memory of the request. Watch can keep what it gets,
	// so each string is a copy.
	done := Call{
		RequestID: string(c.id), TraceID: traceID, Caller: label, AppID: string(c.decision.account),
		Method: sanitize(method), Path: sanitize(c.head.target.path),
		Status: status, ErrCode: c.errcode, Token: c.tokenStatus, Took: took, Upstream: c.upstreamTime,
	}
	if c.err != nil {
		done.Error = c.err.msg
	}
	if c.proxy.watch != nil {
		c.proxy.watch(done)
	}
	if !logged {
		return
	}
	attributes := []any{
		"id", done.RequestID, "trace_id", done.TraceID, "caller", done.Caller, "account", done.AppID,
		"method", done.Method, "path", done.Path,
		"status", done.Status, "errcode", done.ErrCode, "token", done.Token,
		"took", done.Took, "upstream", done.Upstream, "error", done.Error,
	}
	// Of an error it matters which client made it. Streamed responses, whose
	// request has gone, have no such error.
	if c.err != nil && c.ctx != nil {
		attributes = append(attributes, "remote", c.peer().String())
	}
	if c.wrongKey.Count > 0 {
		attributes = append(attributes, "wrong_keys", c.wrongKey.Count)
	}
	c.proxy.log.Log(context.Background(), level, "call", attributes...)
}

// suppressLog reports whether an error need not be logged. Of rejections due to
// overload one of each kind is logged per second: thousands would make the
// overload worse.
func (p *Proxy) suppressLog(e *apiError, now time.Time) bool {
	kind := slices.Index(overloadErrors[:], e)
	if e == nil || kind < 0 {
		return false
	}
	second, logged := now.Unix(), &p.rejectionLogged[kind]
	last := logged.Load()
	return last == second || !logged.CompareAndSwap(last, second)
}

// appendRequestID appends the caller's request id, if it is safe to log, or a
// new one.
func appendRequestID(dst, id []byte) []byte {
	// Longer ids, spaces and control characters could break log lines.
	if n := len(id); n > 0 && n <= 128 {
		safe := true
		for _, ch := range id {
			safe = safe && ch > ' ' && ch < 0x7f
		}
		if safe {
			return append(dst, id...)
		}
	}
	const hex = "0123456789abcdef"
	for n, i := rand.Uint64(), 0; i < 16; i, n = i+1, n>>4 {
		dst = append(dst, hex[n&15])
	}
	return dst
}

// sanitize shortens what a caller sent, and makes it printable, for logs and
// errors.
func sanitize[T ~string | ~[]byte](s T) string { return wechat.Sanitize(s, 200) }
