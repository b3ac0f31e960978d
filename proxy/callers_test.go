package proxy_test

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/proxy"
)

// TestRateLimit checks that rate and burst of a caller are enforced, also over
// reloads, and that other callers are not affected.
func TestRateLimit(t *testing.T) {
	up, requests := recordingServer(t)
	slow := named("slow", ordersKey)
	slow.Rate, slow.Burst = 1, 3
	quick := named("quick", stockKey)
	config := proxy.Config{
		Component: component, Upstream: up, Tokens: &fakeTokens{current: "T0"}, Callers: []proxy.Caller{slow, quick},
	}
	p, addr := start(t, up, func(c *proxy.Config) { *c = config })
	call := func(key string) (int, string) {
		resp, _ := send(t, addr, get("/"+account+"/cgi-bin/a", "X-Wxproxy-Key: "+key))
		return resp.StatusCode, resp.Header.Get("Retry-After")
	}
	// On a busy machine a second can pass at any point, which allows one
	// request more. So the bounds depend on the time that has passed.
	limited := func() (passed int) {
		for passed < 100 {
			status, after := call(ordersKey)
			if status == 429 {
				if after != "1" {
					t.Errorf("Retry-After: got %q, want 1", after)
				}
				return passed
			}
			passed++
		}
		t.Error("got 100 requests passed, want a limit")
		return passed
	}
	began := time.Now()
	if n := limited(); n < 3 || n > 3+1+int(time.Since(began).Seconds()) {
		t.Errorf("got %d requests passed, want the burst of 3 and one per second", n)
	}
	if n := len(requests()); n > 4+int(time.Since(began).Seconds()) {
		t.Errorf("got %d requests at WeChat, want the burst of 3 and one per second", n)
	}
	for range 20 {
		if status, _ := call(stockKey); status != 200 {
			t.Errorf("another caller: got %d, want 200", status)
		}
	}
	// A reload does not grant a new burst, whatever else it changes …
	for i := range 5 {
		config.Callers[0].Paths = []string{"/cgi-bin/*", "/reload/" + strconv.Itoa(i)}
		if err := p.Reconfigure(config); err != nil {
			t.Fatal(err)
		}
		limited()
	}
	if n, most := len(requests())-20, 5+int(time.Since(began).Seconds())+4; n > most {
		t.Errorf("after 5 reloads: got %d requests passed, want %d at most", n, most)
	}
	// … unless it changes the rate.
	config.Callers[0].Burst = 50
	if err := p.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	if n := limited(); n < 50 {
		t.Errorf("after the burst was raised: got %d requests passed, want 50", n)
	}
}

// TestReloadChangesCallers checks that a reload takes effect from the next
// request on, also on open connections, and that an invalid configuration
// changes nothing.
func TestReloadChangesCallers(t *testing.T) {
	up, _ := recordingServer(t)
	config := proxy.Config{
		Component: component, Upstream: up, Tokens: &fakeTokens{current: "T0"},
		Callers: []proxy.Caller{named("orders", ordersKey)},
	}
	p, addr := start(t, up, func(c *proxy.Config) { *c = config })
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	status := func(key string) int {
		t.Helper()
		req, _ := http.NewRequest("GET", "http://"+addr+"/"+account+"/cgi-bin/a", nil)
		req.Header.Set("Authorization", "Bearer "+key)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp.StatusCode
	}
	if a, b := status(ordersKey), status(stockKey); a != 200 || b != 401 {
		t.Errorf("at first: got %d and %d, want 200 and 401", a, b)
	}
	config.Callers = []proxy.Caller{named("stock", stockKey)}
	if err := p.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	if a, b := status(ordersKey), status(stockKey); a != 401 || b != 200 {
		t.Errorf("after the reload: got %d and %d, want 401 and 200", a, b)
	}
	for name, callers := range map[string][]proxy.Caller{
		"no name":   {named("", "a")},
		"long name": {named(strings.Repeat("x", 65), "a")},
		"one name":  {named("a", "a"), named("a", "b")},
		"one key":   {named("a", "a"), named("b", "a")},
	} {
		config.Callers = callers
		if err := p.Reconfigure(config); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got error %v, want one of one line", name, err)
		}
		if s := status(stockKey); s != 200 {
			t.Errorf("%s: got %d afterwards, want 200", name, s)
		}
	}
	config.Callers = nil
	if err := p.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	if a, b := status(ordersKey), status("anything"); a != 200 || b != 200 {
		t.Errorf("without callers: got %d and %d, want 200 and 200", a, b)
	}
}

