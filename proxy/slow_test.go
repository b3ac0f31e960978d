package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/proxy"
)

// shortIdleTimeout is the idle timeout in tests of slow clients.
const shortIdleTimeout = 2 * time.Second

// sendSlowly opens a connection, sends first at once and then b at intervals (0
// sends nothing more), until the other side closes it. It returns what was
// received, and whether the connection was closed.
func sendSlowly(t *testing.T, addr, first string, b byte) (received string, closed bool) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return "", false
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testTimeout))
	io.WriteString(conn, first)
	stop := make(chan struct{})
	var sender sync.WaitGroup
	if b != 0 {
		sender.Go(func() {
			tick := time.NewTicker(shortIdleTimeout / 20)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
					conn.Write([]byte{b})
				}
			}
		})
	}
	all, err := io.ReadAll(conn)
	close(stop)
	sender.Wait()
	if n, ok := err.(net.Error); ok && n.Timeout() {
		t.Errorf("%.40q: got an open connection, want it closed", first)
		return "", false
	}
	return string(all), true
}

// TestSlowClientsAreDisconnected checks that clients which send a byte now and
// then, or nothing, are disconnected, and that other clients are served
// meanwhile.
func TestSlowClientsAreDisconnected(t *testing.T) {
	t.Parallel()
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{}`) })
	_, addr := start(t, up, func(c *proxy.Config) { c.IdleTimeout = shortIdleTimeout })
	path := "/" + account + "/cgi-bin/a"
	var clients sync.WaitGroup
	var closed, notified atomic.Int32
	slow := func(first string, b byte) {
		clients.Go(func() {
			received, ok := sendSlowly(t, addr, first, b)
			if ok {
				closed.Add(1)
			}
			if strings.HasPrefix(received, "HTTP/1.1 408 ") {
				notified.Add(1)
			}
		})
	}
	const each = 60
	for range each {
		slow("GET "+path+" HTTP/1.1\r\nHost: x\r\nX-Slow: ", 'a')
		slow("GET "+path, 'a')
		slow("POST "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", 'a')
		slow("POST "+path+" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n", 'a')
		slow("GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\nGET "+path, 'a') // slow from the second request on
		slow("", 0)
	}
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	for served := 0; ; served++ {
		resp, body := send(t, addr, get(path, "Connection: close"))
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("another client: got %s %s, want 200", resp.Status, body)
		}
		select {
		case <-done:
			t.Logf("%d requests of another client were served meanwhile", served)
			if n := closed.Load(); n != 6*each {
				t.Errorf("got %d connections closed, want %d", n, 6*each)
			}
			// Clients that still read receive the reason.
			if n := notified.Load(); n < each {
				t.Errorf("got %d responses with status 408, want %d at least", n, each)
			}
			return
		default:
		}
	}
}

// TestSlowHandshakesAreDisconnected checks that clients which do not finish
// their TLS handshake are disconnected.
func TestSlowHandshakesAreDisconnected(t *testing.T) {
	t.Parallel()
	addr, _ := startTLS(t, proxy.Config{
		Upstream: "http://127.0.0.1:1", Tokens: &fakeTokens{}, IdleTimeout: shortIdleTimeout,
	})
	var clients sync.WaitGroup
	for range 20 {
		clients.Go(func() { sendSlowly(t, addr, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 'a') })
		clients.Go(func() { sendSlowly(t, addr, "", 0) })
	}
	clients.Wait()
}

// TestStalledReadersAreDisconnected checks that clients which request a large
// response and read nothing are disconnected, and WeChat's connections with
// them.
func TestStalledReadersAreDisconnected(t *testing.T) {
	t.Parallel()
	const readers = 20
	writes := make(chan error, readers)
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/cgi-bin/media/get" {
			io.WriteString(w, `{}`)
			return
		}
		_, err := io.CopyN(w, zeroReader{}, 256<<20) // more than all buffers can hold
		writes <- err
	})
	_, addr := start(t, up, func(c *proxy.Config) {
		c.IdleTimeout, c.Timeout = shortIdleTimeout, shortIdleTimeout
	})
	for range readers {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "GET /"+account+"/cgi-bin/media/get HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	limit := time.After(testTimeout)
	for range readers {
		send(t, addr, "GET /"+account+"/cgi-bin/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		select {
		case err := <-writes:
			if err == nil {
				t.Error("got the whole response written, want an error")
			}
		case <-limit:
			t.Fatal("got WeChat's connection still open, want it closed")
		}
	}
}

// TestSlowDownloadReleasesUpstream checks that a caller which reads a large
// response slowly blocks neither WeChat's connection nor a slot, and receives
// all of it.
func TestSlowDownloadReleasesUpstream(t *testing.T) {
	t.Parallel()
	picture := make([]byte, 10<<20)
	rand.NewChaCha8([32]byte{}).Read(picture)
	connections := make(chan string, 100)
	for name, serve := range map[string]func(http.ResponseWriter){
		"Content-Length": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", strconv.Itoa(len(picture)))
			w.Write(picture)
		},
		"chunked": func(w http.ResponseWriter) { io.Copy(w, bytes.NewReader(picture)) },
	} {
		up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
			connections <- r.RemoteAddr
			serve(w)
		})
		p, addr := start(t, up, nil)
		var slow []*http.Response
		for range 3 {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(testTimeout))
			io.WriteString(conn, "GET /"+account+"/cgi-bin/media/get HTTP/1.1\r\nHost: x\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			slow = append(slow, resp)
			// The caller has read nothing but the header.
			waitUntil(t, "the slot is released", func() bool { return p.InFlight() == 0 })
		}
		first := <-connections
		for range len(slow) - 1 {
			if next := <-connections; next != first {
				t.Errorf("%s: got connections from %s and %s, want one", name, first, next)
			}
		}
		for _, resp := range slow {
			if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, picture) {
				t.Errorf("%s: got %d bytes, error %v, want the %d bytes sent",
					name, len(got), err, len(picture))
			}
		}
	}
}

// zeroReader reads zeros without end.
type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { return len(p), nil }

// TestPipelinedRequests checks that requests sent at once on one connection are
// answered in order, also if some are rejected.
func TestPipelinedRequests(t *testing.T) {
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, `{"n":%q,"body":%q}`, r.URL.Query().Get("n"), b)
	})
	_, addr := start(t, up, nil)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testTimeout))
	const calls = 300
	var raw strings.Builder
	for n := range calls {
		path := fmt.Sprintf("/%s/cgi-bin/a?n=%d", account, n)
		switch n % 4 {
		case 0:
			fmt.Fprintf(&raw, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		case 1:
			fmt.Fprintf(&raw, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nGET", path)
		case 2:
			fmt.Fprintf(&raw, "POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"+
				"\r\n3\r\nGET\r\n0\r\n\r\n", path)
		case 3: // rejected by wxproxy
			fmt.Fprintf(&raw, "GET /%s/cgi-bin/../a?n=%d HTTP/1.1\r\nHost: x\r\n\r\n", account, n)
		}
	}
	go io.WriteString(conn, raw.String())
	br := bufio.NewReader(conn)
	for n := range calls {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("response %d: %v", n, err)
		}
		b, _ := io.ReadAll(resp.Body)
		want := fmt.Sprintf(`{"n":"%d","body":"%s"}`, n, []string{"", "GET", "GET", ""}[n%4])
		if n%4 == 3 {
			want = `{"errcode":-400,`
		}
		if !strings.HasPrefix(string(b), want) {
			t.Fatalf("response %d: got %s, want %s", n, b, want)
		}
	}
}

// TestLargeHeadsAreRejected checks that request lines and headers of a megabyte
// are rejected.
func TestLargeHeadsAreRejected(t *testing.T) {
	var hits atomic.Int32
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) { hits.Add(1); io.WriteString(w, `{}`) })
	_, addr := start(t, up, nil)
	path := "/" + account + "/cgi-bin/a"
	const size = 1 << 20
	for name, raw := range map[string]string{
		"one value": "GET " + path + " HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", size) + "\r\n\r\n",
		"one name":  "GET " + path + " HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("a", size) + ": b\r\n\r\n",
		"many":      "GET " + path + " HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-A: b\r\n", size/8) + "\r\n",
		"folded":    "GET " + path + " HTTP/1.1\r\nHost: x\r\nX-A: b\r\n" + strings.Repeat(" b\r\n", size/4) + "\r\n",
		"path":      "GET " + path + strings.Repeat("/a", size/2) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"query":     "GET " + path + "?" + strings.Repeat("a=b&", size/4) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"method":    strings.Repeat("A", size) + " " + path + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"no end":    "GET " + path + " HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", size),
		"key":       "GET " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + strings.Repeat("a", size) + "\r\n\r\n",
		"trailer":   "POST " + path + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: " + strings.Repeat("a", size) + "\r\n\r\n",
	} {
		resp, body := send(t, addr, raw)
		checkResponse(t, name, resp, body, resp.StatusCode, `{"errcode":-4`)
		if resp.StatusCode/100 != 4 || !resp.Close {
			t.Errorf("%s: got %s, closed %v, want 4xx and true", name, resp.Status, resp.Close)
		}
	}
	if n := hits.Load(); n != 0 {
		t.Errorf("got %d requests at WeChat, want 0", n)
	}
}
