package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/proxy"
)

// FuzzDifferential sends arbitrary bytes to a proxy that has one caller with
// narrow permissions. It judges the requests that WeChat receives by its own
// rules: both sides are read with net/http, and nothing of package proxy is
// used. Whatever the bytes are, WeChat must receive proper HTTP requests, which
// the caller is allowed to send, in the order and not more often than it sent
// them, with exactly one token of the account and none of the caller's
// credentials.

const (
	limitedKey   = "limited-key_0123456789"
	limitedToken = "T-" + account
	// sentinel is a path that only the test itself calls.
	sentinel = "/cgi-bin/user/sentinel"

	// The caller is allowed to call limitedExact, and what begins with
	// limitedPrefix.
	limitedExact  = "/cgi-bin/menu/get"
	limitedPrefix = "/cgi-bin/user/"
)

// arrival is a request as WeChat received it.
type arrival struct {
	req  *http.Request
	body string
	err  error // it could not be parsed
	more bool  // bytes followed it before the response
}

// recorder is a WeChat that records everything it receives, read with
// net/http's parser. An http.Server would hide what it rejects, and bytes that
// follow a request.
type recorder struct {
	mu  sync.Mutex
	all []arrival
}

func (r *recorder) serve(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		go r.serveConn(conn)
	}
}

func (r *recorder) serveConn(conn net.Conn) {
	defer conn.Close()
	br := bufio.NewReaderSize(conn, 64<<10)
	for {
		req, err := http.ReadRequest(br)
		if err == io.EOF { // between requests
			return
		}
		a := arrival{req: req, err: err}
		if err == nil {
			var b []byte
			b, a.err = io.ReadAll(req.Body)
			a.body = string(b)
		}
		a.more = br.Buffered() > 0
		r.mu.Lock()
		r.all = append(r.all, a)
		r.mu.Unlock()
		if a.err != nil {
			return
		}
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"); err != nil {
			return
		}
	}
}

// take returns what has arrived since the last call.
func (r *recorder) take() []arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all
	r.all = nil
	return all
}

// differential is a client, the proxy and WeChat.
type differential struct {
	upstream string // host:port
	addr     string
	seen     recorder
	canary   net.Conn // a client connection that stays open
	canaryBR *bufio.Reader
}

func newDifferential(tb testing.TB) *differential {
	tb.Helper()
	r := &differential{}
	listen := func() net.Listener {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { ln.Close() })
		return ln
	}
	up, down := listen(), listen()
	go r.seen.serve(up)
	r.upstream, r.addr = up.Addr().String(), down.Addr().String()
	limited := named("limited", limitedKey)
	limited.AppIDs, limited.Paths = []string{account}, []string{limitedPrefix + "*", limitedExact}
	p, err := proxy.New(proxy.Config{
		Component: component, Upstream: "http://" + r.upstream, Tokens: tokensByAppID{&fakeTokens{}}, MaxBody: 1 << 20,
		StandInKey: key, // one for all processes of the fuzzer
		Callers: []proxy.Caller{
			limited,
			named("orders", "a-key-that-the-client-does-not-have"),
		},
	})
	if err != nil {
		tb.Fatal(err)
	}
	go p.Serve(down, nil)
	tb.Cleanup(func() {
		if r.canary != nil {
			r.canary.Close()
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		p.Shutdown(ctx)
	})
	if r.canary, err = net.Dial("tcp", r.addr); err != nil {
		tb.Fatal(err)
	}
	r.canaryBR = bufio.NewReader(r.canary)
	return r
}

// exchange sends raw and reads until the proxy closes the connection. By then
// it has answered every request in it.
func (r *differential) exchange(tb testing.TB, raw []byte) []byte {
	tb.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testTimeout))
	// Errors of writing do not matter: the proxy need not read what follows a
	// rejected request.
	conn.Write(raw)
	conn.(*net.TCPConn).CloseWrite()
	back, err := io.ReadAll(conn)
	if t, ok := err.(net.Error); ok && t.Timeout() {
		tb.Fatalf("%.300q: got %.300q and an open connection, want it closed", raw, back)
	}
	return back
}

