package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/cdproto/page"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

// A merchant opens the page, consents at WeChat and returns, on a computer and
// on a phone, in both languages.
func TestMerchantsAuthorize(t *testing.T) {
	b := newBrowser(t)
	w := newTestEnv(t, sandbox.Config{})
	returned := make(chan url.Values, 8)
	shop := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/back" {
			if referer := r.Header.Get("Referer"); strings.Contains(referer, "auth") {
				t.Errorf("request to the shop: got the Referer %s, want none with /authorize", referer)
			}
			returned <- r.URL.Query()
		}
		rw.Header().Set("Content-Type", "text/html")
		rw.Write([]byte("<title>shop</title><h1>shop</h1>"))
	}))
	defer shop.Close()
	w.callbackExtra = "public_url = \"http://" + w.callback + "\"\nreturn_to = [\"" + shop.URL + "/back\"]"
	w.start()
	if err := w.wx.PushTicket(context.Background()); err != nil {
		t.Fatal(err)
	}
	authorize := "http://" + w.callback + "/authorize"

	// consent plays the merchant on WeChat's page.
	consent := func(p *tab, appid string) {
		t.Helper()
		p.until("!!document.querySelector('#another input[name=appid]')")
		p.eval("document.querySelector('#another input[name=appid]').value = '" + appid + "'")
		p.click("#another button")
	}
	visit := func(name, language string, width, height int64, isPhone bool, link, appid, done string) *tab {
		t.Helper()
		p := b.tab(language, width, height, isPhone)
		p.open(authorize)
		p.until("!!document.querySelector('" + link + "')")
		// The hash in the policy allows the style sheet, and nothing is wider
		// than the screen.
		p.until("getComputedStyle(document.querySelector('h1')).marginTop === '0px' && " +
			"document.documentElement.scrollWidth <= innerWidth")
		p.picture("authorize-" + name)
		p.click(link)
		consent(p, appid)
		p.until("location.pathname === '/authorized' && document.body.innerText.includes('" + done + "')")
		p.until("document.body.innerText.includes('" + appid +
			"') && !document.body.innerText.includes('queryauthcode')")
		p.picture("authorized-" + name)
		w.call("/"+appid+userInfo, "")
		return p
	}
	const computer, phone = ".computer a", ".phone a"
	visit("desktop-en", "en-US,en;q=0.9", 1280, 800, false, computer, accountA, "Authorized")
	p := visit("phone-zh", "zh-CN,zh;q=0.9", 390, 844, true, phone, accountB, "授权成功")

	// A reload shows the same page, and no code is exchanged again.
	exchanges := w.wx.Count("/cgi-bin/component/api_query_auth")
	p.eval("window.before = true")
	ignoreCache := true
	p.do(command(page.Reload, page.ReloadParams{IgnoreCache: &ignoreCache}))
	p.until("!window.before && document.body.innerText.includes('授权成功')")
	if n := w.wx.Count("/cgi-bin/component/api_query_auth"); n != exchanges {
		t.Errorf("exchanges after a reload: got %d, want %d as before", n, exchanges)
	}

	visit("desktop-zh", "zh-CN", 1280, 800, false, computer, "wxaaaaaaaaaaaaaa01", "授权成功")
	visit("phone-en", "en", 390, 844, true, phone, "wxaaaaaaaaaaaaaa02", "Authorized")

	// With an address to return to, which recognizes the merchant by state.
	p = b.tab("en", 1280, 800, false)
	p.open(authorize + "?type=1&state=" + url.QueryEscape("a b&c=d/%") +
		"&return_to=" + url.QueryEscape(shop.URL+"/back?step=2"))
	p.click(computer)
	consent(p, "wxaaaaaaaaaaaaaa03")
	p.until("document.title === 'shop'")
	got := <-returned
	if got.Get("appid") != "wxaaaaaaaaaaaaaa03" || got.Get("state") != "a b&c=d/%" ||
		got.Get("step") != "2" || len(got) != 4 || got.Get("ticket") == "" {
		t.Errorf("query of the return to the shop: got %q, want appid, state, step and ticket", got)
	}

	w.end(syscall.SIGTERM)
	for _, secret := range append(w.wx.Secrets(), w.wx.UserSecrets()...) {
		if strings.Contains(w.out.String(), secret) || strings.Contains(w.out.String(), url.QueryEscape(secret)) {
			t.Errorf("the log contains a secret that starts with %.14q", secret)
		}
	}
}

// The keys of the authorization page can change while wxproxy runs. Links lead
// to WeChat, unless all addresses are on this machine.
func TestReloadChangesPages(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{})
	w.start()
	if err := w.wx.PushTicket(context.Background()); err != nil {
		t.Fatal(err)
	}
	const query = "/authorize?return_to=https%3A%2F%2Fshop.example.com%2Fdone"
	// Each wait ends with the first page with that status: the listener limits
	// how many pages a client may open.
	body := ""
	is := func(want int) func() bool {
		return func() (ok bool) {
			var status int
			status, body = w.get(w.callback, query)
			return status == want
		}
	}
	reload := func(more string) {
		t.Helper()
		w.callbackExtra = more
		w.config()
		w.signal(syscall.SIGHUP)
	}
	proctest.Eventually(t, is(503))
	reload("public_url = \"https://wx.example.com\"")
	proctest.Eventually(t, is(400)) // return_to is not allowed
	reload("public_url = \"https://wx.example.com\"\nreturn_to = [\"https://shop.example.com/\"]")
	proctest.Eventually(t, is(200))
	if !strings.Contains(body, `href="https://mp.weixin.qq.com/cgi-bin/componentloginpage?component_appid=`) ||
		!strings.Contains(body, "redirect_uri=https%3A%2F%2Fwx.example.com%2Fauthorized%3Fs%3D") {
		t.Errorf("page with a public address: got no link to WeChat in\n%s", body)
	}
	reload("public_url = \"http://" + w.callback + "\"")
	proctest.Eventually(t, is(400))
	reload("public_url = \"http://" + w.callback + "\"\nreturn_to = [\"https://shop.example.com/\"]")
	proctest.Eventually(t, is(200))
	if !strings.Contains(body, `href="`+w.wxURL+"/cgi-bin/componentloginpage?") {
		t.Errorf("page with loopback addresses: got no link to the sandbox in\n%s", body)
	}
}
