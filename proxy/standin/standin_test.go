package standin

import (
	"testing"
	"time"
)

// Whatever somebody sends as a stand-in, only what was issued is taken.
func FuzzStandIn(f *testing.F) {
	s := NewSigner([]byte("0123456789abcdef0123456789abcdef"))
	now := time.Unix(1_800_000_000, 0)
	good := s.Issue(Account, "wxaaaaaaaaaaaaaaaa", "orders", now)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(Prefix)
	f.Add(Prefix + "AQ")
	f.Fuzz(func(t *testing.T, token string) {
		if !HasPrefix([]byte(token)) {
			return
		}
		st, _, err := s.Verify([]byte(token), nil, now)
		if (err == nil) != (token == good) {
			t.Fatalf("%q: %+v, %v", token, st, err)
		}
	})
}
