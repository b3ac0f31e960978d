package pages_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"wxproxy/callback/pages"
)

// Merchants are redirected only to where the operator allows it, however an
// address is written.
func TestReturnTo(t *testing.T) {
	w := start(t, pages.Config{ReturnTo: []string{
		"https://shop.example.com/back", "https://dir.example.com/wechat/", "https://bare.example.com",
		"http://127.0.0.1:3000/",
	}})
	open := func(target string) int {
		t.Helper()
		w.clock.advance(time.Hour)
		return w.get("/authorize?return_to=" + url.QueryEscape(target)).status
	}
	for _, good := range []string{
		"https://shop.example.com/back", "https://shop.example.com/back/",
		"https://shop.example.com/back/a/b", "https://shop.example.com/back?x=1&y=a%20b",
		"https://shop.example.com/back#/route", "https://SHOP.example.com/back",
		"https://shop.example.com:443/back", "https://shop.example.com/back/%E5%95%86",
		"https://shop.example.com/back/a%20b", "https://shop.example.com/back/.well-known",
		"https://shop.example.com/back/a..b",
		"https://shop.example.com/back?u=https://evil.example/",
		"https://shop.example.com/back?app_id=1&id=2&step[]=3&tickets=4&my_state=5&a.appid=6",
		"https://shop.example.com/back?next=%2Fdone%3Fappid%3D1", "https://shop.example.com/back?%E5%95%86=1",
		"https://shop.example.com/back#/a?x=y&z", "https://shop.example.com/back#state",
		"https://dir.example.com/wechat/", "https://dir.example.com/wechat/x",
		"https://bare.example.com", "https://bare.example.com/", "https://bare.example.com/x",
		"https://bare.example.com?x=1",
		"http://127.0.0.1:3000/", "http://127.0.0.1:3000/x",
	} {
		if got := open(good); got != 200 {
			t.Errorf("%s: got status %d, want 200", good, got)
		}
	}
	for what, targets := range map[string][]string{
		"another host": {
			"https://evil.example/back", "https://evil.example/https://shop.example.com/back",
			"https://www.shop.example.com/back", "https://example.com/back",
		},
		"suffix": {
			"https://shop.example.com.evil/back", "https://shop.example.com.evil.example/back",
			"https://bare.example.com.evil/", "https://shop.example.comevil/back",
			"https://shop.example.com./back",
		},
		"userinfo": {
			"https://shop.example.com@evil.example/back",
			"https://shop.example.com:443@evil.example/back", "https://me@shop.example.com/back",
			"https://:@shop.example.com/back", "https://shop.example.com%2fback@evil.example/",
			"https://evil.example%40shop.example.com/back",
		},
		"another scheme": {
			"http://shop.example.com/back", "javascript://shop.example.com/back%0aalert(1)",
			"ftp://shop.example.com/back", "data:text/html,x", "https+x://shop.example.com/back",
			"HTTPS:\\shop.example.com/back",
		},
		"relative": {
			"//shop.example.com/back", "///shop.example.com/back", "/back", "back",
			"https:shop.example.com/back", "https:/shop.example.com/back",
			"https:///shop.example.com/back", "?x", "#x",
		},
		"another port": {
			"https://shop.example.com:8443/back", "https://shop.example.com:80/back",
			"https://shop.example.com:/back", "https://shop.example.com:0443/back",
			"http://127.0.0.1/", "http://127.0.0.1:3001/",
		},
		"backslash": {
			`https://shop.example.com\@evil.example/back`,
			`https://evil.example\.shop.example.com/back`, `https:\\shop.example.com\back`,
			"https://shop.example.com/back/%5cadmin", `https://shop.example.com\back`, `https://shop.example.com/back\..\admin`,
		},
		"unicode": {
			"https://shop.example.com。evil.example/back", "https://shоp.example.com/back",
			"https://shop．example．com/back", "https://ｓhop.example.com/back",
			"https://shop.example.com/back/商", "https://ſhop.example.com/back",
			"https://xn--shp-xqc.example.com/back",
		},
		"control characters": {
			"https://shop.example.com\t/back", "https://shop.example.com/\tback",
			"https://shop.example.com\n/back", "\thttps://shop.example.com/back",
			" https://shop.example.com/back", "https://shop.example.com/back ",
			"https://shop.example.com/back\r\nSet-Cookie: a=b", "https://shop.example.com/back\x00",
			"https://shop.example.com/back\x7f", "java\tscript:alert(1)",
		},
		"encoded control characters": {
			"https://shop.example.com/back/%00", "https://shop.example.com/back/%0d%0aX:y",
			"https://shop.example.com/back/%7f", "https://shop%2eexample.com/back",
			"https://shop.example.com%00.evil.example/back", "https://shop.example.com%0a/back",
		},
		"dot segments": {
			"https://shop.example.com/back/../admin", "https://shop.example.com/back/..",
			"https://shop.example.com/back/./", "https://shop.example.com/back/%2e%2e/admin",
			"https://shop.example.com/back/.%2E/admin", "https://shop.example.com/back/%2f../admin",
			"https://shop.example.com/back%2f..%2fadmin", "https://shop.example.com/back/..%252fadmin",
			"https://shop.example.com/back/..%255Cadmin",
			"https://shop.example.com/back/%252e%252e/admin",
			"https://shop.example.com/back/..;/admin",
			"https://shop.example.com/back/%5c..%5cadmin",
		},
		"part of a segment": {
			"https://shop.example.com/backdoor", "https://shop.example.com/back.php",
			"https://shop.example.com/back%20x", "https://shop.example.com/back;x",
			"https://dir.example.com/wechat", "https://dir.example.com/wechatx",
		},
		"another path": {
			"https://shop.example.com/", "https://shop.example.com",
			"https://shop.example.com//back", "https://shop.example.com/Back",
			"https://shop.example.com/x/back", "https://shop.example.com?/back",
			"https://shop.example.com#/back", "https://dir.example.com?/wechat/",
		},
		"parameters of the result": {
			"https://shop.example.com/back?appid=wx0000000000000000",
			"https://shop.example.com/back?a=b&state=x", "https://shop.example.com/back?%61ppid=x",
			"https://shop.example.com/back?state", "https://shop.example.com/back?a;appid=x",
			"https://shop.example.com/back?%zz",
			"https://shop.example.com/back?APPID=x", "https://shop.example.com/back?AppId=x",
			"https://shop.example.com/back?State=x", "https://shop.example.com/back?%73tate=x",
			"https://shop.example.com/back?ticket=x", "https://shop.example.com/back?a&Ticket",
			"https://shop.example.com/back?appid[]=x", "https://shop.example.com/back?appid%5B%5D=x",
			"https://shop.example.com/back?state[0]=x", "https://shop.example.com/back?[appid]=x",
			"https://shop.example.com/back?appid[=x", "https://shop.example.com/back?appid%00=x",
			"https://shop.example.com/back?appid%00y=x", "https://shop.example.com/back?%00appid=x",
			"https://shop.example.com/back?+appid=x", "https://shop.example.com/back?%20state%20=x",
			"https://shop.example.com/back?%09ticket=x", "https://shop.example.com/back?appid.x=y",
			"https://shop.example.com/back?%61%70%70%69%64=x", "https://shop.example.com/back?%2561ppid=x",
			"https://shop.example.com/back?%252561ppid=x", "https://shop.example.com/back?%C5%BFtate=x",
			"https://shop.example.com/back?tic%E2%84%AAet=x", "https://shop.example.com/back?a%26appid=x",
			"https://shop.example.com/back?a%3D1%26state=x", "https://shop.example.com/back?appid%3Dx",
			"https://shop.example.com/back?appid%3Bx=y", "https://shop.example.com/back?%25=x",
			"https://shop.example.com/back#appid=x", "https://shop.example.com/back#/a?x=y&APPID=x",
			"https://shop.example.com/back#/a;state=x", "https://shop.example.com/back#?%61ppid=x",
		},
		"invalid URL": {
			"https://", "https://?", "https://shop.example.com:99999999999/back",
			"https://[::1/back", "https://[shop.example.com]/back", "https://shop.example.com/%",
			"<https://shop.example.com/back>",
			"https://shop.example.com/back/" + strings.Repeat("a", 1024),
		},
	} {
		for _, target := range targets {
			if got := open(target); got != 400 {
				t.Errorf("%s: %q: got status %d, want 400", what, target, got)
			}
		}
	}
}