// settle sends one more request on another connection, which the proxy forwards
// on the same connection to WeChat. Anything left there would be read before
// it. settle returns what WeChat received before that request.
func (r *differential) settle(tb testing.TB) []arrival {
	tb.Helper()
	r.canary.SetDeadline(time.Now().Add(testTimeout))
	io.WriteString(r.canary, "GET /"+account+sentinel+" HTTP/1.1\r\nHost: x\r\nX-Wxproxy-Key: "+limitedKey+"\r\n\r\n")
	resp, err := http.ReadResponse(r.canaryBR, nil)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || string(b) != "{}" {
		tb.Fatalf("next request: got %s %s, error %v, want 200 {}", resp.Status, b, err)
	}
	all := r.seen.take()
	if n := len(all) - 1; n >= 0 && all[n].err == nil && all[n].req.URL.Path == sentinel && !all[n].more {
		return all[:n]
	}
	tb.Fatalf("next request: WeChat got %v, want it to be the last", all)
	return nil
}

// parseRequests returns the requests in raw as net/http reads them, up to the
// first invalid one. Targets are not judged, since the end of a request does
// not depend on them.
func parseRequests(raw []byte) (all []arrival) {
	for {
		// A server should ignore empty lines before a request (RFC 9112, 2.2).
		// net/http's parser does not.
		raw = bytes.TrimLeft(raw, "\r\n")
		line, rest, _ := bytes.Cut(raw, []byte("\n"))
		method, line, _ := bytes.Cut(line, []byte(" "))
		target, proto, _ := bytes.Cut(line, []byte(" "))
		remaining := bytes.NewReader(rest)
		head := strings.NewReader(fmt.Sprintf("%s / %s\n", method, proto))
		br := bufio.NewReader(io.MultiReader(head, remaining))
		req, err := http.ReadRequest(br)
		if err != nil {
			return all
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return all
		}
		req.RequestURI = string(target)
		all = append(all, arrival{req: req, body: string(body)})
		raw = rest[len(rest)-remaining.Len()-br.Buffered():]
	}
}

// countResponses returns the number of final responses in back, to these
// requests.
func countResponses(back []byte, sent []arrival) (n int) {
	br := bufio.NewReader(bytes.NewReader(back))
	for {
		var req *http.Request
		if n < len(sent) {
			req = sent[n].req
		}
		resp, err := http.ReadResponse(br, req)
		if err != nil {
			return n
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return n
		}
		if resp.StatusCode >= 200 {
			n++
		}
	}
}

// violation returns which rule a request breaks that WeChat has received, or
// "".
func (r *differential) violation(a arrival) string {
	switch {
	case a.err != nil:
		return fmt.Sprintf("not proper HTTP: %v", a.err)
	case a.more:
		return "bytes follow the request"
	case a.req.Host != r.upstream || strings.Contains(a.req.Proto, "1.0"):
		return fmt.Sprintf("host %q, %s", a.req.Host, a.req.Proto)
	case len(a.req.TransferEncoding) > 0:
		return "chunked"
	}
	path, query, _ := strings.Cut(a.req.RequestURI, "?")
	if v := pathViolation(a.req, path); v != "" {
		return v
	}
	if v := queryViolation(query); v != "" {
		return v
	}
	return headerViolation(a.req.Header)
}

// pathViolation checks that a path is allowed, however often it is decoded.
func pathViolation(req *http.Request, path string) string {
	for range 10 {
		if strings.ContainsAny(path, "\\;#?\x00\r\n") || strings.Contains(path, "//") {
			return fmt.Sprintf("path %q", path)
		}
		for seg := range strings.SplitSeq(path, "/") {
			if seg == "." || seg == ".." {
				return fmt.Sprintf("dot segment in %q", path)
			}
		}
		decoded, err := url.PathUnescape(path)
		if err != nil {
			return fmt.Sprintf("escapes in %q: %v", path, err)
		}
		if decoded == path {
			break
		}
		path = decoded
	}
	if path != limitedExact && !strings.HasPrefix(path, limitedPrefix) {
		return fmt.Sprintf("path %q is not allowed", path)
	}
	if path != sentinel && path != req.URL.Path {
		return fmt.Sprintf("path %q and %q", path, req.URL.Path)
	}
	return ""
}

// queryViolation checks that a query has the right token once. It takes a
// semicolon for a separator, too, as some servers do.
func queryViolation(query string) string {
	injected := 0
	for pair := range strings.FieldsFuncSeq(query, func(ch rune) bool { return ch == '&' || ch == ';' }) {
		name, value, _ := strings.Cut(pair, "=")
		if decoded, err := url.QueryUnescape(name); err == nil {
			name = decoded
		}
		switch name {
		case "access_token":
			if injected++; value != limitedToken {
				return "a token that is not the account's"
			}
		case "component_access_token":
			return "a component token"
		}
	}
	if injected != 1 {
		return fmt.Sprintf("%d tokens of the account", injected)
	}
	return ""
}

