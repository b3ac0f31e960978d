//go:build !race

package proxy

// Under the race detector pools and buffers allocate: hence the build tag.

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"wxproxy/proxy/transport"
)

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

// both is the addresses of the barest proxy that fasthttp allows, which puts a fixed token in, and of wxproxy.
func both(b testing.TB) (bare, ours string) {
	upstream := serveFast(b, func(c *fasthttp.RequestCtx) {
		c.SetContentType("application/json; encoding=utf-8")
		c.SetBodyString(benchReply)
	})
	hc := &fasthttp.HostClient{Addr: upstream, NoDefaultUserAgentHeader: true}
	bare = serveFast(b, func(c *fasthttp.RequestCtx) {
		c.Request.URI().QueryArgs().Set("access_token", benchToken)
		if err := hc.Do(&c.Request, &c.Response); err != nil {
			c.Error(err.Error(), 502)
		}
	})
	p, err := New(Config{Component: comp, Upstream: "http://" + upstream, Tokens: atHand(), Callers: benchCallers})
	if err != nil {
		b.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go p.Serve(ln, nil)
	b.Cleanup(func() { p.Shutdown(context.Background()) })
	return bare, ln.Addr().String()
}

var benchCallers = []Caller{{Name: "bench", KeySHA256: sha256.Sum256([]byte("bench-key")), AppIDs: []string{"*"}, Paths: []string{"*"}, Methods: []string{"*"}}}

// benchCall is a function that makes one call.
func benchCall(b testing.TB, addr string) func() {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	body := `{"touser":"OPENID","msgtype":"text","text":{"content":"hello world"}}`
	req := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: proxy\r\nX-Wxproxy-Key: bench-key\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", benchURI, len(body), body)
	br := bufio.NewReader(conn)
	var resp fasthttp.Response
	return func() {
		if _, err := conn.Write(req); err != nil {
			b.Fatal(err)
		}
		if err := resp.Read(br); err != nil || string(resp.Body()) != benchReply {
			b.Fatal(err, resp.String())
		}
	}
}

// BenchmarkHandler is one call over one connection. Compare the two of one run.
func BenchmarkHandler(b *testing.B) {
	bare, ours := both(b)
	for name, addr := range map[string]string{"bare": bare, "wxproxy": ours} {
		b.Run(name, func(b *testing.B) {
			call := benchCall(b, addr)
			b.ReportAllocs()
			for b.Loop() {
				call()
			}
		})
	}
}

// A whole call, with everything from the caller's socket to WeChat's and back, allocates no more than it does with the barest
// proxy. Two more would be allowed.
func TestWholeCallAlloc(t *testing.T) {
	bare, ours := both(t)
	least := func(addr string) float64 { // of some: what else goes on in this process only adds
		call, least := benchCall(t, addr), 1e9
		for range 200 {
			call() // what is used again is made
		}
		for range 5 {
			least = min(least, testing.AllocsPerRun(500, call))
		}
		return least
	}
	if b, o := least(bare), least(ours); o > b+2 {
		t.Errorf("%v allocations, %v more than with the barest proxy", o, o-b)
	} else {
		t.Logf("%v allocations; with the barest proxy %v", o, b)
	}
}

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

// kernelless is what a call is without the kernel: from the bytes of the request to the answer that is ready to be written, with the
// barest proxy and with wxproxy.
func kernelless(b testing.TB) (bare, ours func()) {
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nServer: nginx\r\nConnection: keep-alive\r\nContent-Type: application/json; encoding=utf-8\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT\r\nContent-Length: %d\r\n\r\n%s", len(benchReply), benchReply)
	dial := func(string, time.Duration) (net.Conn, error) {
		return &canned{answer: answer}, nil
	}
	body := `{"touser":"OPENID","msgtype":"text","text":{"content":"hello world"}}`
	request := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: proxy\r\nUser-Agent: bench\r\nAccept: */*\r\nX-Wxproxy-Key: bench-key\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", benchURI, len(body), body)
	call := func(h fasthttp.RequestHandler) func() {
		cx := new(fasthttp.RequestCtx)
		cx.Init2(&canned{}, nil, false)
		cx.Request.Header.DisableNormalizing()
		cx.Response.Header.DisableNormalizing()
		src := bytes.NewReader(nil)
		br := bufio.NewReader(src)
		return func() {
			src.Reset(request)
			br.Reset(src)
			if err := cx.Request.Read(br); err != nil {
				b.Fatal(err)
			}
			h(cx)
			if cx.Response.StatusCode() != 200 {
				b.Fatal(cx.Response.String())
			}
			cx.Request.Reset()
			cx.Response.Reset()
		}
	}
	hc := &fasthttp.HostClient{Addr: "wechat:80", DialTimeout: dial, NoDefaultUserAgentHeader: true}
	bare = call(func(c *fasthttp.RequestCtx) {
		c.Request.URI().QueryArgs().Set("access_token", benchToken)
		if err := hc.Do(&c.Request, &c.Response); err != nil {
			c.Error(err.Error(), 502)
		}
	})
	p, err := New(Config{Component: comp, Upstream: "http://wechat", Tokens: atHand(), Callers: benchCallers})
	if err != nil {
		b.Fatal(err)
	}
	s := p.settings.Load()
	if s.upstream, err = transport.NewUpstream(transport.UpstreamConfig{URL: "http://wechat", ReadAhead: &p.readAhead, Dial: dial}); err != nil {
		b.Fatal(err)
	}
	return bare, call(p.handle)
}

// BenchmarkOwn is the instructions of a call, without the kernel's.
func BenchmarkOwn(b *testing.B) {
	bare, ours := kernelless(b)
	for name, call := range map[string]func(){"bare": bare, "wxproxy": ours} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				call()
			}
		})
	}
}

// Nothing of ours allocates: not finding out who calls, for whom and what with, nor the request, nor what is looked for in the
// answer.
func TestOwnAlloc(t *testing.T) {
	_, ours := kernelless(t)
	ours()
	if n := testing.AllocsPerRun(500, ours); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
