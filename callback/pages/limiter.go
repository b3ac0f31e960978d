package pages

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Opening a page costs a call to WeChat, and WeChat counts calls for the whole
// platform, by the day. So pages are limited for each client and for all
// clients together: at the steady rate below, all together make less than 9,000
// calls a day.
const (
	clientBurst    = 20
	clientInterval = 6 * time.Second // between two requests, after the burst
	totalBurst     = 120
	totalInterval  = 10 * time.Second

	// maxClients bounds the memory: about 150 bytes for each client.
	maxClients = 10_000
)

// limiter limits the requests of each client and of all clients together.
type limiter struct {
	now func() time.Time

	mu      sync.Mutex // held from asking both buckets to spending from both
	total   *rate.Limiter
	clients map[netip.Prefix]*rate.Limiter
}

// newLimiter returns a limiter that reads the time from now.
func newLimiter(now func() time.Time) *limiter {
	return &limiter{
		now:     now,
		total:   rate.NewLimiter(rate.Every(totalInterval), totalBurst),
		clients: make(map[netip.Prefix]*rate.Limiter),
	}
}

// spend takes one request from the buckets of the client and of all clients. If
// one of them is empty, it takes nothing and returns how long to wait;
// otherwise it returns 0.
func (l *limiter) spend(client netip.Addr) (wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	bucket := l.bucket(client, now)
	if wait = max(untilToken(bucket, now), untilToken(l.total, now)); wait == 0 {
		bucket.AllowN(now, 1)
		l.total.AllowN(now, 1)
	}
	return wait
}

// bucket returns the bucket of a client.
func (l *limiter) bucket(client netip.Addr, now time.Time) *rate.Limiter {
	// A household has a /64 of IPv6, in which every request can come from another
	// address.
	bits := 64
	if client = client.Unmap(); client.Is4() {
		bits = 32
	}
	key, _ := client.WithZone("").Prefix(bits) // the zero Prefix for the zero Addr
	if b := l.clients[key]; b != nil {
		return b
	}
	if len(l.clients) >= maxClients {
		l.evict(now)
	}
	b := rate.NewLimiter(rate.Every(clientInterval), clientBurst)
	l.clients[key] = b
	return b
}

// evict removes clients whose bucket is full again: a new bucket is the same.
// That always makes room. A bucket is full after clientBurst*clientInterval at
// the latest, and all clients together cannot spend maxClients in that time.
func (l *limiter) evict(now time.Time) {
	for key, b := range l.clients {
		if b.TokensAt(now) >= clientBurst {
			delete(l.clients, key)
		}
	}
}

// untilToken returns how long it takes until the bucket holds a token. Unlike
// reserving one, it does not change the bucket: a request that one bucket
// rejects must not cost anything in the other.
func untilToken(b *rate.Limiter, now time.Time) time.Duration {
	missing := 1 - b.TokensAt(now)
	return max(0, time.Duration(missing/float64(b.Limit())*float64(time.Second)))
}
