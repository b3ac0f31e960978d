package pages

import (
	"net/http"
	"net/url"
	"regexp"
	"testing"
	"time"
)

// returnShape is what an allowed address looks like to somebody who takes nothing apart.
var returnShape = regexp.MustCompile(`^https://(?i:shop\.example\.com)(:443)?/back([/?#][!#-;=?-\[\]_a-z~]*)?$`)

// Whatever is allowed stays below the prefix, and what is added to it leaves it there.
func FuzzReturnAllowed(f *testing.F) {
	for _, s := range []string{
		"https://shop.example.com/back", "https://shop.example.com:443/back/a?b=c#d", "https://shop.example.com@evil.example/back", "https://shop.example.com/back/%2e%2e/x",
		`https://shop.example.com\@evil.example/back`, "//shop.example.com/back", "https://shop.example.com/back\t", "https://SHOP.example.com/back?x&&", "https://shop.example.com/back?b=c?",
	} {
		f.Add(s)
	}
	prefixes := []string{"https://shop.example.com/back"}
	f.Fuzz(func(t *testing.T, s string) {
		if !returnAllowed(prefixes, s) {
			return
		}
		if !returnShape.MatchString(s) {
			t.Fatalf("%q is allowed", s)
		}
		to := withResult(s, "wx0123456789abcdef", "a&b=#?/\r\n")
		if !returnShape.MatchString(to) {
			t.Fatalf("%q becomes %q", s, to)
		}
		u, err := url.Parse(to)
		if err != nil {
			t.Fatal(err)
		}
		if q := u.Query(); q.Get("appid") != "wx0123456789abcdef" || len(q["appid"]) != 1 || q.Get("state") != "a&b=#?/\r\n" || len(q["state"]) != 1 {
			t.Fatalf("%q becomes %q", s, to)
		}
		// Go's own client, told to go there, goes there.
		if r, err := http.NewRequest(http.MethodGet, to, nil); err != nil || origin(r.URL) != "shop.example.com 443" {
			t.Fatalf("%q: %v", to, err)
		}
	})
}

// What opens was sealed, to the last bit.
func FuzzOpenPassage(f *testing.F) {
	key, now := []byte("0123456789abcdef0123456789abcdef"), time.Unix(1_790_000_000, 0)
	p := passage{asked: asked{kind: "3", account: "wx0123456789abcdef", categories: "1|2"}, state: "a\x00b", returnTo: "https://shop.example.com/"}
	good := sealPassage(key, "wx0000000000000001", p, now)
	f.Add(good)
	f.Add(good + "A")
	f.Add(good + "\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := openPassage(key, "wx0000000000000001", s, now)
		if ok != (s == good) || ok && got != p || !ok && got != (passage{}) {
			t.Fatalf("%q: %v %+v", s, ok, got)
		}
	})
}
