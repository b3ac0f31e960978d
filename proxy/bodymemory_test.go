package proxy_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"wxproxy/proxy"
	"wxproxy/proxy/transport"
)

// formLimit is how much of the body of a rejected request, or of one for a
// stand-in, is read.
const formLimit = 64 << 10

// awaitResponse waits for a response, and returns it and its body.
type awaitResponse func() (*http.Response, string)

// open sends raw bytes on a connection of its own and leaves it open.
func open(t *testing.T, addr, raw string) (net.Conn, awaitResponse) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return conn, sendOn(t, conn, raw)
}

// sendOn is open for a connection that exists.
func sendOn(t *testing.T, conn net.Conn, raw string) awaitResponse {
	t.Helper()
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(testTimeout))
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	return func() (*http.Response, string) {
		t.Helper()
		br := bufio.NewReader(conn)
		resp, err := http.ReadResponse(br, nil)
		if err == nil && resp.StatusCode == http.StatusContinue {
			resp, err = http.ReadResponse(br, nil)
		}
		if err != nil {
			t.Fatalf("%.200q: %v", raw, err)
		}
		b, _ := io.ReadAll(resp.Body)
		return resp, string(b)
	}
}

// announced returns the head of a request with a body of n bytes, and the first
// of them that are sent.
func announced(path string, n, sent int, headers ...string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\n%s\r\nContent-Length: %d\r\n\r\n%s",
		path, strings.Join(append(headers, "X-A: b"), "\r\n"), n, strings.Repeat("a", sent))
}

// chunkedBody is announced for a body that is one chunk.
func chunkedBody(path string, n, sent int) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s",
		path, n, strings.Repeat("a", sent))
}

// newSharingProxy returns a proxy with two callers, which does not serve yet.
func newSharingProxy(t *testing.T, upstream string, change func(*proxy.Config)) *proxy.Proxy {
	t.Helper()
	c := proxy.Config{
		Component: component, Upstream: upstream, Tokens: &fakeTokens{current: "T0"},
		Callers:    []proxy.Caller{named("orders", ordersKey), named("stock", stockKey)},
		StandInKey: key, Hosts: []string{"x"},
	}
	if change != nil {
		change(&c)
	}
	p, err := proxy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	p.AllowWrongKeys()
	return p
}

