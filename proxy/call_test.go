//go:build !race

// With the race detector pools and buffers allocate.

package proxy

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

// serveFast runs a server of fasthttp, and returns its address.
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

// startBoth runs a minimal proxy, which injects a fixed token with fasthttp
// alone, and wxproxy. It returns their addresses.
func startBoth(b testing.TB) (minimal, wxproxy string) {
	upstream := serveFast(b, func(c *fasthttp.RequestCtx) {
		c.SetContentType("application/json; encoding=utf-8")
		c.SetBodyString(benchReply)
	})
	hc := &fasthttp.HostClient{Addr: upstream, NoDefaultUserAgentHeader: true}
	minimal = serveFast(b, func(c *fasthttp.RequestCtx) {
		c.Request.URI().QueryArgs().Set("access_token", benchToken)
		if err := hc.Do(&c.Request, &c.Response); err != nil {
			c.Error(err.Error(), 502)
		}
	})
	p, err := New(Config{Component: comp, Upstream: "http://" + upstream, Tokens: benchTokens(), Callers: benchCallers})
	if err != nil {
		b.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go p.Serve(ln, nil)
	b.Cleanup(func() { p.Shutdown(context.Background()) })
	return minimal, ln.Addr().String()
}

var benchCallers = []Caller{{
	Name: "bench", KeySHA256: [][sha256.Size]byte{sha256.Sum256([]byte("bench-key"))},
	AppIDs: []string{"*"}, Paths: []string{"*"}, Methods: []string{"*"},
}}

// benchCall returns a function that sends one request over one connection.
func benchCall(b testing.TB, addr string) func() {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	body := `{"touser":"OPENID","msgtype":"text","text":{"content":"hello world"}}`
	req := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: proxy\r\nX-Wxproxy-Key: bench-key\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", benchURI, len(body), body)
	br := bufio.NewReader(conn)
	var resp fasthttp.Response
	return func() {
		if _, err := conn.Write(req); err != nil {
			b.Fatal(err)
		}
		if err := resp.Read(br); err != nil || string(resp.Body()) != benchReply {
			b.Fatalf("got %s, error %v, want %s", resp.String(), err, benchReply)
		}
	}
}

// BenchmarkHandler measures one request over one connection. Compare the two
// proxies within one run.
func BenchmarkHandler(b *testing.B) {
	minimal, wxproxy := startBoth(b)
	for name, addr := range map[string]string{"bare": minimal, "wxproxy": wxproxy} {
		b.Run(name, func(b *testing.B) {
			call := benchCall(b, addr)
			b.ReportAllocs()
			for b.Loop() {
				call()
			}
		})
	}
}

// TestWholeCallAlloc checks that a request, from the caller's socket to
// WeChat's and back, takes at most two allocations more than with the minimal
// proxy.
func TestWholeCallAlloc(t *testing.T) {
	minimal, wxproxy := startBoth(t)
	// The least of several runs counts: other goroutines only add allocations.
	measure := func(addr string) float64 {
		call, least := benchCall(t, addr), 1e9
		for range 200 {
			call() // fills the pools
		}
		for range 5 {
			least = min(least, testing.AllocsPerRun(500, call))
		}
		return least
	}
	m, w := measure(minimal), measure(wxproxy)
	if w > m+2 {
		t.Errorf("got %v allocations, want %v at most, 2 more than the minimal proxy", w, m+2)
	}
	t.Logf("%v allocations, %v with the minimal proxy", w, m)
}

// cannedConn is a connection in memory to a WeChat that answers each write with
// the same response.
type cannedConn struct {
	net.Conn
	response []byte
	pending  []byte
}

func (c *cannedConn) Write(b []byte) (int, error) { c.pending = c.response; return len(b), nil }

func (c *cannedConn) Read(b []byte) (int, error) {
	n := copy(b, c.pending)
	c.pending = c.pending[n:]
	return n, nil
}

// Idle lets transport use the connection again.
func (c *cannedConn) Idle() bool { return len(c.pending) == 0 }

func (c *cannedConn) SetDeadline(time.Time) error      { return nil }
func (c *cannedConn) SetReadDeadline(time.Time) error  { return nil }
func (c *cannedConn) SetWriteDeadline(time.Time) error { return nil }
func (c *cannedConn) Close() error                     { return nil }
func (c *cannedConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *cannedConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }

// callsInMemory returns functions that serve one request without the kernel,
// from the bytes of the request to the response that is ready to be written:
// with the minimal proxy and with wxproxy.
func callsInMemory(b testing.TB) (minimal, wxproxy func()) {
	response := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nServer: nginx\r\nConnection: keep-alive\r\n"+
		"Content-Type: application/json; encoding=utf-8\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT\r\n"+
		"Content-Length: %d\r\n\r\n%s", len(benchReply), benchReply)
	dial := func(string, time.Duration) (net.Conn, error) {
		return &cannedConn{response: response}, nil
	}
	body := `{"touser":"OPENID","msgtype":"text","text":{"content":"hello world"}}`
	request := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: proxy\r\nUser-Agent: bench\r\nAccept: */*\r\n"+
		"X-Wxproxy-Key: bench-key\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		benchURI, len(body), body)
	call := func(h fasthttp.RequestHandler) func() {
		cx := new(fasthttp.RequestCtx)
		cx.Init2(&cannedConn{}, nil, false)
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
	minimal = call(func(c *fasthttp.RequestCtx) {
		c.Request.URI().QueryArgs().Set("access_token", benchToken)
		if err := hc.Do(&c.Request, &c.Response); err != nil {
			c.Error(err.Error(), 502)
		}
	})
	p, err := New(Config{Component: comp, Upstream: "http://wechat", Tokens: benchTokens(), Callers: benchCallers})
	if err != nil {
		b.Fatal(err)
	}
	s := p.settings.Load()
	upstream := transport.UpstreamConfig{URL: "http://wechat", ReadAhead: &p.readAhead, Dial: dial}
	if s.upstream, err = transport.NewUpstream(upstream); err != nil {
		b.Fatal(err)
	}
	return minimal, call(p.handle)
}

// BenchmarkOwn measures one request without the kernel.
func BenchmarkOwn(b *testing.B) {
	minimal, wxproxy := callsInMemory(b)
	for name, call := range map[string]func(){"bare": minimal, "wxproxy": wxproxy} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				call()
			}
		})
	}
}

// TestOwnAlloc checks that wxproxy's own code allocates nothing for a request
// whose token is cached: neither the decision, nor the request to WeChat, nor
// the inspection of the response.
func TestOwnAlloc(t *testing.T) {
	_, wxproxy := callsInMemory(t)
	wxproxy()
	if n := testing.AllocsPerRun(500, wxproxy); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}
