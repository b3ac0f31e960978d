package sandbox_test

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"wxproxy/sandbox"
)

// pageURL returns a link to a consent page. change has names and values that
// replace those of its query; "" removes one.
func (wx *env) pageURL(path string, change ...string) string {
	wx.t.Helper()
	api := "/cgi-bin/component/api_create_preauthcode?component_access_token=" + url.QueryEscape(wx.componentToken())
	preAuth := wx.post(api, wx.componentBody()).wantCode(0).field("pre_auth_code")
	q := url.Values{"component_appid": {wx.ComponentAppID()}, "pre_auth_code": {preAuth},
		"redirect_uri": {"https://wx.example.com/authorized?s=1"}, "auth_type": {"3"}}
	if path != "/cgi-bin/componentloginpage" {
		q.Set("action", "bindcomponent")
		q.Set("no_scan", "1")
	}
	for i := 0; i < len(change); i += 2 {
		q.Set(change[i], change[i+1])
		if change[i+1] == "" {
			q.Del(change[i])
		}
	}
	return path + "?" + q.Encode()
}

// openPage opens a consent page from a page of the component, and checks the
// status.
func (wx *env) openPage(target string, status int, headers ...string) response {
	wx.t.Helper()
	g := wx.do("GET", target, "", append([]string{"Referer", "https://wx.example.com/"}, headers...)...)
	if g.status != status {
		wx.t.Errorf("%.60s: got HTTP %d, want %d: %s", target, g.status, status,
			regexp.MustCompile(`(?s)<p class="bad">.*</p>`).Find(g.body))
	}
	return g
}

var loginID = regexp.MustCompile(`name="login" value="([^"]+)"`)

// submitConsent clicks the button for an account on an open page.
func (wx *env) submitConsent(page response, appid string, headers ...string) response {
	wx.t.Helper()
	m := loginID.FindSubmatch(page.body)
	if m == nil {
		wx.t.Fatalf("got %s, want a page with a button", page.body)
	}
	form := url.Values{"login": {html.UnescapeString(string(m[1]))}, "appid": {appid}}.Encode()
	return wx.do("POST", "/cgi-bin/componentloginpage", form,
		append([]string{"Content-Type", "application/x-www-form-urlencoded", "Origin", wx.url,
			"Sec-Fetch-Site", "same-origin"}, headers...)...)
}

// redirectCode returns the code with which the browser returns.
func (wx *env) redirectCode(g response) string {
	wx.t.Helper()
	to, err := url.Parse(g.header.Get("Location"))
	must(wx.t, err)
	q := to.Query()
	if g.status != http.StatusFound || to.Host != "wx.example.com" || to.Path != "/authorized" ||
		q.Get("s") != "1" || q.Get("expires_in") != "600" || q.Get("auth_code") == "" || len(q) != 3 {
		wx.t.Fatalf("got HTTP %d to %s: %s; want a redirect with a code", g.status, to, g.body)
	}
	return q.Get("auth_code")
}

func TestConsentPage(t *testing.T) {
	cb := newCallback(t)
	wx := newEnv(t, sandbox.Config{PushURL: cb.URL})
	for path, device := range map[string]string{"/cgi-bin/componentloginpage": "computers",
		"/wxaopen/safe/bindcomponent": "phones", "/safe/bindcomponent": "phones"} {
		page := wx.openPage(wx.pageURL(path), 200)
		contains(t, page.body, shop, mini, "official account", "mini program", wx.ComponentAppID(),
			"page for "+device)
	}
	page := wx.openPage(wx.pageURL("/cgi-bin/componentloginpage"), 200)
	code := wx.redirectCode(wx.submitConsent(page, shop))
	// One consent has one code: pushed, and in the browser.
	cb.wait(t)
	e := cb.last(t)
	if e.InfoType != "authorized" || e.AuthorizerAppID != shop || e.AuthorizationCode.Reveal() != code {
		t.Errorf("got push %s of %s, want authorized of %s with the code of the browser", e.InfoType,
			e.AuthorizerAppID, shop)
	}
	access, _ := wx.exchange(code, wx.componentToken())
	if access != wx.CurrentToken(shop) {
		t.Error("exchange returned another token than the account's current one")
	}
	// A pre-auth code works once.
	contains(t, wx.submitConsent(page, mini).body, "has been used")
	// A repeated consent invalidates the tokens and brings a new code, but is not
	// pushed.
	pushes := cb.count()
	again := wx.redirectCode(wx.submitConsent(wx.openPage(wx.pageURL("/wxaopen/safe/bindcomponent"), 200), shop))
	wx.get(info + access).wantCode(40001)
	wx.exchange(again, wx.componentToken())
	wx.Close() // waits for pushes
	if cb.count() != pushes || again == code {
		t.Errorf("repeated consent: got %d pushes and a new code %v, want %d and true", cb.count(),
			again != code, pushes)
	}
	// An unknown account is added.
	const fresh = "wx00000000000000f7"
	wx.exchange(wx.redirectCode(wx.submitConsent(wx.openPage(wx.pageURL("/cgi-bin/componentloginpage"), 200),
		fresh)), wx.componentToken())
}

