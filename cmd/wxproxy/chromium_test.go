package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"wxproxy/internal/proctest"
)

// browserTimeout is how long a browser may take for one step on a busy machine.
const browserTimeout = 2 * time.Minute

// browser is a Chromium without a window.
type browser struct {
	t   *testing.T
	ctx context.Context // of chromedp
}

// newBrowser starts a browser with an empty profile, which reaches only this
// machine, also under the given names. It skips the test if
// WXPROXY_NO_BROWSER=1.
func newBrowser(t *testing.T, names ...string) *browser {
	t.Helper()
	if os.Getenv("WXPROXY_NO_BROWSER") == "1" {
		t.Skip("WXPROXY_NO_BROWSER=1: the pages are not opened in a real browser")
	}
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("chromium is missing: run .ci/tools.sh, which installs it, or set WXPROXY_NO_BROWSER=1")
	}
	rules := ""
	for _, name := range names {
		rules += "MAP " + name + " 127.0.0.1, "
	}
	var stderr proctest.Output
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.NoSandbox, // the tests may run as root
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("host-resolver-rules", rules+"MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"),
		chromedp.CombinedOutput(&stderr),
		chromedp.WSURLReadTimeout(browserTimeout),
	)
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, closeBrowser := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		closeBrowser()
		stop() // waits for the process, so that its folder can be removed
		if t.Failed() {
			t.Logf("output of chromium:\n%s", stderr.String())
		}
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting chromium: %v", err)
	}
	return &browser{t, ctx}
}

// tab is a page with cookies and a cache of its own.
type tab struct {
	t   *testing.T
	ctx context.Context
}

// tab opens a tab of a size that prefers a language.
func (b *browser) tab(language string, width, height int64, isPhone bool) *tab {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext())
	b.t.Cleanup(cancel)
	// The first action ends the tab with its context, so it must not have a
	// timeout.
	if err := chromedp.Do(ctx); err != nil {
		b.t.Fatalf("opening a tab: %v", err)
	}
	p := &tab{b.t, ctx}
	p.do(
		command(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
			Width: width, Height: height, DeviceScaleFactor: 1, Mobile: isPhone,
			// On a phone innerWidth grows with the content.
			ScreenWidth: width, ScreenHeight: height,
		}),
		command(network.Enable, network.EnableParams{}),
		command(network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{
			Headers: network.Headers{"Accept-Language": language},
		}),
	)
	return p
}

// command returns an action that sends a command of the DevTools protocol.
func command[P, R any](c cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, params)
		return err
	})
}

// do performs actions in the tab.
func (p *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, browserTimeout)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatalf("browser at %s: %v", p.address(), err)
	}
}

// open loads a page.
func (p *tab) open(url string) {
	p.t.Helper()
	p.do(chromedp.Navigate(url))
}

// eval returns the value of a JavaScript expression as text. It returns "" for
// an exception, and while another page is being loaded.
func (p *tab) eval(expression string) string {
	ctx, cancel := context.WithTimeout(p.ctx, browserTimeout)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[any](expression))
	if err != nil || value == nil {
		return ""
	}
	return fmt.Sprint(value)
}

// until waits for a completely loaded page on which the expression is true.
func (p *tab) until(expression string) {
	p.t.Helper()
	deadline := time.Now().Add(browserTimeout)
	for p.eval("document.readyState === 'complete' && ("+expression+")") != "true" {
		if time.Now().After(deadline) {
			p.t.Fatalf("the page %s: got no true for %s within %v\n%s",
				p.address(), expression, browserTimeout, p.eval("document.body.innerText"))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// address returns the URL of the page, without the query.
func (p *tab) address() string {
	address, _, _ := strings.Cut(p.eval("location.href"), "?")
	return address
}

// click waits for the element to be visible and clicks on it with the mouse.
func (p *tab) click(selector string) {
	p.t.Helper()
	p.until(fmt.Sprintf("!!document.querySelector(%q)", selector))
	p.do(chromedp.Click(chromedp.CSS(selector)))
}

// picture saves a screenshot in the folder WXPROXY_SCREENSHOTS, if that is set.
func (p *tab) picture(name string) {
	p.t.Helper()
	folder := os.Getenv("WXPROXY_SCREENSHOTS")
	if folder == "" {
		return
	}
	png, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, name+".png"), png, 0o644)
	}
	if err != nil {
		p.t.Fatalf("screenshot %s: %v", name, err)
	}
}
