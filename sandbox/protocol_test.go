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

// sendRaw sends a request byte for byte.
func (wx *env) sendRaw(request string) response {
	wx.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(wx.url, "http://"))
	must(wx.t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, request)
	must(wx.t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(wx.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(wx.t, err)
	return response{wx.t, resp.StatusCode, resp.Header, body}
}

const customSend = "/cgi-bin/message/custom/send"

func text(extra string) string {
	return `{"touser":"o` + strings.Repeat("A", 27) + `","msgtype":"text","text":{"content":"` + extra + `"}}`
}

func TestBodyWithoutLengthIsRefused(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	access, _ := wx.grant(shop)
	head := "POST " + customSend + "?access_token=" + access + " HTTP/1.1\r\nHost: api\r\nConnection: close\r\n"
	body := text("x")
	chunked := wx.sendRaw(head + "Transfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n",
		len(body), body))
	if chunked.status != 412 {
		t.Errorf("chunked body: got HTTP %d, want 412", chunked.status)
	}
	last := wx.History()[len(wx.History())-1]
	if len(last.TransferEncoding) != 1 || last.Status != 412 || string(last.Body) != body {
		t.Errorf("got %+v in the history, want the chunked request with its body", last)
	}
	if none := wx.sendRaw(head + "\r\n"); none.status != 412 {
		t.Errorf("POST without a length: got HTTP %d %s, want 412", none.status, none.body)
	}
	if v := wx.Violations(); len(v) != 2 {
		t.Errorf("got violations %q, want 2", v)
	}
	wx.sendRaw(head + "Content-Length: 0\r\n\r\n").wantCode(44002)
	wx.sendRaw(head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)).wantCode(0)
}

func TestRequestFormErrors(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	access, _ := wx.grant(shop)
	send := customSend + "?access_token=" + access
	wx.post(send, text("x")).wantCode(0)
	wx.get(send).wantCode(43002)
	wx.post("/cgi-bin/user/get?access_token="+access, "{}").wantCode(43001)
	wx.post(send, "").wantCode(44002)
	wx.post(send, "{").wantCode(47001)
	wx.post(send, "[]").wantCode(47001)
	wx.post(send, text("x")+"x").wantCode(47001)
	wx.post(send, text(`\u003c`)).wantCode(40033)
	wx.post(send, text(`\\u003c`)).wantCode(0) // an escaped backslash, then u003c
	wx.post(send, text("<&>中")).wantCode(0)
	wx.do("POST", send, text("x"), "Content-Encoding", "gzip").wantCode(40221)
	wx.do("POST", send, text("x"), "Content-Encoding", "identity").wantCode(0)
	wx.get("/cgi-bin/no/such?access_token=" + access).wantCode(40066)
	wx.get("/cgi-bin//user/get?access_token=" + access).wantCode(40066)
	wx.get("/cgi-bin/user%2Fget?access_token=" + access).wantCode(40066)
	// A proxy must see that the token has expired, whatever the body is.
	wx.Expire(shop)
	wx.post(send, "").wantCode(42001)
	wx.post(send, "{").wantCode(42001)
	// The method is checked first, also if the token has expired.
	wx.get(send).wantCode(43002)
}

func TestErrorResponses(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	g := wx.get("/cgi-bin/user/get?access_token=98_" + strings.Repeat("x", 80))
	want := fmt.Sprintf(`^\{"errcode":40001,"errmsg":"invalid credential, access_token is invalid or not latest, `+
		`could get access_token by getStableAccessToken, more details at https://mmbizurl\.cn/s/JtxxFh33r `+
		`rid: %08x-[0-9a-f]{8}-[0-9a-f]{8}"\}$`, wx.clock.Now().Unix())
	if !regexp.MustCompile(want).Match(g.body) {
		t.Errorf("got %s, want a match of %s", g.body, want)
	}
	if ct := g.header.Get("Content-Type"); ct != "application/json; encoding=utf-8" {
		t.Errorf("got Content-Type %q, want WeChat's JSON type", ct)
	}
	if g.header.Get("Content-Length") == "" {
		t.Errorf("got %v, want a Content-Length", g.header)
	}
	if ct := wx.get("/sns/auth").header.Get("Content-Type"); ct != "text/plain" {
		t.Errorf("under /sns/: got Content-Type %q, want text/plain", ct)
	}
}

