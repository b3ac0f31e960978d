package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"wxproxy/proxy"
)

// The tests in this file hold what SDKs rely on. docs/sdks.md has the list and
// names the tests.

// recorded is a request as WeChat receives it.
type recorded struct {
	method, uri, body string
	header            http.Header
}

// startRecording runs a WeChat that records the last request and answers with
// these headers. last returns the request and forgets it.
func startRecording(t *testing.T, headers map[string]string) (url string, last func() recorded) {
	var mu sync.Mutex
	var r recorded
	url = wechatServer(t, func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		mu.Lock()
		defer mu.Unlock()
		r = recorded{req.Method, req.RequestURI, string(b), req.Header.Clone()}
		for name, value := range headers {
			w.Header()[name] = []string{value} // the spelling is kept
		}
		io.WriteString(w, `{"errcode":0}`)
	})
	return url, func() recorded { mu.Lock(); defer mu.Unlock(); got := r; r = recorded{}; return got }
}

// TestBodiesAreNotSearchedForAccounts checks that appids in bodies do not
// select the account. Many of them are of other accounts: the mini program that
// a message links to, an account to be bound, the component in place of an
// account.
func TestBodiesAreNotSearchedForAccounts(t *testing.T) {
	up, last := startRecording(t, nil)
	mine := named("orders", ordersKey)
	mine.AppIDs = []string{account} // any other account gets 403
	_, addr := start(t, up, func(c *proxy.Config) { c.Callers = []proxy.Caller{mine} })
	st := fetchAccount(t, addr, account, ordersKey)
	for _, body := range []string{
		`{"touser":"o","template_id":"t","miniprogram":{"appid":"","pagepath":""}}`,
		`{"touser":"o","template_id":"t","miniprogram":{"appid":"` + other + `","pagepath":"p"}}`,
		`{"button":[{"type":"miniprogram","appid":"` + other + `"}]}`,
		`{"appid":"` + other + `"}`,
		`{"appid":"` + component + `","component_appid":"` + component + `","authorizer_appid":"` + other + `"}`,
	} {
		resp, answer := send(t, addr, post("/cgi-bin/open/create?access_token="+st, body))
		if got := last(); resp.StatusCode != 200 || got.body != body || got.uri != "/cgi-bin/open/create?access_token=T0" {
			t.Errorf("%s: got %s %s, WeChat got %v, want the body unchanged", body, resp.Status, answer, got)
		}
		raw := post("/cgi-bin/open/create", strings.Replace(body, other, account, 1), "X-Wxproxy-Key: "+ordersKey)
		resp, answer = send(t, addr, raw)
		checkResponse(t, raw, resp, answer, 400, "no account given")
		if got := last(); got.uri != "" {
			t.Errorf("%s: WeChat got %v, want nothing", body, got)
		}
	}
}

// TestTicketInTokenRequestIsIgnored checks that api_component_token does not
// depend on the ticket: SDKs that keep it themselves send a placeholder, or
// have none.
func TestTicketInTokenRequestIsIgnored(t *testing.T) {
	up, last := startRecording(t, nil)
	_, addr := start(t, up, func(c *proxy.Config) { c.Callers = []proxy.Caller{named("orders", ordersKey)} })
	for _, more := range []string{
		``, `,"component_verify_ticket":""`, `,"component_verify_ticket":null`,
		`,"component_verify_ticket":"placeholder"`, `,"component_verify_ticket":{"a":[0]}`,
		`,"component_verify_ticket":"ticket@@@x","appid":"x","secret":"y","neededText":""`,
	} {
		body := fmt.Sprintf(`{"component_appid":%q,"component_appsecret":%q%s}`, component, ordersKey, more)
		c := fetchStandIn(t, addr, post("/"+component+"/cgi-bin/component/api_component_token", body))
		path := "/" + component + "/cgi-bin/component/api_create_preauthcode?component_access_token=" + c
		resp, answer := send(t, addr, post(path, "{}"))
		if uri := last().uri; resp.StatusCode != 200 || !strings.HasSuffix(uri, "access_token=T0") {
			t.Errorf("%s: got %s %s, WeChat got %s, want 200 and the token", more, resp.Status, answer, uri)
		}
	}
}

// TestUnusualMethodsAndHeadersPass checks that methods and headers stay as SDKs
// send them: one fetches media with an empty POST, one names the type of a
// missing body, one has no User-Agent. Nothing is added.
func TestUnusualMethodsAndHeadersPass(t *testing.T) {
	up, last := startRecording(t, nil)
	_, addr := start(t, up, nil)
	for _, c := range []struct{ method, headers, body string }{
		{"GET", "", ""},
		{"GET", "Content-Type: multipart/form-data; boundary=x\r\n", ""},
		{"POST", "Content-Length: 0\r\n", ""},
		{"POST", "Content-Length: 2\r\n", "{}"}, // no Content-Type
		{"PUT", "Content-Type: a/b\r\nContent-Length: 2\r\n", "{}"},
		{"DELETE", "User-Agent: sdk\r\n", ""},
	} {
		path := " /" + account + "/cgi-bin/media/get?media_id=1"
		resp, answer := send(t, addr, c.method+path+" HTTP/1.1\r\nHost: x\r\n"+c.headers+"\r\n"+c.body)
		got := last()
		if resp.StatusCode != 200 || got.method != c.method || got.body != c.body ||
			got.uri != "/cgi-bin/media/get?access_token=T0&media_id=1" {
			t.Errorf("%+v: got %s %s, WeChat got %v, want it unchanged", c, resp.Status, answer, got)
		}
		for _, name := range []string{"Content-Type", "User-Agent"} {
			value, found := got.header[name]
			if found != strings.Contains(c.headers, name) || found && !strings.Contains(c.headers, value[0]) {
				t.Errorf("%+v: WeChat got %s %q, want it as sent", c, name, value)
			}
		}
	}
}

