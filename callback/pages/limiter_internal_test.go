package pages

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// clientNumber returns the IPv4 address of the n-th client.
func clientNumber(n int) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n))
	return netip.AddrFrom4(b)
}

// householdNumber returns an address in the n-th /64 of a /48.
func householdNumber(network, n int) netip.Addr {
	b := [16]byte{0x20, 0x01, 0x0d, 0xb8}
	binary.BigEndian.PutUint16(b[4:], uint16(network))
	binary.BigEndian.PutUint16(b[6:], uint16(n))
	return netip.AddrFrom16(b)
}

// fakeLimiter is a limiter with a clock that the test moves.
type fakeLimiter struct {
	*limiter
	at time.Time
}

func newFakeLimiter(l limits) *fakeLimiter {
	f := &fakeLimiter{at: time.Unix(1_790_000_000, 0)}
	f.limiter = newLimiter(l, func() time.Time { return f.at })
	return f
}

// both are the limits that the tests below hold for.
var both = map[string]limits{"pages": pageLimits, "codes": codeLimits}

func TestLimiterMemoryIsBounded(t *testing.T) {
	for name, limits := range both {
		t.Run(name, func(t *testing.T) {
			l := newFakeLimiter(limits)
			spent := func(a netip.Addr) bool { return l.spend(a) == 0 }
			// Three days, in which a new client comes as often as possible, and
			// each old one tries again.
			for n := range 3 * 24 * 360 {
				l.at = l.at.Add(10 * time.Second)
				spent(clientNumber(n))
				spent(householdNumber(n, n))
				spent(clientNumber(n / 2))
			}
			if len(l.clients) > maxClients || len(l.networks) > maxClients {
				t.Errorf("got %d clients and %d networks in memory, want at most %d",
					len(l.clients), len(l.networks), maxClients)
			}
			// Rejected clients take none.
			before := len(l.clients)
			for n := range 3 * maxClients {
				spent(clientNumber(1<<24 + n))
			}
			if grown := len(l.clients) - before; grown > limits.all.burst {
				t.Errorf("30,000 requests at once: got %d more clients in memory, want at most %d",
					grown, limits.all.burst)
			}
		})
	}
}

func TestRejectedRequestSpendsNothing(t *testing.T) {
	for name, limits := range both {
		t.Run(name, func(t *testing.T) {
			l := newFakeLimiter(limits)
			for range limits.client.burst + 1000 { // 1,000 of them over the client's limit
				l.spend(clientNumber(1))
			}
			got, want := l.all.TokensAt(l.at), float64(limits.all.burst-limits.client.burst)
			if got != want {
				t.Errorf("got %v tokens left for all clients, want %v", got, want)
			}
			l.at = l.at.Add(limits.client.interval)
			if wait := l.spend(clientNumber(1)); wait != 0 {
				t.Errorf("after %v: got a wait of %v, want none", limits.client.interval, wait)
			}
		})
	}
}

// What one client or one /48 gets in a day, and what all get, whatever they
// try.
func TestSharesOfADay(t *testing.T) {
	const second, day = time.Second, 24 * time.Hour
	for name, limits := range both {
		for _, tc := range []struct {
			what    string
			clients []netip.Addr
			most    allowance
		}{
			{"one IPv4 address", []netip.Addr{clientNumber(1)}, limits.client},
			{"one /64", []netip.Addr{
				householdNumber(1, 1), householdNumber(1, 1).Next(),
			}, limits.client},
			{"1,000 /64 of one /48", households(1000), limits.network},
			{"1,000 IPv4 addresses", addresses(1000), limits.all},
		} {
			t.Run(name+", "+tc.what, func(t *testing.T) {
				l := newFakeLimiter(limits)
				got, n := 0, 0
				for range day / second {
					l.at = l.at.Add(second)
					for range 5 {
						n++
						if l.spend(tc.clients[n%len(tc.clients)]) == 0 {
							got++
						}
					}
				}
				want := tc.most.burst + int(day/tc.most.interval)
				if got > want || got < want*9/10 {
					t.Errorf("got %d requests in a day, want at most and about %d", got, want)
				}
				if tc.most != limits.all && tc.most.interval < 10*limits.all.interval {
					t.Errorf("got one in %v, want at most a tenth of what all get", tc.most.interval)
				}
			})
		}
	}
}

func households(n int) (list []netip.Addr) {
	for i := range n {
		list = append(list, householdNumber(1, i))
	}
	return list
}

func addresses(n int) (list []netip.Addr) {
	for i := range n {
		list = append(list, clientNumber(100+i))
	}
	return list
}

// For a day, attackers send ten requests a second. Every six minutes a new
// client comes, and opens the page twice. It is never rejected, and neither are
// those that come at once when the attack begins, up to a third of the reserve.
func TestNewClientsGetIn(t *testing.T) {
	for name, limits := range both {
		for what, attackers := range map[string][]netip.Addr{
			"1 IPv4 address": addresses(1), "20 IPv4 addresses": addresses(20),
			"200 IPv4 addresses": addresses(200), "1,000 /64 of one /48": households(1000),
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				l := newFakeLimiter(limits)
				attack := func(n int) {
					for i := range n {
						l.spend(attackers[i%len(attackers)])
					}
				}
				attack(20 * len(attackers))
				next := 1 << 20
				visit := func(requests int) error {
					next++
					for i := range requests {
						if wait := l.spend(clientNumber(next)); wait > 0 {
							return fmt.Errorf("request %d: got a wait of %v, want none", i+1, wait)
						}
					}
					return nil
				}
				if len(attackers) != 200 { // those were all new a moment ago
					for i := range limits.reserve / 3 {
						if err := visit(1); err != nil {
							t.Fatalf("client %d of the first second: %v", i, err)
						}
					}
				}
				l.at = l.at.Add(limits.all.interval * time.Duration(limits.all.burst))
				for minute := range 24 * 60 {
					for range 60 {
						l.at = l.at.Add(time.Second)
						attack(10)
					}
					if minute%(6*int(limits.all.interval/time.Minute+1)) != 0 {
						continue
					}
					if err := visit(2); err != nil {
						t.Fatalf("after %d minutes: %v", minute, err)
					}
				}
			})
		}
	}
}