// TestUnauthenticatedBodiesAreNotRead checks that wxproxy answers before it has
// read a large body, and reserves no memory for it, if the request does not
// show a valid key. The parameters are every way to be unauthenticated, or
// rejected before authentication, and every request for a stand-in, with and
// without a key × plain TCP, TLS, TLS with client_ca_file (no certificate, one
// of an unknown caller) × announced, of which one byte is sent, announced with
// Expect, chunked with one byte too many, chunked with Expect.
func TestUnauthenticatedBodiesAreNotRead(t *testing.T) {
	up, requests := recordingServer(t)
	ca := newAuthority(t)
	// A proxy serves one listener only.
	serve := func(conf *tls.Config) (*proxy.Proxy, string) {
		p := newSharingProxy(t, up, nil)
		return p, serveTLS(t, p, conf)
	}
	certificates := []tls.Certificate{ca.server()}
	p, plain := serve(nil)
	withTLS, tlsAddr := serve(&tls.Config{Certificates: certificates})
	withCA, caAddr := serve(&tls.Config{
		Certificates: certificates, ClientCAs: ca.pool(), ClientAuth: tls.VerifyClientCertIfGiven,
	})
	dialTLS := func(addr string, certs ...tls.Certificate) func() (net.Conn, error) {
		return func() (net.Conn, error) {
			return tls.Dial("tcp", addr, &tls.Config{RootCAs: ca.pool(), Certificates: certs})
		}
	}
	const upload, orders = "/" + account + "/cgi-bin/media/upload", "X-Wxproxy-Key: " + ordersKey
	login := "/sns/jscode2session?appid=" + account + "&js_code=x&secret=wrong"
	tooLong := strings.Repeat("a", formLimit+1)
	withToken := func(token string) string { return "/cgi-bin/a?access_token=" + token }
	expired := forge(1, 1, time.Unix(1, 0), account, "orders")
	ofOther := forge(1, 1, time.Now().Add(time.Hour), account, "removed")
	for way, server := range map[string]struct {
		proxy *proxy.Proxy
		dial  func() (net.Conn, error)
	}{
		"plain":               {p, func() (net.Conn, error) { return net.Dial("tcp", plain) }},
		"TLS":                 {withTLS, dialTLS(tlsAddr)},
		"client CA":           {withCA, dialTLS(caAddr)},
		"unknown certificate": {withCA, dialTLS(caAddr, ca.client("unknown"))},
	} {
		for name, c := range map[string]struct {
			path   string
			header string
			status int
		}{
			"no key":                  {upload, "", 401},
			"wrong key":               {upload, "X-Wxproxy-Key: wrong", 401},
			"wrong bearer":            {upload, "Authorization: Bearer wrong", 401},
			"wrong proxy credentials": {upload, "Proxy-Authorization: " + basic("x", "wrong"), 401},
			"two keys":                {upload, orders + "\r\nAuthorization: " + stockKey, 401},
			"forged stand-in":         {withToken("wxp_AAAA"), "", 200},
			"expired stand-in":        {withToken(expired), "", 200},
			"foreign token":           {withToken("76_abcdef"), "", 200},
			"stand-in of another":     {withToken(ofOther), orders, 200},
			"wrong login secret":      {login, "", 401},
			"bad path":                {"/a/../b", orders, 400},
			"no account":              {"/cgi-bin/a", orders, 400},
			"page":                    {upload, orders + "\r\nOrigin: http://x", 403},
			"token":                   {"/cgi-bin/token", "", 413},
			"stable token":            {"/cgi-bin/stable_token", "", 413},
			"stable token, key":       {"/cgi-bin/stable_token", orders, 413},
			"component token":         {"/cgi-bin/component/api_component_token", "", 413},
			"component token, key":    {"/cgi-bin/component/api_component_token", orders, 413},
			"authorizer token":        {"/cgi-bin/component/api_authorizer_token", "", 401},
			"authorizer token, key":   {"/cgi-bin/component/api_authorizer_token", orders, 413},
			"code":                    {"/cgi-bin/component/api_query_auth", "", 401},
			"code, key":               {"/cgi-bin/component/api_query_auth", orders, 413},
		} {
			const large = "Content-Length: 33554432\r\n"
			const multipart = "Content-Type: multipart/form-data; boundary=a\r\n"
			chunk := "Transfer-Encoding: chunked\r\n\r\n2000000\r\n" + tooLong
			for _, framing := range []string{
				large + "\r\na", "Content-Length: 65537\r\n\r\na",
				"Expect: 100-continue\r\n" + large + "\r\n",
				multipart + large + "\r\n-", "Content-Encoding: gzip\r\n" + large + "\r\n\x1f",
				chunk, "Content-Encoding: gzip\r\n" + chunk, "Expect: 100-continue\r\n" + chunk,
			} {
				conn, err := server.dial()
				if err != nil {
					t.Fatal(err)
				}
				what := fmt.Sprintf("%s, %s, %.40q", way, name, framing)
				head := "POST " + c.path + " HTTP/1.1\r\nHost: x\r\n"
				if c.header != "" {
					head += c.header + "\r\n"
				}
				resp, body := sendOn(t, conn, head+framing)()
				checkResponse(t, what, resp, body, c.status, `{"errcode":`)
				if !resp.Close {
					t.Errorf("%s: got a connection that stays open", what)
				}
				if n := server.proxy.BodyMemory() + server.proxy.FormMemory(); n > formLimit {
					t.Errorf("%s: got %d bytes in use, want %d at most", what, n, formLimit)
				}
				conn.Close()
			}
		}
		waitUntil(t, "all memory is released", func() bool {
			return server.proxy.BodyMemory() == 0 && server.proxy.FormMemory() == 0
		})
	}
	if n := len(requests()); n != 0 {
		t.Errorf("got %d requests at WeChat, want 0", n)
	}
}

