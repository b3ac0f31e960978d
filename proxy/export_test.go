package proxy

import (
	"time"

	"wxproxy/proxy/admission"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// testToken is a token whose escaped form differs.
var testToken = tokens.Token{Value: wechat.NewSecret("T@"), Escaped: "T%40"}

// QueueTimeout is how long requests wait for a slot by default.
const QueueTimeout = admission.QueueTimeout

// SetLimits sets how many requests may be in flight, how many connections may
// be open, and how long requests wait for a slot. It must be called before
// Serve.
func (p *Proxy) SetLimits(maxInFlight, maxConns int, queueTimeout time.Duration) {
	p.limiter, p.maxConns = admission.NewLimiter(maxInFlight, queueTimeout), maxConns
}

// SetBodyBudget sets the memory for large bodies, if that is more than the
// largest bodies need. It must be called before Serve.
func (p *Proxy) SetBodyBudget(n int) {
	p.minBodyBudget = n
	p.bodyBudget.SetLimit(max(n, bodyBudgetFactor*p.settings.Load().maxBody))
}

// BodyMemory returns the memory that large bodies take, in bytes.
func (p *Proxy) BodyMemory() int64 { return p.bodyBudget.Used() }

// LimitSlot returns a value that is equal for accounts that share a limit.
func (p *Proxy) LimitSlot(appid string) any {
	slot, _ := p.limiter.TryAcquire([]byte(appid))
	p.limiter.Release(slot)
	return slot
}

// InFlight returns the number of requests that are waiting for WeChat.
func (p *Proxy) InFlight() int { return p.limiter.InFlight() }
