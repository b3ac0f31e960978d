package peerlimit

import (
	"net/netip"
	"testing"
	"time"
)

var start = time.Unix(1_800_000_000, 0)

// TestFail checks counts, waits and log lines of one address over time, and
// that other addresses have counts of their own.
func TestFail(t *testing.T) {
	l := New(3, time.Minute)
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for i, c := range []struct {
		client netip.Addr
		at     time.Duration
		want   Failure
	}{
		{a, 0, Failure{1, 0, true}},
		{a, 10 * time.Second, Failure{2, 0, true}},
		{a, 20 * time.Second, Failure{3, 0, true}},
		{a, 30 * time.Second, Failure{4, 30 * time.Second, true}},
		{a, 40 * time.Second, Failure{5, 20 * time.Second, false}},
		{b, 40 * time.Second, Failure{1, 0, true}},
		{a, 59 * time.Second, Failure{6, time.Second, false}},
		{a, 60 * time.Second, Failure{1, 0, true}}, // its window has ended
		{b, 61 * time.Second, Failure{2, 0, true}},
		{a, 61 * time.Second, Failure{2, 0, true}},
		{a, 0, Failure{1, 0, true}}, // the clock was set back
		{netip.Addr{}, 0, Failure{1, 0, true}},
		{netip.Addr{}, 1, Failure{2, 0, true}},
	} {
		if got := l.Fail(c.client, start.Add(c.at)); got != c.want {
			t.Errorf("%d: %v after %v: got %+v, want %+v", i, c.client, c.at, got, c.want)
		}
	}
}

// TestNetworks checks which addresses are one client.
func TestNetworks(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"2001:db8::1", "2001:db8::ffff:1", true},
		{"2001:db8:0:1::1", "2001:db8:0:2::1", false},
		{"fe80::1%eth0", "fe80::2%eth1", true},
		{"::1", "127.0.0.1", false},
	} {
		l := New(1, time.Minute)
		l.Fail(netip.MustParseAddr(c.a), start)
		if got := l.Fail(netip.MustParseAddr(c.b), start).Count == 2; got != c.same {
			t.Errorf("%s and %s: got one client %v, want %v", c.a, c.b, got, c.same)
		}
	}
}

// TestLogIsBounded checks that a flood costs few log lines: from one address,
// and from 100,000 addresses in one window.
func TestLogIsBounded(t *testing.T) {
	lines := func(n int, client func(i int) netip.Addr) (lines int) {
		l := New(10, time.Minute)
		for i := range n {
			if l.Fail(client(i), start).Log {
				lines++
			}
		}
		return lines
	}
	one := func(int) netip.Addr { return netip.MustParseAddr("192.0.2.1") }
	if got := lines(1_000_000, one); got != 10+1+5 { // 11, 100, …, 1,000,000
		t.Errorf("one address: got %d lines, want 16", got)
	}
	if got := lines(100_000, numbered); got > maxLines+5 || got < maxLines {
		t.Errorf("100,000 addresses: got %d lines, want about %d", got, maxLines)
	}
}

// numbered returns a different IPv4 address for each i.
func numbered(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// TestMemoryIsBounded checks that a million addresses need no more memory than
// maxPeers, that those beyond share one count, that the counts of the first
// ones stay, and that ended windows make room.
func TestMemoryIsBounded(t *testing.T) {
	l := New(10, time.Minute)
	for i := range 1_000_000 {
		l.Fail(numbered(i), start)
	}
	if n := len(l.peers); n != maxPeers {
		t.Errorf("got %d addresses, want %d", n, maxPeers)
	}
	if f := l.Fail(numbered(2_000_000), start); f.Wait == 0 {
		t.Errorf("an address beyond the maximum: got %+v, want a wait", f)
	}
	if f := l.Fail(numbered(0), start); f.Count != 2 || f.Wait != 0 {
		t.Errorf("the first address: got %+v, want its second failure", f)
	}
	if f := l.Fail(numbered(2_000_001), start.Add(time.Minute)); f.Count != 1 {
		t.Errorf("after a minute: got %+v, want a first failure", f)
	}
	if n := len(l.peers); n != 1 {
		t.Errorf("after a minute: got %d addresses, want 1", n)
	}
}
