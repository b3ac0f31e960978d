package proxy_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/proxy"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// Each way to show a key works, none of them reaches WeChat, and whoever shows none, a wrong one or two, gets 401.
func TestKeys(t *testing.T) {
	up, seen := recordingServer(t)
	calls := make(chan proxy.Call, 100)
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Callers = []proxy.Caller{named("orders", ordersKey), named("stock", stockKey), {Name: "bare"}}
		c.Watch = func(c proxy.Call) { calls <- c }
	})
	for name, c := range map[string]struct {
		headers []string
		caller  string // "": 401
	}{
		"bearer":             {[]string{"Authorization: Bearer " + ordersKey}, "orders"},
		"bearer, other case": {[]string{"authorization: bEARER   " + stockKey}, "stock"},
		"basic":              {[]string{"Authorization: " + basic("anybody", ordersKey)}, "orders"},
		"basic, no name":     {[]string{"Authorization: " + basic("", ordersKey)}, "orders"},
		"header":             {[]string{"X-Wxproxy-Key: " + stockKey}, "stock"},
		"proxy, basic":       {[]string{"Proxy-Authorization: " + basic("x", ordersKey)}, "orders"},
		"proxy, bearer":      {[]string{"Proxy-Authorization: Bearer " + ordersKey}, "orders"},
		"the same in all": {[]string{"Authorization: Bearer " + ordersKey, "Proxy-Authorization: " + basic("x", ordersKey), "X-WXPROXY-KEY: " + ordersKey,
			"X-Wxproxy-Key: " + ordersKey}, "orders"},
		"an empty one besides": {[]string{"X-Wxproxy-Key: ", "Authorization: Bearer " + ordersKey}, "orders"},

		"none":                 {nil, ""},
		"empty":                {[]string{"X-Wxproxy-Key: ", "Authorization: "}, ""},
		"wrong":                {[]string{"X-Wxproxy-Key: nothing"}, ""},
		"its digest":           {[]string{fmt.Sprintf("X-Wxproxy-Key: %x", sha256.Sum256([]byte(ordersKey)))}, ""},
		"scheme only":          {[]string{"Authorization: Bearer"}, ""},
		"no scheme":            {[]string{"Authorization: " + ordersKey}, ""},
		"another scheme":       {[]string{"Authorization: Digest " + ordersKey}, ""},
		"basic, the user":      {[]string{"Authorization: " + basic(ordersKey, "")}, ""},
		"basic, no colon":      {[]string{"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(ordersKey))}, ""},
		"basic, no base64":     {[]string{"Authorization: Basic x:" + ordersKey}, ""},
		"very long":            {[]string{"X-Wxproxy-Key: " + strings.Repeat("x", 9000)}, ""},
		"very long, basic":     {[]string{"Authorization: " + basic("x", strings.Repeat("x", 6000))}, ""},
		"two":                  {[]string{"X-Wxproxy-Key: " + stockKey, "Authorization: Bearer " + ordersKey}, ""},
		"two in one header":    {[]string{"X-Wxproxy-Key: " + stockKey, "X-Wxproxy-Key: " + ordersKey}, ""},
		"a right and a wrong":  {[]string{"X-Wxproxy-Key: " + stockKey, "Authorization: Bearer somebody else's"}, ""},
		"a wrong and a right":  {[]string{"Authorization: Digest x", "X-Wxproxy-Key: " + stockKey}, ""},
		"hidden by Connection": {[]string{"Connection: X-Wxproxy-Key", "X-Wxproxy-Key: wrong"}, ""},
	} {
		before := len(seen())
		resp, body := send(t, addr, get("/"+account+"/cgi-bin/a?x=1", append(c.headers, "Connection: close")...))
		call := <-calls
		if c.caller == "" {
			if resp.StatusCode != 401 || !strings.HasPrefix(body, `{"errcode":-401,"errmsg":"wxproxy: `) || call.Caller != "unknown" || len(seen()) != before || resp.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s: %s %s, caller %q", name, resp.Status, body, call.Caller)
			}
		} else if resp.StatusCode != 200 || call.Caller != c.caller {
			t.Errorf("%s: %s %s, caller %q", name, resp.Status, body, call.Caller)
		}
		if strings.Contains(body, ordersKey) || strings.Contains(body, stockKey) {
			t.Errorf("%s: a key in %s", name, body)
		}
	}
	for _, got := range seen() {
		if low := strings.ToLower(got); strings.Contains(low, "key") || strings.Contains(low, "authorization") {
			t.Errorf("WeChat got a credential of the caller's: %s", got)
		}
	}
}

