package pages

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// allowance is a token bucket: burst requests at once, and then one for each
// interval.
type allowance struct {
	burst    int
	interval time.Duration
}

// bucket returns a full bucket.
func (a allowance) bucket() *rate.Limiter {
	return rate.NewLimiter(rate.Every(a.interval), a.burst)
}

// limits bound the requests of one kind that cost a call to WeChat.
//
// WeChat counts calls by the day and for the whole platform. It does not
// document its limits for these two calls. For another call of the component
// its quota query showed 10,000 a day
// (community/develop/doc/0008a2235e0ac09dd0937ef206b400), so all clients of a
// process together stay below 9,000:
//
//	pre-auth codes: 86,400 s / 10 s + 120 = 8,760 a day
//	exchanges:      86,400 s / 30 s +  60 = 2,940 a day, besides:
//
// An exchange with a valid state belongs to a page that was counted. One page
// leads to one exchange that succeeds and [maxAttempts] that are rejected.
//
// The steady rate of a client is at most a tenth of the common one, and so is
// that of a network.
type limits struct {
	client  allowance // an IPv4 address, or a /64 of IPv6
	network allowance // a /48 of IPv6; IPv4 has none
	all     allowance
	// reserve is the part of all.burst that clients with many requests leave to
	// those with few.
	reserve int
}

var (
	// pageLimits are for /authorize.
	pageLimits = limits{
		client:  allowance{20, 2 * time.Minute},
		network: allowance{40, 100 * time.Second},
		all:     allowance{120, 10 * time.Second},
		reserve: 60,
	}
	// codeLimits are for codes that arrive at /authorized without a valid
	// state. No link leads there: such codes are old, or made up.
	codeLimits = limits{
		client:  allowance{5, 10 * time.Minute},
		network: allowance{10, 5 * time.Minute},
		all:     allowance{60, 30 * time.Second},
		reserve: 30,
	}
)

const (
	// quotaDay is the time over which the requests of a client count for its
	// priority.
	quotaDay = 24 * time.Hour
	// Each request within quotaDay lowers the priority of its client, up to the
	// number of requests after which it has to leave the whole reserve.
	clientPriority, networkPriority = 3, 20

	// maxClients bounds the memory: about 200 bytes for each client. It is more
	// than all clients together can spend in quotaDay.
	maxClients = 10_000
)

// limiter limits the requests of each client, of each network, and of all
// clients together. Clients that have made few requests have priority: clients
// at their limit, however many, cannot keep a new one out.
//
// That takes as many new clients as there are tokens for all: 8,640 addresses a
// day for pages. Nothing distinguishes those from merchants.
type limiter struct {
	now    func() time.Time
	limits limits

	mu       sync.Mutex // held from asking all buckets to spending from all
	all      *rate.Limiter
	clients  map[netip.Prefix]*share
	networks map[netip.Prefix]*share
}

// share is what a client or a network has used.
type share struct {
	bucket *rate.Limiter
	since  time.Time // beginning of the day in which used is counted
	used   int       // requests since then
}

// newLimiter returns a limiter that reads the time from now.
func newLimiter(l limits, now func() time.Time) *limiter {
	return &limiter{
		now: now, limits: l, all: l.all.bucket(),
		clients: make(map[netip.Prefix]*share), networks: make(map[netip.Prefix]*share),
	}
}

// spend takes one request from the buckets of the client, of its network and of
// all clients. If one of them has too little, it takes nothing and returns how
// long to wait; otherwise it returns 0.
func (l *limiter) spend(client netip.Addr) (wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	// A household has a /64 of IPv6, and a company or an attacker a /48, in
	// which every request can come from another address.
	client = client.Unmap().WithZone("")
	own, network, isIPv6 := 32, 48, client.Is6()
	if isIPv6 {
		own = 64
	}
	// The zero Addr has the zero Prefix.
	ownKey, _ := client.Prefix(own)
	networkKey, _ := client.Prefix(network)

	c := find(l.clients, ownKey, l.limits.client)
	keep := l.limits.reserve * min(c.recent(now), clientPriority) / clientPriority
	wait = untilHolds(c.bucket, 1, now)
	var n *share
	if isIPv6 {
		n = find(l.networks, networkKey, l.limits.network)
		keep = max(keep, l.limits.reserve*min(n.recent(now), networkPriority)/networkPriority)
		wait = max(wait, untilHolds(n.bucket, 1, now))
	}
	if wait = max(wait, untilHolds(l.all, 1+keep, now)); wait > 0 {
		return wait
	}
	l.all.AllowN(now, 1)
	c.spend(l.clients, ownKey, l.limits.client, now)
	if isIPv6 {
		n.spend(l.networks, networkKey, l.limits.network, now)
	}
	return 0
}

// find returns the share under key, or a new one. That is not in shares before
// it spends something: rejected requests take no memory.
func find(shares map[netip.Prefix]*share, key netip.Prefix, a allowance) *share {
	if s := shares[key]; s != nil {
		return s
	}
	return &share{bucket: a.bucket()}
}

// recent returns the number of requests of s in its day.
func (s *share) recent(now time.Time) int {
	if now.Sub(s.since) >= quotaDay {
		return 0
	}
	return s.used
}

// spend counts a request of s and puts s into shares.
func (s *share) spend(
	shares map[netip.Prefix]*share, key netip.Prefix, a allowance, now time.Time,
) {
	if s.used = s.recent(now) + 1; s.used == 1 {
		s.since = now
	}
	s.bucket.AllowN(now, 1)
	if shares[key] == nil && len(shares) >= maxClients {
		evict(shares, a, now)
	}
	shares[key] = s
}

// evict removes the shares that are like new. That always makes room: the
// others have spent something within quotaDay.
func evict(shares map[netip.Prefix]*share, a allowance, now time.Time) {
	for key, s := range shares {
		if now.Sub(s.since) >= quotaDay && s.bucket.TokensAt(now) >= float64(a.burst) {
			delete(shares, key)
		}
	}
}

// untilHolds returns how long it takes until the bucket holds n tokens. Unlike
// reserving them, it does not change the bucket: a request that one bucket
// rejects must not cost anything in the others.
func untilHolds(b *rate.Limiter, n int, now time.Time) time.Duration {
	missing := float64(n) - b.TokensAt(now)
	return max(0, time.Duration(missing/float64(b.Limit())*float64(time.Second)))
}
