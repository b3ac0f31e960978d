package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/proxy"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// The tests of this package run a proxy before a fake WeChat, and send raw
// bytes to it. This file has what they share.

const (
	component = "wxcccccccccccccccc"
	account   = "wxaaaaaaaaaaaaaaaa"
	other     = "wxbbbbbbbbbbbbbbbb"
	ownApp    = "wx00000000000000ff"

	ordersKey = "orders-key_0123456789"
	stockKey  = "stock-key_9876543210"
)

// key signs stand-ins in tests that issue their own.
var key = []byte("0123456789abcdef0123456789abcdef")

// fakeTokens is a broker with one token for all accounts. Renew counts it up.
// The broker itself is tested in its package, and both together in cmd/wxproxy.
type fakeTokens struct {
	mu       sync.Mutex
	current  string
	renewals int
	err      error            // of Token
	renewErr error            // of Renew
	knownErr map[string]error // of Known, by appid
}

func (f *fakeTokens) token() tokens.Token {
	return tokens.Token{Value: wechat.NewSecret(f.current), Escaped: f.current, Hit: true}
}

func (f *fakeTokens) Cached(string) (tokens.Token, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.token(), f.err == nil
}

func (f *fakeTokens) Token(context.Context, string) (tokens.Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.token(), f.err
}

func (f *fakeTokens) CheckAccount(_ context.Context, appid string) error { return f.knownErr[appid] }

func (f *fakeTokens) Renew(_ context.Context, _ string, stale wechat.Secret) (tokens.Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.renewErr != nil {
		return tokens.Token{}, f.renewErr
	}
	if f.current == stale.Reveal() {
		f.renewals++
		f.current = fmt.Sprintf("T%d", f.renewals)
	}
	return f.token(), nil
}

// tokensByAppID is a broker whose tokens name their account.
type tokensByAppID struct{ *fakeTokens }

func (tokensByAppID) Cached(appid string) (tokens.Token, bool) {
	return tokens.Token{Value: wechat.NewSecret("T-" + appid), Escaped: "T-" + appid, Hit: true}, true
}

func (b tokensByAppID) Token(_ context.Context, appid string) (tokens.Token, error) {
	t, _ := b.Cached(appid)
	return t, nil
}

func (tokensByAppID) Renew(context.Context, string, wechat.Secret) (tokens.Token, error) {
	return tokens.Token{}, tokens.ErrThrottled
}

// unusedTokens is a broker that must not be called.
type unusedTokens struct{ t *testing.T }

func (u unusedTokens) Cached(string) (tokens.Token, bool) {
	u.t.Error("got a call of Cached, want none")
	return tokens.Token{}, false
}

func (u unusedTokens) Token(context.Context, string) (tokens.Token, error) {
	u.t.Error("got a call of Token, want none")
	return tokens.Token{}, tokens.ErrClosed
}

func (u unusedTokens) Renew(context.Context, string, wechat.Secret) (tokens.Token, error) {
	u.t.Error("got a call of Renew, want none")
	return tokens.Token{}, tokens.ErrClosed
}

func (u unusedTokens) CheckAccount(context.Context, string) error {
	u.t.Error("got a call of Known, want none")
	return tokens.ErrClosed
}

// withRoutes configures an own account and each kind of [[route]].
func withRoutes(c *proxy.Config) {
	c.Tokens = tokensByAppID{&fakeTokens{}}
	c.Apps = map[string]wechat.Secret{ownApp: wechat.NewSecret("hidden")}
	c.Routes = []wechat.Endpoint{
		{Path: "/cgi-bin/new/*", Need: wechat.NeedComponent, Parameter: "component_access_token"},
		{Path: "/cgi-bin/hidden", Need: wechat.NeedRefusal},
		{Path: "/cgi-bin/open", Need: wechat.NeedNothing},
	}
}

// named returns a caller that is allowed everything.
func named(name, key string) proxy.Caller {
	return proxy.Caller{
		Name: name, KeySHA256: [][sha256.Size]byte{sha256.Sum256([]byte(key))},
		AppIDs: []string{"*"}, Paths: []string{"*"}, Methods: []string{"*"},
	}
}