// What is refused before anything is told of accounts, and in which order.
func TestOrderOfRefusals(t *testing.T) {
	up, seen := recordingServer(t)
	broker := &fakeTokens{current: "T0", err: tokens.ErrUnknownAccount}
	limited := named("limited", stockKey)
	limited.AppIDs, limited.Paths, limited.Methods = []string{account}, []string{"/cgi-bin/user/*", "/cgi-bin/exact", "/wxa/*", "/cgi-bin/component/*", "/sns/*"}, []string{"GET"}
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Callers, c.Tokens = []proxy.Caller{named("all", ordersKey), limited}, broker
	})
	all, few := "X-Wxproxy-Key: "+ordersKey, "X-Wxproxy-Key: "+stockKey
	for _, c := range []struct {
		raw    string
		status int
	}{
		{get("/" + account + "/cgi-bin/user/info"), 401},
		{get("/" + other + "/cgi-bin/user/info"), 401},
		{get("/cgi-bin/user/info"), 401},
		{get("/cgi-bin/clear_quota/v2"), 401},
		{get("/sns/userinfo?access_token=USER"), 401},
		{get("/"+account+"/cgi-bin/user/info", all), 404},
		{get("/"+account+"/cgi-bin/user/info", few), 404},
		{get("/"+other+"/cgi-bin/user/info", few), 403}, // not 404: it does not learn that there is no such account
		{get("/"+account+"/cgi-bin/menu/get", few), 403},
		{strings.Replace(get("/"+account+"/cgi-bin/user/info", few, "Content-Length: 0"), "GET", "POST", 1), 403},
		{strings.Replace(get("/"+account+"/cgi-bin/user/info", few), "GET", "get", 1), 403},
		{get("/"+account+"/wxa/gettemplatelist", few), 403}, // the component's token
		{get("/"+component+"/wxa/gettemplatelist", few), 403},
		{get("/wxa/gettemplatelist", few), 403},
		{get("/"+account+"/cgi-bin/component/api_get_authorizer_list", few), 403},
		{get("/wxa/gettemplatelist", all), 404},
		{get("/cgi-bin/user/info", few), 400},
		{get("/"+account+"/cgi-bin/user/../menu/get", few), 400},
		{get("/"+account+"/cgi-bin/user/info", few, "Origin: http://evil.example"), 403},
		{get("http://evil.example/cgi-bin/a", all), 403},
		{strings.Replace(get("x:443", all), "GET", "CONNECT", 1), 405},
	} {
		if resp, body := send(t, addr, c.raw); resp.StatusCode != c.status {
			t.Errorf("%.90q: %s %s, want %d", c.raw, resp.Status, body, c.status)
		}
	}
	if n := len(seen()); n != 0 {
		t.Errorf("%d calls reached WeChat", n)
	}
	broker.mu.Lock()
	broker.err = nil
	broker.mu.Unlock()
	for _, c := range []struct {
		path string
		ok   bool
	}{
		{"/" + account + "/cgi-bin/user/info", true},
		{"//" + account + "//cgi-bin/user/info", true},
		{"/" + account + "/cgi-bin/%75ser/info", true}, // is what it says when it arrives
		{"/" + account + "/cgi-bin/exact", true},
		{"/" + account + "/cgi-bin/exact/", false},
		{"/" + account + "/cgi-bin/exactly", false},
		{"/" + account + "/cgi-bin/Exact", false},
		{"/" + account + "/cgi-bin/users", false},
		{"/" + account + "/cgi-bin/user", false},
		{"/sns/jscode2session?js_code=1&appid=" + account, true},
		{"/sns/jscode2session?js_code=1&appid=" + other, false},
		{"/sns/component/jscode2session?js_code=1&appid=" + account, true},
		{"/sns/component/jscode2session?js_code=1&appid=" + other, false},
		{"/sns/component/jscode2session?js_code=1", false},
		{"/sns/userinfo?access_token=USER", true},
		{"/" + other + "/sns/userinfo?access_token=USER", false},
	} {
		want := 403
		if c.ok {
			want = 200
		}
		if resp, body := send(t, addr, get(c.path, few)); resp.StatusCode != want {
			t.Errorf("%s: %s %s, want %d", c.path, resp.Status, body, want)
		}
	}
}

