package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// browser is a Chromium without a window, driven by the DevTools protocol over pipes.
type browser struct {
	t       *testing.T
	out     *os.File // commands to it
	mu      sync.Mutex
	last    int
	waiting map[int]chan message
	gone    chan struct{} // closed when it has ended
}

type message struct {
	ID        int             `json:"id,omitempty"`
	SessionID string          `json:"sessionId,omitempty"`
	Method    string          `json:"method,omitempty"`
	Params    any             `json:"params,omitempty"`
	Result    json.RawMessage `json:"result,omitempty"`
	Error     *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// patient is how long a browser may take on a busy machine.
const patient = 60 * time.Second

// newBrowser starts one with an empty profile. It reaches this machine only.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	if os.Getenv("WXPROXY_NO_BROWSER") == "1" {
		t.Skip("WXPROXY_NO_BROWSER=1: the pages are not opened in a real browser")
	}
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("chromium is missing: run .ci/tools.sh, which installs it (WXPROXY_NO_BROWSER=1 does without)")
	}
	profile, err := os.MkdirTemp("", "wxproxy-browser-")
	if err != nil {
		t.Fatal(err)
	}
	commandR, commandW, err1 := os.Pipe()
	answerR, answerW, err2 := os.Pipe()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--headless=new", "--remote-debugging-pipe", "--user-data-dir="+profile, "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--no-proxy-server", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions",
		"--no-first-run", "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "about:blank")
	cmd.ExtraFiles = []*os.File{commandR, answerW} // its 3 and 4
	var said output
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	commandR.Close()
	answerW.Close()
	b := &browser{t: t, out: commandW, waiting: map[int]chan message{}, gone: make(chan struct{})}
	go b.read(answerR)
	t.Cleanup(func() {
		b.out.Close() // it ends with its pipe
		select {
		case <-b.gone:
		case <-time.After(10 * time.Second):
			cmd.Process.Kill()
		}
		cmd.Process.Kill()
		cmd.Wait()
		answerR.Close()
		// Its helpers may write for a moment longer.
		for end := time.Now().Add(10 * time.Second); os.RemoveAll(profile) != nil && time.Now().Before(end); {
			time.Sleep(50 * time.Millisecond)
		}
		if t.Failed() {
			t.Logf("chromium said:\n%s", said.String())
		}
	})
	return b
}

// read hands each answer to whoever waits for it; events are passed over.
func (b *browser) read(from *os.File) {
	defer close(b.gone)
	r := bufio.NewReader(from)
	for {
		line, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var m message
		if json.Unmarshal(line[:len(line)-1], &m) != nil || m.ID == 0 {
			continue
		}
		b.mu.Lock()
		ch := b.waiting[m.ID]
		delete(b.waiting, m.ID)
		b.mu.Unlock()
		if ch != nil {
			ch <- m
		}
	}
}

