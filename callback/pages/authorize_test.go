package pages_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"wxproxy/callback/pages"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

func TestAuthorizePage(t *testing.T) {
	v := visit(t, pages.Config{})
	r := v.get("/authorize", "Accept-Language", "en")
	p := v.read(r)
	if r.status != 200 || p.title != "Authorize your WeChat account" || p.lang != "en" || !strings.Contains(p.text, "10 minutes") {
		t.Errorf("%d %+v", r.status, p)
	}
	// WeChat wants to see that the merchant comes from our host, and nobody is to see more.
	if got := r.header.Get("Referrer-Policy"); got != "strict-origin" {
		t.Errorf("Referrer-Policy %q", got)
	}
	const query = "component_appid=" + component + "&pre_auth_code=preauthcode%40%40%40SECRET-cy2CSaTT&redirect_uri=https%3A%2F%2Fwx.example.com%2Fauthorized&auth_type=3"
	if got, want := p.links["computer"].String(), "https://mp.weixin.qq.com/cgi-bin/componentloginpage?"+query; got != want {
		t.Errorf("computer: %s, want %s", got, want)
	}
	if got, want := p.links["phone"].String(), "https://open.weixin.qq.com/wxaopen/safe/bindcomponent?action=bindcomponent&no_scan=1&"+query+"#wechat_redirect"; got != want {
		t.Errorf("phone: %s, want %s", got, want)
	}
	if strings.Count(r.body, "<svg") != 1 || !strings.Contains(r.body, `<path d="M4 4h7v1h-7z`) {
		t.Error("no QR code")
	}
	if opened, _ := v.desk.counts(); opened != 1 {
		t.Errorf("%d codes for one page", opened)
	}
}

func TestAuthorizeParameters(t *testing.T) {
	v := visit(t, pages.Config{PublicURL: publicURL + "/", ReturnTo: []string{"https://shop.example.com/"}, LoginBase: "http://127.0.0.1:8090"})
	n := 0
	f := func(query, want string) {
		t.Helper()
		v.clock.forward(time.Hour) // limits are another matter
		n++
		r := v.get("/authorize" + query)
		if r.status != 200 {
			t.Errorf("%s: %d", query, r.status)
			return
		}
		p := v.read(r)
		for device, prefix := range map[string]string{
			"computer": "http://127.0.0.1:8090/cgi-bin/componentloginpage?",
			"phone":    "http://127.0.0.1:8090/wxaopen/safe/bindcomponent?action=bindcomponent&no_scan=1&",
		} {
			got := p.links[device]
			if !strings.HasPrefix(got.String(), prefix) {
				t.Errorf("%s: %s", query, got)
			}
			if !strings.HasSuffix(got.RawQuery, want) {
				t.Errorf("%s: %s, want …%s", query, got.RawQuery, want)
			}
		}
	}
	f("", "redirect_uri=https%3A%2F%2Fwx.example.com%2Fauthorized&auth_type=3")
	f("?", "authorized&auth_type=3")
	f("?type=", "authorized&auth_type=3")
	for _, kind := range []string{"1", "2", "4", "5", "6", "8"} {
		f("?type="+kind, "&auth_type="+kind)
	}
	f("?biz_appid="+account, "&biz_appid="+account)
	f("?type=1&biz_appid="+account, "&biz_appid="+account) // WeChat wants one of the two
	f("?category_ids=99%7C100", "&auth_type=3&category_id_list=99%7C100")
	f("?category_ids=99,100", "&auth_type=3&category_id_list=99%7C100")
	f("?from=singlemessage&isappinstalled=0", "authorized&auth_type=3") // apps add such
	f("?state="+strings.Repeat("%E5", 512), "&auth_type=3")
	f("?return_to=https://shop.example.com/a", "&auth_type=3")
	if opened, _ := v.desk.counts(); opened != n {
		t.Errorf("%d codes for %d pages", opened, n)
	}

	for query, word := range map[string]string{
		"?type=0": "type", "?type=7": "type", "?type=9": "type", "?type=33": "type", "?type=1%00": "type", "?type=+1": "type", "?type=３": "type",
		"?biz_appid=wx1": "biz_appid", "?biz_appid=WXf7d2ddffc117e8de": "biz_appid", "?biz_appid=" + account + "%26x=y": "biz_appid", "?biz_appid=gh_97417a04a28d": "biz_appid",
		"?category_ids=a": "category_ids", "?category_ids=1|": "category_ids", "?category_ids=|": "category_ids", "?category_ids=1||2": "category_ids",
		"?category_ids=1%26biz_appid=x": "category_ids", "?category_ids=1" + strings.Repeat("|1", 100): "category_ids",
		"?state=" + strings.Repeat("a", 513): "state", "?return_to=https://shop.example.org/": "return_to",
		"?type=1&type=2": "", "?type=%zz": "", "?a;b": "", "?state=" + strings.Repeat("%41", 4000): "",
	} {
		for _, lang := range []string{"zh", "en"} {
			r := v.get("/authorize"+query, "Accept-Language", lang)
			if p := v.read(r); r.status != 400 || !strings.Contains(p.text, word) || len(p.links) != 0 {
				t.Errorf("%.60s: %d %q", query, r.status, p.text)
			}
		}
	}
	if opened, _ := v.desk.counts(); opened != n {
		t.Errorf("%d codes, %d of them for nothing", opened, opened-n)
	}
}

