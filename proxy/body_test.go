package proxy_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/proxy"
)

// startTLS runs a proxy that speaks TLS, and returns its address and CA.
func startTLS(t *testing.T, c proxy.Config) (addr string, roots *x509.CertPool) {
	t.Helper()
	ca := newAuthority(t)
	c.Hosts = []string{"x"}
	p, err := proxy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return serveTLS(t, p, &tls.Config{Certificates: []tls.Certificate{ca.server()}}), ca.pool()
}

// TestTruncatedBodiesAreRejected checks that WeChat receives nothing of a
// request whose body ends too early, with and without TLS.
func TestTruncatedBodiesAreRejected(t *testing.T) {
	var hits atomic.Int32
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, `{"n":%d}`, n)
	})
	_, plain := start(t, up, nil)
	secure, roots := startTLS(t, proxy.Config{Upstream: up, Tokens: &fakeTokens{current: "T0"}})
	dial := map[string]func() (net.Conn, error){
		"plain": func() (net.Conn, error) { return net.Dial("tcp", plain) },
		"TLS":   func() (net.Conn, error) { return tls.Dial("tcp", secure, &tls.Config{RootCAs: roots}) },
	}
	head := "POST /" + account + "/cgi-bin/a HTTP/1.1\r\nHost: x\r\n"
	large := strings.Repeat("a", 100_000)
	for way, dial := range dial {
		exchange := func(raw string) (int, string) {
			conn, err := dial()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(testTimeout))
			io.WriteString(conn, raw)
			conn.(interface{ CloseWrite() error }).CloseWrite()
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("%s, %.120q: %v", way, raw, err)
			}
			b, _ := io.ReadAll(resp.Body)
			return resp.StatusCode, string(b)
		}
		const chunked = "Transfer-Encoding: chunked\r\n\r\n"
		for _, body := range []string{
			"Content-Length: 5\r\n\r\nhell", "Content-Length: 200000\r\n\r\n" + large,
			"Content-Length: 8192\r\n\r\n" + large[:8191],
			chunked, chunked + "2", chunked + "2\r\nh", chunked + "2\r\nhi", chunked + "2\r\nhi\r\n",
			chunked + "2\r\nhi\r\n0", chunked + "2\r\nhi\r\n0\r\n", chunked + "2\r\nhi\r\n0\r\nX-A: b\r\n",
			chunked + "186a0\r\n" + large + "\r\n",
		} {
			if status, answer := exchange(head + body); status != http.StatusBadRequest {
				t.Errorf("%s, %.120q: got %d %s, want 400", way, body, status, answer)
			}
		}
		if n := hits.Swap(0); n != 0 {
			t.Errorf("%s: got %d requests at WeChat, want 0", way, n)
		}
		for body, n := range map[string]int{
			"\r\n": 0, "Content-Length: 0\r\n\r\n": 0, "Content-Length: 5\r\n\r\nhello": 5,
			"Content-Length: 8193\r\n\r\n" + large[:8193]: 8193, "Content-Length: 100000\r\n\r\n" + large: 100_000,
			chunked + "0\r\n\r\n": 0, chunked + "2\r\nhi\r\n0\r\nX-A: b\r\n\r\n": 2,
			chunked + "186a0\r\n" + large + "\r\n1\r\na\r\n0\r\n\r\n": 100_001,
		} {
			if status, answer := exchange(head + body); status != http.StatusOK || answer != fmt.Sprintf(`{"n":%d}`, n) {
				t.Errorf("%s, %.120q: got %d %s, want %d bytes forwarded", way, body, status, answer, n)
			}
		}
		hits.Store(0)
	}
}

// TestBodyBudget checks that large bodies together take a bounded amount of
// memory. A request over the bound is rejected, small ones pass, and all memory
// is released.
func TestBodyBudget(t *testing.T) {
	gate := make(chan struct{})
	var waiting atomic.Int32
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		if strings.Contains(r.URL.RawQuery, "hold") {
			waiting.Add(1)
			<-gate
		}
		fmt.Fprintf(w, `{"n":%d}`, n)
	})
	release := sync.OnceFunc(func() { close(gate) })
	t.Cleanup(release)
	p := newSharingProxy(t, up, func(c *proxy.Config) { c.Callers, c.MaxBody = nil, 390_000 })
	const budget = 1_600_000 // of which large bodies can have 1,400,000
	p.SetBodyBudget(budget)
	addr := serve(t, p)
	upload := func(query string, n int) (int, string) {
		path := "/" + account + "/cgi-bin/media/upload?" + query
		resp, body := send(t, addr, post(path, strings.Repeat("a", n)))
		return resp.StatusCode, body
	}
	var uploads sync.WaitGroup
	for range 3 {
		uploads.Go(func() {
			if status, body := upload("hold=1", 390_000); status != 200 || body != `{"n":390000}` {
				t.Errorf("upload in flight: got %d %s, want 200 and all bytes forwarded", status, body)
			}
		})
	}
	waitUntil(t, "three uploads are in flight", func() bool { return waiting.Load() == 3 })
	if n := p.BodyMemory(); n < 3*390_000 || n > budget {
		t.Errorf("got %d bytes of memory in use, want %d to %d", n, 3*390_000, budget)
	}
	for range 5 {
		status, body := upload("", 390_000)
		if status != 503 || !strings.Contains(body, "no memory left for request bodies") {
			t.Fatalf("fourth large upload: got %d %s, want 503", status, body)
		}
		if status, body := upload("", 60_000); status != 200 {
			t.Fatalf("small upload: got %d %s, want 200", status, body)
		}
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		// An upload whose client disconnects.
		fmt.Fprintf(c, "POST /%s/cgi-bin/media/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n%s",
			account, strings.Repeat("a", 150_000))
		c.Close()
	}
	release()
	uploads.Wait()
	waitUntil(t, "all memory is released", func() bool { return p.BodyMemory() == 0 })
	if status, body := upload("", 390_000); status != 200 {
		t.Errorf("large upload afterwards: got %d %s, want 200", status, body)
	}
}
