package sandbox_test

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"wxproxy/sandbox"
)

// raw sends bytes as they are, and gives the status line's code and the body.
func (w *world) raw(request string) got {
	w.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	must(w.t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, request)
	must(w.t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(w.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(w.t, err)
	return got{w.t, resp.StatusCode, resp.Header, body}
}

const customSend = "/cgi-bin/message/custom/send"

func text(extra string) string {
	return `{"touser":"o` + strings.Repeat("A", 27) + `","msgtype":"text","text":{"content":"` + extra + `"}}`
}

func TestLengthRequired(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	access, _ := w.grant(shop)
	head := "POST " + customSend + "?access_token=" + access + " HTTP/1.1\r\nHost: api\r\nConnection: close\r\n"
	body := text("x")
	chunked := w.raw(head + "Transfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body))
	if chunked.status != 412 {
		t.Errorf("chunked: %d", chunked.status)
	}
	last := w.History()[len(w.History())-1]
	if len(last.TransferEncoding) != 1 || last.Status != 412 || string(last.Body) != body {
		t.Errorf("in the history: %+v", last)
	}
	if none := w.raw(head + "\r\n"); none.status != 412 {
		t.Errorf("no length: %d %s", none.status, none.body)
	}
	if len(w.Violations()) != 2 {
		t.Errorf("violations: %v", w.Violations())
	}
	w.raw(head + "Content-Length: 0\r\n\r\n").want(44002)
	w.raw(head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)).want(0)
}

func TestFormOfRequests(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	access, _ := w.grant(shop)
	send := customSend + "?access_token=" + access
	w.post(send, text("x")).want(0)
	w.get(send).want(43002)
	w.post("/cgi-bin/user/get?access_token="+access, "{}").want(43001)
	w.post(send, "").want(44002)
	w.post(send, "{").want(47001)
	w.post(send, "[]").want(47001)
	w.post(send, text("x")+"x").want(47001)
	w.post(send, text(`\u003c`)).want(40033)
	w.post(send, text(`\\u003c`)).want(0) // a backslash, and u003c
	w.post(send, text("<&>中")).want(0)
	w.do("POST", send, text("x"), "Content-Encoding", "gzip").want(40221)
	w.get("/cgi-bin/no/such?access_token=" + access).want(40066)
	w.get("/cgi-bin//user/get?access_token=" + access).want(40066)
	w.get("/cgi-bin/user%2Fget?access_token=" + access).want(40066)
	// The token comes before the body: a proxy must see that it has expired.
	w.Expire(shop)
	w.post(send, "").want(42001)
	w.post(send, "{").want(42001)
}

func TestErrorBodies(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	g := w.get("/cgi-bin/user/get?access_token=98_" + strings.Repeat("x", 80))
	want := fmt.Sprintf(`^\{"errcode":40001,"errmsg":"invalid credential, access_token is invalid or not latest, could get access_token by getStableAccessToken, more details at https://mmbizurl\.cn/s/JtxxFh33r rid: %08x-[0-9a-f]{8}-[0-9a-f]{8}"\}$`, w.clock.Now().Unix())
	if !regexp.MustCompile(want).Match(g.body) {
		t.Errorf("%s", g.body)
	}
	if ct := g.header.Get("Content-Type"); ct != "application/json; encoding=utf-8" {
		t.Errorf("Content-Type %q", ct)
	}
	if g.header.Get("Content-Length") == "" {
		t.Error("no Content-Length")
	}
	if ct := w.get("/sns/auth").header.Get("Content-Type"); ct != "text/plain" {
		t.Errorf("Content-Type under /sns/: %q", ct)
	}
}

func TestTwoCredentials(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	access, _ := w.grant(shop)
	for _, query := range []string{
		"access_token=" + access + "&access_token=" + access,
		"access_token=" + access + "&component_access_token=x",
		"access%5Ftoken=x&access_token=" + access,
		"access_token=&access_token=" + access,
		"a=%zz&%61ccess_token=x&access_token=" + access,
	} {
		before := len(w.Violations())
		w.get("/cgi-bin/user/get?" + query).want(40001)
		if len(w.Violations()) != before+1 {
			t.Errorf("%.40s: not noted", query)
		}
	}
	for _, v := range w.Violations() {
		if strings.Contains(v, access) {
			t.Error("a violation quotes the token")
		}
	}
}

func TestViolations(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	access, _ := w.grant(shop)
	get := "/cgi-bin/user/get?access_token=" + access
	send := customSend + "?access_token=" + access
	if v := w.Violations(); len(v) > 0 {
		t.Fatalf("before anything happened: %v", v)
	}
	note := func(name string, do func()) {
		t.Helper()
		w.ResetViolations()
		do()
		if v := w.Violations(); len(v) != 1 || strings.Contains(v[0], access) {
			t.Errorf("%s: %v", name, v)
		}
	}
	for _, h := range []string{"Authorization", "Proxy-Authorization", "Cookie", "X-WX-APPID", "X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "X-Wxproxy-Key", "X-Real-IP"} {
		note(h, func() { w.do("GET", get, "", h, "x") })
	}
	note("stand-in in the query", func() { w.get(get + "&x=wxp_" + strings.Repeat("a", 40)) })
	note("stand-in percent-encoded", func() { w.get(get + "&x=wxp%5F" + strings.Repeat("a", 40)) })
	note("stand-in in the body", func() { w.post(send, text("wxp_"+strings.Repeat("a", 40))) })
	note("token in the body", func() { w.post(send, text(access)) })
	note("field in the body", func() { w.post(send, `{"access_token":"x"}`) })
	note("form in the body", func() {
		w.do("POST", send, "access_token=x", "Content-Type", "application/x-www-form-urlencoded")
	})
	note("secret", func() { w.get(get + "&secret=x") })
	note("token in a header", func() { w.do("GET", get, "", "X-Other", access) })
	w.ResetViolations()
	w.do("POST", send, text("x"), "Content-Type", "text/plain", "Wechatmp-Appid", shop, "X-Request-Id", "1")
	w.get("/cgi-bin/token?grant_type=client_credential&appid=" + solo + "&secret=" + soloSecret)
	if v := w.Violations(); len(v) > 0 {
		t.Errorf("noted without reason: %v", v)
	}
}

func TestHistory(t *testing.T) {
	var seen []sandbox.Call
	w := newWorld(t, sandbox.Config{Observe: func(c sandbox.Call) { seen = append(seen, c) }})
	access, _ := w.grant(shop)
	w.ResetHistory()
	seen = nil
	body := text(strings.Repeat("x", 10_000))
	w.do("POST", customSend+"?b=2&access_token="+access+"&a=%41", body, "X-Some", "thing").want(0)
	calls := w.History()
	if len(calls) != 1 || len(seen) != 1 {
		t.Fatalf("%d calls, %d observed", len(calls), len(seen))
	}
	c := calls[0]
	if c.Method != "POST" || c.Path != customSend || c.RawQuery != "b=2&access_token="+access+"&a=%41" || c.Header.Get("X-Some") != "thing" ||
		c.Host == "" || c.Status != 200 || c.ErrCode != 0 || c.Appid != shop || c.TokenKind != sandbox.AuthorizerToken || !c.Time.Equal(w.clock.Now()) {
		t.Errorf("%+v", c)
	}
	if len(c.Body) != 4096 || string(c.Body) != body[:4096] || c.Length != int64(len(body)) || c.BodySHA256 != sha256.Sum256([]byte(body)) || string(c.Answer) != `{"errcode":0,"errmsg":"ok"}` {
		t.Errorf("body: %d kept of %d", len(c.Body), c.Length)
	}
	w.Expire(shop)
	w.get("/cgi-bin/user/get?access_token=" + access)
	if c := w.History()[1]; c.ErrCode != 42001 || c.Appid != shop || c.RID == "" {
		t.Errorf("an expired token is still somebody's: %+v", c)
	}
	if w.Count(customSend) != 1 || w.Count("/cgi-bin/") != 0 || w.CountFunc(func(c sandbox.Call) bool { return c.ErrCode == 42001 }) != 1 {
		t.Error("counts")
	}
	w.ResetHistory()
	if len(w.History()) != 0 || w.Count(customSend) != 0 {
		t.Error("not forgotten")
	}
}

func TestHistoryIsBounded(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	for i := range 10_010 {
		w.ServeHTTP(discard{}, httptest.NewRequest("GET", fmt.Sprintf("/none/%d", i), nil))
	}
	calls := w.History()
	if len(calls) != 10_000 || calls[0].Path != "/none/10" || calls[9_999].Path != "/none/10009" {
		t.Errorf("%d calls, from %s to %s", len(calls), calls[0].Path, calls[len(calls)-1].Path)
	}
}

// discard is an answer that nobody reads.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

func TestGzipWhereAskedFor(t *testing.T) {
	w := newWorld(t, sandbox.Config{Gzip: true})
	asked, not := w.do("GET", "/x", "", "Accept-Encoding", "gzip"), w.do("GET", "/x", "", "Accept-Encoding", "identity")
	if asked.header.Get("Content-Encoding") != "gzip" || gunzip(t, asked.body)[0] != '{' {
		t.Errorf("asked: %q", asked.body)
	}
	if not.header.Get("Content-Encoding") != "" || not.code() != 40066 {
		t.Errorf("not asked: %q", not.body)
	}
	w = newWorld(t, sandbox.Config{})
	if g := w.do("GET", "/x", "", "Accept-Encoding", "gzip"); g.header.Get("Content-Encoding") != "" {
		t.Error("compressed although it is off")
	}
}
