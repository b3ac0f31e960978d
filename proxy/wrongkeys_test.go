package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/proxy"
)

// rejectedKeys counts wrong keys.
type rejectedKeys struct {
	labels
	listeners []string
}

func (r *rejectedKeys) KeyRejected(listener string) {
	r.mu.Lock()
	r.listeners = append(r.listeners, listener)
	r.mu.Unlock()
}

func (r *rejectedKeys) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.listeners)
}

// logLines receives a log.
type logLines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logLines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(strings.TrimSuffix(l.text.String(), "\n"), "\n")
}

// sendFrom is send from a loopback address, with one connection for all
// requests.
func sendFrom(t *testing.T, ip, addr string, requests ...string) (statuses []int, last string) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	conn, err := dialer.Dial("tcp", addr)
	if err != nil {
		t.Skipf("this system has no loopback address %s: %v", ip, err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testTimeout))
	br := bufio.NewReader(conn)
	for _, raw := range requests {
		io.WriteString(conn, raw)
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("%.80q: %v", raw, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatalf("%.80q: %v", raw, err)
		}
		statuses = append(statuses, resp.StatusCode)
		last = resp.Header.Get("Retry-After") + " " + string(body)
	}
	return statuses, last
}

// Parts of the requests below.
const (
	anyPath     = "/" + account + "/cgi-bin/a"
	tokenPath   = "/cgi-bin/token?appid=" + account
	loginPath   = "/sns/jscode2session?js_code=1&appid=" + account
	issuePath   = "/cgi-bin/component/api_component_token"
	chainPath   = "/cgi-bin/component/api_authorizer_token"
	wrongHeader = "X-Wxproxy-Key: guess"
	rightHeader = "X-Wxproxy-Key: " + ordersKey
)

// lasting is a stand-in of the caller orders.
var lasting = forge(1, 1, time.Now().Add(time.Hour), account, "orders")

// wrongKeys are all ways to send a wrong key, with the status within the limit.
var wrongKeys = map[string]struct {
	raw    string
	status int
}{
	"bearer":              {get(anyPath, "Authorization: Bearer guess"), 401},
	"basic":               {get(anyPath, "Authorization: "+basic("x", "guess")), 401},
	"basic, empty user":   {get(anyPath, "Authorization: "+basic("", "guess")), 401},
	"basic, key as user":  {get(anyPath, "Authorization: "+basic("guess", "")), 401},
	"another scheme":      {get(anyPath, "Authorization: Digest guess"), 401},
	"no scheme":           {get(anyPath, "Authorization: guess"), 401},
	"proxy":               {get(anyPath, "Proxy-Authorization: "+basic("x", "guess")), 401},
	"header":              {get(anyPath, wrongHeader), 401},
	"long":                {get(anyPath, "X-Wxproxy-Key: "+strings.Repeat("x", 513)), 401},
	"beside a right one":  {get(anyPath, rightHeader, "Authorization: Bearer guess"), 401},
	"on an unknown path":  {get("/x", wrongHeader), 401},
	"beside a stand-in":   {get("/cgi-bin/a?access_token="+lasting, wrongHeader), 401},
	"login, as secret":    {get(loginPath + "&secret=guess"), 401},
	"token":               {get(tokenPath + "&secret=guess"), 200},
	"token, header":       {get(tokenPath+"&secret="+ordersKey, wrongHeader), 401},
	"stable_token":        {post("/cgi-bin/stable_token", `{"appid":"`+account+`","secret":"guess"}`), 200},
	"component_token":     {post(issuePath, `{"component_appid":"`+component+`","component_appsecret":"guess"}`), 200},
	"authorizer_token":    {post(chainPath, `{"authorizer_appid":"`+account+`"}`, wrongHeader), 401},
	"another caller's":    {get(tokenPath+"&secret="+stockKey, rightHeader), 200},
	"expect 100-continue": {post(anyPath, "{}", wrongHeader, "Expect: 100-continue"), 401},
	"with a large body":   {post(anyPath, strings.Repeat("x", 65<<10), wrongHeader), 401},
}

