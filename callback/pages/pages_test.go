package pages_test

import (
	"net/http"
	"strings"
	"testing"

	"wxproxy/callback/pages"
)

func TestPagesLanguage(t *testing.T) {
	v := visit(t, pages.Config{})
	f := func(header, want string) {
		t.Helper()
		r := v.ask(http.MethodHead, "/authorize", "Accept-Language", header)
		if got := r.header.Get("Content-Language"); got != want {
			t.Errorf("%q: %s, want %s", header, got, want)
		}
	}
	const zh, en = "zh-CN", "en"
	f("", zh)
	f("zh-CN,zh;q=0.9,en;q=0.8", zh)
	f("en-US,en;q=0.9,zh-CN;q=0.8", en)
	f("zh;q=0.5,en;q=0.6", en)
	f("en;q=0.5, zh;q=0.6", zh)
	f("EN-gb", en)
	f("zh-Hant-TW, en;q=0.9", zh)
	f("fr-FR, de;q=0.9", zh)
	f("fr-FR, en;q=0.1", en)
	f("fr, zh;q=0.2, en;q=0.1", zh)
	f("*", zh)
	f("en;q=0, *", zh)
	f("zh;q=0, *;q=0.1", en)
	f("zh;q=0.1, *;q=0.5", en)
	f("en, zh", en)
	f("zh, en", zh)
	f("en;q=0", zh)
	f("zh;q=0, en;q=0", zh)
	f("en;q=2, zh;q=0.1", zh)
	f("en;q=x", zh)
	f("en ; Q=0.9 , zh ; q = 0.8", en)
	f("english", zh)
	f(";;,,;q=1,en", en)
	f(strings.Repeat("fr,", 2000)+"en", zh)
	f("zh-CN;q=0.1, zh;q=0.9, en;q=0.5", zh)
}

func TestPagesRoutes(t *testing.T) {
	v := visit(t, pages.Config{})
	for _, path := range []string{"/authorize", "/authorized"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get"} {
			r := v.raw(method, method+" "+path+" HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			if r.status != 405 || r.header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d %v", method, path, r.status, r.header)
			}
		}
		for _, other := range []string{path + "/", "/" + path, path + "%20", "/x/.." + path, strings.ToUpper(path), path + ".html"} {
			if r := v.raw("GET", "GET "+other+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); r.status != 404 {
				t.Errorf("%s: %d", other, r.status)
			}
		}
	}
	if opened, returned := v.desk.counts(); opened+returned != 0 {
		t.Error("WeChat was asked")
	}
}