// TestFormsHaveLimitedMemory checks that bodies whose caller is not known share
// a memory of their own, and that no caller waits for it: while clients without
// a key hold all of it, requests for stand-ins with the key in a short body
// succeed, and those with the key in the head whatever their length, and so do
// uploads.
func TestFormsHaveLimitedMemory(t *testing.T) {
	up, _ := recordingServer(t)
	p := newSharingProxy(t, up, nil)
	const clients = 4
	p.SetFormBudget(clients * formLimit)
	addr := serve(t, p)
	const path = "/cgi-bin/stable_token"
	var responses []awaitResponse
	var conns []net.Conn
	for i := range clients {
		raw := announced(path, formLimit, formLimit-1)
		if i%2 == 1 {
			raw = chunkedBody(path, formLimit, formLimit-1)
		}
		conn, response := open(t, addr, raw)
		conns, responses = append(conns, conn), append(responses, response)
	}
	waitUntil(t, "all memory is in use", func() bool { return p.FormMemory() == clients*formLimit })
	if n := p.BodyMemory(); n != 0 {
		t.Errorf("got %d bytes of the callers' memory in use, want 0", n)
	}
	form := func(padding int, headers ...string) string {
		return post(path, fmt.Sprintf(`{"grant_type":"client_credential","appid":%q,"secret":%q}%s`,
			account, ordersKey, strings.Repeat(" ", padding)), headers...)
	}
	const path2, k = "/" + account + "/cgi-bin/a", "X-Wxproxy-Key: " + stockKey
	const issued = `{"access_token":"wxp_`
	const full = "no memory left for request bodies without a key"
	for name, c := range map[string]struct {
		raw    string
		status int
		text   string
	}{
		"key in a short body":       {form(0), 200, issued},
		"key in a body of 4 KB":     {form(3_900), 200, issued},
		"key in a long body":        {form(10_000), 503, full},
		"key in the head":           {form(10_000, "X-Wxproxy-Key: "+ordersKey), 200, issued},
		"key in the head, upload":   {post(path2, strings.Repeat("a", 200_000), k), 200, ""},
		"no key, a body to discard": {post(path2, strings.Repeat("a", 60_000)), 401, ""},
	} {
		resp, body := send(t, addr, c.raw)
		checkResponse(t, name, resp, body, c.status, c.text)
		if c.status == 503 && resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s: got no Retry-After", name)
		}
	}
	for i, response := range responses {
		end := "a"
		if i%2 == 1 {
			end = "a\r\n0\r\n\r\n"
		}
		io.WriteString(conns[i], end)
		resp, body := response()
		checkResponse(t, "held form", resp, body, 200, `{"errcode":40125,`)
	}
	waitUntil(t, "all memory is released", func() bool { return p.FormMemory() == 0 })
}

// TestCallersShareBodyMemory checks that a caller which holds as much memory
// for bodies as it can leaves enough to others: another one can upload a body
// of max_request_body meanwhile. One caller alone, and all requests while
// authentication is disabled, can use nearly all of it.
func TestCallersShareBodyMemory(t *testing.T) {
	const size, budget = 100_000, 1_000_000 // of which large bodies can have 875,000
	stock, orders := named("stock", stockKey), named("orders", ordersKey)
	for name, c := range map[string]struct {
		callers []proxy.Caller
		key     string
		most    int // bodies that are held, at most; then 503
		other   bool
	}{
		"two callers":             {[]proxy.Caller{orders, stock}, ordersKey, 5, true},
		"one caller":              {[]proxy.Caller{orders}, ordersKey, 8, false},
		"authentication disabled": {nil, "", 8, false},
	} {
		t.Run(name, func(t *testing.T) {
			up, _ := recordingServer(t)
			var config proxy.Config
			p := newSharingProxy(t, up, func(pc *proxy.Config) {
				pc.Callers, pc.MaxBody = c.callers, 250_000
				config = *pc
			})
			p.SetBodyBudget(budget)
			addr := serve(t, p)
			path, k := "/"+account+"/cgi-bin/media/upload", "X-A: b"
			if c.key != "" {
				k = "X-Wxproxy-Key: " + c.key
			}
			var conns []net.Conn
			for n := range c.most {
				conn, _ := open(t, addr, announced(path, size, size-1, k))
				conns = append(conns, conn)
				held := int64(n+1) * size
				waitUntil(t, "the body is in memory", func() bool { return p.BodyMemory() == held })
			}
			if c.other {
				// A reload does not give the caller more.
				if err := p.Reconfigure(config); err != nil {
					t.Fatal(err)
				}
			}
			resp, body := send(t, addr, post(path, strings.Repeat("a", size), k))
			checkResponse(t, "one body more", resp, body, 503, "no memory left for request bodies")
			if resp.Header.Get("Retry-After") == "" {
				t.Error("one body more: got no Retry-After")
			}
			if c.other {
				largest := post(path, strings.Repeat("a", 250_000), "X-Wxproxy-Key: "+stockKey)
				for range 3 {
					resp, body := send(t, addr, largest)
					checkResponse(t, "the largest body of another caller", resp, body, 200, "")
				}
			}
			// Short bodies need none of the memory.
			resp, body = send(t, addr, post(path, strings.Repeat("a", 4_000), k))
			checkResponse(t, "short body", resp, body, 200, "")
			for _, conn := range conns {
				conn.Close()
			}
			waitUntil(t, "all memory is released", func() bool { return p.BodyMemory() == 0 })
			resp, body = send(t, addr, post(path, strings.Repeat("a", size), k))
			checkResponse(t, "afterwards", resp, body, 200, "")
		})
	}
}

