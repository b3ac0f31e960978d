package proxy

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"wxproxy/proxy/admission"
	"wxproxy/proxy/transport"
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
	who     *identity // who calls; nil: everybody, or nobody who was recognized
	plan    plan
	body    []byte // the caller's
	headers []byte // of the caller's that WeChat gets
	out     []byte // what is sent: request line and headers
	id      []byte
	scratch []byte // what the caller's credentials are decoded into

	place   admission.Slot
	sent    [3]string // credentials of ours that WeChat got; "" for none
	echo    bool      // the answer shows one of them
	word    string    // X-Wxproxy-Token
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
	memory := p.bodies.Reserve()
	defer memory.Release()
	body, err := p.readBody(cx, c.body[:0], &memory)
	if err != nil {
		c.body = transport.Recycle(body)
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
	var ok bool
	if c.place, ok = c.p.limiter.TryAcquire(c.plan.appid); !ok {
		var err error
		c.place, err = c.p.limiter.Acquire(c.plan.appid, c.now)
		if c.now = time.Now(); err != nil {
			return problemOf(err, string(c.plan.appid), c.now)
		}
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
	body := c.body
	if len(c.out)+len(body) <= transport.MaxCoalesced {
		c.out, body = append(c.out, body...), nil
	}
	began := c.now
	err := c.s.upstream.Exchange(&transport.Request{Head: c.out, Body: body, IsHead: req.Header.IsHead(), Client: c.cx.Conn(),
		Timeout: c.s.timeout, Now: began, Deadline: c.deadline}, resp)
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

// doubt tells whoever keeps the accounts of an answer that may mean the end of an authorization. A password that was
// changed matters for the account's own token only: end users have passwords, too.
func (c *call) doubt() {
	about := c.errcode == wechat.CodeNotAuthorized || c.errcode == wechat.CodePasswordChanged && c.plan.holder != nil && c.plan.kind == tokens.Authorizer
	if about && c.plan.appid != nil && c.s.doubt != nil {
		c.s.doubt(string(c.plan.appid), c.errcode)
	}
}

// credential is the word for what goes in, for the metrics.
func (c *call) credential() string {
	if c.plan.holder == nil && c.plan.secret.IsEmpty() {
		return "none"
	}
	return c.plan.kind.String()
}
