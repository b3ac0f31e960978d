package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/proxy"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// FuzzDifferential sends bytes that may be anything to a proxy with one caller of narrow limits, and judges what comes
// out on WeChat's side by rules of its own: net/http reads both sides, and nothing of package proxy is asked. Whatever
// the bytes are, WeChat gets requests that are proper HTTP, that the caller was allowed, in the order and not
// more often than he sent them, with our token once and none of his credentials.

const (
	limitedKey   = "limited-key_0123456789"
	limitedToken = "80_token-of-" + account
	// sentinel is a path that only the harness calls.
	sentinel = "/cgi-bin/user/sentinel"
)

// limitedPaths are what the caller may call. A path is allowed where it equals one of the first or begins with the last.
const (
	limitedExact  = "/cgi-bin/menu/get"
	limitedPrefix = "/cgi-bin/user/"
)

// eachItsOwn gives each account a token that tells whose it is.
type eachItsOwn struct{}

func (eachItsOwn) Cached(appid string) (tokens.Token, bool) {
	return tokens.Token{Value: wechat.NewSecret("80_token-of-" + appid), Escaped: "80_token-of-" + appid, Hit: true}, true
}
func (e eachItsOwn) Token(_ context.Context, appid string) (tokens.Token, error) {
	t, _ := e.Cached(appid)
	return t, nil
}
func (e eachItsOwn) Renew(ctx context.Context, appid string, _ wechat.Secret) (tokens.Token, error) {
	return e.Token(ctx, appid)
}
func (eachItsOwn) Known(context.Context, string) error { return nil }

// arrival is a request as WeChat got it, or why it is none.
type arrival struct {
	req  *http.Request
	body string
	err  error
	more bool // something came behind it before it was answered
}

// recorder is a WeChat of few words: it reads with net/http's parser and says what it saw. An http.Server would keep
// to itself what it refuses, and what came too much.
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
		go r.talk(conn)
	}
}

func (r *recorder) talk(conn net.Conn) {
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

// take gives what arrived since it was last asked.
func (r *recorder) take() []arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all
	r.all = nil
	return all
}

// ring is a client, the proxy and WeChat, joined.
type ring struct {
	upstream string // host:port
	addr     string
	seen     recorder
	canary   net.Conn // a connection that is used again and again
	answers  *bufio.Reader
}