// Whatever stands in a link is not repeated on the page.
func TestPagesRepeatNothing(t *testing.T) {
	v := visit(t, pages.Config{ReturnTo: []string{"https://shop.example.com/"}})
	const evil = "%3Cscript%3Ealert(1)%3C/script%3E"
	for _, target := range []string{
		"/authorize?type=" + evil, "/authorize?state=" + evil, "/authorize?return_to=" + evil, "/authorize?" + evil + "=" + evil,
		"/authorize?return_to=https://shop.example.com/'-alert(1)-'", "/authorized?auth_code=%20" + evil, "/authorized?s=" + evil,
	} {
		if r := v.get(target); strings.Contains(r.body, "alert") {
			t.Errorf("%s: %s", target, r.body)
		}
	}
	v.desk.name = "<b>&\"'</b>"
	if r := v.comeBack("/authorized"); strings.Contains(r.body, "<b>") || v.read(r).text == "" || !strings.Contains(v.read(r).text, v.desk.name) {
		t.Errorf("%s", r.body)
	}
}

// A code is for a person who opens the page.
func TestNoCodeForWhoOnlyLooks(t *testing.T) {
	v := visit(t, pages.Config{})
	if r := v.ask(http.MethodHead, "/authorize"); r.status != 200 || r.body != "" {
		t.Errorf("HEAD: %d %q", r.status, r.body)
	}
	for _, agent := range []string{
		"facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)", "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", "Twitterbot/1.0",
		"TelegramBot (like TwitterBot)", "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)", "WhatsApp/2.23.20.0", "Mozilla/5.0 (compatible; Googlebot/2.1)",
		"Mozilla/5.0 (compatible; Baiduspider/2.0; +http://www.baidu.com/search/spider.html)", "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5", "LinkedInBot/1.0",
	} {
		r := v.get("/authorize", "User-Agent", agent)
		if p := v.read(r); r.status != 200 || len(p.links) != 0 {
			t.Errorf("%s: %d %+v", agent, r.status, p)
		}
	}
	for _, h := range [][2]string{{"Sec-Purpose", "prefetch"}, {"Sec-Purpose", "prefetch;prerender"}, {"Purpose", "prefetch"}, {"X-Moz", "prefetch"}, {"X-Purpose", "preview"}} {
		// An error, because a browser would show the page that it has fetched ahead.
		if r := v.get("/authorize", h[0], h[1]); r.status != 503 {
			t.Errorf("%s: %d", h, r.status)
		}
	}
	if opened, _ := v.desk.counts(); opened != 0 {
		t.Errorf("%d codes", opened)
	}
	for _, agent := range []string{
		"", "curl/8.5.0", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 MicroMessenger/8.0.49(0x1800312c) NetType/WIFI Language/zh_CN",
		"Mozilla/5.0 (Linux; Android 13; CUBOT X70) AppleWebKit/537.36 Chrome/120.0 Mobile Safari/537.36 XWEB/1160065 MMWEBSDK/20231202 MicroMessenger/8.0.47",
	} {
		if r := v.get("/authorize", "User-Agent", agent); len(v.read(r).links) != 2 {
			t.Errorf("a person with %q is taken for a robot", agent)
		}
	}
}

