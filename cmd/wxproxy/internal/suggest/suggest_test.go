package suggest

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	names := []string{"listen", "upstream", "upstream_ca_file", "appid", "appsecret", "key", "level"}
	f := func(in, want string) {
		t.Helper()
		if got := Nearest(in, names); got != want {
			t.Errorf("Nearest(%q): got %q, want %q", in, got, want)
		}
	}
	f("lisen", "listen")
	f("Listen", "listen")
	f("upstraem", "upstream")
	f("appId", "appid")
	f("secret", "appsecret")
	f("app_secret", "appsecret")
	f("upstream_ca", "upstream_ca_file")
	f("keys", "key")
	f("kez", "key")
	f("lveel", "level") // swapped letters count as two errors
	f("xyz", "")
	f("k", "")
	f("", "")
	f("color", "")
	f(strings.Repeat("listen", 20), "")
}

func TestDistance(t *testing.T) {
	f := func(a, b string, want int) {
		t.Helper()
		if got, back := distance(a, b), distance(b, a); got != want || back != want {
			t.Errorf("distance of %q and %q: got %d, and %d in reverse, want %d", a, b, got, back, want)
		}
	}
	f("", "", 0)
	f("", "abc", 3)
	f("abc", "abc", 0)
	f("kitten", "sitting", 3)
	f("flaw", "lawn", 2)
}
