package pages

import (
	"net/http/httptest"
	"testing"
)

// Behind a proxy on this machine or in a private network, the client is the
// last entry of X-Forwarded-For. All other entries can be forged.
func TestClientOf(t *testing.T) {
	const public, other = "203.0.113.7", "198.51.100.9"
	for _, tc := range []struct {
		peer      string
		forwarded []string // lines of X-Forwarded-For
		want      string
	}{
		{public + ":1", nil, public},
		{public + ":1", []string{other}, public},
		{"[::ffff:" + public + "]:1", []string{other}, public},
		{"127.0.0.1:1", nil, "127.0.0.1"},
		{"127.0.0.1:1", []string{other}, other},
		{"[::1]:1", []string{other}, other},
		{"10.1.2.3:1", []string{other}, other},
		{"192.168.1.2:1", []string{other}, other},
		{"[fd00::1]:1", []string{other}, other},
		{"169.254.1.2:1", []string{other}, other},
		{"127.0.0.1:1", []string{"192.0.2.1, 192.0.2.2 ,\t" + other + " "}, other},
		{"127.0.0.1:1", []string{"192.0.2.1", other}, other},
		{"127.0.0.1:1", []string{other + ":4711"}, other},
		{"127.0.0.1:1", []string{"2001:db8::1"}, "2001:db8::1"},
		{"127.0.0.1:1", []string{"[2001:db8::1]"}, "2001:db8::1"},
		{"127.0.0.1:1", []string{"[2001:db8::1]:4711"}, "2001:db8::1"},
		{"127.0.0.1:1", []string{other + ", unknown"}, "127.0.0.1"},
		{"127.0.0.1:1", []string{""}, "127.0.0.1"},
		{"@", []string{other}, "invalid IP"}, // the peer of a Unix socket
	} {
		r := httptest.NewRequest("GET", "/authorize", nil)
		r.RemoteAddr = tc.peer
		for _, line := range tc.forwarded {
			r.Header.Add("X-Forwarded-For", line)
		}
		if got := clientOf(r).String(); got != tc.want {
			t.Errorf("peer %s, X-Forwarded-For %q: got %s, want %s", tc.peer, tc.forwarded, got, tc.want)
		}
	}
}