func TestPagesAreLimited(t *testing.T) {
	v := visit(t, pages.Config{})
	open := func(forwarded ...string) reply {
		t.Helper()
		var headers []string
		for _, f := range forwarded {
			headers = append(headers, "X-Forwarded-For", f)
		}
		return v.get("/authorize", headers...)
	}
	until429 := func(forwarded ...string) (n int, r reply) {
		t.Helper()
		for ; n < 1000; n++ {
			if r = open(forwarded...); r.status != 200 {
				return n, r
			}
		}
		return n, r
	}
	n, r := until429()
	if after, _ := strconv.Atoi(r.header.Get("Retry-After")); n != 20 || r.status != 429 || after != 6 {
		t.Errorf("after %d: %d, Retry-After %s", n, r.status, r.header.Get("Retry-After"))
	}
	if zh, en := v.read(r), v.read(v.get("/authorize", "Accept-Language", "en")); zh.title != "请稍候" || en.title != "One moment, please" || !strings.Contains(en.text, "6 seconds") || !strings.Contains(zh.text, "6 秒") {
		t.Errorf("%+v %+v", zh, en)
	}
	// Another client, as what ends TLS tells it. What clients write themselves stands further left, or in lines before.
	if n, _ := until429("203.0.113.7"); n != 20 {
		t.Errorf("another client after %d", n)
	}
	for _, forged := range [][]string{{"198.51.100.1, 203.0.113.7"}, {"198.51.100.2", "203.0.113.7"}, {"203.0.113.7:4711"}, {"::ffff:203.0.113.7"}} {
		if r := open(forged...); r.status != 429 {
			t.Errorf("%q: %d", forged, r.status)
		}
	}
	for _, none := range []string{"unknown", "", "198.51.100.1, nonsense"} { // then it is the peer
		if r := open(none); r.status != 429 {
			t.Errorf("%q: %d", none, r.status)
		}
	}
	// One /64 is one client.
	for i := range 20 {
		if r := open(fmt.Sprintf("2001:db8:1:2::%x", i)); r.status != 200 {
			t.Errorf("%d: %d", i, r.status)
		}
	}
	if r := open("[2001:db8:1:2:ffff::1]:443"); r.status != 429 {
		t.Errorf("the same /64: %d", r.status)
	}
	// It comes back, slowly.
	v.clock.forward(6 * time.Second)
	if a, b := open("203.0.113.7"), open("203.0.113.7"); a.status != 200 || b.status != 429 {
		t.Errorf("after 6 s: %d, %d", a.status, b.status)
	}
	// And there is a bound for all together: 120, and one more in 10 s.
	total := 61
	for i := range 500 {
		if open(fmt.Sprintf("192.0.2.%d", i%250)).status == 200 {
			total++
		}
	}
	if total != 120 {
		t.Errorf("%d for all together", total)
	}
	v.clock.forward(10 * time.Second)
	if a, b := open("192.0.2.251"), open("192.0.2.252"); a.status != 200 || b.status != 429 {
		t.Errorf("after 10 s: %d, %d", a.status, b.status)
	}
	if opened, _ := v.desk.counts(); opened != 121 {
		t.Errorf("%d codes", opened)
	}
}

func TestWithoutPublicURL(t *testing.T) {
	v := visit(t, pages.Config{})
	v.handler.Reconfigure(pages.Config{ComponentAppID: component})
	for lang, title := range map[string]string{"zh": "授权页面尚未配置", "en": "This page is not set up yet"} {
		r := v.get("/authorize", "Accept-Language", lang)
		if p := v.read(r); r.status != 503 || p.title != title || !strings.Contains(p.text, "public_url") {
			t.Errorf("%d %+v", r.status, p)
		}
	}
	if opened, _ := v.desk.counts(); opened != 0 {
		t.Error("a code was fetched")
	}
	if r := v.comeBack("/authorized"); r.status != 200 { // who comes back all the same is not lost
		t.Errorf("%d", r.status)
	}
	v.handler.Reconfigure(pages.Config{ComponentAppID: component, PublicURL: publicURL})
	v.open("")
	v.handler.Reconfigure(pages.Config{PublicURL: publicURL}) // no component, nothing to authorize
	if r := v.get("/authorize"); r.status != 404 {
		t.Errorf("%d", r.status)
	}
}

func TestNoPreAuthCode(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		status int
		zh, en string
	}{
		"no ticket":   {tokens.ErrNoTicket, 503, "暂时无法连接微信", "WeChat cannot be reached right now"},
		"unavailable": {fmt.Errorf("%w: waiting", tokens.ErrUnavailable), 503, "暂时无法连接微信", "WeChat cannot be reached right now"},
		"unreachable": {fmt.Errorf("%w: refused", wechat.ErrUnreachable), 502, "暂时无法连接微信", "WeChat cannot be reached right now"},
		"late":        {context.DeadlineExceeded, 504, "暂时无法连接微信", "WeChat cannot be reached right now"},
		"busy":        {&wechat.Error{Code: -1}, 503, "暂时无法连接微信", "WeChat cannot be reached right now"},
		"quota":       {&wechat.Error{Code: 45009}, 502, "微信拒绝了请求", "WeChat refused the request"},
		"else":        {errors.New("x"), 500, "出错了", "Something went wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			v := visit(t, pages.Config{ReturnTo: []string{"https://shop.example.com/"}})
			v.desk.preAuth = func() error { return c.err }
			const query = "?biz_appid=" + account + "&return_to=https%3A%2F%2Fshop.example.com%2F&state=a+b"
			zh, en := v.get("/authorize"+query), v.get("/authorize"+query, "Accept-Language", "en")
			pz, pe := v.read(zh), v.read(en)
			if zh.status != c.status || pz.title != c.zh || en.status != c.status || pe.title != c.en {
				t.Errorf("%d %q, %d %q", zh.status, pz.title, en.status, pe.title)
			}
			if later := c.status == 503 || c.status == 504 || c.zh == "暂时无法连接微信"; later != (zh.header.Get("Retry-After") == "60") {
				t.Errorf("Retry-After %q", zh.header.Get("Retry-After"))
			}
			again := pz.links[""]
			if again == nil || again.Path != "/authorize" || again.IsAbs() {
				t.Fatalf("no way back: %v", again)
			}
			if want, _ := url.ParseQuery(query[1:]); again.Query().Encode() != want.Encode() {
				t.Errorf("the way back forgets what was asked: %s", again)
			}
			if !strings.Contains(v.logged(), "no pre-auth code") {
				t.Error("not logged")
			}
		})
	}
}