func TestTwoCredentialsAreRefused(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	access, _ := wx.grant(shop)
	for _, query := range []string{
		"access_token=" + access + "&access_token=" + access,
		"access_token=" + access + "&component_access_token=x",
		"access%5Ftoken=x&access_token=" + access,
		"access_token=&access_token=" + access,
		"a=%zz&%61ccess_token=x&access_token=" + access,
	} {
		before := len(wx.Violations())
		wx.get("/cgi-bin/user/get?" + query).wantCode(40001)
		if len(wx.Violations()) != before+1 {
			t.Errorf("%.40s: got no violation, want one", query)
		}
	}
	for _, v := range wx.Violations() {
		if strings.Contains(v, access) {
			t.Errorf("violation %q contains the token", v)
		}
	}
}

func TestViolations(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	access, _ := wx.grant(shop)
	get := "/cgi-bin/user/get?access_token=" + access
	send := customSend + "?access_token=" + access
	if v := wx.Violations(); len(v) > 0 {
		t.Fatalf("got violations %q before any bad request, want none", v)
	}
	expect := func(name string, do func()) {
		t.Helper()
		wx.ResetViolations()
		do()
		if v := wx.Violations(); len(v) != 1 || strings.Contains(v[0], access) {
			t.Errorf("%s: got violations %q, want one, without the token", name, v)
		}
	}
	for _, h := range []string{"Authorization", "Proxy-Authorization", "Cookie", "X-WX-APPID",
		"X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "X-Wxproxy-Key", "X-Real-IP"} {
		expect(h, func() { wx.do("GET", get, "", h, "x") })
	}
	expect("stand-in in the query", func() { wx.get(get + "&x=wxp_" + strings.Repeat("a", 40)) })
	expect("stand-in percent-encoded", func() { wx.get(get + "&x=wxp%5F" + strings.Repeat("a", 40)) })
	expect("stand-in in the body", func() { wx.post(send, text("wxp_"+strings.Repeat("a", 40))) })
	expect("token in the body", func() { wx.post(send, text(access)) })
	expect("field in the body", func() { wx.post(send, `{"access_token":"x"}`) })
	expect("form in the body", func() {
		wx.do("POST", send, "access_token=x", "Content-Type", "application/x-www-form-urlencoded")
	})
	expect("secret", func() { wx.get(get + "&secret=x") })
	expect("token in a header", func() { wx.do("GET", get, "", "X-Other", access) })
	wx.ResetViolations()
	wx.do("POST", send, text("x"), "Content-Type", "text/plain", "Wechatmp-Appid", shop, "X-Request-Id", "1")
	wx.get("/cgi-bin/token?grant_type=client_credential&appid=" + solo + "&secret=" + soloSecret)
	if v := wx.Violations(); len(v) > 0 {
		t.Errorf("good requests: got violations %q, want none", v)
	}
}

