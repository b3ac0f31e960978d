package pages_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"wxproxy/callback/pages"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

var stateInLink = regexp.MustCompile(`%3Fs%3D[A-Za-z0-9_-]{39,}`)

// withoutState returns a link without the signed state, which each has.
func withoutState(t *testing.T, link *url.URL) string {
	t.Helper()
	if link == nil || !stateInLink.MatchString(link.RawQuery) {
		t.Errorf("link %.200v: got no signed state in its redirect_uri", link)
		return ""
	}
	return stateInLink.ReplaceAllLiteralString(link.String(), "")
}

func TestAuthorizePage(t *testing.T) {
	w := start(t, pages.Config{})
	r := w.get("/authorize", "Accept-Language", "en")
	p := w.parse(r)
	if r.status != 200 || p.title != "Authorize your WeChat account" || p.lang != "en" ||
		!strings.Contains(p.text, "10 minutes") {
		t.Errorf("got status %d and page %+v, want the English page with links for 10 minutes", r.status, p)
	}
	// WeChat checks that the merchant comes from the platform's host. The query
	// of the page must not be sent.
	if got := r.header.Get("Referrer-Policy"); got != "strict-origin" {
		t.Errorf("Referrer-Policy: got %q, want strict-origin", got)
	}
	const query = "component_appid=" + component + "&pre_auth_code=preauthcode%40%40%40SECRET-cy2CSaTT" +
		"&redirect_uri=https%3A%2F%2Fwx.example.com%2Fauthorized&auth_type=3"
	for device, want := range map[string]string{
		"computer": "https://mp.weixin.qq.com/cgi-bin/componentloginpage?" + query,
		"phone": "https://open.weixin.qq.com/wxaopen/safe/bindcomponent?action=bindcomponent&no_scan=1&" + query +
			"#wechat_redirect",
	} {
		if got := withoutState(t, p.links[device]); got != want {
			t.Errorf("link for the %s: got %s, want %s", device, got, want)
		}
	}
	if strings.Count(r.body, "<svg") != 1 || !strings.Contains(r.body, `<path d="M4 4h7v1h-7z`) {
		t.Errorf("got no QR code in the page\n%s", r.body)
	}
	w.wantCalls(1, 0)
}

