package proxy_test

import (
	"bufio"
	"context"
	"encoding/json"
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
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// The tests in this file compare Explain and Permission with real requests, for
// every endpoint × account × method × caller × credential.

// outcome is what can be seen of a request from outside.
type outcome struct {
	forwarded  string     // path that WeChat received, "" if it received nothing
	query      url.Values // likewise
	status     int
	body       string
	appid      string // of the watched call
	credential string // of the counted call
}

// witness records what happens to requests, one at a time.
type witness struct {
	t        *testing.T
	upstream string
	mu       sync.Mutex
	seen     outcome
}

func (w *witness) CallStarted()                {}
func (w *witness) TokenUsed(string, bool)      {}
func (w *witness) Retried(string, int, string) {}
func (w *witness) WeChatError(int)             {}
func (w *witness) Redacted()                   {}
func (w *witness) KeyRejected(string)          {}
func (w *witness) CallDone(_, credential string, _ int, _, _ time.Duration) {
	w.mu.Lock()
	w.seen.credential = credential
	w.mu.Unlock()
}

func (w *witness) watch(c proxy.Call) {
	w.mu.Lock()
	w.seen.appid = c.AppID
	w.mu.Unlock()
}

func newWitness(t *testing.T) *witness {
	w := &witness{t: t}
	w.upstream = wechatServer(t, func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.seen.forwarded, w.seen.query = r.URL.EscapedPath(), r.URL.Query()
		w.mu.Unlock()
		io.WriteString(rw, "{}")
	})
	return w
}

// rawClient sends raw requests over one connection, as long as it stays open.
type rawClient struct {
	t    *testing.T
	addr string
	conn net.Conn
	br   *bufio.Reader

	requests int // counted by tests that take turns
}

func (c *rawClient) do(w *witness, raw string) outcome {
	c.t.Helper()
	w.mu.Lock()
	w.seen = outcome{}
	w.mu.Unlock()
	if c.conn == nil {
		conn, err := net.Dial("tcp", c.addr)
		if err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(5 * time.Minute))
		c.conn, c.br = conn, bufio.NewReader(conn)
	}
	io.WriteString(c.conn, raw)
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		c.t.Fatalf("%q: %v", raw, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("%q: %v", raw, err)
	}
	if resp.Close {
		c.conn.Close()
		c.conn = nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen.status, w.seen.body = resp.StatusCode, string(body)
	return w.seen
}

// agreementPaths returns a path for each row of the table, for each kind of
// [[route]], and for no row at all. Requests for stand-ins name everything in
// the query, since Explain knows no bodies.
func agreementPaths() []string {
	paths := []string{
		"/cgi-bin/unknown/path", "/cgi-bin/%75ser/info", "/cgi-bin/new/thing", "/cgi-bin/hidden", "/cgi-bin/open",
		"/", "/a%2fb", "/a/../b", "/a?b%20c#d", "/cgi-bin/component/unheard_of", "/sns/oauth2/access_token?component_appid=x",
		"/wxa/setdefaultamsinfo?action=a&action=b", "/sns/jscode2session?appid=" + other,
		"/cgi-bin/token", "/cgi-bin/token?appid=" + other, "/cgi-bin/token?appid=" + component, "/cgi-bin/token?appid=wx1",
		"/cgi-bin/component/api_component_token?component_appid=" + other,
		"/cgi-bin/component/api_authorizer_token?component_appid=" + other + "&authorizer_appid=" + account,
		"/cgi-bin/component/api_authorizer_token?authorizer_appid=" + component,
	}
	for _, e := range wechat.Endpoints {
		path := rowPath(e)
		if len(e.Actions) > 0 {
			paths = append(paths, strings.ReplaceAll(path, e.Actions[0], "other"))
		}
		if isLogin(e) {
			paths = append(paths, path+"?appid="+account)
		}
		paths = append(paths, path)
	}
	return paths
}

// rowPath returns a path for a row of the table. Requests for stand-ins name
// the account in their query.
func rowPath(e wechat.Endpoint) string {
	path := strings.Replace(e.Path, "*", "thing", 1)
	switch e.Path {
	case wechat.PathToken, wechat.PathStableToken:
		path += "?appid=" + account
	case wechat.PathComponentToken:
		path += "?component_appid=" + component
	case wechat.PathAuthorizerToken:
		path += "?component_appid=" + component + "&authorizer_appid=" + account
	case wechat.PathQueryAuth:
		path += "?component_appid=" + component + "&authorization_code=code"
	}
	if len(e.Actions) > 0 {
		path += "?action=" + e.Actions[0]
	}
	return path
}

