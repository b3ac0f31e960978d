package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/proxy"
)

// crowded is a proxy with little room, before a WeChat that answers the account slow when it is told to, and all others
// at once.
func startLimited(t *testing.T, underWay, callers int) (p *proxy.Proxy, address string, release func()) {
	t.Helper()
	gate := make(chan struct{})
	release = sync.OnceFunc(func() { close(gate) })
	upstream := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.RawQuery, "slow") {
			<-gate
		}
		if strings.Contains(r.URL.RawQuery, "brief") {
			time.Sleep(5 * time.Millisecond)
		}
		if strings.Contains(r.URL.RawQuery, "large") {
			w.Write(make([]byte, 1<<20))
			return
		}
		io.WriteString(w, `{"errcode":0}`)
	})
	t.Cleanup(release) // before the server ends, which waits for its calls
	p, err := proxy.New(proxy.Config{Component: component, Upstream: upstream, Tokens: &fakeTokens{current: "T0"}})
	if err != nil {
		t.Fatal(err)
	}
	p.SetLimits(underWay, callers)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go p.Serve(ln, nil)
	t.Cleanup(func() { ln.Close() })
	return p, ln.Addr().String(), release
}

func accountNo(i int) string { return fmt.Sprintf("wx%016d", i) }

// strangers is n accounts each of which has a share of its own.
func accountsWithOwnLimit(p *proxy.Proxy, n int) (accounts []string) {
	seen := map[any]bool{}
	for i := 0; len(accounts) < n; i++ {
		if share := p.LimitSlot(accountNo(i)); !seen[share] {
			seen[share] = true
			accounts = append(accounts, accountNo(i))
		}
	}
	return accounts
}

// An account that WeChat is slow for does not take all the room: the others are served as ever, and all of it comes back.
func TestSlowAccount(t *testing.T) {
	p, address, release := startLimited(t, 64, 1000)
	accounts := accountsWithOwnLimit(p, 26)
	type result struct {
		status        int
		body, retryAt string
	}
	results := make(chan result, 100)
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			resp, body := send(t, address, "GET /"+accounts[0]+"/cgi-bin/user/info?slow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
			results <- result{resp.StatusCode, body, resp.Header.Get("Retry-After")}
		})
	}
	// A half of the room may be one account's, while nobody else wants it.
	refused := 0
	for range 100 - 32 {
		select {
		case r := <-results:
			refused++
			if r.status != 503 || !strings.Contains(r.body, "concurrency limit of this account") || r.retryAt != "1" {
				t.Fatalf("%+v", r)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%d calls were refused, %d are under way", refused, p.InFlight())
		}
	}
	if n := p.InFlight(); n != 32 {
		t.Errorf("%d calls of one account are under way", n)
	}
	// The others, each of whom is slow at up to an eighth of it, until there is no room at all.
	for i := range 20 {
		resp, body := send(t, address, "GET /"+accounts[1+i]+"/cgi-bin/user/info HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp.StatusCode != 200 {
			t.Fatalf("another account: %d %s", resp.StatusCode, body)
		}
	}
	for i := range 4 {
		for range 8 {
			all.Go(func() {
				resp, body := send(t, address, "GET /"+accounts[21+i]+"/cgi-bin/user/info?slow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
				if resp.StatusCode != 200 {
					t.Errorf("%d %s", resp.StatusCode, body)
				}
			})
		}
	}
	waitUntil(t, "TODO", func() bool { return p.InFlight() == 64 })
	if resp, body := send(t, address, "GET /"+accounts[25]+"/cgi-bin/user/info HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != 503 || !strings.Contains(body, "concurrency limit reached") || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("the 65th: %d %s", resp.StatusCode, body)
	}
	release()
	all.Wait()
	waitUntil(t, "TODO", func() bool { return p.InFlight() == 0 })
	for range 32 {
		if r := <-results; r.status != 200 {
			t.Errorf("%+v", r)
		}
	}
}

// A burst of many more calls than there are places is served, one after another, and nobody is refused.
func TestBurst(t *testing.T) {
	p, address, _ := startLimited(t, 8, 1000)
	for range 3 {
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				if resp, body := send(t, address, "GET /"+accountNo(i%20)+"/cgi-bin/user/info?brief=1 HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != 200 {
					t.Errorf("%d %s", resp.StatusCode, body)
				}
			})
		}
		all.Wait()
		waitUntil(t, "TODO", func() bool { return p.InFlight() == 0 })
	}
}

// A place is given back whatever becomes of the call: a stream that ends, one that the caller leaves, no connection.
func TestPlacesComeBack(t *testing.T) {
	p, address, _ := startLimited(t, 4, 1000)
	for i := range 20 {
		resp, body := send(t, address, "GET /"+accountNo(i)+"/cgi-bin/media/get?large=1 HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp.StatusCode != 200 || len(body) != 1<<20 {
			t.Fatalf("%d, %d bytes", resp.StatusCode, len(body))
		}
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET /%s/cgi-bin/media/get?large=1 HTTP/1.1\r\nHost: x\r\n\r\n", accountNo(i))
		c.Read(make([]byte, 10))
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
		waitUntil(t, "TODO", func() bool { return p.InFlight() == 0 })
	}
}

// One connection too many is told so, and is welcome when another has gone.
func TestTooManyConnections(t *testing.T) {
	_, address, _ := startLimited(t, 16, 8)
	var conns []net.Conn
	for range 8 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET /%s/cgi-bin/user/info HTTP/1.1\r\nHost: x\r\n\r\n", accountNo(1))
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 200 {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	for range 50 {
		resp, body := send(t, address, "GET /"+accountNo(1)+"/cgi-bin/user/info HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp.StatusCode != 503 || !strings.Contains(body, `"errcode":-503`) || !strings.Contains(body, "connection limit reached") || resp.Header.Get("Retry-After") != "1" || !resp.Close {
			t.Fatalf("the ninth: %d %s", resp.StatusCode, body)
		}
	}
	// A flood of them is not all answered: each answer takes a file for a moment, and there are few.
	answered := 0
	for range 300 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if b, _ := io.ReadAll(c); len(b) > 0 {
			answered++
		}
	}
	if answered > 200 {
		t.Errorf("%d of 300 were answered", answered)
	}
	conns[0].Close()
	waitUntil(t, "TODO", func() bool { // the end of the flood may still be closed without a word
		resp, err := http.Get("http://" + address + "/" + accountNo(1) + "/cgi-bin/user/info")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == 200
	})
}
