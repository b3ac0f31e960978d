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

const (
	component   = "wx6001eeeefe06e0af"
	account     = "wxf7d2ddffc117e8de"
	theCode     = "queryauthcode@@@SECRET-y-s2Y"
	publicURL   = "https://wx.example.com"
	thePreAuth  = "preauthcode@@@SECRET-cy2CSaTT"
	codeInQuery = "queryauthcode%40%40%40SECRET-y-s2Y"
)

// desk does for the pages what the broker does, in words.
type desk struct {
	mu               sync.Mutex
	opened, returned int
	name             string
	appid            string // "": account
	preAuth          func() error
	exchange         func(ctx context.Context, n int, code string) error // n: which one it is, from 1
}

func (d *desk) PreAuthCode(context.Context) (wechat.Secret, time.Duration, error) {
	d.mu.Lock()
	d.opened++
	do := d.preAuth
	d.mu.Unlock()
	if do != nil {
		if err := do(); err != nil {
			return wechat.Secret{}, 0, err
		}
	}
	return wechat.NewSecret(thePreAuth), 10 * time.Minute, nil
}

func (d *desk) Exchange(ctx context.Context, code wechat.Secret) (tokens.Authorization, error) {
	d.mu.Lock()
	d.returned++
	n, do, name, appid := d.returned, d.exchange, d.name, cmp.Or(d.appid, account)
	d.mu.Unlock()
	if do != nil {
		if err := do(ctx, n, code.Reveal()); err != nil {
			return tokens.Authorization{}, err
		}
	}
	return tokens.Authorization{AppID: appid, Name: name}, nil
}

func (d *desk) counts() (opened, returned int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.opened, d.returned
}

// hands is a clock that is moved by hand.
type hands struct {
	mu sync.Mutex
	at time.Time
}

func (h *hands) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at
}

func (h *hands) forward(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at = h.at.Add(d)
}

