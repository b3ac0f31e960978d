package pages_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/xml"
	"html"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/callback/pages"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

var _ pages.CodeExchanger = (*tokens.Broker)(nil)

const (
	component   = "wx6001eeeefe06e0af"
	account     = "wxf7d2ddffc117e8de"
	authCode    = "queryauthcode@@@SECRET-y-s2Y"
	codeInQuery = "queryauthcode%40%40%40SECRET-y-s2Y"
	preAuthCode = "preauthcode@@@SECRET-cy2CSaTT"
	publicURL   = "https://wx.example.com"
	shop        = "https://shop.example.com/"
)

// fakeExchanger stands in for the broker and counts its calls.
type fakeExchanger struct {
	mu               sync.Mutex
	opened, returned int
	name             string // of the account
	states           []string
	at               time.Time       // of the exchange
	known            map[string]bool // codes that were pushed or exchanged

	// Called before a call succeeds, if set; an error is returned instead. n is
	// the number of the exchange, from 1.
	preAuth  func() error
	exchange func(ctx context.Context, n int, code string) error
}

func (f *fakeExchanger) PreAuthCode(context.Context) (wechat.Secret, time.Duration, error) {
	f.mu.Lock()
	f.opened++
	do := f.preAuth
	f.mu.Unlock()
	if do != nil {
		if err := do(); err != nil {
			return wechat.Secret{}, 0, err
		}
	}
	return wechat.NewSecret(preAuthCode), 10 * time.Minute, nil
}

func (f *fakeExchanger) ExchangeReturned(
	ctx context.Context, code wechat.Secret, state string, admit func() error,
) (tokens.Authorization, error) {
	f.mu.Lock()
	known := f.known[code.Reveal()]
	f.mu.Unlock()
	if !known {
		if err := admit(); err != nil {
			return tokens.Authorization{}, err
		}
	}
	f.mu.Lock()
	f.returned++
	f.states = append(f.states, state)
	n, do, name := f.returned, f.exchange, f.name
	f.mu.Unlock()
	if do != nil {
		if err := do(ctx, n, code.Reveal()); err != nil {
			return tokens.Authorization{}, err
		}
	}
	return tokens.Authorization{AppID: account, Name: name, At: f.at}, nil
}

// manualClock moves only when a test moves it.
type manualClock struct {
	mu sync.Mutex
	at time.Time
}

func (c *manualClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *manualClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// lockedBuffer collects the log.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// env is a listener with the pages.
type env struct {
	t         *testing.T
	handler   *pages.Handler
	addr      string
	exchanger *fakeExchanger
	clock     *manualClock
	log       *lockedBuffer
}

// start serves pages with c, and with what is missing in it filled in.
func start(t *testing.T, c pages.Config) *env {
	t.Helper()
	w := &env{
		t: t, exchanger: &fakeExchanger{at: time.Unix(1_780_000_000, 0)}, log: &lockedBuffer{},
		clock: &manualClock{at: time.Unix(1_790_000_000, 0)},
	}
	c.CodeExchanger, c.Now = w.exchanger, w.clock.now
	c.PublicURL, c.ComponentAppID = cmp.Or(c.PublicURL, publicURL), cmp.Or(c.ComponentAppID, component)
	c.Log = slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.handler = pages.New(c)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8") // as package callback does
		w.handler.ServeHTTP(rw, r)
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo) // it quotes panics
	srv.Start()
	w.addr = srv.Listener.Addr().String()
	t.Cleanup(func() {
		srv.Close()
		for _, secret := range []string{"SECRET", "auth_code="} {
			if strings.Contains(w.log.String(), secret) {
				t.Errorf("got %s in the log:\n%s", secret, w.log)
			}
		}
	})
	return w
}

// wantCalls checks how many codes were fetched and exchanged so far.
func (w *env) wantCalls(opened, returned int) {
	w.t.Helper()
	w.exchanger.mu.Lock()
	defer w.exchanger.mu.Unlock()
	if w.exchanger.opened != opened || w.exchanger.returned != returned {
		w.t.Errorf("got %d pre-auth codes and %d exchanges, want %d and %d",
			w.exchanger.opened, w.exchanger.returned, opened, returned)
	}
}

// response is a response as it was received.
type response struct {
	status int
	body   string
	header http.Header
}

// get requests a page; headers come in pairs.
func (w *env) get(target string, headers ...string) response {
	w.t.Helper()
	return w.request(http.MethodGet, target, headers...)
}

// request sends a request and checks what holds for each response.
func (w *env) request(method, target string, headers ...string) response {
	w.t.Helper()
	req, err := http.NewRequest(method, "http://"+w.addr+target, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		w.t.Error(err)
		return response{}
	}
	r := w.read(resp)
	w.checkSafe(r)
	return r
}

// raw sends a request as it is, on its own connection.
func (w *env) raw(method, request string) response {
	w.t.Helper()
	conn := w.dial()
	if _, err := io.WriteString(conn, request); err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		w.t.Fatalf("%s: %v", method, err)
	}
	return w.read(resp)
}