func (b *browser) send(session, method string, params any, result any) error {
	b.mu.Lock()
	b.last++
	m := message{ID: b.last, SessionID: session, Method: method, Params: params}
	ch := make(chan message, 1)
	b.waiting[m.ID] = ch
	text, err := json.Marshal(m)
	if err == nil {
		_, err = b.out.Write(append(text, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case got := <-ch:
		if got.Error != nil {
			return fmt.Errorf("%s: %s", method, got.Error.Message)
		}
		if result != nil {
			return json.Unmarshal(got.Result, result)
		}
		return nil
	case <-b.gone:
		return fmt.Errorf("%s: chromium has ended", method)
	case <-time.After(patient):
		return fmt.Errorf("%s: no answer within %v", method, patient)
	}
}

// tab is a page of a size, in a language, with cookies and a cache of its own.
type tab struct {
	*browser
	session string
}

type object = map[string]any

func (b *browser) tab(language string, width, height int, phone bool) *tab {
	b.t.Helper()
	var context struct {
		ID string `json:"browserContextId"`
	}
	var target struct {
		ID string `json:"targetId"`
	}
	var attached struct {
		ID string `json:"sessionId"`
	}
	b.must(b.send("", "Target.createBrowserContext", object{}, &context))
	b.must(b.send("", "Target.createTarget", object{"url": "about:blank", "browserContextId": context.ID}, &target))
	b.must(b.send("", "Target.attachToTarget", object{"targetId": target.ID, "flatten": true}, &attached))
	p := &tab{b, attached.ID}
	p.do("Page.enable", object{}, nil)
	p.do("Emulation.setDeviceMetricsOverride", object{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}, nil)
	p.do("Network.enable", object{}, nil)
	p.do("Network.setExtraHTTPHeaders", object{"headers": object{"Accept-Language": language}}, nil)
	return p
}

func (b *browser) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (p *tab) do(method string, params, result any) {
	p.t.Helper()
	p.must(p.send(p.session, method, params, result))
}

func (p *tab) open(url string) {
	p.t.Helper()
	var result struct {
		Error string `json:"errorText"`
	}
	p.do("Page.navigate", object{"url": url}, &result)
	if result.Error != "" {
		p.t.Fatalf("the browser cannot open the page: %s", result.Error)
	}
}

// eval gives what a JavaScript expression comes to, as text. While a page is being left it is "".
func (p *tab) eval(expression string) string {
	p.t.Helper()
	var result struct {
		Result struct {
			Value any `json:"value"`
		} `json:"result"`
		Exception *struct {
			Text string `json:"text"`
		} `json:"exceptionDetails"`
	}
	err := p.send(p.session, "Runtime.evaluate", object{"expression": expression, "returnByValue": true}, &result)
	if err != nil || result.Exception != nil || result.Result.Value == nil {
		return ""
	}
	return fmt.Sprint(result.Result.Value)
}

// until waits for a page of which the expression is true and that has been read to its end.
func (p *tab) until(expression string) {
	p.t.Helper()
	for end := time.Now().Add(patient); p.eval("document.readyState === 'complete' && ("+expression+")") != "true"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("never: %s\nat %s\n%s", expression, p.address(), p.eval("document.body.innerText"))
		}
	}
}

// address is where the browser is, without the query.
func (p *tab) address() string {
	address, _, _ := strings.Cut(p.eval("location.href"), "?")
	return address
}

// click clicks with the mouse on what the selector finds, as people do: only what is seen can be clicked on.
func (p *tab) click(selector string) {
	p.t.Helper()
	p.until(fmt.Sprintf("!!document.querySelector(%q)", selector))
	var at struct{ X, Y float64 }
	text := p.eval(fmt.Sprintf(`(() => { const e = document.querySelector(%q); e.scrollIntoView({block: "center"}); const r = e.getBoundingClientRect();
		return JSON.stringify({X: r.x + r.width/2, Y: r.y + r.height/2, W: r.width}) })()`, selector))
	if err := json.Unmarshal([]byte(text), &at); err != nil || at.X == 0 {
		p.t.Fatalf("%s is not to be seen: %s", selector, text)
	}
	for _, kind := range []string{"mousePressed", "mouseReleased"} {
		p.do("Input.dispatchMouseEvent", object{"type": kind, "x": at.X, "y": at.Y, "button": "left", "clickCount": 1}, nil)
	}
}

// picture takes a screenshot into the folder that WXPROXY_SCREENSHOTS names, if it names one.
func (p *tab) picture(name string) {
	p.t.Helper()
	folder := os.Getenv("WXPROXY_SCREENSHOTS")
	if folder == "" {
		return
	}
	var result struct{ Data string }
	p.do("Page.captureScreenshot", object{"format": "png", "optimizeForSpeed": false}, &result)
	png, err := base64.StdEncoding.DecodeString(result.Data)
	if err == nil {
		err = os.WriteFile(folder+"/"+name+".png", png, 0o644)
	}
	p.must(err)
}