func TestConsentPageFiltersByAuthType(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	const path = "/cgi-bin/componentloginpage"
	for kind, has := range map[string][2]bool{"1": {true, false}, "2": {false, true}, "3": {true, true},
		"4": {}, "5": {}, "6": {true, true}, "8": {}} {
		page := wx.openPage(wx.pageURL(path, "auth_type", kind), 200)
		if strings.Contains(string(page.body), shop) != has[0] ||
			strings.Contains(string(page.body), mini) != has[1] {
			t.Errorf("auth_type %s: got %s, want official account %v, mini program %v", kind, page.body,
				has[0], has[1])
		}
	}
	page := wx.openPage(wx.pageURL(path, "auth_type", "1"), 200)
	for _, wrong := range []string{mini, wx.ComponentAppID(), "wx1", ""} {
		if g := wx.submitConsent(page, wrong); g.status != 409 {
			t.Errorf("choosing %q: got HTTP %d, want 409", wrong, g.status)
		}
	}
	wx.redirectCode(wx.submitConsent(page, shop))
	page = wx.openPage(wx.pageURL(path, "auth_type", "", "biz_appid", mini), 200)
	if strings.Contains(string(page.body), shop) || wx.submitConsent(page, shop).status != 409 {
		t.Errorf("biz_appid %s: %s can be chosen, want that account only", mini, shop)
	}
	wx.redirectCode(wx.submitConsent(page, mini))
}

func TestConsentPageRejectsBadLinks(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	const pc, phone = "/cgi-bin/componentloginpage", "/wxaopen/safe/bindcomponent"
	f := func(target, sentence string, headers ...string) {
		t.Helper()
		contains(t, wx.openPage(target, 400, headers...).body, sentence)
	}
	f(wx.pageURL(pc, "component_appid", shop), "component_appid")
	f(wx.pageURL(pc, "pre_auth_code", "preauthcode@@@nonsense"), "pre_auth_code is unknown")
	f(wx.pageURL(pc, "pre_auth_code", ""), "pre_auth_code is unknown")
	for _, uri := range []string{"", "/authorized", "//wx.example.com/authorized", "javascript:alert(1)",
		"https://a@wx.example.com/", "https://wx.example.com/#x"} {
		f(wx.pageURL(pc, "redirect_uri", uri), "redirect_uri")
	}
	f(wx.pageURL(pc, "redirect_uri", "https://shop.example.com/authorized"), "授权入口页所在域名：wx.example.com")
	f(wx.pageURL(pc, "redirect_uri", "https://wx.example.com.evil.example/"), "授权入口页所在域名")
	f(wx.pageURL(pc, "auth_type", ""), "auth_type")
	f(wx.pageURL(pc, "auth_type", "7"), "auth_type")
	f(wx.pageURL(pc, "biz_appid", "x"), "biz_appid")
	f(wx.pageURL(pc, "category_id_list", "1|"), "category_id_list")
	f(wx.pageURL(pc)+"&auth_type=3", "appears more than once")
	f(wx.pageURL(phone, "action", ""), "action=bindcomponent")
	f(wx.pageURL(phone, "no_scan", ""), "no_scan=1")
	old := wx.pageURL(pc)
	wx.clock.advance(10 * time.Minute)
	f(old, "expired")

	page := wx.openPage(wx.pageURL(pc), 200)
	wx.clock.advance(10 * time.Minute)
	contains(t, wx.submitConsent(page, shop).body, "expired")
	// Another site cannot submit the form.
	for _, h := range [][2]string{{"Origin", "https://evil.example"}, {"Origin", "null"},
		{"Sec-Fetch-Site", "cross-site"}} {
		if g := wx.submitConsent(wx.openPage(wx.pageURL(pc), 200), shop, h[0], h[1]); g.status != 403 {
			t.Errorf("%q: got HTTP %d, want 403", h, g.status)
		}
	}
	if g := wx.do("PUT", pc, ""); g.status != 405 {
		t.Errorf("PUT: got HTTP %d, want 405", g.status)
	}
	if n := wx.Count(pc) + wx.Count(phone); n != 0 {
		t.Errorf("got %d page requests in the history, want none", n)
	}
}

// The page for computers needs a Referer; the one for phones can be opened from
// a message, which sends none.
func TestConsentPageChecksReferer(t *testing.T) {
	for configured, cases := range map[string]map[string][2]int{ // Referer: status for computers, for phones
		"": {"": {400, 200}, "https://wx.example.com/": {200, 200},
			"https://WX.example.com/authorize?a=b": {200, 200}, "https://other.example.com/": {400, 400},
			"https://sub.wx.example.com/": {400, 400}, "https://wx.example.com.evil.example/": {400,
				400}, "nonsense": {400, 200}},
		"wx.example.com": {"": {400, 200}, "https://wx.example.com/": {200, 200},
			"https://example.com/": {400, 400}},
		"other.example.com": {"": {400, 400}, "https://wx.example.com/": {400, 400},
			"https://other.example.com/": {400, 400}},
	} {
		wx := newEnv(t, sandbox.Config{AuthorizeHost: configured})
		for referer, status := range cases {
			for i, path := range []string{"/cgi-bin/componentloginpage", "/wxaopen/safe/bindcomponent"} {
				var headers []string
				if referer != "" {
					headers = []string{"Referer", referer}
				}
				if g := wx.do("GET", wx.pageURL(path), "", headers...); g.status != status[i] {
					t.Errorf("host %q, Referer %q at %s: got HTTP %d, want %d", configured, referer, path,
						g.status, status[i])
				} else if g.status == 400 && !strings.Contains(string(g.body), "域名") {
					t.Errorf("got %s, want WeChat's sentence about the host", g.body)
				}
			}
		}
	}
}
