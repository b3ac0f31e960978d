package pages

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

// clientNumber returns the address of the n-th client.
func clientNumber(n int) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n))
	return netip.AddrFrom4(b)
}

func TestLimiterMemoryIsBounded(t *testing.T) {
	now := time.Unix(1_790_000_000, 0)
	l := newLimiter(func() time.Time { return now })
	for range clientBurst {
		l.spend(clientNumber(0))
	}
	for n := range 3 * maxClients {
		l.spend(clientNumber(1 + n))
		if got := len(l.clients); got > maxClients {
			t.Fatalf("after %d clients: got %d in memory, want at most %d", n, got, maxClients)
		}
	}
	// A client that has spent something is not evicted for the others.
	client, _ := clientNumber(0).Prefix(32)
	if b := l.clients[client]; b == nil || b.TokensAt(now) != 0 {
		t.Error("the bucket of a client over its limit was evicted")
	}
}

func TestRejectedRequestSpendsNothing(t *testing.T) {
	now := time.Unix(1_790_000_000, 0)
	l := newLimiter(func() time.Time { return now })
	for range clientBurst + 1000 { // 1,000 of them over the client's limit
		l.spend(clientNumber(1))
	}
	if got, want := l.total.TokensAt(now), float64(totalBurst-clientBurst); got != want {
		t.Errorf("got %v tokens left for all clients, want %v", got, want)
	}
	now = now.Add(clientInterval)
	if wait := l.spend(clientNumber(1)); wait != 0 {
		t.Errorf("after %v: got a wait of %v, want none", clientInterval, wait)
	}
}
