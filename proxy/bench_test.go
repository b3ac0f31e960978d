package proxy

import (
	"context"
	"testing"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

const (
	benchToken = "78_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789AbCdEfGhIjKlMnOpQrStUvWxYz0123456789AbCdEfGhIjKlMnOpQrStUvWxYz0123456789AbCdEfGhIjKlMnOpQrStUvWxYzABCDE"
	benchURI   = "/" + acc + "/cgi-bin/message/custom/send?lang=zh_CN&access_token=stale&x=1"
	benchReply = `{"errcode":0,"errmsg":"ok","msgid":3456789012345678901}`
)

// cachedToken is a broker that has one token cached.
type cachedToken struct{ token tokens.Token }

func (c cachedToken) Cached(string) (tokens.Token, bool)                  { return c.token, true }
func (c cachedToken) Token(context.Context, string) (tokens.Token, error) { return c.token, nil }
func (c cachedToken) Renew(context.Context, string, wechat.Secret) (tokens.Token, error) {
	return c.token, nil
}

func (c cachedToken) CheckAccount(context.Context, string) error { return nil }

func benchTokens() cachedToken {
	return cachedToken{tokens.Token{Value: wechat.NewSecret(benchToken), Escaped: benchToken, Hit: true}}
}

// decideURI parses a target into h and decides, as far as that needs no
// headers.
func decideURI(tb testing.TB, s *settings, h *requestHead, uri []byte) decision {
	var err *apiError
	if h.target, err = parseTarget(uri); err != nil {
		tb.Fatalf("%s: got error %v, want none", uri, err)
	}
	d, err := s.decide(h)
	if err != nil {
		tb.Fatalf("%s: got error %v, want none", uri, err)
	}
	return d
}

func BenchmarkRoute(b *testing.B) {
	s, h, uri := testSettings(), new(requestHead), []byte(benchURI)
	b.ReportAllocs()
	for b.Loop() {
		decideURI(b, s, h, uri)
	}
}

func BenchmarkInject(b *testing.B) {
	s := testSettings()
	h := new(requestHead)
	d := decideURI(b, s, h, []byte(benchURI))
	token, buf := benchTokens().token, make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = appendQuery(buf[:0], h.target.query, &d.route, s.component, token)
	}
}

func TestRouteAndInjectAlloc(t *testing.T) {
	s, h, uri := testSettings(), new(requestHead), []byte(benchURI)
	buf := make([]byte, 0, 4096)
	token := benchTokens().token
	if n := testing.AllocsPerRun(200, func() {
		d := decideURI(t, s, h, uri)
		buf = appendQuery(buf[:0], h.target.query, &d.route, s.component, token)
	}); n != 0 {
		t.Errorf("allocations: got %v, want 0", n)
	}
}