// TestWrongKeysAreCountedAndLimited checks for each way to send a wrong key:
// each one is counted, ten from one address get the usual error, further ones
// 429 with Retry-After, wherever they are sent, and the log has the address. A
// right key is accepted at once, from the same address as from another, and the
// other address has a limit of its own.
func TestWrongKeysAreCountedAndLimited(t *testing.T) {
	up, _ := recordingServer(t)
	for name, c := range wrongKeys {
		seen, log := &rejectedKeys{}, &logLines{}
		_, addr := start(t, up, func(c *proxy.Config) {
			c.Callers = []proxy.Caller{named("orders", ordersKey), named("stock", stockKey)}
			c.StandInKey, c.Observer, c.Log = key, seen, slog.New(slog.NewTextHandler(log, nil))
		})
		for n := range 10 {
			statuses, body := sendFrom(t, "127.0.0.2", addr, c.raw)
			if statuses[0] != c.status {
				t.Fatalf("%s, %d: got %v %s, want %d", name, n, statuses, body, c.status)
			}
		}
		statuses, body := sendFrom(t, "127.0.0.2", addr, c.raw)
		after, _, _ := strings.Cut(body, " ")
		if statuses[0] != 429 || after == "" || len(after) > 2 || !strings.Contains(body, `{"errcode":-429,`) {
			t.Errorf("%s, the next one: got %v %s, want 429 with Retry-After", name, statuses, body)
		}
		if n := seen.count(); n != 11 || seen.listeners[0] != "proxy" {
			t.Errorf("%s: got %d wrong keys of %v, want 11 of proxy", name, n, seen.listeners)
		}
		lines := log.all()
		for i, line := range lines {
			want := fmt.Sprintf("wrong_keys=%d", i+1)
			if !strings.Contains(line, "level=WARN") || !strings.HasSuffix(line, want) ||
				!strings.Contains(line, "remote=127.0.0.2:") {
				t.Errorf("%s: got log line %s, want the address and %s", name, line, want)
			}
		}
		if len(lines) != 11 || strings.Contains(strings.Join(lines, ""), "guess") {
			t.Errorf("%s: got %d log lines, want 11 without the key:\n%q", name, len(lines), lines)
		}
		for range 20 {
			sendFrom(t, "127.0.0.2", addr, c.raw)
		}
		if n := len(log.all()); n != 11 {
			t.Errorf("%s, 20 more: got %d log lines, want still 11", name, n)
		}
		right := get(anyPath, rightHeader)
		fetch := get(tokenPath + "&secret=" + stockKey)
		began := time.Now()
		statuses, body = sendFrom(t, "127.0.0.2", addr, right, fetch, right)
		if fmt.Sprint(statuses) != "[200 200 200]" {
			t.Errorf("%s, right keys, same address: got %v %s, want 200", name, statuses, body)
		}
		t.Logf("%s: three right keys took %v", name, time.Since(began))
		if statuses, _ := sendFrom(t, "127.0.0.3", addr, c.raw); statuses[0] != c.status {
			t.Errorf("%s, another address: got %v, want %d", name, statuses, c.status)
		}
	}
}