// A caller that names nothing may do nothing.
func TestCallerWithoutLimits(t *testing.T) {
	up, seen := recordingServer(t)
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Callers = []proxy.Caller{{Name: "nothing", KeySHA256: sha256.Sum256([]byte(ordersKey))}}
	})
	for _, path := range []string{"/" + account + "/cgi-bin/a", "/sns/userinfo?access_token=x", "/wxa/gettemplatelist"} {
		if resp, body := send(t, addr, get(path, "X-Wxproxy-Key: "+ordersKey)); resp.StatusCode != 403 {
			t.Errorf("%s: %s %s", path, resp.Status, body)
		}
	}
	if len(seen()) != 0 {
		t.Error("a call reached WeChat")
	}
}

// A call for the default account is one for an account that the caller has to be allowed.
func TestLimitAndDefaultAccount(t *testing.T) {
	up, _ := recordingServer(t)
	limited := named("limited", stockKey)
	limited.AppIDs = []string{other}
	_, addr := start(t, up, func(c *proxy.Config) { c.Callers, c.DefaultAppID = []proxy.Caller{limited}, account })
	for path, want := range map[string]int{"/cgi-bin/user/info": 403, "/" + other + "/cgi-bin/user/info": 200, "/sns/userinfo?access_token=USER": 200} {
		if resp, body := send(t, addr, get(path, "X-Wxproxy-Key: "+stockKey)); resp.StatusCode != want {
			t.Errorf("%s: %s %s", path, resp.Status, body)
		}
	}
}

func TestRate(t *testing.T) {
	up, seen := recordingServer(t)
	slow := named("slow", ordersKey)
	slow.Rate, slow.Burst = 1, 3
	quick := named("quick", stockKey)
	config := proxy.Config{Component: component, Upstream: up, Tokens: &fakeTokens{current: "T0"}, Callers: []proxy.Caller{slow, quick}}
	p, addr := start(t, up, func(c *proxy.Config) { *c = config })
	call := func(key string) (int, string) {
		resp, _ := send(t, addr, get("/"+account+"/cgi-bin/a", "X-Wxproxy-Key: "+key))
		return resp.StatusCode, resp.Header.Get("Retry-After")
	}
	// Only lower bounds: on a busy machine a second may pass at any point.
	limited := func() (passed int) {
		for passed < 100 {
			status, after := call(ordersKey)
			if status == 429 {
				if after != "1" {
					t.Errorf("Retry-After %q", after)
				}
				return passed
			}
			passed++
		}
		t.Error("never limited")
		return passed
	}
	began := time.Now()
	if n := limited(); n < 3 || n > 3+1+int(time.Since(began).Seconds()) {
		t.Errorf("%d calls passed", n)
	}
	if n := len(seen()); n > 4+int(time.Since(began).Seconds()) {
		t.Errorf("WeChat got %d calls", n)
	}
	for range 20 {
		if status, _ := call(stockKey); status != 200 {
			t.Errorf("another caller got %d", status)
		}
	}
	// A reload is no way to a new burst, whatever else it changes of the caller …
	for i := range 5 {
		config.Callers[0].Paths = []string{"/cgi-bin/*", "/reload/" + strconv.Itoa(i)}
		if err := p.Reconfigure(config); err != nil {
			t.Fatal(err)
		}
		limited()
	}
	if n, most := len(seen())-20, 5+int(time.Since(began).Seconds())+4; n > most {
		t.Errorf("%d calls passed, at most %d may", n, most)
	}
	// … unless it changes the rate.
	config.Callers[0].Burst = 50
	if err := p.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	if n := limited(); n < 50 {
		t.Errorf("%d calls passed after the burst was raised", n)
	}
}

