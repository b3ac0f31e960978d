package console_test

import (
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"wxproxy/console"
	"wxproxy/wechat"
)

const key = "correct horse:battery"

func basic(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestKeyIsRequired(t *testing.T) {
	var logged logBuffer
	address := start(t, console.Config{Key: wechat.NewSecret(key), Metrics: counted, Log: logged.logger()})
	for _, c := range []struct {
		name, header string
		status       int
	}{
		{"none", "X-None: 1", 401},
		{"bearer", "Authorization: Bearer " + key, 200},
		{"bearer, other case", "authorization: bearer " + key, 200},
		{"bearer, spaces", "Authorization: Bearer   " + key + "  ", 200},
		{"basic", basic("prometheus", key), 200},
		{"basic without a name", basic("", key), 200},
		{"basic, key as name", basic(key, ""), 401},
		{"wrong", "Authorization: Bearer wrong", 401},
		{"a beginning", "Authorization: Bearer " + key[:5], 401},
		{"with more behind", "Authorization: Bearer " + key + "x", 401},
		{"empty bearer", "Authorization: Bearer ", 401},
		{"empty basic", basic("", ""), 401},
		{"no base64", "Authorization: Basic ///", 401},
		{"without a scheme", "Authorization: " + key, 401},
		{"another scheme", "Authorization: Digest " + key, 401},
		{"the caller's header", "X-Wxproxy-Key: " + key, 401},
	} {
		got := get(t, address, "/metrics", c.header)
		if got.status != c.status {
			t.Errorf("%s: got %d, want %d", c.name, got.status, c.status)
		}
		challenge := strings.Join(got.header.Values("WWW-Authenticate"), "; ")
		const both = `Basic realm="wxproxy", charset="UTF-8"; Bearer realm="wxproxy"`
		if denied := got.status == 401; denied != (challenge == both) {
			t.Errorf("%s: got challenge %q with status %d", c.name, challenge, got.status)
		}
		if strings.Contains(got.body, "horse") {
			t.Errorf("%s: got the key in the response", c.name)
		}
	}
	if strings.Contains(logged.String(), "horse") {
		t.Errorf("log: got the key in:\n%s", logged.String())
	}
}

// sendFrom sends a request for a path from a loopback address.
func sendFrom(t *testing.T, ip, address, path string, headers ...string) answer {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	client := &http.Client{Transport: &http.Transport{
		DialContext: dialer.DialContext, DisableKeepAlives: true,
	}}
	req, err := http.NewRequest("GET", "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Skipf("no request from %s: %v", ip, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

// Wrong keys are counted and logged with the address. After ten from one
// address, further ones get 429 on every path: bearer, basic, no scheme × page,
// API, metrics and a path that does not exist. The right key is accepted at
// once, and another address has a limit of its own. A reload does not reset it.
// A request without a key is neither counted nor limited.
func TestWrongKeysAreCountedAndLimited(t *testing.T) {
	var logged logBuffer
	var rejected atomic.Int64
	config := console.Config{
		Key: wechat.NewSecret(key), Metrics: counted, Log: logged.logger(), Loopback: true,
		KeyRejected: func(listener string) {
			if listener == "admin" {
				rejected.Add(1)
			}
		},
	}
	handler := console.New(config)
	address := listen(t, handler, config.Log)
	headers := []string{"Authorization: Bearer guess", basic("x", "guess"), "Authorization: guess"}
	paths := []string{"/metrics", "/", "/api/accounts", "/nothing"}
	guess := func(ip string, i int) answer {
		return sendFrom(t, ip, address, paths[i%len(paths)], headers[i%len(headers)])
	}
	for i := range 10 {
		if got := guess("127.0.0.2", i); got.status != 401 {
			t.Fatalf("wrong key %d: got %d, want 401", i, got.status)
		}
	}
	handler.Reconfigure(config)
	for i := range 12 {
		got := guess("127.0.0.2", i)
		after := got.header.Get("Retry-After")
		if got.status != 429 || after == "" || len(after) > 2 ||
			got.header.Get("WWW-Authenticate") != "" {
			t.Errorf("wrong key %d: got %d, Retry-After %q, want 429 with one and no challenge",
				i, got.status, after)
		}
	}
	right := sendFrom(t, "127.0.0.2", address, "/metrics", "Authorization: Bearer "+key)
	if right.status != 200 {
		t.Errorf("the right key: got %d, want 200", right.status)
	}
	if got := sendFrom(t, "127.0.0.2", address, "/metrics"); got.status != 401 {
		t.Errorf("no key: got %d, want 401", got.status)
	}
	if got := sendFrom(t, "127.0.0.2", address, "/healthz", headers[0]); got.status != 200 {
		t.Errorf("/healthz: got %d, want 200", got.status)
	}
	if got := guess("127.0.0.3", 0); got.status != 401 {
		t.Errorf("another address: got %d, want 401", got.status)
	}
	if n := rejected.Load(); n != 23 {
		t.Errorf("got %d wrong keys counted, want 23", n)
	}
	log := logged.String()
	if n := strings.Count(log, "remote=127.0.0.2:"); n != 11 || strings.Contains(log, "guess") {
		t.Errorf("got %d log lines with the address, want 11 and no key:\n%s", n, log)
	}
}

// A key in the query is not accepted: addresses end up in logs and histories.
func TestKeyInQueryIsNotAccepted(t *testing.T) {
	address := start(t, console.Config{Key: wechat.NewSecret(key), Metrics: counted})
	for _, name := range []string{"key", "token", "access_token", "authorization", "password"} {
		if got := get(t, address, "/metrics?"+name+"="+url.QueryEscape(key)); got.status != 401 {
			t.Errorf("%s: got %d, want 401", name, got.status)
		}
	}
	if got := get(t, address, "/metrics", "Cookie: key="+key); got.status != 401 {
		t.Errorf("cookie: got %d, want 401", got.status)
	}
}

// Without the key, a client does not learn which paths exist.
func TestKeyIsCheckedBeforeThePath(t *testing.T) {
	address := start(t, console.Config{Key: wechat.NewSecret(key), Metrics: counted})
	for _, request := range []string{"GET /", "GET /nothing", "POST /metrics", "HEAD /metrics",
		"OPTIONS *", "GET //healthz", "GET /healthz/", "GET /healthz/../metrics"} {
		if got := send(t, address, request+" HTTP/1.1"); got.status != 401 {
			t.Errorf("%s without the key: got %d, want 401", request, got.status)
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if got := get(t, address, path, "Authorization: Bearer wrong"); got.status != 200 {
			t.Errorf("%s: got %d, want 200", path, got.status)
		}
	}
	if got := get(t, address, "/nothing", "Authorization: Bearer "+key); got.status != 404 {
		t.Errorf("/nothing with the key: got %d, want 404", got.status)
	}
}

func TestForeignHostIsRejected(t *testing.T) {
	address := start(t, console.Config{Loopback: true, Metrics: counted})
	elsewhere := start(t, console.Config{Metrics: counted})
	for host, want := range map[string]int{
		"localhost":                  200,
		"localhost:8082":             200,
		"LocalHost:1":                200,
		"127.0.0.1":                  200,
		"127.0.0.1:65535":            200,
		"127.9.9.9:8082":             200, // an address, which no DNS server can change
		"[::1]":                      200,
		"[::1]:8082":                 200,
		"":                           403,
		"evil.example":               403,
		"evil.example:8082":          403,
		"localhost.evil.example":     403,
		"localhost.":                 403,
		"127.0.0.1.evil.example":     403,
		"127.0.0.1.nip.io":           403,
		"evil.example:127.0.0.1":     403,
		"127.1":                      403,
		"2130706433":                 403,
		"0.0.0.0:8082":               403,
		"10.0.0.1:8082":              403,
		"[::]:8082":                  403,
		"[::1%25eth0]:8082":          403,
		"192.168.1.1":                403,
		"evil.example@localhost":     403,
		"localhost@evil.example":     403,
		"localhost:8082:evil":        403,
		"[fe80::1]:8082":             403,
		"%6cocalhost":                403,
		"xn--lcalhost-54g.example:1": 403,
	} {
		got := get(t, address, "/metrics", "Host: "+host)
		// net/http rejects some itself with 400, which is as good.
		if got.status != want && !(want == 403 && got.status == 400) {
			t.Errorf("Host %q: got %d, want %d", host, got.status, want)
		}
		if want == 403 && got.status == 403 {
			if open := get(t, address, "/healthz", "Host: "+host); open.status != 200 {
				t.Errorf("Host %q, /healthz: got %d, want 200", host, open.status)
			}
			if other := get(t, elsewhere, "/metrics", "Host: "+host); other.status != 200 {
				t.Errorf("Host %q, not on loopback: got %d, want 200", host, other.status)
			}
		}
	}
	// In the absolute form, the host of the target counts and the header does
	// not.
	if got := get(t, address, "http://evil.example/metrics", "Host: localhost"); got.status != 403 {
		t.Errorf("absolute form: got %d, want 403", got.status)
	}
	if got := send(t, address, "GET /metrics HTTP/1.0", "X-None: 1\r\nHost:"); got.status != 403 {
		t.Errorf("HTTP/1.0 without a host: got %d, want 403", got.status)
	}
}

func TestCrossSiteRequestsAreDenied(t *testing.T) {
	for _, loopback := range []bool{true, false} {
		address := start(t, console.Config{Loopback: loopback, Metrics: counted})
		for _, c := range []struct {
			name    string
			headers []string
			status  int
		}{
			{"a program", nil, 200},
			{"typed in", []string{"Sec-Fetch-Site: none"}, 200},
			{"the page itself", []string{"Sec-Fetch-Site: same-origin", "Origin: http://" + address}, 200},
			{"the page itself, older browser", []string{"Origin: http://" + address}, 200},
			{"another site", []string{"Sec-Fetch-Site: cross-site"}, 403},
			{"another site, with origin",
				[]string{"Sec-Fetch-Site: cross-site", "Origin: https://evil.example"}, 403},
			{"another port of the same machine", []string{"Sec-Fetch-Site: same-site"}, 403},
			{"something new", []string{"Sec-Fetch-Site: same-planet"}, 403},
			{"another site, older browser", []string{"Origin: https://evil.example"}, 403},
			{"another port, older browser", []string{"Origin: http://127.0.0.1:1"}, 403},
			{"a sandboxed page", []string{"Origin: null"}, 403},
			{"no origin", []string{"Origin: http://%zz"}, 403},
		} {
			if got := get(t, address, "/metrics", c.headers...); got.status != c.status {
				t.Errorf("%s, loopback %v: got %d, want %d", c.name, loopback, got.status, c.status)
			}
			if got := get(t, address, "/readyz", c.headers...); got.status != 200 {
				t.Errorf("%s, /readyz: got %d, want 200", c.name, got.status)
			}
		}
	}
}

// An Origin without a host does not match a request without one.
func TestOriginWithoutHostIsForeign(t *testing.T) {
	address := start(t, console.Config{Metrics: counted})
	if got := send(t, address, "GET /metrics HTTP/1.0", "Origin: null\r\nHost:"); got.status != 403 {
		t.Errorf("Origin without a host: got %d, want 403", got.status)
	}
}

// The browser must not prompt for the key on behalf of another site's page.
func TestCrossSiteRequestsAreNotChallenged(t *testing.T) {
	address := start(t, console.Config{Key: wechat.NewSecret(key), Loopback: true, Metrics: counted})
	for _, header := range []string{"Host: evil.example", "Sec-Fetch-Site: cross-site"} {
		got := get(t, address, "/metrics", header, "Authorization: Bearer "+key)
		if got.status != 403 || got.header.Get("WWW-Authenticate") != "" {
			t.Errorf("%s: got %d with challenge %q, want 403 without one", header, got.status,
				got.header.Get("WWW-Authenticate"))
		}
	}
}
