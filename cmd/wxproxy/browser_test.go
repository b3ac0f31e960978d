package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
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
			"document.documentElement.scrollWidth <= screen.width")
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

// attackPage is a page that sends requests to the proxy at %s in every way that
// needs no click, and reports what it could read.
const attackPage = `<!doctype html><meta name=referrer content=%q><title>waiting</title><body><script>
const target = "http://%s/%s", read = []
const load = (tag) => new Promise((done) => {
	const e = document.createElement(tag)
	e.onload = e.onerror = done
	e.src = target + "&by=" + tag
	document.body.append(e)
})
const ask = (mode, method) => fetch(target + "&by=fetch-" + mode + method, {mode, method, credentials: "include"})
	.then((r) => r.text()).then((text) => { if (text.includes("openid")) read.push(text) }).catch(() => {})
const submit = (method) => new Promise((done) => {
	const frame = document.createElement("iframe"), form = document.createElement("form")
	frame.name = "f" + method
	frame.onload = done
	form.action = target + "&by=form", form.method = method, form.target = frame.name
	document.body.append(frame, form)
	form.submit()
})
const socket = new Promise((done) => {
	const s = new WebSocket(target.replace("http", "ws"))
	s.onclose = s.onerror = done
})
Promise.all([load("img"), load("script"), load("iframe"), load("video"), ask("cors", "GET"), ask("no-cors", "GET"),
	ask("cors", "POST"), ask("no-cors", "POST"), submit("get"), submit("post"), socket]).then(() => {
	navigator.sendBeacon(target + "&by=beacon", "x")
	document.title = read.length ? "read " + read.join() : "read nothing"
})
</script>`

// Web pages are no callers while authentication is disabled: img, script,
// iframe, video, fetch (cors and no-cors, GET and POST), form (get and post),
// beacon, WebSocket, link × to 127.0.0.1, localhost, a foreign name that
// resolves to 127.0.0.1 × from a page on 127.0.0.1, on localhost, on a foreign
// name, and on the name of the target (which a rebound name is) × with and
// without a Referer. Nothing reaches WeChat, and no page can read a response.
func TestPagesAreNoCallers(t *testing.T) {
	const evil = "evil.test"
	b := newBrowser(t, evil)
	w := newTestEnv(t, sandbox.Config{}).start().authorized(accountA)
	_, port, _ := strings.Cut(w.proxy, ":")
	before := w.wx.Count("/cgi-bin/user/info")
	var page atomic.Value // string; a browser also asks for an icon at any time
	page.Store("")
	pages := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/html")
		rw.Write([]byte(page.Load().(string)))
	}))
	defer pages.Close()
	_, pagesPort, _ := strings.Cut(pages.Listener.Addr().String(), ":")
	p := b.tab("en", 800, 600, false)
	target := accountA + userInfo
	for _, host := range []string{"127.0.0.1", "localhost", evil} {
		for _, from := range []string{"127.0.0.1", "localhost", evil} {
			for _, referrer := range []string{"unsafe-url", "no-referrer"} {
				page.Store(fmt.Sprintf(attackPage, referrer, host+":"+port, target))
				p.open("http://" + from + ":" + pagesPort + "/")
				p.until("document.title.startsWith('read')")
				if got := p.eval("document.title"); got != "read nothing" {
					t.Errorf("page of %s at %s, %s: got %s, want nothing", from, host, referrer, got)
				}
			}
		}
		// A link, and a page of the target's own origin.
		p.open("http://" + host + ":" + port + "/" + target)
		p.until("document.body.innerText.includes('errcode')")
		got := p.eval("fetch('/" + target + "').then((r) => r.text()).then((t) => { document.title = t }), 1")
		p.until("document.title.includes('errcode')")
		if title := p.eval("document.title"); !strings.Contains(title, "-403") {
			t.Errorf("page of the origin %s itself (%s): got %s, want 403", host, got, title)
		}
	}
	if n := w.wx.Count("/cgi-bin/user/info") - before; n != 0 {
		t.Errorf("got %d requests at WeChat, want 0", n)
	}
}
