package proxy

import (
	"hash/maphash"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

var testToken = tokens.Token{Value: wechat.NewSecret("T@"), Escaped: "T%40"}

// SetRoom is for tests of what happens when there is none. Before Serve.
func (p *Proxy) SetRoom(underWay, callers int) {
	p.shares.most, p.most = int64(underWay), int64(callers)
	p.shares.resize(p.shares.most)
}

// SetRoomForBodies is for tests of what happens when there is none. Before Serve.
func (p *Proxy) SetRoomForBodies(n int) { p.leastBodies = n }

// Held is what large bodies take.
func (p *Proxy) Held() int64 { return p.bodies.total.Load() }

// Share tells accounts apart that have a share of the places each; a few of many have one together.
func (p *Proxy) Share(appid string) any {
	return &p.shares.of[maphash.String(p.shares.seed, appid)%uint64(len(p.shares.of))]
}

// UnderWay is how many calls are with WeChat.
func (p *Proxy) UnderWay() (n int64) {
	for i := range p.shares.of {
		n += int64(p.shares.of[i].Load())
	}
	return max(n, p.shares.total.Load())
}