// isLogin reports whether a row is for logins of an account's users.
func isLogin(e wechat.Endpoint) bool { return e.Need == wechat.NeedSecret || e.ComponentAppID }

// withQuery adds parameters to a path.
func withQuery(path, query string) string {
	switch {
	case query == "":
		return path
	case strings.Contains(path, "?"):
		return path + "&" + query
	}
	return path + "?" + query
}

func agreementConfig(w *witness, callers []proxy.Caller) proxy.Config {
	c := proxy.Config{
		Component: component, Upstream: w.upstream, StandInKey: key, Callers: callers, Observer: w, Watch: w.watch,
		Hosts: []string{"x"},
		Exchange: func(context.Context, wechat.Secret) (tokens.Authorization, error) {
			return tokens.Authorization{AppID: account}, nil
		},
	}
	withRoutes(&c)
	return c
}

// question is one request that is asked about and then sent.
type question struct {
	caller, appid, method, path string
	headers                     []string
}

func (q question) raw() string {
	headers := append([]string{"Host: localhost", "Content-Length: 0"}, q.headers...)
	if q.appid != "" {
		headers = append(headers, "X-WX-APPID: "+q.appid)
	}
	return q.method + " " + q.path + " HTTP/1.1\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n"
}

// check compares the outcome of q with what Explain and Permission say about
// it.
func (q question) check(t *testing.T, p *proxy.Proxy, got outcome) {
	t.Helper()
	e, err := p.Explain(q.appid, q.method, q.path)
	if err != nil {
		t.Errorf("%+v: got error %v, want none", q, err)
		return
	}
	asked := strings.Contains(strings.ToLower(q.path), "hidden")
	if strings.Contains(fmt.Sprint(e), "hidden") && !asked {
		t.Errorf("%+v: got the secret in %+v", q, e)
	}
	if allowed, reason := p.Permission(q.caller, q.appid, q.method, q.path); !allowed {
		if errmsg, _ := errorOf(got.body); errmsg != reason || got.forwarded != "" {
			t.Errorf("%+v: got %q, forwarded as %q, Permission says %q", q, errmsg, got.forwarded, reason)
		}
		return
	}
	switch {
	case e.Status != 0:
		errmsg, hint := errorOf(got.body)
		if got.status != e.Status || errmsg != e.Error || hint != e.Hint || got.forwarded != "" {
			t.Errorf("%+v: got %d %q, hint %q, forwarded as %q, Explain says %d %q, hint %q",
				q, got.status, errmsg, hint, got.forwarded, e.Status, e.Error, e.Hint)
		}
	case e.Answered:
		q.checkAnswered(t, e, got)
	default:
		q.checkForwarded(t, e, got)
	}
}

func (q question) checkAnswered(t *testing.T, e proxy.Explanation, got outcome) {
	t.Helper()
	issued := strings.Contains(got.body, `access_token":"wxp_`)
	if q.bodyNamesAccount() && strings.Contains(got.body, `"errcode":40013`) {
		issued = true // no: the body named no account
	}
	if got.status != 200 || !issued || got.forwarded != "" || got.credential != e.Credential {
		t.Errorf("%+v: got %d %s, forwarded as %q, Explain says that it is answered with a stand-in",
			q, got.status, got.body, got.forwarded)
	}
}

// bodyNamesAccount reports whether q is a request for a stand-in of an account
// that the query does not name. Explain cannot know the body.
func (q question) bodyNamesAccount() bool {
	return strings.Contains(q.path, wechat.PathToken) && !strings.Contains(q.path, "appid=")
}

