package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"wxproxy/sandbox"
)

// A merchant opens the page, consents at WeChat, and comes back: on a computer and on a phone, in both languages.
func TestMerchantsAuthorize(t *testing.T) {
	b := newBrowser(t)
	w := newWorld(t, sandbox.Config{})
	returned := make(chan url.Values, 8)
	shop := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/back" {
			if referer := r.Header.Get("Referer"); strings.Contains(referer, "auth") {
				t.Errorf("the shop sees where the merchant comes from: %s", referer)
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
	page := "http://" + w.callback + "/authorize"

	visit := func(name, language string, width, height int, phone bool, link, appid, done string) *tab {
		t.Helper()
		p := b.tab(language, width, height, phone)
		p.open(page)
		p.until("!!document.querySelector('" + link + "')")
		// The style sheet is let in by its hash, and nothing is wider than the screen.
		p.until("getComputedStyle(document.querySelector('h1')).marginTop === '0px' && document.documentElement.scrollWidth <= innerWidth")
		p.picture("authorize-" + name)
		p.click(link)
		p.until("!!document.querySelector('#another input[name=appid]')")
		p.eval("document.querySelector('#another input[name=appid]').value = '" + appid + "'")
		p.click("#another button")
		p.until("location.pathname === '/authorized' && document.body.innerText.includes('" + done + "')")
		p.until("document.body.innerText.includes('" + appid + "') && !document.body.innerText.includes('queryauthcode')")
		p.picture("authorized-" + name)
		w.call("/"+appid+userInfo, "")
		return p
	}
	const computer, mobile = ".computer a", ".phone a"
	visit("desktop-en", "en-US,en;q=0.9", 1280, 800, false, computer, accountA, "Authorized")
	p := visit("phone-zh", "zh-CN,zh;q=0.9", 390, 844, true, mobile, accountB, "授权成功")

	// The merchant reloads the page: the same again, and nothing is exchanged.
	exchanges := w.wx.Count("/cgi-bin/component/api_query_auth")
	p.eval("window.before = true")
	p.do("Page.reload", object{"ignoreCache": true}, nil)
	p.until("!window.before && document.body.innerText.includes('授权成功')")
	if n := w.wx.Count("/cgi-bin/component/api_query_auth"); n != exchanges {
		t.Errorf("%d exchanges after reloading, %d before", n, exchanges)
	}

	visit("desktop-zh", "zh-CN", 1280, 800, false, computer, "wxaaaaaaaaaaaaaa01", "授权成功")
	visit("phone-en", "en", 390, 844, true, mobile, "wxaaaaaaaaaaaaaa02", "Authorized")

	// With an address to go back to, on which the shop recognizes its merchant.
	p = b.tab("en", 1280, 800, false)
	p.open(page + "?type=1&state=" + url.QueryEscape("a b&c=d/%") + "&return_to=" + url.QueryEscape(shop.URL+"/back?step=2"))
	p.click(computer)
	p.until("!!document.querySelector('#another input[name=appid]')")
	p.eval("document.querySelector('#another input[name=appid]').value = 'wxaaaaaaaaaaaaaa03'")
	p.click("#another button")
	p.until("document.title === 'shop'")
	got := <-returned
	if got.Get("appid") != "wxaaaaaaaaaaaaaa03" || got.Get("state") != "a b&c=d/%" || got.Get("step") != "2" || len(got) != 3 {
		t.Errorf("the shop was given %q", got)
	}

	w.end(syscall.SIGTERM)
	for _, secret := range append(w.wx.Secrets(), w.wx.UserSecrets()...) {
		if strings.Contains(w.out.String(), secret) || strings.Contains(w.out.String(), url.QueryEscape(secret)) {
			t.Errorf("the log holds a secret, which begins with %.14q", secret)
		}
	}
}

// Where merchants authorize can be set while wxproxy runs; at WeChat, unless all of it is on this machine.
func TestPagesAreReloaded(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start()
	if err := w.wx.PushTicket(context.Background()); err != nil {
		t.Fatal(err)
	}
	const query = "/authorize?return_to=https%3A%2F%2Fshop.example.com%2Fdone"
	page := ""
	is := func(want int) func() bool {
		return func() bool {
			status, body := w.get(w.callback, query)
			page = body
			return status == want
		}
	}
	eventually(t, is(503))
	reload := func(more string) {
		t.Helper()
		w.callbackExtra = more
		w.config()
		w.signal(syscall.SIGHUP)
	}
	reload("public_url = \"https://wx.example.com\"")
	eventually(t, is(400)) // nobody may be sent to that address
	reload("public_url = \"https://wx.example.com\"\nreturn_to = [\"https://shop.example.com/\"]")
	eventually(t, is(200))
	if !strings.Contains(page, `href="https://mp.weixin.qq.com/cgi-bin/componentloginpage?component_appid=`) || !strings.Contains(page, "redirect_uri=https%3A%2F%2Fwx.example.com%2Fauthorized%3Fs%3D") {
		t.Errorf("%s", page)
	}
	reload("public_url = \"http://" + w.callback + "\"")
	eventually(t, is(400)) // each wait ends with the first page that is counted, or the limit would end it
	reload("public_url = \"http://" + w.callback + "\"\nreturn_to = [\"https://shop.example.com/\"]")
	eventually(t, is(200))
	if !strings.Contains(page, `href="`+w.wxURL+"/cgi-bin/componentloginpage?") {
		t.Errorf("%s", page)
	}
}