// A reload changes who may call from the next call on, on connections that are open as well.
func TestReloadCallers(t *testing.T) {
	up, _ := recordingServer(t)
	config := proxy.Config{Component: component, Upstream: up, Tokens: &fakeTokens{current: "T0"}, Callers: []proxy.Caller{named("orders", ordersKey)}}
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
		t.Errorf("%d %d", a, b)
	}
	config.Callers = []proxy.Caller{named("stock", stockKey)}
	if err := p.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	if a, b := status(ordersKey), status(stockKey); a != 401 || b != 200 {
		t.Errorf("%d %d", a, b)
	}
	// What makes no sense is refused and changes nothing.
	for name, callers := range map[string][]proxy.Caller{
		"no name":   {named("", "a")},
		"long name": {named(strings.Repeat("x", 65), "a")},
		"one name":  {named("a", "a"), named("a", "b")},
		"one key":   {named("a", "a"), named("b", "a")},
	} {
		config.Callers = callers
		if err := p.Reconfigure(config); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		if s := status(stockKey); s != 200 {
			t.Errorf("%s: %d", name, s)
		}
	}
	config.Callers = nil
	if err := p.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	if a, b := status(ordersKey), status("anything"); a != 200 || b != 200 {
		t.Errorf("nobody is to be asked, and there was %d %d", a, b)
	}
}

// labels notes the callers that calls were counted for.
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
func (l *labels) CallDone(caller, _ string, code int, _, _ time.Duration) {
	l.mu.Lock()
	l.got = append(l.got, caller+" "+strconv.Itoa(code))
	l.mu.Unlock()
}

// Whatever a caller sends, the labels are those of the configuration and one more.
func TestCallerLabels(t *testing.T) {
	up, _ := recordingServer(t)
	seen := &labels{}
	_, addr := start(t, up, func(c *proxy.Config) { c.Callers, c.Observer = []proxy.Caller{named("orders", ordersKey)}, seen })
	for _, raw := range []string{get("/"+account+"/cgi-bin/a", "X-Wxproxy-Key: "+ordersKey), get("/"+account+"/cgi-bin/a", "X-Wxproxy-Key: mallory"),
		get("/"+account+"/cgi-bin/a", "Authorization: "+basic("mallory", "x")), get("/" + account + "/cgi-bin/a"), get("/a/../b", "X-Wxproxy-Key: "+ordersKey)} {
		send(t, addr, raw)
	}
	if got := strings.Join(seen.got, ", "); got != "orders 200, unknown 401, unknown 401, unknown 401, unknown 400" {
		t.Errorf("%s", got)
	}
}

// A body that nobody may send is not looked at, and a broker is not asked for strangers.
func TestStrangersCostNothing(t *testing.T) {
	up, seen := recordingServer(t)
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Callers = []proxy.Caller{named("orders", ordersKey)}
		c.Tokens = unusedTokens{t}
		c.Exchange = func(context.Context, wechat.Secret) (tokens.Authorization, error) {
			t.Error("a code was exchanged")
			return tokens.Authorization{}, errors.New("no")
		}
	})
	for _, raw := range []string{
		get("/" + account + "/cgi-bin/a"),
		post("/cgi-bin/token?appid="+account+"&secret=wrong", ""),
		post("/cgi-bin/component/api_query_auth", `{"authorization_code":"c"}`),
		post("/cgi-bin/component/api_authorizer_token", `{"authorizer_appid":"`+account+`"}`),
		post("/cgi-bin/component/api_component_token", `{"component_appid":"`+component+`","component_appsecret":"wrong"}`),
	} {
		if resp, body := send(t, addr, raw); resp.StatusCode != 401 && !strings.Contains(body, "40125") {
			t.Errorf("%.80q: %s %s", raw, resp.Status, body)
		}
	}
	if len(seen()) != 0 {
		t.Error("a call reached WeChat")
	}
}