func TestHistory(t *testing.T) {
	var seen []sandbox.Call
	wx := newEnv(t, sandbox.Config{Observe: func(c sandbox.Call) { seen = append(seen, c) }})
	access, _ := wx.grant(shop)
	wx.ResetHistory()
	seen = nil
	body := text(strings.Repeat("x", 10_000))
	wx.do("POST", customSend+"?b=2&access_token="+access+"&a=%41", body, "X-Some", "thing").wantCode(0)
	calls := wx.History()
	if len(calls) != 1 || len(seen) != 1 {
		t.Fatalf("got %d calls, %d observed, want 1 and 1", len(calls), len(seen))
	}
	c := calls[0]
	if c.Method != "POST" || c.Path != customSend || c.RawQuery != "b=2&access_token="+access+"&a=%41" ||
		c.Header.Get("X-Some") != "thing" ||
		c.Host == "" || c.Status != 200 || c.ErrCode != 0 || c.Appid != shop ||
		c.TokenKind != sandbox.AuthorizerToken || !c.Time.Equal(wx.clock.Now()) {
		t.Errorf("got %+v, want the request as it was sent", c)
	}
	if len(c.Body) != 4096 || string(c.Body) != body[:4096] || c.Length != int64(len(body)) ||
		c.BodySHA256 != sha256.Sum256([]byte(body)) || string(c.Response) != `{"errcode":0,"errmsg":"ok"}` {
		t.Errorf("got %d bytes of %d kept and answer %s, want the first 4096 of %d", len(c.Body), c.Length,
			c.Response, len(body))
	}
	wx.Expire(shop)
	wx.get("/cgi-bin/user/get?access_token=" + access)
	if c := wx.History()[1]; c.ErrCode != 42001 || c.Appid != shop || c.RID == "" {
		t.Errorf("expired token: got %+v, want its account and errcode 42001", c)
	}
	if wx.Count(customSend) != 1 || wx.Count("/cgi-bin/") != 0 ||
		wx.CountFunc(func(c sandbox.Call) bool { return c.ErrCode == 42001 }) != 1 {
		t.Errorf("got %+v, want one message, no /cgi-bin/, one 42001", wx.History())
	}
	wx.ResetHistory()
	if len(wx.History()) != 0 || wx.Count(customSend) != 0 {
		t.Errorf("after a reset: got %+v, want none", wx.History())
	}
}

func TestHistoryIsBounded(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	for i := range 10_010 {
		wx.ServeHTTP(discard{}, httptest.NewRequest("GET", fmt.Sprintf("/none/%d", i), nil))
	}
	calls := wx.History()
	if len(calls) != 10_000 || calls[0].Path != "/none/10" || calls[9_999].Path != "/none/10009" {
		t.Errorf("got %d calls from %s to %s, want the last 10,000", len(calls), calls[0].Path,
			calls[len(calls)-1].Path)
	}
}

func TestViolationsAreBounded(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	for i := range 1_010 {
		r := httptest.NewRequest("GET", fmt.Sprintf("/none/%d", i), nil)
		r.Header.Set("X-Forwarded-For", "192.0.2.1")
		wx.ServeHTTP(discard{}, r)
	}
	v := wx.Violations()
	if len(v) != 1_000 || !strings.HasPrefix(v[0], "GET /none/10:") || !strings.HasPrefix(v[999], "GET /none/1009:") {
		t.Errorf("got %d violations from %q to %q, want the last 1,000", len(v), v[0], v[len(v)-1])
	}
}

// discard is a ResponseWriter that drops everything.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

func TestGzipFollowsAcceptEncoding(t *testing.T) {
	wx := newEnv(t, sandbox.Config{Gzip: true})
	if g := wx.do("GET", "/x", "", "Accept-Encoding", "gzip"); g.header.Get("Content-Encoding") != "gzip" ||
		gunzip(t, g.body)[0] != '{' {
		t.Errorf("gzip accepted: got %q, want JSON in gzip", g.body)
	}
	if g := wx.do("GET", "/x", "", "Accept-Encoding", "identity"); g.header.Get("Content-Encoding") != "" ||
		g.code() != 40066 {
		t.Errorf("gzip not accepted: got %q, want JSON", g.body)
	}
	wx = newEnv(t, sandbox.Config{})
	if g := wx.do("GET", "/x", "", "Accept-Encoding", "gzip"); g.header.Get("Content-Encoding") != "" {
		t.Errorf("Gzip off: got Content-Encoding %q, want none", g.header.Get("Content-Encoding"))
	}
}