func (q question) checkForwarded(t *testing.T, e proxy.Explanation, got outcome) {
	t.Helper()
	if got.appid != e.AppID {
		t.Errorf("%+v: got account %q, Explain says %q", q, got.appid, e.AppID)
	}
	if got.status != 200 || got.forwarded != e.Forwarded || got.credential != e.Credential {
		t.Errorf("%+v: got %d %s, forwarded as %q with %s, Explain says %q with %s",
			q, got.status, got.body, got.forwarded, got.credential, e.Forwarded, e.Credential)
	}
	want := ""
	switch {
	case e.Holder != "":
		want = "T-" + e.Holder
	case e.Parameter != "":
		want = "hidden"
	}
	if value := got.query.Get(e.Parameter); e.Parameter != "" && value != want {
		t.Errorf("%+v: got %s=%q, Explain says %q", q, e.Parameter, value, want)
	}
	for _, name := range e.Adds {
		if !got.query.Has(name) {
			t.Errorf("%+v: got no parameter %s, Explain says that it is added", q, name)
		}
	}
	for _, name := range e.Removes {
		if slices.ContainsFunc(got.query[name], func(v string) bool { return v == "theirs" || v == ordersKey }) {
			t.Errorf("%+v: got parameter %s=%q, Explain says that it is removed", q, name, got.query[name])
		}
	}
	_, query, _ := strings.Cut(q.path, "?")
	sent, _ := url.ParseQuery(query)
	for name, values := range got.query {
		if !sent.Has(name) && name != e.Parameter && !slices.Contains(e.Adds, name) {
			t.Errorf("%+v: got parameter %s=%q, Explain says nothing of it", q, name, values)
		}
		for _, v := range values {
			if strings.HasPrefix(v, "wxp_") {
				t.Errorf("%+v: got a stand-in in %s, want none at WeChat", q, name)
			}
		}
	}
}

// errorOf returns the errmsg, without wxproxy's prefix, and the hint of an
// error response.
func errorOf(body string) (errmsg, hint string) {
	var e struct{ ErrMsg, Hint string }
	if json.Unmarshal([]byte(body), &e) != nil {
		return body, ""
	}
	return strings.TrimPrefix(e.ErrMsg, "wxproxy: "), e.Hint
}

var agreementAppIDs = []string{"", account, ownApp, component, "no appid"}

func TestExplainAgreesWithRequests(t *testing.T) {
	w := newWitness(t)
	byAppID, byPath, byMethod := named("by-appid", "appid-key"), named("by-path", "path-key"), named("by-method", "method-key")
	byAppID.AppIDs = []string{account}
	byPath.Paths = []string{"/cgi-bin/component/*", "/cgi-bin/new/thing"}
	byMethod.Methods = []string{"POST"}
	keys := map[string]string{"orders": ordersKey, "by-appid": "appid-key", "by-path": "path-key", "by-method": "method-key"}
	p, addr := start(t, w.upstream, func(c *proxy.Config) {
		*c = agreementConfig(w, []proxy.Caller{named("orders", ordersKey), byAppID, byPath, byMethod})
	})
	client := &rawClient{t: t, addr: addr}
	expires := time.Now().Add(time.Hour)
	for caller, callerKey := range keys {
		header := "X-Wxproxy-Key: " + callerKey
		credentials := map[string]struct {
			query   string
			headers []string
		}{
			"key":                        {"", []string{header}},
			"key and foreign token":      {"access_token=theirs&component_access_token=theirs", []string{header}},
			"account stand-in":           {"access_token=" + forge(1, 1, expires, account, caller), nil},
			"component stand-in":         {"component_access_token=" + forge(1, 2, expires, component, caller), nil},
			"both stand-ins and the key": {"access_token=" + forge(1, 1, expires, account, caller) + "&component_access_token=" + forge(1, 2, expires, component, caller), []string{header}},
			"expired stand-in":           {"access_token=" + forge(1, 1, expires.Add(-2*time.Hour), account, caller), []string{header}},
			"another caller's stand-in":  {"access_token=" + forge(1, 1, expires, account, "removed"), []string{header}},
		}
		for name, credential := range credentials {
			paths := append(agreementPaths(), "//"+account+"//cgi-bin/a", "http://api.weixin.qq.com/cgi-bin/a", "https://evil.example/a")
			for _, path := range paths {
				for _, appid := range agreementAppIDs {
					for _, method := range []string{"GET", "POST"} {
						q := question{caller: caller, appid: appid, method: method, path: withQuery(path, credential.query), headers: credential.headers}
						if !standInWorks(name, path) {
							continue
						}
						q.check(t, p, client.do(w, q.raw()))
						if t.Failed() {
							t.Fatalf("with credential %q", name)
						}
					}
				}
			}
		}
	}
}

// standInWorks reports whether a credential can authenticate a request for
// path. On the paths of secrets a stand-in alone cannot.
func standInWorks(credential, path string) bool {
	if strings.Contains(credential, "key") || !strings.Contains(credential, "stand-in") {
		return true
	}
	for _, p := range []string{wechat.PathToken, wechat.PathStableToken, wechat.PathComponentToken} {
		if path == p || strings.HasPrefix(path, p+"?") {
			return false
		}
	}
	return true
}

