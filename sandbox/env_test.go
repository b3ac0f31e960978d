package sandbox_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/sandbox"
	"wxproxy/wechat"
)

const (
	shop = "wx00000000000000aa" // an official account
	mini = "wx00000000000000bb" // a mini program
	solo = "wx00000000000000cc" // an official account with a secret of its own

	soloSecret = "solosecretsolosecretsolosecret00"
)

// clock is a clock that the test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Unix(1_790_000_000, 0)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// env is a sandbox on a real listener, with the three accounts above.
type env struct {
	*sandbox.WeChat
	t     *testing.T
	url   string
	clock *clock
}

func newEnv(t *testing.T, cfg sandbox.Config) *env {
	t.Helper()
	c := newClock()
	if cfg.Now == nil {
		cfg.Now = c.Now
	}
	cfg.PushTimeout = time.Minute // far more than a busy machine needs
	s, err := sandbox.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(func() { srv.Close(); s.Close() })
	must(t, s.AddAccount(shop, sandbox.OfficialAccount))
	must(t, s.AddAccount(mini, sandbox.MiniProgram))
	must(t, s.AddAccount(solo, sandbox.OfficialAccount, sandbox.WithSecret(soloSecret)))
	return &env{WeChat: s, t: t, url: srv.URL, clock: c}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// response is an HTTP response, read whole.
type response struct {
	t      *testing.T
	status int
	header http.Header
	body   []byte
}

func (wx *env) do(method, pathQuery, body string, headers ...string) response {
	wx.t.Helper()
	req, err := http.NewRequest(method, wx.url+pathQuery, strings.NewReader(body))
	must(wx.t, err)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	must(wx.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(wx.t, err)
	return response{wx.t, resp.StatusCode, resp.Header, b}
}

func (wx *env) get(pathQuery string) response { wx.t.Helper(); return wx.do("GET", pathQuery, "") }
func (wx *env) post(pathQuery, body string) response {
	wx.t.Helper()
	return wx.do("POST", pathQuery, body)
}

func (g response) code() int { return wechat.FindErrCode(g.body) }

// wantCode checks status 200 and the errcode, 0 for none.
func (g response) wantCode(code int) response {
	g.t.Helper()
	if g.status != 200 || g.code() != code {
		g.t.Errorf("got HTTP %d %s, want 200 and errcode %d", g.status, g.body, code)
	}
	return g
}

func (g response) object() map[string]any {
	g.t.Helper()
	m := map[string]any{}
	if err := json.Unmarshal(g.body, &m); err != nil {
		g.t.Fatalf("got %q, want a JSON object", g.body)
	}
	return m
}

// field returns the string at a path of names, "" if there is none.
func (g response) field(names ...string) string {
	g.t.Helper()
	var v any = g.object()
	for _, n := range names {
		m, _ := v.(map[string]any)
		v = m[n]
	}
	s, _ := v.(string)
	return s
}

func js(pairs ...any) string {
	m := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i].(string)] = pairs[i+1]
	}
	b, _ := json.Marshal(m)
	return string(b)
}

func (wx *env) componentBody() string { return js("component_appid", wx.ComponentAppID()) }

// requestComponentToken sends an api_component_token request.
func (wx *env) requestComponentToken(appid, secret, ticket string) response {
	wx.t.Helper()
	return wx.post("/cgi-bin/component/api_component_token",
		js("component_appid", appid, "component_appsecret", secret, "component_verify_ticket", ticket))
}

// componentToken returns a new component_access_token.
func (wx *env) componentToken() string {
	wx.t.Helper()
	return wx.requestComponentToken(wx.ComponentAppID(), sandbox.DefaultComponentSecret, wx.Ticket()).
		wantCode(0).field("component_access_token")
}

// queryAuth sends an api_query_auth request.
func (wx *env) queryAuth(code, component string) response {
	wx.t.Helper()
	return wx.post("/cgi-bin/component/api_query_auth?component_access_token="+url.QueryEscape(component),
		js("component_appid", wx.ComponentAppID(), "authorization_code", code))
}

// authorizerInfo sends an api_get_authorizer_info request.
func (wx *env) authorizerInfo(appid, component string) response {
	wx.t.Helper()
	return wx.post("/cgi-bin/component/api_get_authorizer_info?access_token="+component,
		js("component_appid", wx.ComponentAppID(), "authorizer_appid", appid))
}

