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

// A connection that was found fit still works, although the check may have
// changed its deadline.
func TestStaleCheckLeavesConnectionUsable(t *testing.T) {
	local, peer := tcpPair(t)
	c := &upstreamConn{Conn: local, socket: newSocket(local)}
	for range 2 {
		if err := c.extendDeadline(time.Now().Add(testTimeout), testTimeout); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(10*staleReadWait, func() { peer.Write([]byte("x")) })
		if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Fatalf("Read: got %d bytes, %v", n, err)
		}
		if c.isStale() {
			t.Fatal("idle connection: got stale")
		}
	}
}