func (w *env) read(resp *http.Response) response {
	w.t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Error(err)
	}
	return response{resp.StatusCode, string(b), resp.Header}
}

func (w *env) dial() net.Conn {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	// A connection that hangs fails the test instead of the whole test binary.
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return conn
}

// forbiddenInPages loads or runs something, or is part of a code.
var forbiddenInPages = []string{
	"<script", "<img", "<link", "<iframe", "<object", "<form",
	" onclick=", " onload=", " onerror=", " style=", " src=", "@import", "url(",
	"queryauthcode", "secret-y",
}

// checkSafe checks that a page shows no code, loads nothing and is not cached.
func (w *env) checkSafe(r response) {
	w.t.Helper()
	h := r.header
	if r.status == http.StatusNotFound || r.status == http.StatusMethodNotAllowed {
		return
	}
	for name, want := range map[string]string{
		"Cache-Control": "no-store", "X-Frame-Options": "DENY",
		"X-Content-Type-Options": "nosniff", "Vary": "Accept-Language",
	} {
		if got := h.Get(name); got != want {
			w.t.Errorf("header %s: got %q, want %q", name, got, want)
		}
	}
	policy := h.Get("Content-Security-Policy")
	for _, want := range []string{
		"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'",
	} {
		if !strings.Contains(policy, want) {
			w.t.Errorf("Content-Security-Policy: got %q, want %s in it", policy, want)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
		w.t.Errorf("Content-Security-Policy: got %q, want neither unsafe nor *", policy)
	}
	if r.body == "" {
		return
	}
	if got := h.Get("Content-Type"); got != "text/html; charset=utf-8" ||
		!strings.Contains(r.body, `name="viewport"`) {
		w.t.Errorf("got Content-Type %q and body %.100q, want a page", got, r.body)
	}
	lower := strings.ToLower(r.body)
	for _, bad := range forbiddenInPages {
		if strings.Contains(lower, bad) {
			w.t.Errorf("got %q in the page", bad)
		}
	}
}

// parsedPage is what a person sees of a page, and where it leads.
type parsedPage struct {
	title, text, lang string
	links             map[string]*url.URL // by class of the section, "" outside of sections
}

// parse parses a page as XML, which it nearly is.
func (w *env) parse(r response) parsedPage {
	w.t.Helper()
	p := parsedPage{links: map[string]*url.URL{}}
	_, body, _ := strings.Cut(r.body, "<body>")
	_, lang, _ := strings.Cut(r.body, `<html lang="`)
	p.lang, _, _ = strings.Cut(lang, `"`)
	dec := xml.NewDecoder(strings.NewReader("<body>" + strings.TrimSuffix(body, "</html>\n")))
	section, element := "", ""
	var text strings.Builder
	for {
		token, err := dec.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			w.t.Fatalf("parsing the page: %v\n%s", err, r.body)
		}
		switch e := token.(type) {
		case xml.StartElement:
			element = e.Name.Local
			attributes := map[string]string{}
			for _, a := range e.Attr {
				attributes[a.Name.Local] = a.Value
			}
			switch element {
			case "section":
				section = attributes["class"]
			case "a":
				u, err := url.Parse(attributes["href"])
				if err != nil {
					w.t.Fatal(err)
				}
				p.links[section] = u
			}
		case xml.EndElement:
			if e.Name.Local == "section" {
				section = ""
			}
			element = ""
		case xml.CharData:
			if element == "h1" {
				p.title = string(e)
			}
			text.WriteString(html.UnescapeString(string(e)) + " ")
		}
	}
	p.text = strings.Join(strings.Fields(text.String()), " ")
	return p
}

// open opens /authorize and returns the path and query of the redirect_uri with
// which it leads to WeChat.
func (w *env) open(query string) string {
	w.t.Helper()
	r := w.get("/authorize" + query)
	if r.status != http.StatusOK {
		w.t.Fatalf("/authorize%s: got status %d, want 200\n%s", query, r.status, r.body)
	}
	redirectURI, err := url.Parse(w.parse(r).links["computer"].Query().Get("redirect_uri"))
	if err != nil {
		w.t.Fatal(err)
	}
	if got := redirectURI.Scheme + "://" + redirectURI.Host + redirectURI.Path; got != publicURL+"/authorized" {
		w.t.Errorf("redirect_uri: got %s, want %s/authorized", got, publicURL)
	}
	return redirectURI.RequestURI()
}

// consent does what WeChat does when the merchant has consented: it sends the
// browser to the redirect_uri with a code.
func (w *env) consent(redirectURI string, headers ...string) response {
	w.t.Helper()
	join := "?"
	if strings.Contains(redirectURI, "?") {
		join = "&"
	}
	return w.get(redirectURI+join+"auth_code="+codeInQuery+"&expires_in=600", headers...)
}