// start runs a proxy before upstream until the test ends, and returns its
// address.
func start(t *testing.T, upstream string, change func(*proxy.Config)) (*proxy.Proxy, string) {
	t.Helper()
	p := newProxy(t, upstream, change)
	return p, serve(t, p)
}

// startUnlimited is start without a limit of wrong keys, for tests that send
// more of them than a client is allowed to.
func startUnlimited(t *testing.T, upstream string, change func(*proxy.Config)) string {
	t.Helper()
	p := newProxy(t, upstream, change)
	p.AllowWrongKeys()
	return serve(t, p)
}

// newProxy returns a proxy before upstream.
func newProxy(t *testing.T, upstream string, change func(*proxy.Config)) *proxy.Proxy {
	t.Helper()
	c := proxy.Config{
		Component: component, Upstream: upstream, Tokens: &fakeTokens{current: "T0"},
		Hosts: []string{"x"}, // of the raw requests in these tests
	}
	if change != nil {
		change(&c)
	}
	p, err := proxy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// serve runs p until the test ends, and returns its address.
func serve(t *testing.T, p *proxy.Proxy) string {
	t.Helper()
	return serveTLS(t, p, nil)
}

// serveTLS is serve with a TLS configuration, if conf is not nil.
func serveTLS(t *testing.T, p *proxy.Proxy, conf *tls.Config) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go p.Serve(ln, conf)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		p.Shutdown(ctx)
	})
	return ln.Addr().String()
}

// wechatServer runs a fake WeChat until the test ends, and returns its URL.
func wechatServer(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// recordingServer is a fake WeChat that records requests: method, target and
// headers. Its responses quote the target.
func recordingServer(t *testing.T) (url string, requests func() []string) {
	t.Helper()
	var mu sync.Mutex
	var all []string
	url = wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		var head bytes.Buffer
		r.Header.Write(&head)
		mu.Lock()
		all = append(all, r.Method+" "+r.RequestURI+"\n"+head.String())
		mu.Unlock()
		fmt.Fprintf(w, `{"errcode":0,"uri":%q}`, r.RequestURI)
	})
	return url, func() []string { mu.Lock(); defer mu.Unlock(); return all }
}

// testTimeout bounds what can only hang, not what can be slow.
const testTimeout = time.Minute

// send writes raw bytes and reads one response, on a connection of its own.
func send(t *testing.T, addr, raw string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testTimeout))
	io.WriteString(conn, raw)
	method, _, _ := strings.Cut(raw, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%.80q: %v", raw, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%.80q: %v", raw, err)
	}
	return resp, string(body)
}

// get returns a GET request.
func get(path string, headers ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: x\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n"
}

// post returns a POST request.
func post(path, body string, headers ...string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\n%s\r\nContent-Length: %d\r\n\r\n%s",
		path, strings.Join(append(headers, "X-A: b"), "\r\n"), len(body), body)
}

// basic returns the value of an Authorization header.
func basic(user, key string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+key))
}

// noKeyID is the key id of a stand-in that was issued under no key.
const noKeyID = "\x00\x00\x00\x00\x00\x00\x00\x00"

// forge builds a stand-in byte for byte, signed with key. The formats are
// fixed: other replicas, and later versions, have to read them. In version 2,
// caller begins with the key id.
func forge(version, kind byte, expires time.Time, appid, caller string) string {
	b := append([]byte{version, kind}, binary.BigEndian.AppendUint32(nil, uint32(expires.Unix()))...)
	b = append(b, appid+caller...)
	mac := hmac.New(sha256.New, key)
	mac.Write(b)
	return "wxp_" + base64.RawURLEncoding.EncodeToString(mac.Sum(b))
}

// checkResponse checks the status of a response, and that its body contains
// text, or begins with it if that is JSON. It reports what was sent in the
// failure.
func checkResponse(t *testing.T, sent string, resp *http.Response, body string, status int, text string) {
	t.Helper()
	matches := strings.Contains
	if strings.HasPrefix(text, "{") {
		matches = strings.HasPrefix
	}
	if resp.StatusCode != status || !matches(body, text) {
		t.Errorf("%.200s: got %d %.300s, want %d with %q", sent, resp.StatusCode, body, status, text)
	}
}

// waitUntil polls condition until it holds.
func waitUntil(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(testTimeout); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timeout: %s: got false, want true", what)
		}
	}
}