func TestAuthorizeParameters(t *testing.T) {
	w := start(t, pages.Config{
		PublicURL: publicURL + "/", ReturnTo: []string{shop}, LoginBase: "http://127.0.0.1:8090",
	})
	valid := []struct{ query, want string }{
		{"", "redirect_uri=https%3A%2F%2Fwx.example.com%2Fauthorized&auth_type=3"},
		{"?", "authorized&auth_type=3"},
		{"?type=", "authorized&auth_type=3"},
		{"?type=1", "&auth_type=1"},
		{"?type=2", "&auth_type=2"},
		{"?type=4", "&auth_type=4"},
		{"?type=5", "&auth_type=5"},
		{"?type=6", "&auth_type=6"},
		{"?type=8", "&auth_type=8"},
		{"?biz_appid=" + account, "&biz_appid=" + account},
		{"?type=1&biz_appid=" + account, "&biz_appid=" + account}, // WeChat accepts one of the two
		{"?category_ids=99%7C100", "&auth_type=3&category_id_list=99%7C100"},
		{"?category_ids=99,100", "&auth_type=3&category_id_list=99%7C100"},
		{"?from=singlemessage&isappinstalled=0", "authorized&auth_type=3"}, // added by apps
		{"?state=" + strings.Repeat("%E5", 512), "&auth_type=3"},
		{"?unknown=" + rep("a", 6144-8), "authorized&auth_type=3"},
		{"?return_to=https://shop.example.com/a", "&auth_type=3"},
	}
	for _, tc := range valid {
		w.clock.advance(time.Hour) // so that no limit is reached
		r := w.get("/authorize" + tc.query)
		if r.status != 200 {
			t.Errorf("%s: got status %d, want 200", tc.query, r.status)
			continue
		}
		p := w.parse(r)
		for device, prefix := range map[string]string{
			"computer": "http://127.0.0.1:8090/cgi-bin/componentloginpage?",
			"phone":    "http://127.0.0.1:8090/wxaopen/safe/bindcomponent?action=bindcomponent&no_scan=1&",
		} {
			got := withoutState(t, p.links[device])
			link, _, _ := strings.Cut(got, "#")
			if !strings.HasPrefix(got, prefix) || !strings.HasSuffix(link, tc.want) {
				t.Errorf("%.60s: got link %s for the %s, want %s…%s", tc.query, got, device, prefix, tc.want)
			}
		}
	}
	w.wantCalls(len(valid), 0)

	// Each invalid parameter is named in the text.
	for query, name := range map[string]string{
		"?type=0": "type", "?type=7": "type", "?type=9": "type", "?type=33": "type",
		"?type=1%00": "type", "?type=+1": "type", "?type=３": "type",
		"?biz_appid=wx1":                       "biz_appid",
		"?biz_appid=WXf7d2ddffc117e8de":        "biz_appid",
		"?biz_appid=" + account + "%26x=y":     "biz_appid",
		"?biz_appid=gh_97417a04a28d":           "biz_appid",
		"?category_ids=a":                      "category_ids",
		"?category_ids=1|":                     "category_ids",
		"?category_ids=|":                      "category_ids",
		"?category_ids=1||2":                   "category_ids",
		"?category_ids=1%26biz_appid=x":        "category_ids",
		"?category_ids=1" + rep("|1", 100):     "category_ids",
		"?state=" + rep("a", 513):              "state",
		"?return_to=https://shop.example.org/": "return_to",
		"?type=1&type=2":                       "",
		"?type=%zz":                            "",
		"?a;b":                                 "",
		"?unknown=" + rep("a", 6144-8+1):       "", // one byte over the limit of a query
	} {
		for _, lang := range []string{"zh", "en"} {
			r := w.get("/authorize"+query, "Accept-Language", lang)
			if p := w.parse(r); r.status != 400 || !strings.Contains(p.text, name) || len(p.links) != 0 {
				t.Errorf("%.60s (%s): got status %d, text %q and links %v, want 400, %q in the text and no links",
					query, lang, r.status, p.text, p.links, name)
			}
		}
	}
	w.wantCalls(len(valid), 0)
}

func rep(s string, n int) string { return strings.Repeat(s, n) }

func TestPagesDoNotRepeatParameters(t *testing.T) {
	w := start(t, pages.Config{ReturnTo: []string{shop}})
	const script = "%3Cscript%3Ealert(1)%3C/script%3E"
	for _, target := range []string{
		"/authorize?type=" + script, "/authorize?state=" + script, "/authorize?return_to=" + script,
		"/authorize?" + script + "=" + script, "/authorize?return_to=https://shop.example.com/'-alert(1)-'",
		"/authorized?auth_code=%20" + script, "/authorized?s=" + script,
	} {
		if r := w.get(target); strings.Contains(r.body, "alert") {
			t.Errorf("%s: got a part of the parameter in the page\n%s", target, r.body)
		}
	}
	// The account's name comes from WeChat, and it is escaped.
	w.exchanger.name = "<b>&\"'</b>"
	r := w.consent("/authorized")
	if strings.Contains(r.body, "<b>") || !strings.Contains(w.parse(r).text, w.exchanger.name) {
		t.Errorf("got page\n%s\nwant the name %s, escaped", r.body, w.exchanger.name)
	}
}

