package pages_test

import (
	"net/http"
	"strings"
	"testing"

	"wxproxy/callback/pages"
)

func TestPagesLanguage(t *testing.T) {
	v := visit(t, pages.Config{})
	const zh, en = "zh-CN", "en"
	for _, tc := range []struct{ header, want string }{
		// The preferred one of the two languages, in any region and script.
		{"zh-CN,zh;q=0.9,en;q=0.8", zh},
		{"en-US,en;q=0.9,zh-CN;q=0.8", en},
		{"zh-Hant-HK", zh},
		{"zh-Hant-HK, en;q=0.9", zh},
		{"zh-Hant-TW, en;q=0.9", zh},
		{"zh-HK, en-HK", zh},
		{"en-HK, zh-HK;q=0.9", en},
		{"zh-TW", zh},
		{"zh-cn", zh},
		{"ZH-cn, EN-us;q=0.9", zh},
		{"zh-SG, en-US", zh},
		{"EN-gb", en},
		{"en, zh", en},
		{"zh, en", zh},
		// By quality, not by position.
		{"zh;q=0.5,en;q=0.6", en},
		{"en;q=0.5, zh;q=0.6", zh},
		{"fr-FR, en;q=0.1", en},
		{"fr, zh;q=0.2, en;q=0.1", zh},
		{"fr-FR, zh-TW;q=0.5", zh},
		{"zh-CN;q=0.1, zh;q=0.9, en;q=0.5", zh},
		{"zh;q=0, en;q=0.1", en},
		// Neither: merchants read Chinese.
		{"", zh},
		{"*", zh},
		{"en;q=0, *", zh},
		{"en;q=0", zh},
		{"zh;q=0, en;q=0", zh},
		{"fr-FR, de;q=0.9", zh},
		{"ja", zh},
		// Not a header that browsers send.
		{"zh;q=x", en},
		{";;,,;q=1,zh", en},
		{"zh-", en},
		{"商", en},
		{"zh," + strings.Repeat("zh-CN,", 200) + "zh", en},
		{"zh" + strings.Repeat("-a", 2000), en},
	} {
		r := v.ask(http.MethodHead, "/authorize", "Accept-Language", tc.header)
		if got := r.header.Get("Content-Language"); got != tc.want {
			t.Errorf("Accept-Language %.60q: got %s, want %s", tc.header, got, tc.want)
		}
	}
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