// TestOnlyGzipIsRequested checks that WeChat is asked for gzip or for no
// compression, whatever else an SDK accepts. An SDK that accepts none receives
// none.
func TestOnlyGzipIsRequested(t *testing.T) {
	up, last := startRecording(t, nil)
	_, addr := start(t, up, nil)
	for accept, want := range map[string]string{
		"": "", "gzip": "gzip", "gzip, deflate": "gzip", "gzip, compress, deflate, br": "gzip",
		"gzip, deflate, br, zstd": "gzip", "*": "gzip",
		"identity": "", "deflate": "", "br": "", "gzip;q=0": "",
	} {
		var headers []string
		if accept != "" {
			headers = append(headers, "Accept-Encoding: "+accept)
		}
		resp, answer := send(t, addr, get("/"+account+"/cgi-bin/a", headers...))
		got := strings.Join(last().header.Values("Accept-Encoding"), ",")
		if got != want || resp.Header.Get("Content-Encoding") != "" || answer != `{"errcode":0}` {
			t.Errorf("%q: WeChat got Accept-Encoding %q, want %q; response %s", accept, got, want, answer)
		}
	}
}

// TestContentTypeAndDisposition checks that these two headers pass to the
// letter: by them SDKs tell pictures, files and errors apart.
func TestContentTypeAndDisposition(t *testing.T) {
	for _, headers := range []map[string]string{
		{"Content-Type": "image/jpeg"},
		{"Content-Type": "image/jpeg", "Content-Disposition": `attachment; filename="a b.jpg"`},
		{"Content-Type": "text/plain"}, // of /sns/, with JSON in the body
		{"Content-Type": "application/json; encoding=utf-8"},
		{"Content-Type": "video/mp4", "Content-disposition": "attachment; filename=\"\xe4\xbd\xa0.mp4\""},
	} {
		up, _ := startRecording(t, headers)
		_, addr := start(t, up, nil)
		for _, path := range []string{"/cgi-bin/media/get", "/sns/oauth2/access_token"} {
			resp, answer := send(t, addr, get("/"+account+path))
			for name, want := range headers {
				if got := resp.Header.Values(name); len(got) != 1 || got[0] != want {
					t.Errorf("%s: got %s %q, want %q; response %s", path, name, got, want, answer)
				}
			}
			sent := headers["Content-Disposition"] + headers["Content-disposition"]
			if got := resp.Header.Get("Content-Disposition"); sent == "" && got != "" {
				t.Errorf("%s: got Content-Disposition %q, want none", path, got)
			}
		}
	}
}

// TestPathsAreNeverRedirected checks that unusual paths are forwarded or
// rejected. HTTP clients follow redirects, and turn a POST into a GET on the
// way.
func TestPathsAreNeverRedirected(t *testing.T) {
	up, last := startRecording(t, nil)
	_, addr := start(t, up, nil)
	for path, forwarded := range map[string]string{
		"//" + account + "/cgi-bin/a": "/cgi-bin/a", "/" + account + "//cgi-bin/a": "/cgi-bin/a",
		"//" + account + "//cgi-bin/a/": "/cgi-bin/a/", "/" + account + "/cgi-bin/a/": "/cgi-bin/a/",
		"/" + account + "/wxa": "/wxa", "http://api.weixin.qq.com/" + account + "//cgi-bin/a": "/cgi-bin/a",
		"/" + account: "", "/" + account + "/": "", "/": "", "/" + account + "/cgi-bin//a": "",
		"/" + account + "/cgi-bin/../a": "", "/" + account + "/cgi-bin/%2e%2e/a": "", "///cgi-bin/a": "",
	} {
		resp, answer := send(t, addr, post(path, "{}"))
		got := last()
		want := recorded{}
		if forwarded != "" {
			want = recorded{method: "POST", uri: forwarded + "?access_token=T0", body: "{}"}
		}
		if got.method != want.method || got.uri != want.uri || got.body != want.body {
			t.Errorf("%s: WeChat got %v, want %v", path, got, want)
		}
		if resp.Header.Get("Location") != "" || resp.StatusCode/100 == 3 || (resp.StatusCode == 200) != (forwarded != "") {
			t.Errorf("%s: got %s %s, want no redirect, and 200 only if it is forwarded", path, resp.Status, answer)
		}
	}
}

// TestContentLengthOfEmptyBodies checks that an empty body has a length at
// WeChat if the method can have a body, or if the caller sent a length.
func TestContentLengthOfEmptyBodies(t *testing.T) {
	lengths := make(chan string, 1)
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		lengths <- strings.Join(r.Header["Content-Length"], ",")
	})
	_, addr := start(t, up, nil)
	for _, c := range []struct{ method, header, want string }{
		{"GET", "X-A: b", ""},
		{"GET", "Content-Length: 0", "0"},
		{"HEAD", "X-A: b", ""},
		{"DELETE", "Content-Length: 0", "0"},
		{"DELETE", "content-length: 0", "0"},
		{"DELETE", "X-A: b", ""},
		{"OPTIONS", "X-A: b", ""},
		{"POST", "X-A: b", "0"},
		{"PUT", "X-A: b", "0"},
	} {
		raw := c.method + " /" + account + "/cgi-bin/a HTTP/1.1\r\nHost: x\r\n" + c.header + "\r\n\r\n"
		resp, body := send(t, addr, raw)
		checkResponse(t, raw, resp, body, 200, "")
		if got := <-lengths; got != c.want {
			t.Errorf("%q: got Content-Length %q, want %q", raw, got, c.want)
		}
	}
}
