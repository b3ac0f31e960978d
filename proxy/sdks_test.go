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

// What SDKs rely on without saying so; docs/sdks.md has the list, and names the tests.

// recorded is a call as WeChat gets it, and what it answers.
type recorded struct {
	method, uri, body string
	header            http.Header
}

// remembering is a WeChat that remembers calls and answers with headers.
func remembering(t *testing.T, headers map[string]string) (url string, last func() recorded) {
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

// Bodies are full of appids that the call is not for: a mini program that a message leads to, an account that is
// bound, a component's in the place of an account's.
func TestBodiesNameNobody(t *testing.T) {
	up, last := remembering(t, nil)
	mine := named("orders", ordersKey)
	mine.AppIDs = []string{account} // for another one it would be 403
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
			t.Errorf("%s: %s %s, WeChat got %v", body, resp.Status, answer, got)
		}
		if resp, answer := send(t, addr, post("/cgi-bin/open/create", strings.Replace(body, other, account, 1), "X-Wxproxy-Key: "+ordersKey)); resp.StatusCode != 400 || last().uri != "" {
			t.Errorf("%s: %s %s for nobody in particular", body, resp.Status, answer)
		}
	}
}

// SDKs that keep the ticket themselves send whatever they were primed with, or have none.
func TestAnyTicketWillDo(t *testing.T) {
	up, last := remembering(t, nil)
	_, addr := start(t, up, func(c *proxy.Config) { c.Callers = []proxy.Caller{named("orders", ordersKey)} })
	for _, more := range []string{``, `,"component_verify_ticket":""`, `,"component_verify_ticket":null`, `,"component_verify_ticket":"placeholder"`, `,"component_verify_ticket":{"a":[0]}`,
		`,"component_verify_ticket":"ticket@@@x","appid":"x","secret":"y","neededText":""`} {
		body := fmt.Sprintf(`{"component_appid":%q,"component_appsecret":%q%s}`, component, ordersKey, more)
		c := fetchStandIn(t, addr, post("/"+component+"/cgi-bin/component/api_component_token", body))
		if resp, answer := send(t, addr, post("/"+component+"/cgi-bin/component/api_create_preauthcode?component_access_token="+c, "{}")); resp.StatusCode != 200 || !strings.HasSuffix(last().uri, "access_token=T0") {
			t.Errorf("%s: %s %s", more, resp.Status, answer)
		}
	}
}

// Methods and headers are the SDK's: one fetches media with an empty POST, one names the type of a body that is not
// there, one has no User-Agent. Nothing is insisted on, and nothing is made up.
func TestCallsOfTheirOwnKind(t *testing.T) {
	up, last := remembering(t, nil)
	_, addr := start(t, up, nil)
	for _, c := range []struct{ method, headers, body string }{
		{"GET", "", ""},
		{"GET", "Content-Type: multipart/form-data; boundary=x\r\n", ""},
		{"POST", "Content-Length: 0\r\n", ""},
		{"POST", "Content-Length: 2\r\n", "{}"}, // no Content-Type
		{"PUT", "Content-Type: a/b\r\nContent-Length: 2\r\n", "{}"},
		{"DELETE", "User-Agent: sdk\r\n", ""},
	} {
		resp, answer := send(t, addr, c.method+" /"+account+"/cgi-bin/media/get?media_id=1 HTTP/1.1\r\nHost: x\r\n"+c.headers+"\r\n"+c.body)
		got := last()
		if resp.StatusCode != 200 || got.method != c.method || got.uri != "/cgi-bin/media/get?access_token=T0&media_id=1" || got.body != c.body {
			t.Errorf("%+v: %s %s, WeChat got %v", c, resp.Status, answer, got)
		}
		for _, name := range []string{"Content-Type", "User-Agent"} {
			if value, there := got.header[name]; there != strings.Contains(c.headers, name) || there && !strings.Contains(c.headers, value[0]) {
				t.Errorf("%+v: %s is %q", c, name, value)
			}
		}
	}
}

