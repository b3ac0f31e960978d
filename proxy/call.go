package proxy

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

// call is one request on its way. They are used again and again.
type call struct {
	p  *Proxy
	s  *settings
	cx *fasthttp.RequestCtx

	began    time.Time
	now      time.Time // when something last took time: the clock is not asked more often than that
	deadline time.Time
	upstream time.Duration // spent with WeChat

	target  target
	caller  caller
	shown   shown
	who     *identity // who calls; nil: everybody, or nobody who was recognised
	plan    plan
	body    []byte // the caller's
	headers []byte // of the caller's that WeChat gets
	out     []byte // what is sent: request line and headers
	id      []byte
	scratch []byte // what the caller's credentials are decoded into

	place   *atomic.Int32 // see shares; nil: none is taken
	sent    [3]string     // credentials of ours that WeChat got; "" for none
	echo    bool          // the answer shows one of them
	word    string        // X-Wxproxy-Token
	errcode int
	problem *problem

	detached struct { // of a stream, which outlives its request
		method string
		status int
	}
}

var calls = sync.Pool{New: func() any { return new(call) }}

// The life of a call, from above to below.
func (p *Proxy) handle(cx *fasthttp.RequestCtx) {
	c := calls.Get().(*call)
	body, err := p.readBody(cx, c.body[:0])
	if err != nil {
		c.body = kept(body)
		calls.Put(c)
		p.refuse(cx, err)
		return
	}
	*c = call{p: p, body: body, s: p.settings.Load(), cx: cx, began: time.Now(), headers: c.headers[:0], out: c.out[:0], id: c.id[:0], scratch: c.scratch[:0], word: "none"}
	c.now, c.deadline = c.began, c.began.Add(c.s.timeout)
	p.observe.CallStarted()
	// fasthttp does not catch panics: without this one bad call would end all.
	defer c.end()
	if c.problem = c.run(); c.problem != nil {
		c.problem.write(&cx.Response)
		if c.problem == errNotHTTP {
			cx.SetConnectionClose() // what comes behind it may be a part of it
		}
		if code := c.problem.errcode; code != 0 {
			c.errcode = code
		}
	}
}

func (c *call) run() *problem {
	h := &c.cx.Request.Header
	if h.IsConnect() {
		return errConnect
	}
	if doubtful(h, c.body) {
		return errNotHTTP
	}
	var ok bool
	if c.headers, c.caller, ok = readHeaders(c.headers, h); !ok {
		return errHeader
	}
	var problem *problem
	if c.target, problem = readTarget(h.RequestURI()); problem != nil {
		return problem
	}
	if c.caller.browser {
		return errBrowser
	}
	var action []byte
	if c.s.table.ByAction(text(c.target.plain)) {
		var unique bool
		if action, _, unique = lookup(c.target.query, paramAction); !unique {
			return errAction
		}
	}
	c.readTokens()
	c.plan, problem = c.s.decide(c.target, c.caller, action)
	if c.plan.endpoint.Need == wechat.NeedStandIn {
		return c.issue()
	}
	// Who shows no key learns nothing but that, and who may not call for an account not even whether it exists.
	if refusal := c.identify(); refusal != nil {
		return refusal
	}
	if problem != nil {
		return problem
	}
	if problem = c.permitted(); problem != nil {
		return problem
	}
	if problem = c.paced(); problem != nil {
		return problem
	}
	if c.plan.endpoint.Guess {
		c.p.log.Info("no rule is known for this path: the component's token is a guess", "path", clip(c.target.path))
	}
	return c.forward()
}

// forward sends the call, and sends it once more if its token is refused.
func (c *call) forward() *problem {
	var token tokens.Token
	if c.plan.holder != nil {
		var err error
		if token, err = c.token(); err != nil {
			return problemOf(err, string(c.plan.holder), time.Now())
		}
	}
	var full *problem
	if c.place, full = c.p.shares.enter(c.plan.appid); full != nil {
		c.now = time.Now()
		return full
	}
	if p := c.send(token); p != nil {
		return p
	}
	code := c.look()
	if c.plan.holder != nil && wechat.TokenRefused(code, c.plan.kind == tokens.Component) {
		if p := c.retry(token, code); p != nil {
			return p
		}
	}
	if c.echo || reveals(c.target.plain) {
		return c.redact()
	}
	return nil
}

func (c *call) token() (tokens.Token, error) {
	t, ok := c.p.tokens.Cached(text(c.plan.holder))
	if !ok {
		ctx, cancel := context.WithDeadline(context.Background(), c.deadline)
		defer cancel()
		var err error
		t, err = c.p.tokens.Token(ctx, text(c.plan.holder))
		if c.now = time.Now(); err != nil {
			return t, err
		}
	}
	c.word = "miss"
	if t.Hit {
		c.word = "hit"
	}
	c.p.observe.TokenUsed(c.credential(), t.Hit)
	return t, nil
}

// retry replaces the refused token and sends the call again, byte for byte. WeChat checks the token
// before it does anything, so nothing has been done yet, whatever the method.
func (c *call) retry(stale tokens.Token, code int) *problem {
	ctx, cancel := context.WithDeadline(context.Background(), c.deadline)
	fresh, err := c.p.tokens.Renew(ctx, text(c.plan.holder), stale.Value)
	cancel()
	c.now = time.Now()
	if err != nil {
		c.p.observe.Retried(c.credential(), code, "no_token")
		if errors.Is(err, tokens.ErrThrottled) {
			return nil // the refusal goes back as it is
		}
		return problemOf(err, string(c.plan.holder), time.Now())
	}
	c.cx.Response.ResetBody() // ends a stream, too
	if p := c.send(fresh); p != nil {
		c.p.observe.Retried(c.credential(), code, "unreachable")
		return p
	}
	c.word = "retried"
	result := "ok"
	if wechat.TokenRefused(c.look(), c.plan.kind == tokens.Component) {
		result = "refused_again"
	}
	c.p.observe.Retried(c.credential(), code, result)
	return nil
}