func TestExplainAgreesWithoutAuthentication(t *testing.T) {
	w := newWitness(t)
	p, addr := start(t, w.upstream, func(c *proxy.Config) { *c = agreementConfig(w, nil) })
	client := &rawClient{t: t, addr: addr}
	expires := time.Now().Add(time.Hour)
	for _, query := range []string{
		"", "access_token=theirs", "access_token=" + forge(1, 1, expires, account, ""), "access_token=" + forge(1, 2, expires, component, ""),
		"access_token=wxp_invalid", "access_token=" + forge(1, 1, expires, account, "") + "&component_access_token=" + forge(1, 1, expires, other, ""),
	} {
		for _, path := range agreementPaths() {
			for _, appid := range agreementAppIDs {
				for _, prefix := range []string{"", "/" + account, "/" + component} {
					q := question{appid: appid, method: "GET", path: prefix + withQuery(path, query)}
					q.check(t, p, client.do(w, q.raw()))
				}
			}
		}
		if t.Failed() {
			t.FailNow()
		}
	}
}

// TestUnauthenticatedRequestsLearnNothing checks that requests without a valid
// credential never reach WeChat, and that their response does not depend on the
// account.
func TestUnauthenticatedRequestsLearnNothing(t *testing.T) {
	w := newWitness(t)
	addr := startUnlimited(t, w.upstream, func(c *proxy.Config) {
		*c = agreementConfig(w, []proxy.Caller{named("orders", ordersKey)})
		c.Tokens = unusedTokens{t}
	})
	client := &rawClient{t: t, addr: addr}
	for _, credential := range []question{
		{},
		{headers: []string{"X-Wxproxy-Key: wrong"}},
		{path: "access_token=theirs"},
		{path: "secret=wrong"},
		{path: "access_token=" + forge(1, 1, time.Now().Add(time.Hour), account, "removed")},
	} {
		for _, path := range agreementPaths() {
			if path == "/a%2fb" || path == "/a/../b" {
				continue // invalid for every caller
			}
			first := ""
			for _, appid := range []string{account, ownApp, component, other} {
				q := question{appid: appid, method: "POST", path: withQuery(path, credential.path), headers: credential.headers}
				got := client.do(w, q.raw())
				if first == "" {
					first = got.body
				}
				if got.forwarded != "" || strings.Contains(got.body, "wxp_") || got.body != first {
					t.Errorf("%+v: got %d %s, forwarded as %q, want %s and nothing forwarded", q, got.status, got.body, got.forwarded, first)
				}
			}
		}
	}
}

// TestExpectAgreesWithRequests checks that "Expect: 100-continue" is answered with
// the error that the request would get, or with 100.
func TestExpectAgreesWithRequests(t *testing.T) {
	w := newWitness(t)
	byAppID, byPath := named("by-appid", "appid-key"), named("by-path", "path-key")
	byAppID.AppIDs, byPath.Paths = []string{account}, []string{"/cgi-bin/component/*"}
	addr := startUnlimited(t, w.upstream, func(c *proxy.Config) {
		*c = agreementConfig(w, []proxy.Caller{named("orders", ordersKey), byAppID, byPath})
	})
	client := &rawClient{t: t, addr: addr}
	for _, header := range []string{
		"X-A: b", "X-Wxproxy-Key: wrong", "X-Wxproxy-Key: " + ordersKey, "X-Wxproxy-Key: appid-key", "X-Wxproxy-Key: path-key",
	} {
		for _, path := range agreementPaths() {
			for _, appid := range []string{account, other, component} {
				raw := post(path, "{}", header, "X-WX-APPID: "+appid)
				want := client.do(w, raw)
				got, body := send(t, addr, strings.TrimSuffix(strings.Replace(raw, "\r\n", "\r\nExpect: 100-continue\r\n", 1), "{}"))
				if got.StatusCode == http.StatusContinue {
					// What depends on the body, or on the state of accounts, comes later.
					if want.status >= 400 && want.status < 500 && !strings.Contains(path, "token") {
						t.Errorf("%q: got 100, want %d %s", raw, want.status, want.body)
					}
					continue
				}
				if got.StatusCode != want.status || body != want.body {
					t.Errorf("%q: got %s %s, want %d %s", raw, got.Status, body, want.status, want.body)
				}
			}
		}
	}
}