// Reloads drop no call, and no call sees half of one.
func TestReloadUnderLoad(t *testing.T) {
	up, _ := recordingServer(t)
	orders := named("orders", ordersKey)
	orders.Rate = 1_000_000
	config := proxy.Config{Component: component, Upstream: up, Tokens: &fakeTokens{current: "T0"}, StandInKey: key, Callers: []proxy.Caller{orders}}
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
					t.Error(err)
					return
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != 200 || !strings.Contains(string(body), "T0") {
					t.Errorf("%s %s", resp.Status, body)
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

func TestShortStandInKey(t *testing.T) {
	_, err := proxy.New(proxy.Config{Upstream: "http://127.0.0.1:1", Tokens: &fakeTokens{}, StandInKey: []byte("short")})
	if err == nil || !strings.Contains(err.Error(), "stand-in key") || strings.Contains(err.Error(), "short") {
		t.Errorf("%v", err)
	}
}

// Bodies are held in memory: of strangers only small ones are.
func TestStrangersBodies(t *testing.T) {
	up, seen := recordingServer(t)
	_, addr := start(t, up, func(c *proxy.Config) { c.Callers, c.MaxBody = []proxy.Caller{named("orders", ordersKey)}, 1<<20 })
	upload := func(n int, chunked bool, path string, headers ...string) string {
		if !chunked {
			return post(path, strings.Repeat("x", n), headers...)
		}
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n%s\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", path, strings.Join(append(headers, "X-A: b"), "\r\n"), n, strings.Repeat("x", n))
	}
	path, k := "/"+account+"/cgi-bin/media/upload", "X-Wxproxy-Key: "+ordersKey
	st := fetchAccount(t, addr, account, ordersKey)
	for _, chunked := range []bool{false, true} {
		for name, c := range map[string]struct {
			raw    string
			status int
		}{
			"no key":            {upload(200_000, chunked, path), 401},
			"no key, small":     {upload(1000, chunked, path), 401},
			"no key, far over":  {upload(3_000_000, chunked, path), 401},
			"wrong key":         {upload(200_000, chunked, path, "X-Wxproxy-Key: wrong"), 401},
			"bad path":          {upload(200_000, chunked, "/a/../b"), 400},
			"key":               {upload(200_000, chunked, path, k), 200},
			"stand-in":          {upload(200_000, chunked, "/cgi-bin/media/upload?access_token="+st), 200},
			"key, at the limit": {upload(1<<20, chunked, path, k), 200},
			"key, over":         {upload(1<<20+1, chunked, path, k), 413},
			"token request":     {upload(200_000, chunked, "/cgi-bin/stable_token"), 413},
		} {
			resp, body := send(t, addr, c.raw)
			if resp.StatusCode != c.status || resp.StatusCode != 200 && !strings.HasPrefix(body, fmt.Sprintf(`{"errcode":-%d,`, c.status)) {
				t.Errorf("%s, in chunks %v: %s %s, want %d", name, chunked, resp.Status, body, c.status)
			}
		}
	}
	if n := len(seen()); n != 6 {
		t.Errorf("WeChat got %d calls, want 6", n)
	}
	// Asked beforehand, a stranger need not send it at all; nor what is too large.
	for raw, want := range map[string]int{
		"POST " + path + " HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 200000\r\n\r\n":               401,
		"POST " + path + " HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n" + k + "\r\n\r\n": 413,
	} {
		if resp, body := send(t, addr, raw); resp.StatusCode != want || !strings.HasPrefix(body, fmt.Sprintf(`{"errcode":-%d,`, want)) {
			t.Errorf("%s %s, want %d", resp.Status, body, want)
		}
	}
}
