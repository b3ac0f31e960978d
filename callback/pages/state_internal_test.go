package pages

import (
	"testing"
	"time"
)

// Only what was sealed opens, and not if one bit of it differs.
func FuzzOpenState(f *testing.F) {
	const component = "wx0000000000000001"
	key, now := []byte("0123456789abcdef0123456789abcdef"), time.Unix(1_790_000_000, 0)
	want := authState{
		authRequest: authRequest{kind: "3", account: "wx0123456789abcdef", categories: "1|2"},
		state:       "a\x00b", returnTo: "https://shop.example.com/",
	}
	sealed := sealState(key, component, want, now)
	f.Add(sealed)
	f.Add(sealed + "A")
	f.Add(sealed + "\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := openState(key, component, s, now)
		if ok != (s == sealed) || ok && got != want || !ok && got != (authState{}) {
			t.Fatalf("openState(%q): got %+v, %v, want %+v for %q alone", s, got, ok, want, sealed)
		}
	})
}
