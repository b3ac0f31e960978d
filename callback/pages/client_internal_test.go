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
		unknown   bool // the address may be that of the proxy
	}{
		{public + ":1", nil, public, false},
		{public + ":1", []string{other}, public, false},
		{"[::ffff:" + public + "]:1", []string{other}, public, false},
		{"127.0.0.1:1", nil, "127.0.0.1", true},
		{"127.0.0.1:1", []string{other}, other, false},
		{"[::1]:1", []string{other}, other, false},
		{"10.1.2.3:1", []string{other}, other, false},
		{"192.168.1.2:1", []string{other}, other, false},
		{"[fd00::1]:1", []string{other}, other, false},
		{"169.254.1.2:1", []string{other}, other, false},
		{"127.0.0.1:1", []string{"192.0.2.1, 192.0.2.2 ,\t" + other + " "}, other, false},
		{"127.0.0.1:1", []string{"192.0.2.1", other}, other, false},
		{"127.0.0.1:1", []string{other + ":4711"}, other, false},
		{"127.0.0.1:1", []string{"2001:db8::1"}, "2001:db8::1", false},
		{"127.0.0.1:1", []string{"[2001:db8::1]"}, "2001:db8::1", false},
		{"127.0.0.1:1", []string{"[2001:db8::1]:4711"}, "2001:db8::1", false},
		{"127.0.0.1:1", []string{other + ", unknown"}, "127.0.0.1", true},
		{"127.0.0.1:1", []string{""}, "127.0.0.1", true},
		{"@", []string{other}, "invalid IP", true}, // the peer of a Unix socket
	} {
		r := httptest.NewRequest("GET", "/authorize", nil)
		r.RemoteAddr = tc.peer
		for _, line := range tc.forwarded {
			r.Header.Add("X-Forwarded-For", line)
		}
		if got, known := clientOf(r); got.String() != tc.want || known == tc.unknown {
			t.Errorf("peer %s, X-Forwarded-For %q: got %s, known %v, want %s, %v",
				tc.peer, tc.forwarded, got, known, tc.want, !tc.unknown)
		}
	}
}