func newRing(tb testing.TB) *ring {
	tb.Helper()
	r := &ring{}
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
	p, err := proxy.New(proxy.Config{
		Component: component, Upstream: "http://" + r.upstream, Tokens: eachItsOwn{}, MaxBody: 1 << 20,
		StandInKey: bytes.Repeat([]byte("k"), sha256.Size), // all of the fuzzer's processes take each other's
		Callers: []proxy.Caller{
			{Name: "limited", KeySHA256: sha256.Sum256([]byte(limitedKey)), AppIDs: []string{account}, Paths: []string{limitedPrefix + "*", limitedExact}, Methods: []string{"*"}},
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
	r.answers = bufio.NewReader(r.canary)
	return r
}

// answered sends raw and reads until the proxy has closed the connection: by then every request of it is over.
func (r *ring) answered(tb testing.TB, raw []byte) []byte {
	tb.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	// A proxy that has refused the first half need not read the second: errors of writing are none.
	conn.Write(raw)
	conn.(*net.TCPConn).CloseWrite()
	back, err := io.ReadAll(conn)
	if t, ok := err.(net.Error); ok && t.Timeout() {
		tb.Fatalf("%.300q: the connection stays open; answered %.300q", raw, back)
	}
	return back
}

// settle makes one more call, on another connection of the client's and the same of WeChat's: had anything been left
// behind there, it would be read before or instead of it.
func (r *ring) settle(tb testing.TB) []arrival {
	tb.Helper()
	r.canary.SetDeadline(time.Now().Add(30 * time.Second))
	io.WriteString(r.canary, "GET /"+account+sentinel+" HTTP/1.1\r\nHost: x\r\nX-Wxproxy-Key: "+limitedKey+"\r\n\r\n")
	resp, err := http.ReadResponse(r.answers, nil)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || string(b) != "{}" {
		tb.Fatalf("the call after it: %s %s %v", resp.Status, b, err)
	}
	all := r.seen.take()
	if n := len(all) - 1; n >= 0 && all[n].err == nil && all[n].req.URL.Path == sentinel && !all[n].more {
		return all[:n]
	}
	tb.Fatalf("the last thing that WeChat saw is not the last that was sent: %v", all)
	return nil
}

// meant is what net/http takes the client's bytes for: the requests up to the first that is none. What it thinks of
// their targets does not count: where a request ends does not depend on them.
func meant(raw []byte) (all []arrival) {
	for {
		// A server should pass over empty lines in front of a request (RFC 9112, 2.2); net/http's parser does not.
		raw = bytes.TrimLeft(raw, "\r\n")
		line, rest, _ := bytes.Cut(raw, []byte("\n"))
		method, line, _ := bytes.Cut(line, []byte(" "))
		target, proto, _ := bytes.Cut(line, []byte(" "))
		behind := bytes.NewReader(rest)
		br := bufio.NewReader(io.MultiReader(strings.NewReader(fmt.Sprintf("%s / %s\n", method, proto)), behind))
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
		raw = rest[len(rest)-behind.Len()-br.Buffered():]
	}
}

// answersIn counts the answers in what came back.
func answersIn(back []byte, asked []arrival) (n int) {
	br := bufio.NewReader(bytes.NewReader(back))
	for {
		var req *http.Request
		if n < len(asked) {
			req = asked[n].req
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

// offence says what is wrong with a request that WeChat got; "" for nothing.
func (r *ring) offence(a arrival) string {
	switch {
	case a.err != nil:
		return fmt.Sprintf("it is not proper HTTP: %v", a.err)
	case a.more:
		return "something came behind it"
	}
	req := a.req
	path, query, _ := strings.Cut(req.RequestURI, "?")
	for range 10 {
		if strings.ContainsAny(path, "\\;#?\x00\r\n") || strings.Contains(path, "//") {
			return fmt.Sprintf("path %q", path)
		}
		for seg := range strings.SplitSeq(path, "/") {
			if seg == "." || seg == ".." {
				return fmt.Sprintf("dot segment in %q", path)
			}
		}
		plain, err := url.PathUnescape(path)
		if err != nil {
			return fmt.Sprintf("escapes in %q: %v", path, err)
		}
		if plain == path {
			break
		}
		path = plain
	}
	if path != limitedExact && !strings.HasPrefix(path, limitedPrefix) {
		return fmt.Sprintf("path %q is not the caller's", path)
	}
	if path != sentinel && path != req.URL.Path {
		return fmt.Sprintf("path %q and %q", path, req.URL.Path)
	}
	// A query in which ; separates as well, as some servers have it.
	var ours int
	for pair := range strings.FieldsFuncSeq(query, func(ch rune) bool { return ch == '&' || ch == ';' }) {
		name, value, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
		switch name {
		case "access_token":
			if ours++; value != limitedToken {
				return "a token that is not ours, or another account's"
			}
		case "component_access_token":
			return "a component's token"
		}
	}
	if ours != 1 {
		return fmt.Sprintf("our token is in it %d times", ours)
	}
	if req.Host != r.upstream || strings.Contains(req.Proto, "1.0") {
		return fmt.Sprintf("host %q, %s", req.Host, req.Proto)
	}
	for name, values := range req.Header {
		switch strings.ToLower(name) {
		case "authorization", "proxy-authorization", "x-wxproxy-key", "x-wx-appid", "x-wxproxy-token", "cookie", "connection", "keep-alive", "proxy-connection", "te", "trailer",
			"upgrade", "expect", "via", "forwarded", "x-real-ip", "origin", "x-request-id":
			return "header " + name
		}
		if strings.HasPrefix(strings.ToLower(name), "x-forwarded-") || len(values) > 1 && (name == "Content-Length" || name == "Host") {
			return "header " + name
		}
		for _, v := range values {
			if strings.ContainsAny(v, "\r\n\x00") {
				return "a control character in " + name
			}
		}
	}
	if len(req.TransferEncoding) > 0 {
		return "it is chunked"
	}
	return ""
}

// same says whether what WeChat got is what net/http saw the client send.
func same(got, sent arrival) bool {
	// The path may have lost scheme, host, and appid in front; the query may have lost parameters.
	_, path, _ := strings.Cut(got.req.RequestURI, "/")
	path, _, _ = strings.Cut(path, "?")
	was, _, _ := strings.Cut(sent.req.RequestURI, "?")
	return got.req.Method == sent.req.Method && got.body == sent.body && strings.HasSuffix(was, path)
}

func (r *ring) check(tb testing.TB, raw []byte) {
	tb.Helper()
	back := r.answered(tb, raw)
	got := r.settle(tb)
	sent := meant(raw)
	if n := answersIn(back, sent); len(got) > n {
		tb.Fatalf("%q: %d requests reached WeChat, and %d answers came back: %q", raw, len(got), n, back)
	}
	next := 0
	for i, a := range got {
		if why := r.offence(a); why != "" {
			tb.Fatalf("%q: %s; it was %v", raw, why, a.req)
		}
		for next < len(sent) && !same(a, sent[next]) {
			next++
		}
		if next++; next > len(sent) {
			tb.Fatalf("%q: WeChat got %d requests; number %d, %s %q with the body %q, was not among the %d that were sent", raw, len(got), i+1, a.req.Method, a.req.RequestURI, a.body, len(sent))
		}
	}
}

// standIn fetches one as SDKs do.
func (r *ring) standIn(tb testing.TB) string {
	tb.Helper()
	back := r.answered(tb, []byte("GET /cgi-bin/token?appid="+account+"&secret="+limitedKey+" HTTP/1.1\r\nHost: x\r\n\r\n"))
	_, token, _ := bytes.Cut(back, []byte(`"access_token":"`))
	token, _, ok := bytes.Cut(token, []byte(`"`))
	if !ok {
		tb.Fatalf("no stand-in: %q", back)
	}
	return string(token)
}

func FuzzDifferential(f *testing.F) {
	for _, s := range tricks {
		f.Add(trick(s))
	}
	r := newRing(f)
	for _, s := range standInTricks {
		f.Add(trick(strings.ReplaceAll(s, "{standin}", r.standIn(f))))
	}
	f.Fuzz(func(t *testing.T, raw []byte) { r.check(t, raw) })
}

// What is the caller's right gets through, so that the rules above have something to judge.
func TestDifferentialLetsThrough(t *testing.T) {
	r := newRing(t)
	for i, want := range []int{1, 3, 2, 1} {
		back := r.answered(t, trick(tricks[i]))
		if got := r.settle(t); len(got) != want || bytes.Count(back, []byte("HTTP/1.1 200 OK")) != want {
			t.Errorf("%q: %d requests reached WeChat, want %d\n%s", tricks[i], len(got), want, back)
		}
	}
	for i, want := range []int{1, 0, 1} {
		r.answered(t, trick(strings.ReplaceAll(standInTricks[i], "{standin}", r.standIn(t))))
		if got := r.settle(t); len(got) != want {
			t.Errorf("%q: %d requests reached WeChat, want %d", standInTricks[i], len(got), want)
		}
	}
}
