package proxy

import (
	"bytes"
	"net/url"
	"strings"
	"testing"
)

const (
	acc  = "wxaaaaaaaaaaaaaaaa"
	own  = "wx00000000000000ff"
	comp = "wxcccccccccccccccc"
)

func TestParseTarget(t *testing.T) {
	accept := func(uri, prefix, path, query string) {
		t.Helper()
		got, err := parseTarget([]byte(uri))
		if err != nil || string(got.prefix) != prefix || string(got.path) != path || string(got.query) != query {
			t.Errorf("%q: got %q %q %q, error %v, want %q %q %q", uri, got.prefix, got.path, got.query, err, prefix, path, query)
		}
	}
	accept("/cgi-bin/user/info", "", "/cgi-bin/user/info", "")
	accept("/cgi-bin/user/info?openid=1?2", "", "/cgi-bin/user/info", "openid=1?2")
	accept("/"+acc+"/cgi-bin/a", acc, "/cgi-bin/a", "")
	accept("//"+acc+"/cgi-bin/a", acc, "/cgi-bin/a", "")
	accept("/"+acc+"//cgi-bin/a?b", acc, "/cgi-bin/a", "b")
	accept("//cgi-bin/token", "", "/cgi-bin/token", "")
	accept("/wxa/commit", "", "/wxa/commit", "")
	accept("/wxaapi/newtmpl/gettemplate", "", "/wxaapi/newtmpl/gettemplate", "")
	accept("/wxAAAAAAAAAAAAAAAA/cgi-bin/a", "", "/wxAAAAAAAAAAAAAAAA/cgi-bin/a", "")
	accept("/"+acc+"a/cgi-bin/a", "", "/"+acc+"a/cgi-bin/a", "")
	accept("/product/limiteddiscount/add/", "", "/product/limiteddiscount/add/", "")
	accept("/cgi-bin/%E4%BD%A0+~a", "", "/cgi-bin/%E4%BD%A0+~a", "")
	accept("/cgi-bin/\xe4\xbd\xa0", "", "/cgi-bin/\xe4\xbd\xa0", "")
	accept("/cgi-bin/あカ한", "", "/cgi-bin/あカ한", "")
	accept("/a/..b/.c", "", "/a/..b/.c", "")
	accept("http://api.weixin.qq.com/cgi-bin/a?b", "", "/cgi-bin/a", "b")
	accept("http://API2.weixin.qq.com/cgi-bin/a", "", "/cgi-bin/a", "")
	accept("/cgi-bin/a?u=http://x/../y", "", "/cgi-bin/a", "u=http://x/../y")

	reject := func(uri string, want *apiError) {
		t.Helper()
		if _, err := parseTarget([]byte(uri)); err != want {
			t.Errorf("%q: got error %v, want %v", uri, err, want)
		}
	}
	for _, uri := range []string{"/", "//", "/" + acc, "/" + acc + "/", "///cgi-bin/a", "/" + acc + "///cgi-bin/a", "/cgi-bin//a", "/cgi-bin/../a", "/./a", "/a/..", "/a/.", "/cgi-bin/a//",
		"/a\\b", "/a/%2e%2e/b", "/a/%2E/b", "/a%2fb", "/a%2Fb", "/a%5cb", "/a%5Cb", "/a%00",
		"/a%0d%0aHost:x", "/a%7f", "/a%25b", "/a%2", "/a%zz", "/a%", "/a;b", "/a%3bb", "/a%3Fb",
		"/a%23b", "/a\x01b", "/a\x7f", "/a/%c0%ae%c0%ae/b", "/a%C0%AFb", "/a/\xc0\xae./b",
		"/a%e0%80%ae", "/a%ff", "/a b", "/a#b", "/a%20b", "/a%20",
		"/a/．．/b", "/a/%EF%BC%8E%EF%BC%8E/b",
		"/a%EF%B1%9E", "/a%EF%B7%BA", "/a%EF%B9%B0", // Arabic forms that turn into text with a space
		"/a/．/b", "/a／b", "/a%EF%BC%8Fb", "/a＼b", "/a％2fb", "/a；b", "/a？b", "/a＃b", "/ａ",
		"/a/‥/b", "/a/․․/b", "/a/﹒﹒/b", "/a⁄b", "/a∕b", "/a℀b", "/a\u3000b", "/a\u00a0", "/a\u200bb",
		"/a\ufeff", "/a\u0085b", "/a\u202eb", "/\u212aa", "/\u017fns", "/ªa", "/𝐚", "/é", "/😀",
	} {
		reject(uri, errPath)
	}
	for _, uri := range []string{"/a?b c", "/a?b\tc", "/a?b#c", "/a?\x00", "/a?b\x7f"} {
		reject(uri, errQuery)
	}
	for _, uri := range []string{"", "*", "cgi-bin/a", "http://evil.example/cgi-bin/a", "http://api.weixin.qq.com.evil.example/a", "http://u@api.weixin.qq.com/a", "http://api.weixin.qq.com:80@evil/a",
		"http://api.weixin.qq.com", "http://api.weixin.qq.com?x", "ftp://api.weixin.qq.com/a", "https://mp.weixin.qq.com/a", "http:///a"} {
		reject(uri, errForeignHost)
	}
}

// FuzzTarget checks that the path to which the rules are applied is the one
// that a server sees in what is forwarded.
func FuzzTarget(f *testing.F) {
	f.Add("/" + acc + "//cgi-bin/%63omponent/api_query_auth?x=1")
	f.Add("/a/%2e%2e/%252e/b;c\\d")
	f.Add("http://api.weixin.qq.com/cgi-bin/a")
	f.Fuzz(func(t *testing.T, uri string) {
		got, targetErr := parseTarget([]byte(uri))
		if targetErr != nil {
			return
		}
		u, err := url.ParseRequestURI(string(got.path) + "?" + string(got.query))
		if err != nil {
			return // net/url is stricter in places
		}
		if u.Path != string(got.decodedPath) || u.RawQuery != string(got.query) {
			t.Fatalf("%q: got path %q, query %q, want what net/url sees: %q, %q", uri, got.decodedPath, got.query, u.Path, u.RawQuery)
		}
		for _, seg := range strings.Split(u.Path[1:], "/") {
			if seg == "." || seg == ".." {
				t.Fatalf("%q: got a dot segment in %q, want an error", uri, u.Path)
			}
		}
		if !bytes.HasSuffix([]byte(uri), append(got.path, uri[len(uri)-len(got.query)-boolInt(strings.Contains(uri, "?")):]...)) {
			t.Fatalf("%q: got path %q, want the end of the target", uri, got.path)
		}
	})
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