func TestRobotsAndPrefetchesGetNoCode(t *testing.T) {
	w := start(t, pages.Config{})
	if r := w.request(http.MethodHead, "/authorize"); r.status != 200 || r.body != "" {
		t.Errorf("HEAD: got status %d and body %q, want 200 and no body", r.status, r.body)
	}
	for _, agent := range []string{
		"facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
		"Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
		"Twitterbot/1.0",
		"TelegramBot (like TwitterBot)",
		"Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)",
		"WhatsApp/2.23.20.0",
		"Mozilla/5.0 (compatible; Googlebot/2.1)",
		"Mozilla/5.0 (compatible; Baiduspider/2.0; +http://www.baidu.com/search/spider.html)",
		"Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5",
		"LinkedInBot/1.0",
	} {
		r := w.get("/authorize", "User-Agent", agent)
		if p := w.parse(r); r.status != 200 || len(p.links) != 0 {
			t.Errorf("robot %q: got status %d and links %v, want 200 and none", agent, r.status, p.links)
		}
	}
	for _, h := range [][2]string{
		{"Sec-Purpose", "prefetch"}, {"Sec-Purpose", "prefetch;prerender"}, {"Purpose", "prefetch"},
		{"X-Moz", "prefetch"}, {"X-Purpose", "preview"},
	} {
		// An error, because a browser would show a page that it has prefetched.
		if r := w.get("/authorize", h[0], h[1]); r.status != 503 {
			t.Errorf("%s: got status %d, want 503", h, r.status)
		}
	}
	w.wantCalls(0, 0)

	for _, agent := range []string{
		"",
		"curl/8.5.0",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) " +
			"Chrome/126.0.0.0 Safari/537.36",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) " +
			"AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 " +
			"MicroMessenger/8.0.49(0x1800312c) NetType/WIFI Language/zh_CN",
		"Mozilla/5.0 (Linux; Android 13; CUBOT X70) AppleWebKit/537.36 Chrome/120.0 Mobile Safari/537.36 " +
			"XWEB/1160065 MMWEBSDK/20231202 MicroMessenger/8.0.47",
		"Mozilla/5.0 (Linux; Android 9; CUBOT) AppleWebKit/537.36 Chrome/120.0 Mobile Safari/537.36 " +
			"MicroMessenger/8.0.47", // "bot)" also ends the names of robots
	} {
		if n := len(w.parse(w.get("/authorize", "User-Agent", agent)).links); n != 2 {
			t.Errorf("person with %q: got %d links, want 2", agent, n)
		}
	}
}

// untilLimited opens /authorize until a request is rejected and returns how
// often it was accepted.
func (w *env) untilLimited(headers ...string) (accepted int, rejected response) {
	w.t.Helper()
	for ; accepted < 1000; accepted++ {
		if rejected = w.get("/authorize", headers...); rejected.status != 200 {
			return accepted, rejected
		}
	}
	w.t.Error("1,000 requests were accepted")
	return accepted, rejected
}

func TestAuthorizeIsLimitedPerClient(t *testing.T) {
	w := start(t, pages.Config{})
	n, r := w.untilLimited()
	if after := r.header.Get("Retry-After"); n != 20 || r.status != 429 || after != "120" {
		t.Errorf("got status %d and Retry-After %q after %d requests, want 429 and 120 after 20",
			r.status, after, n)
	}
	zh, en := w.parse(r), w.parse(w.get("/authorize", "Accept-Language", "en"))
	if zh.title != "请稍候" || !strings.Contains(zh.text, "120 秒") || en.title != "One moment, please" ||
		!strings.Contains(en.text, "120 seconds") {
		t.Errorf("got pages %+v and %+v, want them to name 120 seconds", zh, en)
	}

	// The last entry of X-Forwarded-For is the client, as the TLS proxy sees
	// it. Earlier entries and lines can be forged.
	const forwardedFor, client = "X-Forwarded-For", "203.0.113.7"
	if n, _ := w.untilLimited(forwardedFor, client); n != 20 {
		t.Errorf("another client: got %d requests, want 20", n)
	}
	for _, headers := range [][]string{
		{forwardedFor, "198.51.100.1, " + client},
		{forwardedFor, "198.51.100.2", forwardedFor, client},
		{forwardedFor, client + ":4711"},
		{forwardedFor, "::ffff:" + client},
		// Without an address in the last entry, the client is the peer.
		{forwardedFor, "unknown"},
		{forwardedFor, ""},
		{forwardedFor, "198.51.100.1, nonsense"},
	} {
		if r := w.get("/authorize", headers...); r.status != 429 {
			t.Errorf("%q: got status %d, want 429", headers, r.status)
		}
	}

	// All addresses of a /64 are one client.
	for i := range 20 {
		if r := w.get("/authorize", forwardedFor, fmt.Sprintf("2001:db8:1:2::%x", i)); r.status != 200 {
			t.Errorf("IPv6 request %d: got status %d, want 200", i+1, r.status)
		}
	}
	if r := w.get("/authorize", forwardedFor, "[2001:db8:1:2:ffff::1]:443"); r.status != 429 {
		t.Errorf("same /64: got status %d, want 429", r.status)
	}

	w.clock.advance(2 * time.Minute)
	if n, _ := w.untilLimited(forwardedFor, client); n != 1 {
		t.Errorf("after 2 minutes: got %d requests, want 1", n)
	}
}