// stableToken sends a stable_token request.
func (wx *env) stableToken(appid, secret string, force bool) response {
	wx.t.Helper()
	return wx.post("/cgi-bin/stable_token",
		js("grant_type", "client_credential", "appid", appid, "secret", secret, "force_refresh", force))
}

// grant makes the account consent and exchanges its code.
func (wx *env) grant(appid string) (access, refresh string) {
	wx.t.Helper()
	return wx.exchange(wx.AuthorizationCode(appid), wx.componentToken())
}

// exchange exchanges an authorization code and returns the account's tokens.
func (wx *env) exchange(code, component string) (access, refresh string) {
	wx.t.Helper()
	g := wx.queryAuth(code, component).wantCode(0)
	return g.field("authorization_info", "authorizer_access_token"),
		g.field("authorization_info", "authorizer_refresh_token")
}

// renew sends an api_authorizer_token request.
func (wx *env) renew(appid, refresh, component string) response {
	wx.t.Helper()
	return wx.post("/cgi-bin/component/api_authorizer_token?access_token="+component,
		js("component_appid", wx.ComponentAppID(), "authorizer_appid", appid, "authorizer_refresh_token", refresh))
}

// callback is a callback listener. It checks the form of each push.
type callback struct {
	*httptest.Server
	crypt *wechat.Crypt

	pushed chan struct{} // receives a value after each push; the first hundred

	mu     sync.Mutex // guards everything below
	answer string
	status int
	docs   []string
	urls   []*url.URL
	outer  []wechat.Envelope
}

func newCallback(t *testing.T) *callback {
	t.Helper()
	crypt, err := wechat.NewCrypt(wechat.NewSecret(sandbox.DefaultMessageToken),
		wechat.NewSecret(sandbox.DefaultEncodingAESKey), sandbox.DefaultComponentAppID)
	must(t, err)
	cb := &callback{crypt: crypt, pushed: make(chan struct{}, 100), answer: "success", status: 200}
	cb.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		e, err := wechat.ParseEnvelope(body)
		if err != nil {
			t.Errorf("parsing the envelope %s: %v", body, err)
		}
		q := r.URL.Query()
		doc, err := crypt.Open(q.Get("msg_signature"), q.Get("timestamp"), q.Get("nonce"), e.Encrypt)
		if err != nil {
			t.Errorf("decrypting the push: %v", err)
		}
		if q.Get("signature") != crypt.Signature(q.Get("timestamp"), q.Get("nonce"), "") ||
			q.Get("encrypt_type") != "aes" || r.Method != "POST" {
			t.Errorf("got push %s %s, want a POST with a signature and encrypt_type=aes", r.Method, r.URL)
		}
		cb.mu.Lock()
		defer cb.mu.Unlock()
		cb.docs, cb.urls, cb.outer = append(cb.docs, string(doc)), append(cb.urls, r.URL), append(cb.outer, e)
		rw.WriteHeader(cb.status)
		io.WriteString(rw, cb.answer)
		select {
		case cb.pushed <- struct{}{}:
		default:
		}
	}))
	t.Cleanup(cb.Close)
	return cb
}

func (cb *callback) set(status int, answer string) {
	cb.mu.Lock()
	defer cb.mu.Unlock()
	cb.status, cb.answer = status, answer
}

// count returns the number of pushes so far.
func (cb *callback) count() int {
	cb.mu.Lock()
	defer cb.mu.Unlock()
	return len(cb.docs)
}

// wait waits for a push that no call has waited for.
func (cb *callback) wait(t *testing.T) {
	t.Helper()
	select {
	case <-cb.pushed:
	case <-time.After(time.Minute): // far more than a busy machine needs
		t.Fatal("got no push within a minute")
	}
}

// last returns the event that was pushed last.
func (cb *callback) last(t *testing.T) wechat.Event {
	t.Helper()
	cb.mu.Lock()
	defer cb.mu.Unlock()
	if len(cb.docs) == 0 {
		t.Fatal("got no push, want one")
	}
	doc, err := wechat.ParseDocument([]byte(cb.docs[len(cb.docs)-1]))
	must(t, err)
	e, err := doc.Event()
	must(t, err)
	return e
}

func ctx(t *testing.T) context.Context { return t.Context() }

func contains(t *testing.T, b []byte, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !bytes.Contains(b, []byte(p)) {
			t.Errorf("got %.600s, want it to contain %q", b, p)
		}
	}
}
