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

// patient is how long a test of slow clients takes, more or less; everything else has until long.
const (
	patient = 2 * time.Second
	long    = 30 * time.Second
)

// dripping opens a connection, sends first at once and then b now and then (0: nothing more), until the other side ends
// it. It gives what came back.
func dripping(t *testing.T, addr, first string, b byte) (back string, ended bool) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return "", false
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(long))
	io.WriteString(conn, first)
	over := make(chan struct{})
	var dripper sync.WaitGroup
	if b != 0 {
		dripper.Go(func() {
			tick := time.NewTicker(patient / 20)
			defer tick.Stop()
			for {
				select {
				case <-over:
					return
				case <-tick.C:
					conn.Write([]byte{b})
				}
			}
		})
	}
	all, err := io.ReadAll(conn)
	close(over)
	dripper.Wait()
	if n, ok := err.(net.Error); ok && n.Timeout() {
		t.Errorf("%.40q: still open", first)
		return "", false
	}
	return string(all), true
}

// Clients that send a byte now and then, or nothing, are cut off however busy they look, and nobody waits for them.
func TestSlowCallers(t *testing.T) {
	t.Parallel()
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{}`) })
	_, addr := start(t, up, func(c *proxy.Config) { c.IdleTimeout = patient })
	path := "/" + account + "/cgi-bin/a"
	var wg sync.WaitGroup
	var ended, told atomic.Int32
	slow := func(first string, b byte) {
		wg.Go(func() {
			back, over := dripping(t, addr, first, b)
			if over {
				ended.Add(1)
			}
			if strings.HasPrefix(back, "HTTP/1.1 408 ") {
				told.Add(1)
			}
		})
	}
	const each = 60
	for range each {
		slow("GET "+path+" HTTP/1.1\r\nHost: x\r\nX-Slow: ", 'a')
		slow("GET "+path, 'a')
		slow("POST "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", 'a')
		slow("POST "+path+" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n", 'a')
		slow("GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\nGET "+path, 'a') // slow from the second on
		slow("", 0)
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for calls := 0; ; calls++ {
		if resp, body := send(t, addr, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); resp.StatusCode != http.StatusOK {
			t.Fatalf("another caller: %s %s", resp.Status, body)
		}
		select {
		case <-done:
			t.Logf("%d calls of another caller meanwhile", calls)
			if n := ended.Load(); n != 6*each {
				t.Errorf("%d of %d were ended", n, 6*each)
			}
			// Whoever is still there to read is told why.
			if n := told.Load(); n < each {
				t.Errorf("%d were told", n)
			}
			return
		default:
		}
	}
}

// Whoever does not get on with the handshake is cut off as well.
func TestSlowHandshakes(t *testing.T) {
	t.Parallel()
	addr, _ := startTLS(t, proxy.Config{Upstream: "http://127.0.0.1:1", Tokens: &fakeTokens{}, IdleTimeout: patient})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { dripping(t, addr, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 'a') })
		wg.Go(func() { dripping(t, addr, "", 0) })
	}
	wg.Wait()
}

// Clients that ask for much and read nothing are cut off, and WeChat's connections with them.
func TestSlowReaders(t *testing.T) {
	t.Parallel()
	const readers = 20
	gone := make(chan error, readers)
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/cgi-bin/media/get" {
			io.WriteString(w, `{}`)
			return
		}
		_, err := io.CopyN(w, endless{}, 256<<20) // more than all buffers on the way can hold
		gone <- err
	})
	_, addr := start(t, up, func(c *proxy.Config) { c.IdleTimeout, c.Timeout = patient, patient })
	for range readers {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "GET /"+account+"/cgi-bin/media/get HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	limit := time.After(long)
	for range readers {
		send(t, addr, "GET /"+account+"/cgi-bin/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		select {
		case err := <-gone:
			if err == nil {
				t.Error("the whole answer went somewhere")
			}
		case <-limit:
			t.Fatal("WeChat still sends to somebody who does not read")
		}
	}
}

// While a caller takes his time over a large answer, WeChat's connection and the call's place serve others. He gets all of it.
func TestSlowDownloads(t *testing.T) {
	t.Parallel()
	picture := make([]byte, 10<<20)
	rand.NewChaCha8([32]byte{}).Read(picture)
	connections := make(chan string, 100)
	for name, serve := range map[string]func(http.ResponseWriter){
		"of known length": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", strconv.Itoa(len(picture)))
			w.Write(picture)
		},
		"in chunks": func(w http.ResponseWriter) { io.Copy(w, bytes.NewReader(picture)) },
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
			conn.SetDeadline(time.Now().Add(long))
			io.WriteString(conn, "GET /"+account+"/cgi-bin/media/get HTTP/1.1\r\nHost: x\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil)
			if err != nil {
				t.Fatal(name, err)
			}
			slow = append(slow, resp)
			// He has read nothing but the header, and yet all is as if he were gone.
			waitUntil(t, "TODO", func() bool { return p.InFlight() == 0 })
		}
		first := <-connections
		for range len(slow) - 1 {
			if next := <-connections; next != first {
				t.Errorf("%s: another connection was opened", name)
			}
		}
		for _, resp := range slow {
			if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, picture) {
				t.Errorf("%s: %d of %d bytes arrived as they were sent: %v", name, len(got), len(picture), err)
			}
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// Calls that come at once on one connection are answered in their order, whatever becomes of each.
func TestPipelined(t *testing.T) {
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
	conn.SetDeadline(time.Now().Add(long))
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
			fmt.Fprintf(&raw, "POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n", path)
		case 3: // refused here
			fmt.Fprintf(&raw, "GET /%s/cgi-bin/../a?n=%d HTTP/1.1\r\nHost: x\r\n\r\n", account, n)
		}
	}
	go io.WriteString(conn, raw.String())
	br := bufio.NewReader(conn)
	for n := range calls {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", n, err)
		}
		b, _ := io.ReadAll(resp.Body)
		want := fmt.Sprintf(`{"n":"%d","body":"%s"}`, n, []string{"", "GET", "GET", ""}[n%4])
		if n%4 == 3 {
			want = `{"errcode":-400,`
		}
		if !strings.HasPrefix(string(b), want) {
			t.Fatalf("answer %d: %s, want %s", n, b, want)
		}
	}
}

// A header of a megabyte is refused where it exceeds the limit, and the rest of it is not kept.
func TestLargeHeaders(t *testing.T) {
	var hits atomic.Int32
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) { hits.Add(1); io.WriteString(w, `{}`) })
	_, addr := start(t, up, nil)
	path := "/" + account + "/cgi-bin/a"
	const much = 1 << 20
	for name, raw := range map[string]string{
		"one value": "GET " + path + " HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", much) + "\r\n\r\n",
		"one name":  "GET " + path + " HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("a", much) + ": b\r\n\r\n",
		"many":      "GET " + path + " HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-A: b\r\n", much/8) + "\r\n",
		"folded":    "GET " + path + " HTTP/1.1\r\nHost: x\r\nX-A: b\r\n" + strings.Repeat(" b\r\n", much/4) + "\r\n",
		"a path":    "GET " + path + strings.Repeat("/a", much/2) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"a query":   "GET " + path + "?" + strings.Repeat("a=b&", much/4) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"a method":  strings.Repeat("A", much) + " " + path + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"no end":    "GET " + path + " HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", much),
		"a key":     "GET " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + strings.Repeat("a", much) + "\r\n\r\n",
		"a trailer": "POST " + path + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: " + strings.Repeat("a", much) + "\r\n\r\n",
	} {
		resp, body := send(t, addr, raw)
		if resp.StatusCode < 400 || resp.StatusCode >= 500 || !strings.HasPrefix(body, `{"errcode":-4`) || !resp.Close {
			t.Errorf("%s: %s %.200s, closed: %v", name, resp.Status, body, resp.Close)
		}
	}
	if n := hits.Load(); n != 0 {
		t.Errorf("%d of them reached WeChat", n)
	}
}