// TestWhatIsNoWrongKey checks that requests without a key, with stand-ins of
// any kind, with real tokens, with two keys and while authentication is
// disabled are neither counted nor limited: an SDK with an old stand-in must
// get the error on which it fetches a new one, however often it asks.
func TestWhatIsNoWrongKey(t *testing.T) {
	up, _ := recordingServer(t)
	later, path := time.Now().Add(time.Hour), "/cgi-bin/a?access_token="
	for name, c := range map[string]struct {
		raw    string
		status int
	}{
		"no key":             {get(anyPath), 401},
		"empty key":          {get(anyPath, "X-Wxproxy-Key: ", "Authorization: "), 401},
		"two keys":           {get(anyPath, "X-Wxproxy-Key: a", "X-Wxproxy-Key: b"), 401},
		"two callers":        {get(anyPath, rightHeader, "Authorization: Bearer "+stockKey), 401},
		"forged stand-in":    {get(path + "wxp_forged"), 200},
		"removed caller's":   {get(path + forge(1, 1, later, account, "gone")), 200},
		"removed key's":      {get(path + forge(2, 1, later, account, "01234567orders")), 200},
		"expired":            {get(path + forge(1, 1, later.Add(-2*time.Hour), account, "orders")), 200},
		"real token":         {get("/" + account + path + "80_real"), 200},
		"login, no secret":   {get(loginPath), 401},
		"login, empty":       {get(loginPath + "&secret="), 401},
		"login, key, secret": {get(loginPath+"&secret=real", rightHeader), 200},
		"token, no secret":   {get(tokenPath), 200},
		"token, key, secret": {get(tokenPath+"&secret=real", rightHeader), 200},
		"key in the query":   {get(anyPath + "?key=guess&secret=guess&x-wxproxy-key=guess"), 401},
		"key in a cookie":    {get(anyPath, "Cookie: key=guess"), 401},
	} {
		seen := &rejectedKeys{}
		_, addr := start(t, up, func(c *proxy.Config) {
			c.Callers = []proxy.Caller{named("orders", ordersKey), named("stock", stockKey)}
			c.StandInKey, c.Observer = key, seen
		})
		for n := range 15 {
			if statuses, body := sendFrom(t, "127.0.0.1", addr, c.raw); statuses[0] != c.status {
				t.Fatalf("%s, %d: got %v %s, want %d", name, n, statuses, body, c.status)
			}
		}
		if n := seen.count(); n != 0 {
			t.Errorf("%s: got %d wrong keys, want 0", name, n)
		}
	}
	seen := &rejectedKeys{}
	_, addr := start(t, up, func(c *proxy.Config) { c.Observer = seen })
	for name, c := range wrongKeys {
		statuses, body := sendFrom(t, "127.0.0.1", addr, c.raw)
		if statuses[0] == 401 || statuses[0] == 429 {
			t.Errorf("%s without authentication: got %v %s, want neither", name, statuses, body)
		}
	}
	if n := seen.count(); n != 0 {
		t.Errorf("without authentication: got %d wrong keys, want 0", n)
	}
}

// TestKeyInQueryIsNotAccepted checks that the right key is no credential in a
// parameter that is not meant for it.
func TestKeyInQueryIsNotAccepted(t *testing.T) {
	up, _ := recordingServer(t)
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Callers = []proxy.Caller{named("orders", ordersKey)}
	})
	for _, name := range []string{"key", "secret", "api_key", "X-Wxproxy-Key", "authorization", "token"} {
		resp, body := send(t, addr, get(anyPath+"?"+name+"="+ordersKey))
		checkResponse(t, name, resp, body, 401, `{"errcode":-401,`)
	}
	resp, body := send(t, addr, get(anyPath+"?access_token="+ordersKey))
	checkResponse(t, "access_token", resp, body, 200, `{"errcode":40001,`)
}

// TestErrorLinesHaveTheAddress checks that the log line of a rejected request
// has the address of the client: 400, 401, 403, 404, 40001 and 503.
func TestErrorLinesHaveTheAddress(t *testing.T) {
	up, _ := recordingServer(t)
	log := &logLines{}
	limited := named("orders", ordersKey)
	limited.AppIDs = []string{account}
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Callers, c.Log = []proxy.Caller{limited}, slog.New(slog.NewTextHandler(log, nil))
	})
	for i, raw := range []string{
		get("/"+account+"/a/../b", rightHeader), get(anyPath),
		get("/"+other+"/cgi-bin/a", rightHeader), get("/cgi-bin/a", rightHeader),
		get("/cgi-bin/a?access_token=wxp_x"),
	} {
		sendFrom(t, "127.0.0.2", addr, raw)
		lines := log.all()
		line := lines[len(lines)-1]
		if len(lines) != i+1 || !strings.Contains(line, " remote=127.0.0.2:") {
			t.Errorf("%.40q: got %d lines, the last %s, want the address", raw, len(lines), line)
		}
	}
}
