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

// loginURL is a link to a consent page; change alters its query.
func (w *world) loginURL(path string, change ...string) string {
	w.t.Helper()
	preAuth := w.post("/cgi-bin/component/api_create_preauthcode?component_access_token="+url.QueryEscape(w.componentToken()), w.componentBody()).want(0).field("pre_auth_code")
	q := url.Values{"component_appid": {w.ComponentAppID()}, "pre_auth_code": {preAuth}, "redirect_uri": {"https://wx.example.com/authorized?s=1"}, "auth_type": {"3"}}
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

// login opens a consent page, coming from the component's own.
func (w *world) login(target string, status int, headers ...string) got {
	w.t.Helper()
	g := w.do("GET", target, "", append([]string{"Referer", "https://wx.example.com/"}, headers...)...)
	if g.status != status {
		w.t.Errorf("%.60s: HTTP %d, want %d: %s", target, g.status, status, regexp.MustCompile(`(?s)<p class="bad">.*</p>`).Find(g.body))
	}
	return g
}

var loginID = regexp.MustCompile(`name="login" value="([^"]+)"`)

// consent presses the button for an account.
func (w *world) consent(page got, appid string, headers ...string) got {
	w.t.Helper()
	m := loginID.FindSubmatch(page.body)
	if m == nil {
		w.t.Fatalf("no button: %s", page.body)
	}
	form := url.Values{"login": {html.UnescapeString(string(m[1]))}, "appid": {appid}}.Encode()
	return w.do("POST", "/cgi-bin/componentloginpage", form, append([]string{"Content-Type", "application/x-www-form-urlencoded", "Origin", w.url, "Sec-Fetch-Site", "same-origin"}, headers...)...)
}

// codeOf is what the browser brings back.
func (w *world) codeOf(g got) string {
	w.t.Helper()
	to, err := url.Parse(g.header.Get("Location"))
	must(w.t, err)
	q := to.Query()
	if g.status != http.StatusFound || to.Host != "wx.example.com" || to.Path != "/authorized" || q.Get("s") != "1" || q.Get("expires_in") != "600" || q.Get("auth_code") == "" || len(q) != 3 {
		w.t.Fatalf("HTTP %d to %s: %s", g.status, to, g.body)
	}
	return q.Get("auth_code")
}

func TestConsentPage(t *testing.T) {
	cb := newCallback(t)
	w := newWorld(t, sandbox.Config{PushURL: cb.URL})
	for path, device := range map[string]string{"/cgi-bin/componentloginpage": "computers", "/wxaopen/safe/bindcomponent": "phones", "/safe/bindcomponent": "phones"} {
		page := w.login(w.loginURL(path), 200)
		contains(t, page.body, shop, mini, "official account", "mini program", w.ComponentAppID(), "page for "+device)
	}
	page := w.login(w.loginURL("/cgi-bin/componentloginpage"), 200)
	code := w.codeOf(w.consent(page, shop))
	// One consent, one code: pushed, and in the browser.
	deadline := time.Now().Add(20 * time.Second)
	for cb.count() == 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	e := cb.last(t)
	if e.InfoType != "authorized" || e.AuthorizerAppID != shop || e.AuthorizationCode.Reveal() != code {
		t.Errorf("pushed %s of %s, or another code", e.InfoType, e.AuthorizerAppID)
	}
	access, _ := w.exchange(code, w.componentToken())
	if access != w.CurrentToken(shop) {
		t.Error("the code gives something else than the account's token")
	}
	// The pre-auth code is spent.
	contains(t, w.consent(page, mini).body, "has been used")
	// Who agrees to the same again: a new code, the tokens are dead, and nothing is pushed.
	pushes := cb.count()
	again := w.codeOf(w.consent(w.login(w.loginURL("/wxaopen/safe/bindcomponent"), 200), shop))
	w.get(info + access).want(40001)
	w.exchange(again, w.componentToken())
	w.Close() // waits for pushes
	if cb.count() != pushes || again == code {
		t.Errorf("%d pushes, %d before", cb.count(), pushes)
	}
	// An account that is not there yet comes into being.
	const fresh = "wx00000000000000f7"
	w.exchange(w.codeOf(w.consent(w.login(w.loginURL("/cgi-bin/componentloginpage"), 200), fresh)), w.componentToken())
}

func TestConsentPageChoosesByType(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	const path = "/cgi-bin/componentloginpage"
	for kind, has := range map[string][2]bool{"1": {true, false}, "2": {false, true}, "3": {true, true}, "4": {}, "5": {}, "6": {true, true}, "8": {}} {
		page := w.login(w.loginURL(path, "auth_type", kind), 200)
		if strings.Contains(string(page.body), shop) != has[0] || strings.Contains(string(page.body), mini) != has[1] {
			t.Errorf("auth_type %s: %s", kind, page.body)
		}
	}
	page := w.login(w.loginURL(path, "auth_type", "1"), 200)
	for _, wrong := range []string{mini, w.ComponentAppID(), "wx1", ""} {
		if g := w.consent(page, wrong); g.status != 409 {
			t.Errorf("%q: HTTP %d", wrong, g.status)
		}
	}
	w.codeOf(w.consent(page, shop))
	page = w.login(w.loginURL(path, "auth_type", "", "biz_appid", mini), 200)
	if strings.Contains(string(page.body), shop) || w.consent(page, shop).status != 409 {
		t.Error("another account than biz_appid's can be chosen")
	}
	w.codeOf(w.consent(page, mini))
}

func TestConsentPageRefuses(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	const pc, phone = "/cgi-bin/componentloginpage", "/wxaopen/safe/bindcomponent"
	f := func(target, sentence string, headers ...string) {
		t.Helper()
		contains(t, w.login(target, 400, headers...).body, sentence)
	}
	f(w.loginURL(pc, "component_appid", shop), "component_appid")
	f(w.loginURL(pc, "pre_auth_code", "preauthcode@@@nonsense"), "pre_auth_code is unknown")
	f(w.loginURL(pc, "pre_auth_code", ""), "pre_auth_code is unknown")
	for _, uri := range []string{"", "/authorized", "//wx.example.com/authorized", "javascript:alert(1)", "https://a@wx.example.com/", "https://wx.example.com/#x"} {
		f(w.loginURL(pc, "redirect_uri", uri), "redirect_uri")
	}
	f(w.loginURL(pc, "redirect_uri", "https://shop.example.com/authorized"), "授权入口页所在域名：wx.example.com")
	f(w.loginURL(pc, "redirect_uri", "https://wx.example.com.evil.example/"), "授权入口页所在域名")
	f(w.loginURL(pc, "auth_type", ""), "auth_type")
	f(w.loginURL(pc, "auth_type", "7"), "auth_type")
	f(w.loginURL(pc, "biz_appid", "x"), "biz_appid")
	f(w.loginURL(pc, "category_id_list", "1|"), "category_id_list")
	f(w.loginURL(pc)+"&auth_type=3", "appears more than once")
	f(w.loginURL(phone, "action", ""), "action=bindcomponent")
	f(w.loginURL(phone, "no_scan", ""), "no_scan=1")
	old := w.loginURL(pc)
	w.clock.pass(10 * time.Minute)
	f(old, "expired")

	page := w.login(w.loginURL(pc), 200)
	w.clock.pass(10 * time.Minute)
	contains(t, w.consent(page, shop).body, "expired")
	// Another site cannot press the button.
	for _, h := range [][2]string{{"Origin", "https://evil.example"}, {"Origin", "null"}, {"Sec-Fetch-Site", "cross-site"}} {
		if g := w.consent(w.login(w.loginURL(pc), 200), shop, h[0], h[1]); g.status != 403 {
			t.Errorf("%q: HTTP %d", h, g.status)
		}
	}
	if g := w.do("PUT", pc, ""); g.status != 405 {
		t.Errorf("PUT: %d", g.status)
	}
	if w.Count(pc)+w.Count(phone) != 0 {
		t.Error("pages are among the calls")
	}
}

// Where merchants come from: the page for computers must know, the one for phones may be opened from a message.
func TestConsentPageLooksAtTheReferer(t *testing.T) {
	for configured, cases := range map[string]map[string][2]int{ // Referer: status for computers, for phones
		"": {"": {400, 200}, "https://wx.example.com/": {200, 200}, "https://WX.example.com/authorize?a=b": {200, 200}, "https://other.example.com/": {400, 400},
			"https://sub.wx.example.com/": {400, 400}, "https://wx.example.com.evil.example/": {400, 400}, "nonsense": {400, 200}},
		"wx.example.com":    {"": {400, 200}, "https://wx.example.com/": {200, 200}, "https://example.com/": {400, 400}},
		"other.example.com": {"": {400, 400}, "https://wx.example.com/": {400, 400}, "https://other.example.com/": {400, 400}},
	} {
		w := newWorld(t, sandbox.Config{AuthorizeHost: configured})
		for referer, status := range cases {
			for i, path := range []string{"/cgi-bin/componentloginpage", "/wxaopen/safe/bindcomponent"} {
				var headers []string
				if referer != "" {
					headers = []string{"Referer", referer}
				}
				if g := w.do("GET", w.loginURL(path), "", headers...); g.status != status[i] {
					t.Errorf("host %q, Referer %q at %s: HTTP %d, want %d", configured, referer, path, g.status, status[i])
				} else if g.status == 400 && !strings.Contains(string(g.body), "域名") {
					t.Errorf("%s", g.body)
				}
			}
		}
	}
}

func (cb *callback) count() int {
	cb.mu.Lock()
	defer cb.mu.Unlock()
	return len(cb.docs)
}
