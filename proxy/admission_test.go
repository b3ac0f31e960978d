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

// startLimited runs a proxy with low limits. Its WeChat answers a query with
// "slow" after release was called, one with "brief" after a few milliseconds,
// one with "large" with 1 MiB, and all others at once.
func startLimited(
	t *testing.T, maxInFlight, maxConns int, queueTimeout time.Duration,
) (p *proxy.Proxy, address string, release func()) {
	t.Helper()
	gate := make(chan struct{})
	release = sync.OnceFunc(func() { close(gate) })
	upstream := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch query := r.URL.RawQuery; {
		case strings.Contains(query, "slow"):
			<-gate
		case strings.Contains(query, "brief"):
			time.Sleep(5 * time.Millisecond)
		case strings.Contains(query, "large"):
			w.Write(make([]byte, 1<<20))
			return
		}
		io.WriteString(w, `{"errcode":0}`)
	})
	t.Cleanup(release) // before the server stops, which waits for its requests
	p, err := proxy.New(proxy.Config{
		Component: component, Upstream: upstream, Tokens: &fakeTokens{current: "T0"},
		Hosts: []string{"x"},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.SetLimits(maxInFlight, maxConns, queueTimeout)
	return p, serve(t, p), release
}

func accountNo(i int) string { return fmt.Sprintf("wx%016d", i) }

// accountsWithOwnLimit returns n accounts that do not share a limit.
func accountsWithOwnLimit(p *proxy.Proxy, n int) (accounts []string) {
	seen := map[any]bool{}
	for i := 0; len(accounts) < n; i++ {
		if slot := p.LimitSlot(accountNo(i)); !seen[slot] {
			seen[slot] = true
			accounts = append(accounts, accountNo(i))
		}
	}
	return accounts
}

// TestSlowAccountLeavesSlotsForOthers checks that an account for which WeChat
// is slow does not take all slots, and that all slots are free at the end.
func TestSlowAccountLeavesSlotsForOthers(t *testing.T) {
	p, address, release := startLimited(t, 64, 1000, proxy.QueueTimeout)
	accounts := accountsWithOwnLimit(p, 26)
	slow := func(account string) string { return get("/" + account + "/cgi-bin/user/info?slow=1") }
	quick := func(account string) string { return get("/" + account + "/cgi-bin/user/info") }
	type result struct {
		status           int
		body, retryAfter string
	}
	results := make(chan result, 100)
	var requests sync.WaitGroup
	for range 100 {
		requests.Go(func() {
			resp, body := send(t, address, slow(accounts[0]))
			results <- result{resp.StatusCode, body, resp.Header.Get("Retry-After")}
		})
	}
	// One account may use half of the slots while no other needs any.
	for i := range 100 - 32 {
		select {
		case r := <-results:
			if r.status != 503 || !strings.Contains(r.body, "concurrency limit of this account") || r.retryAfter != "1" {
				t.Fatalf("slow account: got %+v, want 503 and Retry-After 1", r)
			}
		case <-time.After(testTimeout):
			t.Fatalf("slow account: got %d rejections with %d in flight, want 68", i, p.InFlight())
		}
	}
	if n := p.InFlight(); n != 32 {
		t.Errorf("slow account: got %d requests in flight, want 32", n)
	}
	for i := range 20 {
		raw := quick(accounts[1+i])
		resp, body := send(t, address, raw)
		checkResponse(t, raw, resp, body, 200, "")
	}
	// Four others may use an eighth of the slots each. Then none is left.
	for i := range 4 {
		for range 8 {
			requests.Go(func() {
				raw := slow(accounts[21+i])
				resp, body := send(t, address, raw)
				checkResponse(t, raw, resp, body, 200, "")
			})
		}
	}
	waitUntil(t, "all slots are in use", func() bool { return p.InFlight() == 64 })
	raw := quick(accounts[25])
	resp, body := send(t, address, raw)
	checkResponse(t, raw, resp, body, 503, "concurrency limit reached")
	if got := resp.Header.Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After: got %q, want 1", got)
	}
	release()
	requests.Wait()
	waitUntil(t, "all slots are free", func() bool { return p.InFlight() == 0 })
	for range 32 {
		if r := <-results; r.status != 200 {
			t.Errorf("slow account, in flight: got %+v, want 200", r)
		}
	}
}