// TestSlowBodiesAreCutOff checks that clients which send a body too slowly are
// disconnected with 408 and give back its memory, while a slow client that
// keeps to the pace is served, although it takes longer than a body has in any
// case. The parameters are announced or chunked × the whole body at once but
// the last byte, then nothing or a byte now and then. The times are a fraction
// of the real ones; TestPace of package transport checks those.
func TestSlowBodiesAreCutOff(t *testing.T) {
	t.Parallel()
	const size, tick = 200_000, 50 * time.Millisecond
	pace := transport.Pace{
		Grace: 300 * time.Millisecond, MinRate: 200, MaxPause: 20 * time.Second, Total: time.Hour,
	}
	up, _ := recordingServer(t)
	start := func(pace transport.Pace) (*proxy.Proxy, string) {
		p := newSharingProxy(t, up, func(c *proxy.Config) { c.Callers = nil })
		p.SetBodyPace(pace)
		return p, serve(t, p)
	}
	// The honest client sends 2,000 bytes at a time. So it may need up to 10 s
	// for each piece on a machine that is busy.
	_, addr := start(pace)
	conn, response := open(t, addr, announced("/"+account+"/cgi-bin/a", size, 2_000))
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for range size/2_000 - 1 {
		<-ticker.C
		io.WriteString(conn, strings.Repeat("a", 2_000))
	}
	resp, body := response()
	checkResponse(t, "slow client that keeps to the pace", resp, body, 200, "")

	pace.MaxPause = time.Second
	p, addr := start(pace)
	for name, raw := range map[string]string{
		"announced, little": announced("/"+account+"/cgi-bin/a", size, 10_000),
		"announced, much":   announced("/"+account+"/cgi-bin/a", size, size-1000),
		"chunked":           chunkedBody("/"+account+"/cgi-bin/a", size, 10_000),
		"rejected":          announced("/a/../b", 60_000, 10_000),
	} {
		for _, trickle := range []bool{false, true} {
			conn, response := open(t, addr, raw)
			stop := make(chan struct{})
			if trickle {
				go func() {
					for {
						select {
						case <-stop:
							return
						case <-time.After(tick): // at most 20 bytes per second
							conn.Write([]byte("a"))
						}
					}
				}()
			}
			resp, body := response()
			close(stop)
			what := fmt.Sprintf("%s, trickle %v", name, trickle)
			checkResponse(t, what, resp, body, 408, `{"errcode":-408,`)
			if !resp.Close {
				t.Errorf("%s: got a connection that stays open", what)
			}
		}
	}
	waitUntil(t, "all memory is released", func() bool { return p.BodyMemory() == 0 })
}

// TestCallersShareReadAhead checks that a caller with many slow downloads does
// not keep those of another one from being read ahead: that one's connection to
// WeChat, and its slot, are free although it has read nothing.
func TestCallersShareReadAhead(t *testing.T) {
	t.Parallel()
	const budget, hogs = 48 << 20, 6
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		size := 10 << 20
		if r.URL.Path == "/cgi-bin/hog" {
			size = 30 << 20 // more than is read ahead of one download, and all buffers
		}
		w.Header().Set("Content-Length", strconv.Itoa(size))
		w.Write(make([]byte, size))
	})
	p := newSharingProxy(t, up, nil)
	p.SetReadAheadBudget(budget)
	addr := serve(t, p)
	for range hogs {
		open(t, addr, get("/"+account+"/cgi-bin/hog", "X-Wxproxy-Key: "+ordersKey))
	}
	const hogMemory = budget/2 - 1<<20
	waitUntil(t, "half of the memory is in use", func() bool {
		return p.InFlight() == hogs && p.ReadAheadMemory() >= hogMemory
	})
	for range 3 {
		conn, _ := open(t, addr, get("/"+account+"/cgi-bin/a", "X-Wxproxy-Key: "+stockKey))
		// Its header has arrived, so it has a slot, or had one.
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		waitUntil(t, "the slot of another caller is released", func() bool { return p.InFlight() == hogs })
		if n := p.ReadAheadMemory(); n > budget {
			t.Errorf("got %d bytes in use, want %d at most", n, budget)
		}
		conn.Close()
		waitUntil(t, "its memory is released", func() bool {
			return p.ReadAheadMemory() <= budget/2
		})
	}
}