// privateHeaders must not reach WeChat.
var privateHeaders = []string{
	"authorization", "proxy-authorization", "x-wxproxy-key", "x-wx-appid", "x-wxproxy-token", "cookie",
	"connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect",
	"via", "forwarded", "x-real-ip", "origin", "x-request-id",
}

// headerViolation checks the names and values of headers.
func headerViolation(h http.Header) string {
	for name, values := range h {
		lower := strings.ToLower(name)
		if slices.Contains(privateHeaders, lower) || strings.HasPrefix(lower, "x-forwarded-") ||
			len(values) > 1 && (name == "Content-Length" || name == "Host") {
			return "header " + name
		}
		for _, v := range values {
			if strings.ContainsAny(v, "\r\n\x00") {
				return "a control character in header " + name
			}
		}
	}
	return ""
}

// same reports whether a request that WeChat received is one that was sent.
func same(got, sent arrival) bool {
	// Scheme, host and appid are removed before the path, parameters from the
	// query.
	_, path, _ := strings.Cut(got.req.RequestURI, "/")
	path, _, _ = strings.Cut(path, "?")
	was, _, _ := strings.Cut(sent.req.RequestURI, "?")
	return got.req.Method == sent.req.Method && got.body == sent.body && strings.HasSuffix(was, path)
}

// check sends raw and checks what WeChat receives.
func (r *differential) check(tb testing.TB, raw []byte) {
	tb.Helper()
	back := r.exchange(tb, raw)
	got := r.settle(tb)
	sent := parseRequests(raw)
	if n := countResponses(back, sent); len(got) > n {
		tb.Fatalf("%q: WeChat got %d requests, want %d at most, as many as responses came back: %q", raw, len(got), n, back)
	}
	next := 0
	for i, a := range got {
		if v := r.violation(a); v != "" {
			tb.Fatalf("%q: WeChat got %v: %s", raw, a.req, v)
		}
		for next < len(sent) && !same(a, sent[next]) {
			next++
		}
		if next++; next > len(sent) {
			tb.Fatalf("%q: WeChat got as request %d of %d %s %q, body %q, want one of the %d that were sent",
				raw, i+1, len(got), a.req.Method, a.req.RequestURI, a.body, len(sent))
		}
	}
}

// standIn fetches a stand-in as SDKs do.
func (r *differential) standIn(tb testing.TB) string {
	tb.Helper()
	back := r.exchange(tb, []byte(get("/cgi-bin/token?appid="+account+"&secret="+limitedKey)))
	_, token, _ := bytes.Cut(back, []byte(`"access_token":"`))
	token, _, ok := bytes.Cut(token, []byte(`"`))
	if !ok {
		tb.Fatalf("got %q, want a stand-in", back)
	}
	return string(token)
}

func FuzzDifferential(f *testing.F) {
	for _, s := range smugglingCorpus {
		f.Add(expand(s))
	}
	r := newDifferential(f)
	for _, s := range standInCorpus {
		f.Add(expand(strings.ReplaceAll(s, "{standin}", r.standIn(f))))
	}
	f.Fuzz(func(t *testing.T, raw []byte) { r.check(t, raw) })
}

// TestDifferentialForwards checks that FuzzDifferential has something to judge:
// what the caller is allowed to send reaches WeChat.
func TestDifferentialForwards(t *testing.T) {
	r := newDifferential(t)
	for i, want := range []int{1, 3, 2, 1} {
		back := r.exchange(t, expand(smugglingCorpus[i]))
		if got := r.settle(t); len(got) != want || bytes.Count(back, []byte("HTTP/1.1 200 OK")) != want {
			t.Errorf("%q: WeChat got %d requests, want %d; response %s", smugglingCorpus[i], len(got), want, back)
		}
	}
	for i, want := range []int{1, 0, 1} {
		r.exchange(t, expand(strings.ReplaceAll(standInCorpus[i], "{standin}", r.standIn(t))))
		if got := r.settle(t); len(got) != want {
			t.Errorf("%q: WeChat got %d requests, want %d", standInCorpus[i], len(got), want)
		}
	}
}