func TestAuthorizeIsLimitedForAllClients(t *testing.T) {
	w := start(t, pages.Config{})
	accepted := 0
	open := func(client int) {
		if w.get("/authorize", "X-Forwarded-For", fmt.Sprintf("192.0.2.%d", client)).status == 200 {
			accepted++
		}
	}
	for i := range 500 {
		open(i % 250)
	}
	if accepted != 120 {
		t.Errorf("got %d requests, want 120", accepted)
	}
	w.clock.advance(10 * time.Second)
	open(251)
	open(252)
	if accepted != 121 {
		t.Errorf("after 10 s: got %d requests, want 121", accepted)
	}
	w.wantCalls(121, 0)
}

func TestFailedPreAuthCode(t *testing.T) {
	const (
		notReadyZH, notReadyEN = "暂时无法连接微信", "WeChat cannot be reached right now"
		query                  = "?biz_appid=" + account + "&return_to=https%3A%2F%2Fshop.example.com%2F&state=a+b"
	)
	for name, tc := range map[string]struct {
		err        error
		status     int
		zh, en     string
		retryAfter string
	}{
		"no ticket":   {tokens.ErrNoTicket, 503, notReadyZH, notReadyEN, "60"},
		"unavailable": {fmt.Errorf("%w: waiting", tokens.ErrUnavailable), 503, notReadyZH, notReadyEN, "60"},
		"unreachable": {fmt.Errorf("%w: refused", wechat.ErrUnreachable), 502, notReadyZH, notReadyEN, "60"},
		"timeout":     {context.DeadlineExceeded, 504, notReadyZH, notReadyEN, "60"},
		"busy":        {&wechat.Error{Code: -1}, 503, notReadyZH, notReadyEN, "60"},
		"too often":   {&wechat.Error{Code: 45011}, 503, notReadyZH, notReadyEN, "60"},
		"concurrent":  {&wechat.Error{Code: 9402202}, 503, notReadyZH, notReadyEN, "60"},
		// While no token can be fetched, the errcode is that of the last attempt.
		"no token": {fmt.Errorf("%w: %w", tokens.ErrUnavailable, &wechat.Error{Code: 45009}), 503,
			notReadyZH, notReadyEN, "60"},
		"quota":       {&wechat.Error{Code: 45009}, 502, "微信拒绝了请求", "WeChat rejected the request", ""},
		"other error": {errors.New("x"), 500, "出错了", "Something went wrong", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, pages.Config{ReturnTo: []string{shop}})
			w.exchanger.preAuth = func() error { return tc.err }
			for lang, title := range map[string]string{"zh": tc.zh, "en": tc.en} {
				r := w.get("/authorize"+query, "Accept-Language", lang)
				p := w.parse(r)
				if after := r.header.Get("Retry-After"); r.status != tc.status || p.title != title ||
					after != tc.retryAfter {
					t.Errorf("%s: got status %d, title %q and Retry-After %q, want %d, %q and %q",
						lang, r.status, p.title, after, tc.status, title, tc.retryAfter)
				}
				again := p.links[""]
				if again == nil || again.Path != "/authorize" || again.IsAbs() {
					t.Fatalf("got link %v to try again, want one to /authorize", again)
				}
				if want, _ := url.ParseQuery(query[1:]); again.Query().Encode() != want.Encode() {
					t.Errorf("got link %s to try again, want the parameters %s", again, query)
				}
			}
			if !strings.Contains(w.log.String(), "fetching a pre-auth code failed") {
				t.Errorf("got log\n%s\nwant the failure in it", w.log)
			}
		})
	}
}

// A failure that is caused by a merchant closing the window is not logged.
func TestClosedWindowIsNotLogged(t *testing.T) {
	w := start(t, pages.Config{})
	w.exchanger.preAuth = func() error { return context.Canceled }
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	request := httptest.NewRequestWithContext(ctx, http.MethodGet, "/authorize", nil)
	w.handler.ServeHTTP(httptest.NewRecorder(), request)
	w.wantCalls(1, 0)
	if log := w.log.String(); log != "" {
		t.Errorf("got log\n%s\nwant none", log)
	}
}
