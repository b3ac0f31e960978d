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

// clock is time that moves by hand.
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

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// world is a sandbox on a real listener.
type world struct {
	*sandbox.WeChat
	t     *testing.T
	url   string
	clock *clock
}

func newWorld(t *testing.T, cfg sandbox.Config) *world {
	t.Helper()
	c := newClock()
	if cfg.Now == nil {
		cfg.Now = c.Now
	}
	s, err := sandbox.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(func() { srv.Close(); s.Close() })
	must(t, s.AddAccount(shop, sandbox.OfficialAccount))
	must(t, s.AddAccount(mini, sandbox.MiniProgram))
	must(t, s.AddAccount(solo, sandbox.OfficialAccount, sandbox.WithSecret(soloSecret)))
	return &world{WeChat: s, t: t, url: srv.URL, clock: c}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// got is an answer.
type got struct {
	t      *testing.T
	status int
	header http.Header
	body   []byte
}

func (w *world) do(method, pathQuery, body string, headers ...string) got {
	w.t.Helper()
	req, err := http.NewRequest(method, w.url+pathQuery, strings.NewReader(body))
	must(w.t, err)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	must(w.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(w.t, err)
	return got{w.t, resp.StatusCode, resp.Header, b}
}

func (w *world) get(pathQuery string) got        { w.t.Helper(); return w.do("GET", pathQuery, "") }
func (w *world) post(pathQuery, body string) got { w.t.Helper(); return w.do("POST", pathQuery, body) }

func (g got) code() int { return wechat.FindErrCode(g.body) }

// want checks status 200 and the errcode.
func (g got) want(code int) got {
	g.t.Helper()
	if g.status != 200 || g.code() != code {
		g.t.Errorf("got HTTP %d %s, want 200 and errcode %d", g.status, g.body, code)
	}
	return g
}

func (g got) object() map[string]any {
	g.t.Helper()
	m := map[string]any{}
	if err := json.Unmarshal(g.body, &m); err != nil {
		g.t.Fatalf("no JSON: %q", g.body)
	}
	return m
}

// field gives a string, by a path of names.
func (g got) field(names ...string) string {
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

func (w *world) componentBody() string { return js("component_appid", w.ComponentAppID()) }

// componentToken fetches one over the protocol.
func (w *world) componentToken() string {
	w.t.Helper()
	return w.post("/cgi-bin/component/api_component_token", js("component_appid", w.ComponentAppID(),
		"component_appsecret", sandbox.DefaultComponentSecret, "component_verify_ticket", w.Ticket())).want(0).field("component_access_token")
}

// grant is an account's consent and its exchange, over the protocol.
func (w *world) grant(appid string) (access, refresh string) {
	w.t.Helper()
	return w.exchange(w.AuthorizationCode(appid), w.componentToken())
}

func (w *world) exchange(code, component string) (access, refresh string) {
	w.t.Helper()
	g := w.post("/cgi-bin/component/api_query_auth?component_access_token="+url.QueryEscape(component),
		js("component_appid", w.ComponentAppID(), "authorization_code", code)).want(0)
	return g.field("authorization_info", "authorizer_access_token"), g.field("authorization_info", "authorizer_refresh_token")
}

func (w *world) renew(appid, refresh, component string) got {
	w.t.Helper()
	return w.post("/cgi-bin/component/api_authorizer_token?access_token="+component,
		js("component_appid", w.ComponentAppID(), "authorizer_appid", appid, "authorizer_refresh_token", refresh))
}

// callback is a listener that takes pushes as wxproxy's does.
type callback struct {
	*httptest.Server
	crypt *wechat.Crypt

	mu     sync.Mutex
	answer string
	status int
	docs   []string
	urls   []*url.URL
	outer  []wechat.Envelope
}

func newCallback(t *testing.T) *callback {
	t.Helper()
	crypt, err := wechat.NewCrypt(wechat.NewSecret(sandbox.DefaultMessageToken), wechat.NewSecret(sandbox.DefaultEncodingAESKey), sandbox.DefaultComponentAppID)
	must(t, err)
	cb := &callback{crypt: crypt, answer: "success", status: 200}
	cb.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		e, err := wechat.ParseEnvelope(body)
		if err != nil {
			t.Errorf("outer document: %v: %s", err, body)
		}
		q := r.URL.Query()
		doc, err := crypt.Open(q.Get("msg_signature"), q.Get("timestamp"), q.Get("nonce"), e.Encrypt)
		if err != nil {
			t.Errorf("push: %v", err)
		}
		if q.Get("signature") != crypt.Signature(q.Get("timestamp"), q.Get("nonce"), "") || q.Get("encrypt_type") != "aes" || r.Method != "POST" {
			t.Errorf("push came as %s %s", r.Method, r.URL)
		}
		cb.mu.Lock()
		defer cb.mu.Unlock()
		cb.docs, cb.urls, cb.outer = append(cb.docs, string(doc)), append(cb.urls, r.URL), append(cb.outer, e)
		w.WriteHeader(cb.status)
		io.WriteString(w, cb.answer)
	}))
	t.Cleanup(cb.Close)
	return cb
}

func (cb *callback) set(status int, answer string) {
	cb.mu.Lock()
	defer cb.mu.Unlock()
	cb.status, cb.answer = status, answer
}

func (cb *callback) last(t *testing.T) wechat.Event {
	t.Helper()
	cb.mu.Lock()
	defer cb.mu.Unlock()
	if len(cb.docs) == 0 {
		t.Fatal("nothing was pushed")
	}
	e, err := wechat.ParseEvent([]byte(cb.docs[len(cb.docs)-1]))
	must(t, err)
	return e
}

func ctx(t *testing.T) context.Context { return t.Context() }

func contains(t *testing.T, b []byte, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !bytes.Contains(b, []byte(p)) {
			t.Errorf("%q is not in %.600s", p, b)
		}
	}
}