// visited is a listener with the pages.
type visited struct {
	t       *testing.T
	handler *pages.Handler
	addr    string
	desk    *desk
	clock   *hands
	log     *lockedBuffer
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

// reply is an answer as it came.
type reply struct {
	status int
	body   string
	header http.Header
}

// visit serves the pages; c says what is not as usual.
func visit(t *testing.T, c pages.Config) *visited {
	t.Helper()
	v := &visited{t: t, desk: &desk{}, clock: &hands{at: time.Unix(1_790_000_000, 0)}, log: &lockedBuffer{}}
	c.CodeExchanger, c.Now = v.desk, v.clock.now
	c.PublicURL, c.ComponentAppID = cmp.Or(c.PublicURL, publicURL), cmp.Or(c.ComponentAppID, component)
	c.Log = slog.New(slog.NewTextHandler(v.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	v.handler = pages.New(c)
	srv := httptest.NewUnstartedServer(v.handler)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo) // it quotes panics
	srv.Start()
	v.addr = srv.Listener.Addr().String()
	t.Cleanup(func() {
		srv.Close()
		for _, secret := range []string{"SECRET", "auth_code="} {
			if strings.Contains(v.logged(), secret) {
				t.Errorf("the log holds %s:\n%s", secret, v.logged())
			}
		}
	})
	return v
}

func (v *visited) logged() string { return v.log.String() }

// raw sends bytes on a connection of their own, and reads one answer; method is that of the request.
func (v *visited) raw(method, request string) reply {
	v.t.Helper()
	conn := v.dial()
	if _, err := io.WriteString(conn, request); err != nil {
		v.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		v.t.Fatalf("%s: %v", method, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return reply{resp.StatusCode, string(b), resp.Header}
}

func (v *visited) dial() net.Conn {
	v.t.Helper()
	conn, err := net.Dial("tcp", v.addr)
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return conn
}

// get opens a page; headers come in pairs. Each must show no code, load nothing, and be kept by nobody.
func (v *visited) get(target string, headers ...string) reply {
	v.t.Helper()
	return v.ask(http.MethodGet, target, headers...)
}

func (v *visited) ask(method, target string, headers ...string) reply {
	v.t.Helper()
	req, err := http.NewRequest(method, "http://"+v.addr+target, nil)
	if err != nil {
		v.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		v.t.Error(err)
		return reply{}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Error(err)
	}
	r := reply{resp.StatusCode, string(b), resp.Header}
	v.sound(r)
	return r
}

// outside loads something, or runs something; the code is a secret.
var (
	outside = []string{"<script", "<img", "<link", "<iframe", "<object", "<form", " onclick=", " onload=", " onerror=", " style=", " src=", "@import", "url("}
	codes   = []string{"queryauthcode", "secret-y"}
)

// sound is what holds for every answer of the two pages.
func (v *visited) sound(r reply) {
	v.t.Helper()
	h := r.header
	if r.status == http.StatusNotFound || r.status == http.StatusMethodNotAllowed {
		return
	}
	if h.Get("Cache-Control") != "no-store" || h.Get("X-Frame-Options") != "DENY" || h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Vary"), "Accept-Language") {
		v.t.Errorf("headers: %v", h)
	}
	policy := h.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} {
		if !strings.Contains(policy, want) {
			v.t.Errorf("policy without %s: %s", want, policy)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
		v.t.Errorf("policy: %s", policy)
	}
	if r.body == "" {
		return
	}
	if h.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(r.body, `name="viewport"`) {
		v.t.Errorf("no page: %v %.100s", h, r.body)
	}
	lower := strings.ToLower(r.body)
	for _, bad := range append(codes, outside...) {
		if strings.Contains(lower, bad) {
			v.t.Errorf("the page holds %q", bad)
		}
	}
}

// page is what a person sees of an answer, and where it leads.
type page struct {
	title, text, lang string
	links             map[string]*url.URL // by class of the section, "" outside of sections
}

// read parses the page as XML, which it is nearly.
func (v *visited) read(r reply) page {
	v.t.Helper()
	p := page{links: map[string]*url.URL{}}
	_, body, _ := strings.Cut(r.body, "<body>")
	_, lang, _ := strings.Cut(r.body, `<html lang="`)
	p.lang, _, _ = strings.Cut(lang, `"`)
	dec := xml.NewDecoder(strings.NewReader("<body>" + strings.TrimSuffix(body, "</html>\n")))
	section, at := "", ""
	var text strings.Builder
	for {
		tok, err := dec.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			v.t.Fatalf("%v in %s", err, r.body)
		}
		switch e := tok.(type) {
		case xml.StartElement:
			at = e.Name.Local
			attr := map[string]string{}
			for _, a := range e.Attr {
				attr[a.Name.Local] = a.Value
			}
			switch at {
			case "section":
				section = attr["class"]
			case "a":
				u, err := url.Parse(attr["href"])
				if err != nil {
					v.t.Fatal(err)
				}
				p.links[section] = u
			}
		case xml.EndElement:
			if e.Name.Local == "section" {
				section = ""
			}
			at = ""
		case xml.CharData:
			if at == "h1" {
				p.title = string(e)
			}
			text.WriteString(html.UnescapeString(string(e)) + " ")
		}
	}
	p.text = strings.Join(strings.Fields(text.String()), " ")
	return p
}

// open opens the page and gives what comes back from WeChat: the redirect_uri's path and query.
func (v *visited) open(query string) string {
	v.t.Helper()
	r := v.get("/authorize" + query)
	if r.status != http.StatusOK {
		v.t.Fatalf("%s: %d %s", query, r.status, r.body)
	}
	back, err := url.Parse(v.read(r).links["computer"].Query().Get("redirect_uri"))
	if err != nil {
		v.t.Fatal(err)
	}
	if got := back.Scheme + "://" + back.Host; got != publicURL || back.Path != "/authorized" {
		v.t.Errorf("comes back to %s %s", got, back.Path)
	}
	return back.RequestURI()
}

// comeBack does what WeChat does with a redirect_uri.
func (v *visited) comeBack(back string, headers ...string) reply {
	v.t.Helper()
	join := "?"
	if strings.Contains(back, "?") {
		join = "&"
	}
	return v.get(back+join+"auth_code="+codeInQuery+"&expires_in=600", headers...)
}
