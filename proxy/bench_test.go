package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

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

func serveFast(b testing.TB, h fasthttp.RequestHandler) string {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &fasthttp.Server{Handler: h, NoDefaultServerHeader: true}
	go s.Serve(ln)
	b.Cleanup(func() { s.Shutdown() })
	return ln.Addr().String()
}

// BenchmarkHandler is one call over one connection, through wxproxy and through the barest proxy
// that fasthttp allows, which puts a fixed token in. Compare the two of one run.
func BenchmarkHandler(b *testing.B) {
	upstream := serveFast(b, func(c *fasthttp.RequestCtx) {
		c.SetContentType("application/json; encoding=utf-8")
		c.SetBodyString(benchReply)
	})
	b.Run("bare", func(b *testing.B) {
		hc := &fasthttp.HostClient{Addr: upstream, NoDefaultUserAgentHeader: true}
		benchCalls(b, serveFast(b, func(c *fasthttp.RequestCtx) {
			c.Request.URI().QueryArgs().Set("access_token", benchToken)
			if err := hc.Do(&c.Request, &c.Response); err != nil {
				c.Error(err.Error(), 502)
			}
		}))
	})
	b.Run("wxproxy", func(b *testing.B) {
		p, err := New(Config{Component: comp, Upstream: "http://" + upstream, Tokens: atHand()})
		if err != nil {
			b.Fatal(err)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		go p.Serve(ln, nil)
		b.Cleanup(func() { p.Shutdown(context.Background()) })
		benchCalls(b, ln.Addr().String())
	})
}

func benchCalls(b *testing.B, addr string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	body := `{"touser":"OPENID","msgtype":"text","text":{"content":"hello world"}}`
	req := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: proxy\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", benchURI, len(body), body)
	br := bufio.NewReader(conn)
	var resp fasthttp.Response
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Write(req); err != nil {
			b.Fatal(err)
		}
		if err := resp.Read(br); err != nil || !bytes.Equal(resp.Body(), []byte(benchReply)) {
			b.Fatal(err, resp.String())
		}
	}
}

var _ io.ReadCloser = (*answerBody)(nil)

// canned is a connection to WeChat without a kernel in between: what is written is answered at once.
type canned struct {
	net.Conn
	answer  []byte
	pending []byte
}

func (c *canned) Write(b []byte) (int, error) { c.pending = c.answer; return len(b), nil }

func (c *canned) Read(b []byte) (int, error) {
	n := copy(b, c.pending)
	c.pending = c.pending[n:]
	return n, nil
}

func (c *canned) SetDeadline(time.Time) error      { return nil }
func (c *canned) SetReadDeadline(time.Time) error  { return nil }
func (c *canned) SetWriteDeadline(time.Time) error { return nil }
func (c *canned) Close() error                     { return nil }
func (c *canned) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *canned) RemoteAddr() net.Addr             { return &net.TCPAddr{} }

// BenchmarkOwn is what is left of BenchmarkHandler without the kernel: the instructions of a call, from the parsed request
// to the answer that is ready to be written.
func BenchmarkOwn(b *testing.B) {
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nServer: nginx\r\nConnection: keep-alive\r\nContent-Type: application/json; encoding=utf-8\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT\r\nContent-Length: %d\r\n\r\n%s", len(benchReply), benchReply)
	dial := func(string, time.Duration) (net.Conn, error) {
		return &upstreamConn{Conn: &canned{answer: answer}, wire: new(wire)}, nil
	}
	body := `{"touser":"OPENID","msgtype":"text","text":{"content":"hello world"}}`
	request := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: proxy\r\nUser-Agent: bench\r\nAccept: */*\r\nX-Wxproxy-Key: bench-key\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", benchURI, len(body), body)
	serve := func(b *testing.B, h fasthttp.RequestHandler) {
		var cx fasthttp.RequestCtx
		cx.Init2(&canned{}, nil, false)
		cx.Request.Header.DisableNormalizing()
		cx.Response.Header.DisableNormalizing()
		src := bytes.NewReader(nil)
		br := bufio.NewReader(src)
		b.ReportAllocs()
		for b.Loop() {
			src.Reset(request)
			br.Reset(src)
			if err := cx.Request.Read(br); err != nil {
				b.Fatal(err)
			}
			h(&cx)
			if cx.Response.StatusCode() != 200 {
				b.Fatal(cx.Response.String())
			}
			cx.Request.Reset()
			cx.Response.Reset()
		}
	}
	b.Run("bare", func(b *testing.B) {
		hc := &fasthttp.HostClient{Addr: "wechat:80", DialTimeout: dial, NoDefaultUserAgentHeader: true}
		serve(b, func(c *fasthttp.RequestCtx) {
			c.Request.URI().QueryArgs().Set("access_token", benchToken)
			if err := hc.Do(&c.Request, &c.Response); err != nil {
				c.Error(err.Error(), 502)
			}
		})
	})
	b.Run("wxproxy", func(b *testing.B) {
		p, err := New(Config{Component: comp, Upstream: "http://wechat", Tokens: atHand(), Callers: []Caller{{Name: "bench", KeySHA256: sha256.Sum256([]byte("bench-key")), AppIDs: []string{"*"}, Paths: []string{"*"}, Methods: []string{"*"}}}})
		if err != nil {
			b.Fatal(err)
		}
		p.settings.Load().upstream.pool.DialTimeout = dial
		serve(b, p.handle)
	})
}