// TestQuietAccountIsServedWhileAnotherQueues has 64 slots, all in use: 32 by an
// account for which WeChat does not answer, of which 300 more requests wait, and
// 32 by others. A quiet account's request waits longer than those 300. It is
// answered as soon as the others are, while the slow account still is at its
// limit, and so are 100 more requests of quiet accounts.
func TestQuietAccountIsServedWhileAnotherQueues(t *testing.T) {
	slow, others := make(chan struct{}), make(chan struct{})
	upstream := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("wait") {
		case "slow":
			<-slow
		case "others":
			<-others
		}
		io.WriteString(w, `{"errcode":0}`)
	})
	releaseSlow := sync.OnceFunc(func() { close(slow) })
	releaseOthers := sync.OnceFunc(func() { close(others) })
	t.Cleanup(releaseSlow) // before the server stops, which waits for its requests
	t.Cleanup(releaseOthers)
	p, err := proxy.New(proxy.Config{
		Component: component, Upstream: upstream, Tokens: &fakeTokens{current: "T0"},
		Hosts: []string{"x"},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.SetLimits(64, 1000, testTimeout)
	address, accounts := serve(t, p), accountsWithOwnLimit(p, 16)
	var requests sync.WaitGroup
	start := func(n int, account, wait string) {
		for range n {
			requests.Go(func() {
				raw := get("/" + account + "/cgi-bin/user/info?wait=" + wait)
				resp, body := send(t, address, raw)
				checkResponse(t, raw, resp, body, 200, "")
			})
		}
	}
	inFlight := func(n int) {
		t.Helper()
		waitUntil(t, fmt.Sprint(n, " slots are in use"), func() bool { return p.InFlight() == n })
	}
	waiting := func(n int) {
		t.Helper()
		waitUntil(t, fmt.Sprint(n, " requests wait"), func() bool { return p.Waiting() == n })
	}
	start(32, accounts[0], "slow")
	inFlight(32)
	for i := range 4 {
		start(8, accounts[1+i], "others")
	}
	inFlight(64)
	start(1, accounts[5], "others")
	waiting(1)
	start(300, accounts[0], "slow")
	waiting(301)
	releaseOthers()
	waiting(300)
	inFlight(32)
	for i := range 100 {
		raw := get("/" + accounts[6+i%10] + "/cgi-bin/user/info?wait=no")
		resp, body := send(t, address, raw)
		checkResponse(t, raw, resp, body, 200, "")
	}
	if n := p.Waiting(); n != 300 {
		t.Errorf("requests of the slow account that wait: got %d, want 300", n)
	}
	releaseSlow()
	requests.Wait()
	waitUntil(t, "all slots are free", func() bool { return p.InFlight() == 0 })
}

// TestBurstIsQueued checks that a burst of many more requests than there are
// slots is served without a rejection. Requests may wait so long that a busy
// machine serves all of them in time.
func TestBurstIsQueued(t *testing.T) {
	p, address, _ := startLimited(t, 8, 1000, testTimeout)
	for range 3 {
		var requests sync.WaitGroup
		for i := range 100 {
			requests.Go(func() {
				raw := get("/" + accountNo(i%20) + "/cgi-bin/user/info?brief=1")
				resp, body := send(t, address, raw)
				checkResponse(t, raw, resp, body, 200, "")
			})
		}
		requests.Wait()
		waitUntil(t, "all slots are free", func() bool { return p.InFlight() == 0 })
	}
}

// TestSlotsOfStreamsAreReleased checks that the slot of a streamed response is
// released if it ends, and if the caller closes its connection.
func TestSlotsOfStreamsAreReleased(t *testing.T) {
	p, address, _ := startLimited(t, 4, 1000, proxy.QueueTimeout)
	for i := range 20 {
		raw := get("/" + accountNo(i) + "/cgi-bin/media/get?large=1")
		resp, body := send(t, address, raw)
		if resp.StatusCode != 200 || len(body) != 1<<20 {
			t.Fatalf("%q: got %d with %d bytes, want 200 with %d", raw, resp.StatusCode, len(body), 1<<20)
		}
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, raw)
		c.Read(make([]byte, 10))
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
		waitUntil(t, "all slots are free", func() bool { return p.InFlight() == 0 })
	}
}

// TestConnectionLimit checks that connections over the limit receive an error,
// and are accepted again once another one is closed.
func TestConnectionLimit(t *testing.T) {
	_, address, _ := startLimited(t, 16, 8, proxy.QueueTimeout)
	raw := get("/" + accountNo(1) + "/cgi-bin/user/info")
	var conns []net.Conn
	for i := range 8 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, raw)
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 200 {
			t.Fatalf("connection %d: got %v, error %v, want 200", i, resp, err)
		}
		conns = append(conns, c)
	}
	for range 50 {
		resp, body := send(t, address, raw)
		checkResponse(t, "ninth connection", resp, body, 503, "connection limit reached")
		if got := resp.Header.Get("Retry-After"); !strings.Contains(body, `"errcode":-503`) || got != "1" || !resp.Close {
			t.Fatalf("ninth connection: got %s, Retry-After %q, close %v, want errcode -503, 1, true", body, got, resp.Close)
		}
	}
	// Of a flood not all receive a response. Each takes a file descriptor for a
	// moment, and there are few for that.
	answered := 0
	for range 300 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(testTimeout))
		if b, _ := io.ReadAll(c); len(b) > 0 {
			answered++
		}
	}
	if answered > 200 {
		t.Errorf("flood of 300 connections: got %d responses, want 200 at most", answered)
	}
	conns[0].Close()
	waitUntil(t, "a connection is accepted again", func() bool {
		resp, err := http.Get("http://" + address + "/" + accountNo(1) + "/cgi-bin/user/info")
		if err != nil {
			return false // still counted as one of the flood
		}
		defer resp.Body.Close()
		return resp.StatusCode == 200
	})
}
