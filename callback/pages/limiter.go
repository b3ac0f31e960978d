package pages

import (
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// The pages spend calls at WeChat for whoever opens them, and those are counted for the whole platform, by the day. So
// they are bounded for each client, and for all together: at the pace below, less than 9,000 a day.
const (
	clientBurst = 20
	clientEvery = 6 * time.Second // one more
	allBurst    = 120
	allEvery    = 10 * time.Second
	// maxClients bounds the memory: some 100 bytes each.
	maxClients = 10_000
)

// limiter counts what clients spend. One is for opening the page, one for coming back.
type limiter struct {
	now func() time.Time

	mu      sync.Mutex
	all     bucket
	clients map[netip.Prefix]*bucket
}

// bucket is a balance at a time; the zero value is full.
type bucket struct {
	spent float64 // of the burst
	at    time.Time
}

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, clients: make(map[netip.Prefix]*bucket)}
}

// settle pays back what the time since then has earned, and gives how long it takes until one can be spent.
func (b *bucket) settle(now time.Time, burst int, every time.Duration) (wait time.Duration) {
	if earned := float64(now.Sub(b.at)) / float64(every); earned > 0 {
		b.spent = max(0, b.spent-earned)
	}
	b.at = now
	if over := b.spent + 1 - float64(burst); over > 0 {
		return time.Duration(over * float64(every))
	}
	return 0
}

// spend takes one for client. A wait above zero says that there is none, and when there may be; then
// nothing is taken from anybody.
func (l *limiter) spend(client netip.Addr) (wait time.Duration) {
	// A home has a /64 of IPv6, in which every request can come from another address.
	bits := 64
	if client = client.Unmap(); client.Is4() {
		bits = 32
	}
	key, _ := client.WithZone("").Prefix(bits) // the zero Prefix for the zero Addr
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	b := l.clients[key]
	if b == nil {
		if len(l.clients) >= maxClients {
			l.forget(now)
		}
		b = &bucket{}
		if len(l.clients) < maxClients { // else it is bounded by what is for all
			l.clients[key] = b
		}
	}
	wait = max(b.settle(now, clientBurst, clientEvery), l.all.settle(now, allBurst, allEvery))
	if wait == 0 {
		b.spent++
		l.all.spent++
	}
	return wait
}

// forget drops those who have everything back.
func (l *limiter) forget(now time.Time) {
	for key, b := range l.clients {
		if b.settle(now, clientBurst, clientEvery); b.spent == 0 {
			delete(l.clients, key)
		}
	}
}

// clientOf is whose request it is, as far as it can be known. X-Forwarded-For counts only if the peer is on this
// machine or in a private network, as what ends TLS is, and of it only the entry that the peer has added: the last.
// Everything before it anybody may have written.
func clientOf(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr := peer.Addr().Unmap()
	if !addr.IsLoopback() && !addr.IsPrivate() && !addr.IsLinkLocalUnicast() {
		return addr
	}
	lines := r.Header.Values("X-Forwarded-For")
	if len(lines) == 0 {
		return addr
	}
	last := lines[len(lines)-1]
	last = strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])
	if withPort, err := netip.ParseAddrPort(last); err == nil {
		return withPort.Addr()
	}
	if plain, err := netip.ParseAddr(strings.Trim(last, "[]")); err == nil {
		return plain
	}
	return addr
}
