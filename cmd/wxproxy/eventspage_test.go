package main

import (
	"fmt"
	"strings"
	"testing"

	"wxproxy/internal/proctest"
)

// hostileMarkup is what a user can write to the operator that reads it. Each
// part would set window.hacked if the page took it for markup.
const hostileMarkup = `<xml><Content><img src=x onerror="hacked=1"></pre>` +
	"<script>hacked=1</script><svg onload=hacked=1>\u202e{}&amp;</Content></xml>"

// The panel of the page lists events, filters them, shows a document as text,
// retries a dead event and drops one: in English on a computer × in Chinese on
// a phone × a document with img, script and svg elements, and with a character
// that changes the direction of text. Nothing of it becomes markup. Dialogs
// return the focus, each button has a name, and nothing is wider than the
// screen.
func TestEventsPanel(t *testing.T) {
	b := newBrowser(t)
	e := newEventsTest(t)
	e.add("aaa1", plainAccount, hostileMarkup, "crm", "orders")
	e.kill("crm", "HTTP 500 <b>")
	e.add("bbb2", plainAccount, "<xml/>", "orders")
	dead := func() int {
		found, _ := e.Find(t.Context(), "aaa1")
		n := 0
		for _, entry := range found {
			if entry.Dead {
				n++
			}
		}
		return n
	}
	rows := func(n int) string {
		return fmt.Sprintf("document.querySelectorAll('#event-rows tr').length === %d", n)
	}
	button := func(key string) string { return `[data-key="` + key + `"]` }
	shown := func(p *tab) {
		t.Helper()
		p.until("document.querySelector('#view').open")
		text := p.eval("document.querySelector('#document').textContent")
		if want := strings.ReplaceAll(hostileMarkup, "\u202e", `\u202e`); text != want {
			t.Errorf("document: got %q, want %q", text, want)
		}
		p.until("!('hacked' in window) && " +
			"!document.querySelector('#view img, #view script, #view svg')")
		p.until("document.querySelector('#view').getBoundingClientRect().right <= screen.width")
	}
	noNameless := `[...document.querySelectorAll('button')].every(
		(b) => b.ariaLabel || b.textContent || b.id === 'ask-yes')`

	p := b.tab("en-US", 1280, 800, false)
	p.open(e.url + "/")
	p.until(rows(3) + " && " + noNameless)
	p.picture("events-desktop-en")
	filter := func(state string) {
		p.eval("f = document.querySelector('#event-filter'), f.state.value = '" + state +
			"', f.state.dispatchEvent(new Event('input', {bubbles: true})), 1")
	}
	filter("dead")
	p.until(rows(1) +
		" && document.querySelector('#event-rows').textContent.includes('HTTP 500 <b>')")
	p.click(button("aaa1-crm-view"))
	shown(p)
	p.picture("events-document-en")
	p.click("#view button")
	p.until("!document.querySelector('#view').open && " +
		"document.activeElement.dataset.key === 'aaa1-crm-view'")
	p.click(button("aaa1-crm-retry"))
	p.until(rows(0) + " && document.querySelector('#toast').textContent === '1 tried again now'")
	if n := dead(); n != 0 {
		t.Errorf("dead entries after a retry: got %d, want 0", n)
	}
	filter("")
	p.until(rows(3) + " && document.querySelector('#queue').textContent === '3 waiting'")
	e.kill("crm", "HTTP 500")
	p.click("#retry-all")
	p.until("document.querySelector('#ask').open")
	p.click("#ask-yes")
	proctest.Eventually(t, func() bool { return dead() == 0 })

	p = b.tab("zh-CN", 390, 844, true)
	p.open(e.url + "/")
	p.click("#language")
	p.until(rows(3) + " && " +
		"document.querySelector('#event-rows').textContent.includes('等待投递') && " +
		"document.documentElement.scrollWidth <= screen.width && " + noNameless)
	p.eval("document.querySelector('#events-title').scrollIntoView()")
	p.picture("events-phone-zh")
	p.eval(`document.querySelector('` + button("aaa1-orders-view") + `').scrollIntoView()`)
	p.click(button("aaa1-orders-view"))
	shown(p)
	p.click("#view button")
	p.until("!document.querySelector('#view').open")
	p.click(button("bbb2-orders-drop"))
	p.until("document.querySelector('#ask').open && " +
		"document.querySelector('#ask-title').textContent === '丢弃此事件？'")
	p.click("#ask button[value=no]")
	p.until("!document.querySelector('#ask').open && " + rows(3))
	p.click(button("bbb2-orders-drop"))
	p.click("#ask-yes")
	p.until(rows(2))
	if _, err := e.Find(t.Context(), "bbb2"); err == nil {
		t.Error("dropped event: got it, want none")
	}

	// Pages of 20, and a list that gets shorter than the page.
	for i := range 23 {
		e.add(fmt.Sprintf("c%02d", i), revokedAccount, "<xml/>", "orders")
	}
	p.open(e.url + "/")
	p.until(rows(20))
	p.click("#events-next")
	p.until(rows(5) + " && document.querySelector('#events-range').textContent === '21–25 / 25'")
	for i := range 5 {
		if _, err := e.Drop(t.Context(), fmt.Sprintf("c%02d", i), ""); err != nil {
			t.Fatal(err)
		}
	}
	p.click(button("c22-orders-retry")) // reloads the list
	p.until(rows(20) + " && document.querySelector('#events-previous').offsetParent === null")
	proctest.Eventually(t, func() bool { return dead() == 0 })
}
