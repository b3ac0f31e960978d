package transport

import (
	"net"
	"testing"
	"time"
)

// Every check for stale connections that this system can compile has to agree.
func TestStaleConnectionsAreFound(t *testing.T) {
	for name, isStale := range map[string]func(*net.TCPConn) bool{"system": isStale, "by read": isStaleByRead} {
		for state, c := range map[string]struct {
			change func(peer *net.TCPConn)
			want   bool
		}{
			"idle":             {func(*net.TCPConn) {}, false},
			"unsolicited byte": {func(peer *net.TCPConn) { peer.Write([]byte("x")) }, true},
			"end":              {func(peer *net.TCPConn) { peer.CloseWrite() }, true},
			"reset":            {func(peer *net.TCPConn) { peer.SetLinger(0); peer.Close() }, true},
		} {
			local, peer := tcpPair(t)
			c.change(peer)
			got := isStale(local)
			// The kernel, and the scheduler, may need a moment.
			for end := time.Now().Add(testTimeout); c.want && !got && time.Now().Before(end); {
				got = isStale(local)
			}
			if got != c.want {
				t.Errorf("%s, %s: got %t, want %t", name, state, got, c.want)
			}
		}
		local, _ := tcpPair(t)
		local.Close()
		if !isStale(local) {
			t.Errorf("%s, closed: got false, want true", name)
		}
	}
}

// A connection that was found fit still works.
func TestStaleCheckLeavesConnectionUsable(t *testing.T) {
	for name, isStale := range map[string]func(*net.TCPConn) bool{"system": isStale, "by read": isStaleByRead} {
		local, peer := tcpPair(t)
		if isStale(local) {
			t.Fatalf("%s: got stale, want idle", name)
		}
		c := &upstreamConn{Conn: local, socket: newSocket(local)}
		if err := c.extendDeadline(time.Now().Add(testTimeout), testTimeout); err != nil {
			t.Fatal(err)
		}
		go peer.Write([]byte("response"))
		b := make([]byte, 8)
		if n, err := local.Read(b); n == 0 || err != nil {
			t.Errorf("%s: Read: got %d bytes, %v", name, n, err)
		}
	}
}