// send makes one exchange with WeChat.
func (c *call) send(token tokens.Token) *problem {
	req, resp := &c.cx.Request, &c.cx.Response
	c.sent = [...]string{token.Value.Reveal(), "", c.plan.secret.Reveal()}
	if token.Escaped != c.sent[0] {
		c.sent[1] = token.Escaped
	}
	c.out = c.appendHead(c.out[:0], token, len(c.body))
	began := time.Now()
	err := c.s.upstream.exchange(c.out, c.body, req.Header.IsHead(), c.cx.Conn(), resp, c.s.timeout, began, c.deadline)
	c.now = time.Now()
	c.upstream += c.now.Sub(began)
	if err != nil {
		return problemOf(err, string(c.plan.appid), time.Now())
	}
	resp.Header.SetNoDefaultContentType(true)
	c.cleanAnswer(&resp.Header)
	return nil
}

// look reads the errcode of the answer and counts it.
func (c *call) look() int {
	c.errcode, c.echo = c.errcodeOf(&c.cx.Response)
	if c.errcode != 0 {
		c.p.observe.WeChatError(c.errcode)
		c.doubt()
	}
	return c.errcode
}

// doubt tells whoever keeps the accounts of an answer that may mean the end of an authorisation. A password that was
// changed matters for the account's own token only: end users have passwords, too.
func (c *call) doubt() {
	about := c.errcode == wechat.CodeNotAuthorized || c.errcode == wechat.CodePasswordChanged && c.plan.holder != nil && c.plan.kind == tokens.Authorizer
	if about && c.plan.appid != nil && c.s.doubt != nil {
		c.s.doubt(string(c.plan.appid), c.errcode)
	}
}

// appendHead writes the request as WeChat gets it: the caller's bytes, with our credential in
// front of his query.
func (c *call) appendHead(b []byte, token tokens.Token, body int) []byte {
	h := &c.cx.Request.Header
	b = append(b, h.Method()...)
	b = append(b, ' ')
	if c.plan.path != "" {
		b = append(b, c.plan.path...)
	} else {
		b = append(b, c.target.path...)
	}
	b = c.appendQuery(b, token)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, c.s.upstream.host...)
	b = append(b, "\r\n"...)
	b = append(b, c.headers...)
	// WeChat answers 412 to requests without a length, chunked ones above all.
	if body > 0 || c.caller.sized || !h.IsGet() && !h.IsHead() && !h.IsDelete() && !h.IsOptions() {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(body), 10)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}

func (c *call) appendQuery(b []byte, token tokens.Token) []byte {
	start := len(b)
	b = append(b, '?')
	if c.plan.secret.IsEmpty() {
		if c.plan.withAppID {
			b = append(append(append(b, "appid="...), c.plan.appid...), '&')
		}
	} else {
		b = append(append(append(b, "appid="...), c.plan.appid...), "&secret="...)
		b = append(append(b, c.plan.secret.Reveal()...), '&')
	}
	if c.plan.component {
		b = append(append(append(b, "component_appid="...), c.s.component...), '&')
	}
	if c.plan.holder != nil {
		b = append(append(append(b, c.parameter()...), '='), token.Escaped...)
		b = append(b, '&')
	}
	ours := len(b)
	if c.plan.drop == 0 {
		b = append(b, c.target.query...)
	} else {
		b = appendWithout(b, c.target.query, c.plan.drop)
	}
	// Without a query of the caller's the separator, or the question mark, is one too many; a
	// question mark that he sent himself stays.
	if len(b) == ours && !(ours == start+1 && c.target.query != nil) {
		b = b[:ours-1]
	}
	return b
}

func (c *call) parameter() string {
	switch {
	case c.plan.path != "": // the twins are under /sns/
		return wechat.ComponentAccessToken
	case c.plan.endpoint.Parameter != "":
		return c.plan.endpoint.Parameter
	}
	return wechat.AccessToken
}

// credential is the word for what goes in, for the metrics.
func (c *call) credential() string {
	if c.plan.holder == nil && c.plan.secret.IsEmpty() {
		return "none"
	}
	return c.plan.kind.String()
}

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
	resp.Header.Set("X-Wxproxy-Token", c.word)
	resp.Header.SetBytesV("X-Request-Id", c.id)
	if c.p.leaving.Load() {
		resp.Header.SetConnectionClose()
	}
	if stream, ok := resp.BodyStream().(*answerBody); ok && c.problem == nil {
		done := *c // the original is used again
		done.detach()
		stream.ended = func() { done.leave(); done.now = time.Now(); done.report() }
	} else {
		c.leave()
		c.report()
	}
	c.body = kept(c.body)
	c.cx, c.target, c.caller, c.shown, c.who, c.plan, c.problem = nil, target{}, caller{}, shown{}, nil, plan{}, nil
	calls.Put(c)
}

// leave gives the call's place back.
func (c *call) leave() {
	if c.place != nil {
		c.p.shares.leave(c.place)
		c.place = nil
	}
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