// WeChat is asked for gzip or for nothing, whatever an SDK could undo besides; an SDK that said nothing gets nothing
// compressed.
func TestCompressionIsTheSDKs(t *testing.T) {
	up, last := remembering(t, nil)
	_, addr := start(t, up, nil)
	for accept, want := range map[string]string{
		"": "", "gzip": "gzip", "gzip, deflate": "gzip", "gzip, compress, deflate, br": "gzip", "gzip, deflate, br, zstd": "gzip", "*": "gzip",
		"identity": "", "deflate": "", "br": "", "gzip;q=0": "",
	} {
		var headers []string
		if accept != "" {
			headers = append(headers, "Accept-Encoding: "+accept)
		}
		resp, answer := send(t, addr, get("/"+account+"/cgi-bin/a", headers...))
		if got := last().header.Values("Accept-Encoding"); strings.Join(got, ",") != want || resp.Header.Get("Content-Encoding") != "" || answer != `{"errcode":0}` {
			t.Errorf("%q: WeChat was asked for %q, want %q: %s", accept, got, want, answer)
		}
	}
}

// SDKs tell pictures, files and errors apart by these two headers, to the letter.
func TestTypesAndNamesOfFiles(t *testing.T) {
	for _, headers := range []map[string]string{
		{"Content-Type": "image/jpeg"},
		{"Content-Type": "image/jpeg", "Content-Disposition": `attachment; filename="a b.jpg"`},
		{"Content-Type": "text/plain"}, // what /sns/ answers, JSON as it is
		{"Content-Type": "application/json; encoding=utf-8"},
		{"Content-Type": "video/mp4", "Content-disposition": "attachment; filename=\"\xe4\xbd\xa0.mp4\""},
	} {
		up, _ := remembering(t, headers)
		_, addr := start(t, up, nil)
		for _, path := range []string{"/cgi-bin/media/get", "/sns/oauth2/access_token"} {
			resp, answer := send(t, addr, get("/"+account+path))
			for name, want := range headers {
				if got := resp.Header.Values(name); len(got) != 1 || got[0] != want {
					t.Errorf("%s: %s is %q, want %q (%s)", path, name, got, want, answer)
				}
			}
			if _, there := headers["Content-Disposition"]; !there && headers["Content-disposition"] == "" && resp.Header.Get("Content-Disposition") != "" {
				t.Errorf("%s: a name was made up", path)
			}
		}
	}
}

// HTTP clients follow redirects, and make a GET of a POST on the way.
func TestNothingIsRedirected(t *testing.T) {
	up, last := remembering(t, nil)
	_, addr := start(t, up, nil)
	for path, forwarded := range map[string]string{
		"//" + account + "/cgi-bin/a": "/cgi-bin/a", "/" + account + "//cgi-bin/a": "/cgi-bin/a", "//" + account + "//cgi-bin/a/": "/cgi-bin/a/",
		"/" + account + "/cgi-bin/a/": "/cgi-bin/a/", "/" + account + "/wxa": "/wxa", "http://api.weixin.qq.com/" + account + "//cgi-bin/a": "/cgi-bin/a",
		"/" + account: "", "/" + account + "/": "", "/": "", "/" + account + "/cgi-bin//a": "", "/" + account + "/cgi-bin/../a": "", "/" + account + "/cgi-bin/%2e%2e/a": "", "///cgi-bin/a": "",
	} {
		resp, answer := send(t, addr, post(path, "{}"))
		got := last()
		want := recorded{}
		if forwarded != "" {
			want = recorded{method: "POST", uri: forwarded + "?access_token=T0", body: "{}"}
		}
		if got.header = nil; got.method != want.method || got.uri != want.uri || got.body != want.body || resp.Header.Get("Location") != "" || resp.StatusCode/100 == 3 || (resp.StatusCode == 200) != (forwarded != "") {
			t.Errorf("%s: %s %s, WeChat got %v", path, resp.Status, answer, got)
		}
	}
}
