//go:build !race

// With the race detector pools and buffers allocate.

package proxy

import (
	"crypto/sha256"
	"encoding/base64"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"wxproxy/proxy/standin"
)

const aKey = "wxk_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789-_AbCde"

// decideFunc returns a function that parses the head of a request and decides
// about it: headers, target, rules, permissions and rate.
func decideFunc(tb testing.TB, header, value, query string) func() {
	tb.Helper()
	s := testSettings()
	r, err := newCallerSet([]Caller{
		{
			Name: "orders", KeySHA256: [][sha256.Size]byte{sha256.Sum256([]byte(aKey))},
			AppIDs: []string{acc}, Paths: []string{"/cgi-bin/x", "/cgi-bin/message/*"},
			Methods: []string{"GET"}, Rate: 1_000_000,
		},
		{
			Name: "stock", KeySHA256: [][sha256.Size]byte{sha256.Sum256([]byte("another"))},
			AppIDs: []string{"*"}, Paths: []string{"*"}, Methods: []string{"*"},
		},
	}, s.signer, callerSet{})
	if err != nil {
		tb.Fatal(err)
	}
	s.callers = r
	if query == "stand-in" {
		query = "access_token=" + s.signer.Issue(standin.Account, acc, "orders",
			s.signer.KeyID(sha256.Sum256([]byte(aKey))), time.Now()) + "&"
	}
	var cx fasthttp.RequestCtx
	if header != "" {
		cx.Request.Header.Set(header, value)
	}
	uri := []byte("/cgi-bin/message/custom/send?" + query + "lang=zh_CN")
	if header != "" {
		uri = append([]byte("/"+acc), uri...)
	}
	cx.Request.Header.SetRequestURIBytes(uri)
	h := new(requestHead)
	return func() {
		h.reset()
		if err := h.parse(&cx.Request.Header, nil); err != nil {
			tb.Fatalf("%s: got error %v, want none", uri, err)
		}
		h.received = time.Now()
		d, err := s.decide(h)
		if err == nil {
			err = d.caller.checkRate(h.received)
		}
		if err != nil && err.status != 429 || d.caller == nil || d.caller.name != "orders" {
			tb.Fatalf("%s: got caller %v, error %v, want orders and at most a rate limit", uri, d.caller, err)
		}
	}
}

// credentialKinds are the ways to authenticate: header, value and query.
var credentialKinds = map[string][3]string{
	"bearer":   {"Authorization", "Bearer " + aKey, ""},
	"basic":    {"Proxy-Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("x:"+aKey)), ""},
	"header":   {"X-Wxproxy-Key", aKey, "access_token=80_foreign&"},
	"stand-in": {"", "", "stand-in"},
}

// TestDecideAlloc checks that the decision about a request allocates nothing.
func TestDecideAlloc(t *testing.T) {
	for name, w := range credentialKinds {
		f := decideFunc(t, w[0], w[1], w[2])
		f() // grows the buffers
		if n := testing.AllocsPerRun(200, f); n != 0 {
			t.Errorf("%s: got %v allocations, want 0", name, n)
		}
	}
}

// BenchmarkDecide measures the decision for each kind of credential.
func BenchmarkDecide(b *testing.B) {
	for name, w := range credentialKinds {
		b.Run(name, func(b *testing.B) {
			f := decideFunc(b, w[0], w[1], w[2])
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
	b.Run("disabled", func(b *testing.B) {
		s := testSettings()
		var cx fasthttp.RequestCtx
		uri := []byte("/" + acc + "/cgi-bin/message/custom/send?lang=zh_CN")
		cx.Request.Header.SetRequestURIBytes(uri)
		h := new(requestHead)
		b.ReportAllocs()
		for b.Loop() {
			h.reset()
			if err := h.parse(&cx.Request.Header, nil); err != nil {
				b.Fatal(err)
			}
			h.received = time.Now()
			if _, err := s.decide(h); err != nil {
				b.Fatal(err)
			}
		}
	})
}
