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

// always is a broker that has the token at hand.
type always struct{ token tokens.Token }

func (a always) Cached(string) (tokens.Token, bool)                  { return a.token, true }
func (a always) Token(context.Context, string) (tokens.Token, error) { return a.token, nil }
func (a always) Renew(context.Context, string, wechat.Secret) (tokens.Token, error) {
	return a.token, nil
}

func (a always) Known(context.Context, string) error { return nil }

func atHand() always {
	return always{tokens.Token{Value: wechat.NewSecret(benchToken), Escaped: benchToken, Hit: true}}
}

// route is what a call costs until its rule is known.
func route(s *settings, uri []byte) plan {
	t, p := readTarget(uri)
	if p != nil {
		panic(p)
	}
	plan, p := s.decide(t, caller{}, nil)
	if p != nil {
		panic(p)
	}
	return plan
}

func BenchmarkRoute(b *testing.B) {
	s, uri := testSettings(), []byte(benchURI)
	b.ReportAllocs()
	for b.Loop() {
		route(s, uri)
	}
}

func BenchmarkInject(b *testing.B) {
	s := testSettings()
	t, _ := readTarget([]byte(benchURI))
	c := call{s: s, target: t, plan: route(s, []byte(benchURI))}
	token, buf := atHand().token, make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = c.appendQuery(buf[:0], token)
	}
}

func TestRouteAndInjectAlloc(t *testing.T) {
	s, uri := testSettings(), []byte(benchURI)
	buf := make([]byte, 0, 4096)
	token := atHand().token
	if n := testing.AllocsPerRun(200, func() {
		tg, _ := readTarget(uri)
		plan, _ := s.decide(tg, caller{}, nil)
		c := call{s: s, target: tg, plan: plan}
		buf = c.appendQuery(buf[:0], token)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
