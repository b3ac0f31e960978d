package proxy

import (
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"wxproxy/internal/peerlimit"
	"wxproxy/internal/redact"
	"wxproxy/proxy/admission"
	"wxproxy/proxy/transport"
	"wxproxy/wechat"
)

// call holds the state of one request. Calls are pooled. Only the goroutine of
// the request uses it, except for a detached copy: see end.
type call struct {
	proxy    *Proxy
	settings *settings // of the whole call, even if a reload comes meanwhile
	ctx      *fasthttp.RequestCtx

	start        time.Time     // when the request had arrived
	now          time.Time     // clock reading, refreshed after each operation that can block
	deadline     time.Time     // start and the timeout
	upstreamTime time.Duration // spent waiting for WeChat

	head     requestHead
	decision decision
	body     transport.Body // of the request
	out      []byte         // the request as it is sent to WeChat
	id       []byte         // X-Request-Id of the response
	// statusHeader is the value of X-Wxproxy-Token, in memory of its own.
	statusHeader []byte

	slot        admission.Slot
	sent        redact.Values // credentials that WeChat received with the request
	leaked      bool          // the response contains one of sent, as far as it was inspected
	inspected   bool          // all of a response that is not streamed was
	tokenStatus string        // X-Wxproxy-Token
	closeConn   bool          // not all of the request was read: the connection cannot serve another
	errcode     int           // of the response that the caller receives
	err         *apiError
	wrongKey    peerlimit.Failure // zero unless the key was wrong

	// detached holds what report needs of a request that has ended.
	detached struct {
		method  []byte
		status  int
		traceID string
	}
}

var calls = sync.Pool{New: func() any { return new(call) }}

// newCall returns a call for the request in ctx, whose head has been read.
func (p *Proxy) newCall(ctx *fasthttp.RequestCtx) *call {
	c := calls.Get().(*call) // empty: see recycle
	c.proxy, c.settings, c.ctx = p, p.settings.Load(), ctx
	c.tokenStatus = "none"
	c.setStart(time.Now())
	return c
}

// recycle puts c back into the pool. Buffers stay, and nothing else.
func (c *call) recycle() {
	head := c.head
	head.reset()
	c.body.Release()
	*c = call{
		head: head, body: c.body,
		out: c.out[:0], id: c.id[:0], statusHeader: c.statusHeader[:0],
	}
	calls.Put(c)
}

// setStart starts the timeout of the call at now.
func (c *call) setStart(now time.Time) {
	c.start, c.now, c.deadline = now, now, now.Add(c.settings.timeout)
}

// handle serves one request: decide from its head, read its body, forward it or
// issue a stand-in, report.
func (p *Proxy) handle(ctx *fasthttp.RequestCtx) {
	c := p.newCall(ctx)
	p.observer.CallStarted()
	// fasthttp does not recover panics. Without this, one would end the
	// process.
	defer func() { c.end(recover()) }()
	c.err = c.serve()
}

// serve answers the request, or returns the error to answer with.
func (c *call) serve() *apiError {
	rejection := c.decide()
	// A rejected request has a body all the same. It must be out of the way
	// before the next request on the connection.
	if err := c.readBody(rejection); err != nil {
		return err
	}
	switch {
	case rejection != nil:
		return rejection
	case c.decision.endpoint.Need == wechat.NeedStandIn:
		return c.issue()
	case c.decision.endpoint.Bodyless && len(c.body.Bytes()) > 0:
		return errLoginBody // it was chunked, so decide could not know
	}
	// Only requests that are otherwise allowed count against the rate.
	if err := c.decision.caller.checkRate(c.start); err != nil {
		return err
	}
	if c.decision.isOwn() {
		return c.redeem()
	}
	if c.decision.endpoint.Guess {
		c.proxy.log.Info("unknown path, guessing that it needs the component's token",
			"path", sanitize(c.head.target.path))
	}
	return c.forward()
}