// TestIdleConnectionsKeepNoResponse checks that a connection does not hold the
// memory of its last response, which has up to 64 KiB.
func TestIdleConnectionsKeepNoResponse(t *testing.T) {
	const conns, size, most = 500, 60_000, 45_000 // bytes for each connection
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(size))
		w.Write(make([]byte, size))
	})
	_, addr := start(t, up, nil)
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // empties pools
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := heap()
	for range conns {
		conn, _ := open(t, addr, get("/"+account+"/cgi-bin/a"))
		resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
			t.Fatalf("got %d bytes, %v, want %d", n, err, size)
		}
	}
	if each := (heap() - before) / conns; each > most {
		t.Errorf("got %d bytes of memory for each idle connection, want %d at most", each, most)
	} else {
		t.Logf("%d bytes of memory for each idle connection", each)
	}
}

// TestLargeMaskedResponses checks that a response stays masked, and arrives
// whole, whatever its size: in the buffer of a connection, in one that is
// dropped, and held in memory for a client.
func TestLargeMaskedResponses(t *testing.T) {
	const secret = "refreshtoken@@@abcdefghijklmnopqrstuvwxyz0123456789"
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("n"))
		fmt.Fprintf(w, `{"refresh_token":%q,"padding":%q}`, secret, strings.Repeat("a", n))
	})
	p := newSharingProxy(t, up, nil)
	addr := serve(t, p)
	k := "X-Wxproxy-Key: " + ordersKey
	for _, n := range []int{0, 1_000, 8 << 10, 20_000, 60_000, 64 << 10, 100_000, 3 << 20} {
		path := fmt.Sprintf("/%s/cgi-bin/component/api_get_authorizer_list?n=%d", component, n)
		resp, body := send(t, addr, post(path, "{}", k))
		checkResponse(t, path, resp, body, 200, "{")
		if strings.Contains(body, "refreshtoken@@@") || strings.Count(body, "a") < n {
			t.Errorf("padding of %d bytes: got %d bytes, %.100s, want it masked and whole", n, len(body), body)
		}
	}
	waitUntil(t, "all memory is released", func() bool { return p.WholeMemory() == 0 })
}

// TestWholeResponsesHaveLimitedMemory checks that large responses which are
// searched count against a budget until the client has them: one that does not
// fit gets 503, and all memory is released, also if a client disconnects.
func TestWholeResponsesHaveLimitedMemory(t *testing.T) {
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("n"))
		fmt.Fprintf(w, `{"list":%q}`, strings.Repeat("a", n))
	})
	p := newSharingProxy(t, up, nil)
	p.SetWholeBudget(4 << 20)
	addr := serve(t, p)
	request := func(n int) string {
		path := fmt.Sprintf("/%s/cgi-bin/component/api_get_authorizer_list?n=%d", component, n)
		return post(path, "{}", "X-Wxproxy-Key: "+ordersKey)
	}
	for n, status := range map[int]int{1_000: 200, 60_000: 200, 300_000: 200, 7_000_000: 503} {
		resp, body := send(t, addr, request(n))
		checkResponse(t, fmt.Sprint(n), resp, body, status, "{")
		if status == 503 && resp.Header.Get("Retry-After") == "" {
			t.Errorf("%d bytes: got no Retry-After", n)
		}
	}
	for range 5 {
		conn, _ := open(t, addr, request(500_000))
		conn.Close()
	}
	waitUntil(t, "all memory is released", func() bool { return p.WholeMemory() == 0 && p.InFlight() == 0 })
	resp, body := send(t, addr, request(300_000))
	checkResponse(t, "afterwards", resp, body, 200, "{")
}
