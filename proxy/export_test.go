package proxy

import (
	"wxproxy/proxy/admission"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

var testToken = tokens.Token{Value: wechat.NewSecret("T@"), Escaped: "T%40"}

// SetRoom is for tests of what happens when there is none. Before Serve.
func (p *Proxy) SetRoom(underWay, callers int) {
	p.limiter, p.maxConns = admission.NewLimiter(underWay), callers
}

// SetRoomForBodies is for tests of what happens when there is none. Before Serve.
func (p *Proxy) SetRoomForBodies(n int) {
	p.minBodyBudget = n
	p.bodyBudget.SetLimit(max(n, bodyBudgetFactor*p.settings.Load().maxBody))
}

// Held is what large bodies take.
func (p *Proxy) Held() int64 { return p.bodyBudget.Used() }

// Share tells accounts apart that have a share of the places each; a few of many have one together.
func (p *Proxy) Share(appid string) any {
	slot, _ := p.limiter.TryAcquire([]byte(appid))
	p.limiter.Release(slot)
	return slot
}

// UnderWay is how many calls are with WeChat.
func (p *Proxy) UnderWay() int { return p.limiter.InFlight() }