// labels records the caller label and the status of each call.
type labels struct {
	proxy.Observer
	mu  sync.Mutex
	got []string
}

func (l *labels) CallStarted()                {}
func (l *labels) TokenUsed(string, bool)      {}
func (l *labels) Retried(string, int, string) {}
func (l *labels) WeChatError(int)             {}
func (l *labels) Redacted()                   {}
func (l *labels) KeyRejected(string)          {}
func (l *labels) CallDone(caller, _ string, code int, _, _ time.Duration) {
	l.mu.Lock()
	l.got = append(l.got, caller+" "+strconv.Itoa(code))
	l.mu.Unlock()
}

// TestCallerLabelsAreBounded checks that the labels do not depend on what
// requests contain.
func TestCallerLabelsAreBounded(t *testing.T) {
	up, _ := recordingServer(t)
	seen := &labels{}
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Callers, c.Observer = []proxy.Caller{named("orders", ordersKey)}, seen
	})
	for _, raw := range []string{
		get("/"+account+"/cgi-bin/a", "X-Wxproxy-Key: "+ordersKey), get("/"+account+"/cgi-bin/a", "X-Wxproxy-Key: mallory"),
		get("/"+account+"/cgi-bin/a", "Authorization: "+basic("mallory", "x")), get("/" + account + "/cgi-bin/a"),
		get("/a/../b", "X-Wxproxy-Key: "+ordersKey),
	} {
		send(t, addr, raw)
	}
	const want = "orders 200, unknown 401, unknown 401, unknown 401, unknown 400"
	if got := strings.Join(seen.got, ", "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestReloadUnderLoad checks that reloads lose no request, and that each
// request sees one configuration only.
func TestReloadUnderLoad(t *testing.T) {
	up, _ := recordingServer(t)
	orders := named("orders", ordersKey)
	orders.Rate = 1_000_000
	config := proxy.Config{
		Component: component, Upstream: up, Tokens: &fakeTokens{current: "T0"},
		StandInKey: key, Callers: []proxy.Caller{orders},
	}
	p, addr := start(t, up, func(c *proxy.Config) { *c = config })
	st := fetchAccount(t, addr, account, ordersKey)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			tr := &http.Transport{}
			defer tr.CloseIdleConnections()
			for range 50 {
				req, _ := http.NewRequest("GET", "http://"+addr+"/cgi-bin/a?access_token="+st, nil)
				if i%2 == 0 {
					req.Header.Set("X-Wxproxy-Key", ordersKey)
				}
				resp, err := tr.RoundTrip(req)
				if err != nil {
					t.Errorf("got error %v, want none", err)
					return
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != 200 || !strings.Contains(string(body), "T0") {
					t.Errorf("got %s %s, want 200 with token T0", resp.Status, body)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for i := 0; ; i++ {
		select {
		case <-done:
			return
		default:
		}
		config.Callers = []proxy.Caller{named("other"+strconv.Itoa(i%7), "k"), orders}
		if err := p.Reconfigure(config); err != nil {
			t.Fatal(err)
		}
	}
}

// TestShortStandInKey checks that a short key is rejected and not quoted.
func TestShortStandInKey(t *testing.T) {
	_, err := proxy.New(proxy.Config{Upstream: "http://127.0.0.1:1", Tokens: &fakeTokens{}, StandInKey: []byte("short")})
	if err == nil || !strings.Contains(err.Error(), "stand-in key") || strings.Contains(err.Error(), "short") {
		t.Errorf("got error %v, want one about the key, without its value", err)
	}
}
