// Package peerlimit counts failures by the address of the client, such as
// wrong keys, and says when an address has had too many of them. What failed
// is the caller's business: successes are neither counted nor delayed, so that
// counting costs nothing while nothing fails, and an address that several
// clients share stays usable for all that succeed.
package peerlimit

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// maxPeers bounds the memory: about 100 bytes for each address. Further
	// addresses share one count, so that an attacker with many addresses gains
	// nothing by exhausting it.
	maxPeers = 10_000
	// sweepInterval is how often ended windows are removed while the maximum is
	// reached. A sweep reads all of them.
	sweepInterval = time.Second
	// maxLines is how many failures of all addresses together are worth a log
	// line in one window. Thousands of addresses could fill a disk otherwise.
	maxLines = 100
)

// Limiter counts failures in windows of time, which begin with the first
// failure of an address. It is safe for concurrent use. [New] creates one.
type Limiter struct {
	limit  int
	window time.Duration

	mu     sync.Mutex
	peers  map[netip.Prefix]*count
	shared count // of addresses beyond maxPeers
	lines  count // of all addresses: the lines that were logged
	swept  time.Time
}

// count is a number of failures since start.
type count struct {
	start time.Time
	n     int
}

// add counts a failure at now, in a new window if that of c has ended.
func (c *count) add(now time.Time, window time.Duration) {
	// now can be a little before start, if two clients fail at the same time.
	if now.Sub(c.start).Abs() >= window {
		*c = count{start: now}
	}
	c.n++
}

// New returns a Limiter that allows limit failures of an address in one window.
func New(limit int, window time.Duration) *Limiter {
	return &Limiter{limit: limit, window: window, peers: map[netip.Prefix]*count{}}
}

// Failure is what is known of an address after it has failed.
type Failure struct {
	// Count is the number of failures of the address in its window, this one
	// included.
	Count int
	// Wait is 0 as long as Count is within the limit, and otherwise the time
	// until the window ends.
	Wait time.Duration
	// Log is set if the failure is worth a line in the log: each one within the
	// limit, and then each one whose Count is the limit and one, or a power of
	// ten. While very many addresses fail it is set for few of them.
	Log bool
}

// Fail counts a failure of the client with this address. IPv6 addresses are
// counted by their /64, which one client has for itself. The zero Addr is an
// address like another.
func (l *Limiter) Fail(client netip.Addr, now time.Time) Failure {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.of(network(client), now)
	c.add(now, l.window)
	f := Failure{Count: c.n}
	if c.n > l.limit {
		f.Wait = l.window - now.Sub(c.start)
	}
	if c.n <= l.limit+1 || isPowerOfTen(c.n) {
		l.lines.add(now, l.window)
		f.Log = l.lines.n <= maxLines || isPowerOfTen(l.lines.n)
	}
	return f
}

// of returns the count of a network. It makes one if there is room, if need be
// after it has removed those whose window has ended.
func (l *Limiter) of(key netip.Prefix, now time.Time) *count {
	if c := l.peers[key]; c != nil {
		return c
	}
	if len(l.peers) >= maxPeers && now.Sub(l.swept).Abs() >= sweepInterval {
		l.swept = now
		for key, c := range l.peers {
			if now.Sub(c.start).Abs() >= l.window {
				delete(l.peers, key)
			}
		}
	}
	if len(l.peers) >= maxPeers {
		return &l.shared
	}
	c := new(count)
	l.peers[key] = c
	return c
}

// network returns what counts as one client: an IPv4 address, or a /64 of IPv6.
func network(client netip.Addr) netip.Prefix {
	bits := 64
	if client = client.Unmap(); client.Is4() {
		bits = 32
	}
	key, _ := client.WithZone("").Prefix(bits) // the zero Prefix for the zero Addr
	return key
}

// isPowerOfTen reports whether n is 100, 1000, and so on.
func isPowerOfTen(n int) bool {
	if n < 100 {
		return false
	}
	for n%10 == 0 {
		n /= 10
	}
	return n == 1
}
