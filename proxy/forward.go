package proxy

import (
	"context"
	"errors"
	"net/http"
	"time"

	"wxproxy/proxy/transport"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// forward sends the request to WeChat, and once more with a new token if WeChat
// rejects the first.
func (c *call) forward() *apiError {
	var token tokens.Token
	if c.decision.tokenOwner != nil {
		var err error
		if token, err = c.token(); err != nil {
			return toAPIError(err, string(c.decision.tokenOwner), time.Now())
		}
	}
	// The slot comes after the token: a renewal can take seconds, during which
	// no connection to WeChat is needed.
	if err := c.acquireSlot(); err != nil {
		return err
	}
	if err := c.exchange(token); err != nil {
		return err
	}
	code := c.inspectResponse()
	if c.decision.tokenOwner != nil && wechat.TokenRefused(code, c.decision.kind == tokens.Component) {
		if err := c.retry(token, code); err != nil {
			return err
		}
	}
	return c.maskResponse()
}

// token returns the token to inject: from memory, the store, or WeChat. Memory
// is tried first and on its own, because a context costs an allocation.
func (c *call) token() (tokens.Token, error) {
	owner := unsafeString(c.decision.tokenOwner)
	t, ok := c.proxy.tokens.Cached(owner)
	if !ok {
		ctx, cancel := context.WithDeadline(context.Background(), c.deadline)
		defer cancel()
		var err error
		t, err = c.proxy.tokens.Token(ctx, owner)
		if c.now = time.Now(); err != nil {
			return t, err
		}
	}
	c.tokenStatus = "miss"
	if t.Hit {
		c.tokenStatus = "hit"
	}
	c.proxy.observer.TokenUsed(c.decision.credential(), t.Hit)
	return t, nil
}

// acquireSlot takes a slot for a request in flight, and waits for one if there
// is none.
func (c *call) acquireSlot() *apiError {
	var ok bool
	if c.slot, ok = c.proxy.limiter.TryAcquire(c.decision.account); ok {
		return nil
	}
	var err error
	c.slot, err = c.proxy.limiter.Acquire(c.decision.account, c.now)
	if c.now = time.Now(); err != nil {
		return toAPIError(err, string(c.decision.account), c.now)
	}
	return nil
}

// retry replaces the rejected token and sends the request again, byte for byte.
// That is safe for every method: WeChat checks the token before it does
// anything.
func (c *call) retry(stale tokens.Token, code int) *apiError {
	// The context is not c.ctx: that one is recycled after the handler and ends
	// only at shutdown.
	ctx, cancel := context.WithDeadline(context.Background(), c.deadline)
	fresh, err := c.proxy.tokens.Renew(ctx, unsafeString(c.decision.tokenOwner), stale.Value)
	cancel()
	c.now = time.Now()
	if err != nil {
		c.proxy.observer.Retried(c.decision.credential(), code, "no_token")
		if errors.Is(err, tokens.ErrThrottled) {
			return nil // the caller receives WeChat's rejection as it is
		}
		return toAPIError(err, string(c.decision.tokenOwner), time.Now())
	}
	c.ctx.Response.ResetBody() // closes a stream, too
	if err := c.exchange(fresh); err != nil {
		c.proxy.observer.Retried(c.decision.credential(), code, "unreachable")
		return err
	}
	c.tokenStatus = "retried"
	result := "ok"
	if wechat.TokenRefused(c.inspectResponse(), c.decision.kind == tokens.Component) {
		result = "refused_again"
	}
	c.proxy.observer.Retried(c.decision.credential(), code, result)
	return nil
}

// exchange sends the request with token once and reads the response. A short
// body is sent in one piece with the head, which saves a system call. Responses
// over [transport.InspectLimit] are streamed.
func (c *call) exchange(token tokens.Token) *apiError {
	resp := &c.ctx.Response
	// After a renewal, the rejected token remains: WeChat may accept it for
	// some minutes.
	c.sent.Add(token.Value.Reveal())
	c.sent.Add(c.decision.secret.Reveal())
	body := c.body.Bytes()
	c.out = appendRequestHead(c.out[:0], c.settings, &c.head, &c.decision.route, token, len(body))
	if len(c.out)+len(body) <= transport.MaxCoalesced {
		c.out, body = append(c.out, body...), nil
	}
	before := c.now
	err := c.settings.upstream.Exchange(&transport.Request{
		Head: c.out, Body: body, IsHead: c.ctx.Request.Header.IsHead(), Client: c.ctx.Conn(),
		Timeout: c.settings.timeout, Now: before, Deadline: c.deadline,
	}, resp)
	c.now = time.Now()
	c.upstreamTime += c.now.Sub(before)
	if err != nil {
		return toAPIError(err, string(c.decision.account), c.now)
	}
	if resp.StatusCode() == http.StatusSwitchingProtocols {
		return errSwitchedProtocols
	}
	resp.Header.SetNoDefaultContentType(true)
	byName := c.decision.mayRevealCredentials(c.head.target.decodedPath)
	cleanResponseHeaders(&resp.Header, &c.sent, byName)
	return nil
}