// decide parses the head and applies the rules to it.
func (c *call) decide() (err *apiError) {
	if err := c.head.parse(&c.ctx.Request.Header, c.settings.forwardHeaders); err != nil {
		return err
	}
	c.head.received = c.start
	c.head.certificate = transport.ConnOf(c.ctx.Conn()).CertificateName()
	c.decision, err = c.settings.decide(&c.head)
	return c.countWrongKey(err)
}

// readBody reads the body within its limit. rejection is the error of decide. A
// small body of a rejected request is read too, and dropped, so that the
// connection can serve the next request. If a body is not read to its end the
// connection is closed.
func (c *call) readBody(rejection *apiError) *apiError {
	limit := c.settings.bodyLimit(&c.decision, rejection)
	var err error
	if rejection != nil {
		err = transport.DiscardBody(c.ctx, limit, c.now)
	} else {
		err = c.body.Read(c.ctx, limit, c.memory().bodies, c.now)
	}
	if c.ctx.Request.IsBodyStream() {
		c.setStart(time.Now()) // the timeout does not include slow uploads
	}
	if err == nil {
		return nil
	}
	c.closeConn = true
	switch {
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return c.bodyTooLarge(rejection)
	case errors.Is(err, transport.ErrBodyBudget) && c.isUnauthenticated():
		return errFormBudget
	}
	return requestError(err)
}

// isUnauthenticated reports whether the head of the request does not say which
// caller sends it, although there are callers.
func (c *call) isUnauthenticated() bool {
	return c.decision.caller == nil && !c.settings.callers.disabled()
}

// memory returns what the memory of the request counts against.
func (c *call) memory() memory {
	switch {
	case c.decision.caller != nil:
		return c.decision.caller.memory
	case c.isUnauthenticated():
		return c.proxy.unauthenticated
	}
	return c.proxy.anonymous
}

// bodyTooLarge returns the error of a request whose body is over the limit. If
// decide has rejected the request, that error is more useful to the caller.
func (c *call) bodyTooLarge(rejection *apiError) *apiError {
	switch {
	case rejection != nil:
		return rejection
	case c.decision.endpoint.Need == wechat.NeedStandIn:
		return errFormTooLarge
	}
	return errBodyTooLarge
}

// expect answers "Expect: 100-continue". A body that would be rejected need not
// be sent at all. It returns [http.StatusContinue], or the status of the error
// that it has written. After an error fasthttp closes the connection.
func (p *Proxy) expect(ctx *fasthttp.RequestCtx) (status int) {
	c := p.newCall(ctx)
	defer func() {
		v := recover()
		if v == nil && c.err == nil {
			c.recycle() // handle follows, and starts again
			return
		}
		// A client need not wait for the answer, so its body can be on the way.
		c.closeConn = true
		p.observer.CallStarted()
		c.end(v)
		status = ctx.Response.StatusCode()
	}()
	c.err = c.decide()
	// A chunked body has no length yet, -1: readBody checks it.
	if ctx.Request.Header.ContentLength() > c.settings.bodyLimit(&c.decision, c.err) {
		c.err = c.bodyTooLarge(c.err)
	}
	return fasthttp.StatusContinue
}

// noHostError is the text of fasthttp's error about a request of HTTP/1.1 without
// a Host header, or with an empty one. It is not exported.
const noHostError = "missing required host header"

// reject answers input that fasthttp could not parse as a request.
func (p *Proxy) reject(ctx *fasthttp.RequestCtx, err error) {
	transport.ConnOf(ctx.Conn()).ExtendDeadline(time.Now())
	e := requestError(err)
	if e == errMalformedRequest && strings.Contains(err.Error(), noHostError) &&
		p.settings.Load().callers.disabled() {
		e = errHost
	}
	e.write(&ctx.Response)
	ctx.Response.Header.SetCanonical(tokenStatusHeader, []byte("none"))
	ctx.Response.Header.SetCanonical(requestIDHeader, appendRequestID(nil, nil))
	ctx.SetConnectionClose()
	p.observer.CallStarted()
	p.observer.CallDone(p.settings.Load().callers.label(nil), "none", e.status, 0, 0)
	transport.ConnOf(ctx.Conn()).LingerOnClose()
}
