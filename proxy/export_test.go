package proxy

import (
	"math"
	"time"

	"wxproxy/internal/peerlimit"
	"wxproxy/proxy/admission"
	"wxproxy/proxy/transport"
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

// SetBodyBudget sets the memory for bodies, if that is more than the largest
// bodies need. It must be called before Serve.
func (p *Proxy) SetBodyBudget(n int) {
	p.minBodyBudget = n
	p.bodyBudget.SetLimit(max(n, bodyBudgetFactor*p.settings.Load().maxBody))
}

// SetFormBudget sets the memory for bodies of unauthenticated requests. It must
// be called before Serve.
func (p *Proxy) SetFormBudget(n int) { p.formBudget.SetLimit(n) }

// SetBodyPace sets how fast bodies have to arrive. It must be called before
// Serve.
func (p *Proxy) SetBodyPace(pace transport.Pace) { p.bodyPace = pace }

// BodyMemory returns the memory that bodies take, in bytes, and FormMemory that
// of unauthenticated requests.
func (p *Proxy) BodyMemory() int64 { return p.bodyBudget.Used() }

// FormMemory: see BodyMemory.
func (p *Proxy) FormMemory() int64 { return p.formBudget.Used() }

// SetReadAheadBudget sets the memory for reading ahead. It must be called before
// Serve.
func (p *Proxy) SetReadAheadBudget(n int) { p.readAhead.SetLimit(n) }

// SetWholeBudget sets the memory for responses that are read whole. It must be
// called before Serve.
func (p *Proxy) SetWholeBudget(n int) { p.wholeBudget.SetLimit(n) }

// WholeMemory returns the memory of responses that were read whole, in bytes.
func (p *Proxy) WholeMemory() int64 { return p.wholeBudget.Used() }

// ReadAheadMemory returns the memory of what was read ahead, in bytes.
func (p *Proxy) ReadAheadMemory() int64 { return p.readAhead.Used() }

// LimitSlot returns a value that is equal for accounts that share a limit.
func (p *Proxy) LimitSlot(appid string) any {
	slot, _ := p.limiter.TryAcquire([]byte(appid))
	p.limiter.Release(slot)
	return slot
}

// Waiting returns the number of requests that wait for a slot.
func (p *Proxy) Waiting() int { return p.limiter.Waiting() }

// InFlight returns the number of requests that are waiting for WeChat.
func (p *Proxy) InFlight() int { return p.limiter.InFlight() }

// AllowWrongKeys removes the limit of wrong keys. It must be called before
// Serve.
func (p *Proxy) AllowWrongKeys() { p.wrongKeys = peerlimit.New(math.MaxInt, wrongKeyWindow) }
