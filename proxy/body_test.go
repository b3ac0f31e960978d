package proxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/proxy"
)

// secured runs a proxy that speaks TLS, and gives its address and who vouches for it.
func secured(t *testing.T, c proxy.Config) (addr string, roots *x509.CertPool) {
	t.Helper()
	ours := newAuthority(t)
	server := ours.sign(&x509.Certificate{SerialNumber: big.NewInt(3), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	p, err := proxy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go p.Serve(ln, &tls.Config{Certificates: []tls.Certificate{server}})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		p.Shutdown(ctx)
	})
	return ln.Addr().String(), ours.pool()
}

// A body that ends too early is no body: WeChat gets nothing of it, with TLS or without.
func TestBodiesCutShort(t *testing.T) {
	var hits atomic.Int32
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, `{"n":%d}`, n)
	})
	_, plain := start(t, up, nil)
	safe, roots := secured(t, proxy.Config{Upstream: up, Tokens: &fakeTokens{current: "T0"}})
	dial := map[string]func() (net.Conn, error){
		"plain": func() (net.Conn, error) { return net.Dial("tcp", plain) },
		"TLS":   func() (net.Conn, error) { return tls.Dial("tcp", safe, &tls.Config{RootCAs: roots}) },
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
			conn.SetDeadline(time.Now().Add(long))
			io.WriteString(conn, raw)
			conn.(interface{ CloseWrite() error }).CloseWrite()
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("%s, %.120q: %v", way, raw, err)
			}
			b, _ := io.ReadAll(resp.Body)
			return resp.StatusCode, string(b)
		}
		for _, body := range []string{"Content-Length: 5\r\n\r\nhell", "Content-Length: 200000\r\n\r\n" + large, "Content-Length: 8192\r\n\r\n" + large[:8191],
			"Transfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n2", "Transfer-Encoding: chunked\r\n\r\n2\r\nh", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
			"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-A: b\r\n", "Transfer-Encoding: chunked\r\n\r\n186a0\r\n" + large + "\r\n"} {
			if status, answer := exchange(head + body); status != http.StatusBadRequest {
				t.Errorf("%s, %.120q: %d %s", way, body, status, answer)
			}
		}
		if n := hits.Swap(0); n != 0 {
			t.Errorf("%s: %d of them reached WeChat", way, n)
		}
		for body, n := range map[string]int{"Content-Length: 5\r\n\r\nhello": 5, "Content-Length: 100000\r\n\r\n" + large: 100_000, "Content-Length: 0\r\n\r\n": 0, "Content-Length: 8193\r\n\r\n" + large[:8193]: 8193, "\r\n": 0,
			"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n": 0, "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-A: b\r\n\r\n": 2, "Transfer-Encoding: chunked\r\n\r\n186a0\r\n" + large + "\r\n1\r\na\r\n0\r\n\r\n": 100_001} {
			if status, answer := exchange(head + body); status != http.StatusOK || answer != fmt.Sprintf(`{"n":%d}`, n) {
				t.Errorf("%s, %.120q: %d %s, want %d bytes", way, body, status, answer, n)
			}
		}
		hits.Store(0)
	}
}

// The large bodies of all calls have one bound: what is more is told to come again, small ones pass, and all is given back, whatever
// became of the call.
func TestBodiesTogether(t *testing.T) {
	gate := make(chan struct{})
	var under atomic.Int32
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		if strings.Contains(r.URL.RawQuery, "hold") {
			under.Add(1)
			<-gate
		}
		fmt.Fprintf(w, `{"n":%d}`, n)
	})
	release := sync.OnceFunc(func() { close(gate) })
	t.Cleanup(release)
	p, err := proxy.New(proxy.Config{Upstream: up, Tokens: &fakeTokens{current: "T0"}, MaxBody: 400_000})
	if err != nil {
		t.Fatal(err)
	}
	p.SetBodyBudget(1_000_000)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go p.Serve(ln, nil)
	t.Cleanup(func() { ln.Close() })
	addr := ln.Addr().String()
	upload := func(query string, n int) (int, string) {
		resp, body := send(t, addr, fmt.Sprintf("POST /%s/cgi-bin/media/upload?%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", account, query, n, strings.Repeat("a", n)))
		return resp.StatusCode, body
	}
	var held sync.WaitGroup
	for range 2 {
		held.Go(func() {
			if status, body := upload("hold=1", 390_000); status != 200 || body != `{"n":390000}` {
				t.Errorf("%d %s", status, body)
			}
		})
	}
	waitUntil(t, "TODO", func() bool { return under.Load() == 2 })
	if n := p.BodyMemory(); n < 780_000 || n > 1_000_000 {
		t.Errorf("%d bytes are held", n)
	}
	for range 5 {
		if status, body := upload("", 390_000); status != 503 || !strings.Contains(body, "no memory left for request bodies") {
			t.Fatalf("the third: %d %s", status, body)
		}
		if status, body := upload("", 60_000); status != 200 {
			t.Fatalf("a small one: %d %s", status, body)
		}
		c, err := net.Dial("tcp", addr) // one that breaks off
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "POST /%s/cgi-bin/media/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n%s", account, strings.Repeat("a", 150_000))
		c.Close()
	}
	release()
	held.Wait()
	waitUntil(t, "TODO", func() bool { return p.BodyMemory() == 0 })
	if status, body := upload("", 390_000); status != 200 {
		t.Errorf("with room: %d %s", status, body)
	}
}
