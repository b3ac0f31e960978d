package pages

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// returnURL matches the allowed addresses, written down without parsing them.
var returnURL = regexp.MustCompile(
	`^https://(?i:shop\.example\.com)(:443)?/back([/?#][!#-;=?-\[\]_a-z~]*)?$`)

// An allowed address stays below the prefix, also with the result in its query.
func FuzzReturnAllowed(f *testing.F) {
	for _, s := range []string{
		"https://shop.example.com/back",
		"https://shop.example.com:443/back/a?b=c#d",
		"https://shop.example.com@evil.example/back",
		"https://shop.example.com/back/%2e%2e/x",
		`https://shop.example.com\@evil.example/back`,
		"//shop.example.com/back",
		"https://shop.example.com/back\t",
		"https://SHOP.example.com/back?x&&",
		"https://shop.example.com/back?b=c?",
		"https://shop.example.com/back?APPID=x&state%5B%5D=y&%00ticket=z",
	} {
		f.Add(s)
	}
	prefixes := []string{"https://shop.example.com/back"}
	const appid, state, ticket = "wx0123456789abcdef", "a&b=#?/\r\n", "AQ-_"
	f.Fuzz(func(t *testing.T, s string) {
		if !returnAllowed(prefixes, s) {
			return
		}
		if !returnURL.MatchString(s) {
			t.Fatalf("%q is allowed, want only addresses below %s", s, prefixes[0])
		}
		to := withResult(s, appid, state, ticket)
		if !returnURL.MatchString(to) {
			t.Fatalf("%q with the result: got %q, want an address below %s", s, to, prefixes[0])
		}
		u, err := url.Parse(to)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		for name, want := range map[string]string{"appid": appid, "state": state, "ticket": ticket} {
			if len(q[name]) != 1 || q.Get(name) != want {
				t.Fatalf("%q with the result: got %q, want %s once and %q", s, to, name, want)
			}
			for other := range q {
				if other != name && strings.EqualFold(strings.Trim(other, " []\x00"), name) {
					t.Fatalf("%q with the result: got %q, want no other spelling of %s", s, to, name)
				}
			}
		}
		// Go's own client goes to the same host.
		if r, err := http.NewRequest(http.MethodGet, to, nil); err != nil ||
			hostPort(r.URL) != "shop.example.com 443" {
			t.Fatalf("request to %q: got host %v, error %v, want shop.example.com", to, r, err)
		}
	})
}
