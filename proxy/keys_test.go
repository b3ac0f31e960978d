package proxy_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"wxproxy/proxy"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// TestKeyAuthentication checks each way to send a key. A request with none, a
// wrong one or two gets 401. No key reaches WeChat.
func TestKeyAuthentication(t *testing.T) {
	up, requests := recordingServer(t)
	calls := make(chan proxy.Call, 100)
	addr := startUnlimited(t, up, func(c *proxy.Config) {
		c.Callers = []proxy.Caller{named("orders", ordersKey), named("stock", stockKey), {Name: "bare"}}
		c.Watch = func(c proxy.Call) { calls <- c }
	})
	for name, c := range map[string]struct {
		headers []string
		caller  string // "" expects 401
	}{
		"bearer":             {[]string{"Authorization: Bearer " + ordersKey}, "orders"},
		"bearer, other case": {[]string{"authorization: bEARER   " + stockKey}, "stock"},
		"basic":              {[]string{"Authorization: " + basic("any", ordersKey)}, "orders"},
		"basic, no name":     {[]string{"Authorization: " + basic("", ordersKey)}, "orders"},
		"header":             {[]string{"X-Wxproxy-Key: " + stockKey}, "stock"},
		"proxy, basic":       {[]string{"Proxy-Authorization: " + basic("x", ordersKey)}, "orders"},
		"proxy, bearer":      {[]string{"Proxy-Authorization: Bearer " + ordersKey}, "orders"},
		"the same in all": {[]string{
			"Authorization: Bearer " + ordersKey, "Proxy-Authorization: " + basic("x", ordersKey),
			"X-WXPROXY-KEY: " + ordersKey, "X-Wxproxy-Key: " + ordersKey,
		}, "orders"},
		"an empty one, too": {[]string{"X-Wxproxy-Key: ", "Authorization: Bearer " + ordersKey}, "orders"},

		"none":                 {nil, ""},
		"empty":                {[]string{"X-Wxproxy-Key: ", "Authorization: "}, ""},
		"wrong":                {[]string{"X-Wxproxy-Key: nothing"}, ""},
		"its digest":           {[]string{fmt.Sprintf("X-Wxproxy-Key: %x", sha256.Sum256([]byte(ordersKey)))}, ""},
		"scheme only":          {[]string{"Authorization: Bearer"}, ""},
		"no scheme":            {[]string{"Authorization: " + ordersKey}, ""},
		"another scheme":       {[]string{"Authorization: Digest " + ordersKey}, ""},
		"basic, the user":      {[]string{"Authorization: " + basic(ordersKey, "")}, ""},
		"basic, no colon":      {[]string{"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(ordersKey))}, ""},
		"basic, not base64":    {[]string{"Authorization: Basic x:" + ordersKey}, ""},
		"very long":            {[]string{"X-Wxproxy-Key: " + strings.Repeat("x", 9000)}, ""},
		"very long, basic":     {[]string{"Authorization: " + basic("x", strings.Repeat("x", 6000))}, ""},
		"two":                  {[]string{"X-Wxproxy-Key: " + stockKey, "Authorization: Bearer " + ordersKey}, ""},
		"two in one header":    {[]string{"X-Wxproxy-Key: " + stockKey, "X-Wxproxy-Key: " + ordersKey}, ""},
		"valid and wrong":      {[]string{"X-Wxproxy-Key: " + stockKey, "Authorization: Bearer of another server"}, ""},
		"wrong and valid":      {[]string{"Authorization: Digest x", "X-Wxproxy-Key: " + stockKey}, ""},
		"hidden by Connection": {[]string{"Connection: X-Wxproxy-Key", "X-Wxproxy-Key: wrong"}, ""},
	} {
		before := len(requests())
		resp, body := send(t, addr, get("/"+account+"/cgi-bin/a?x=1", append(c.headers, "Connection: close")...))
		call := <-calls
		if c.caller == "" {
			checkResponse(t, name, resp, body, 401, `{"errcode":-401,"errmsg":"wxproxy: `)
			if call.Caller != "unknown" || resp.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s: got caller %q, headers %v, want unknown and WWW-Authenticate", name, call.Caller, resp.Header)
			}
			if n := len(requests()) - before; n != 0 {
				t.Errorf("%s: got %d requests at WeChat, want 0", name, n)
			}
		} else if resp.StatusCode != 200 || call.Caller != c.caller {
			t.Errorf("%s: got %s %s, caller %q, want 200, caller %q", name, resp.Status, body, call.Caller, c.caller)
		}
		if strings.Contains(body, ordersKey) || strings.Contains(body, stockKey) {
			t.Errorf("%s: got %s, want no key in it", name, body)
		}
	}
	for _, got := range requests() {
		if low := strings.ToLower(got); strings.Contains(low, "key") || strings.Contains(low, "authorization") {
			t.Errorf("WeChat got %s, want no credential of the caller in it", got)
		}
	}
}

// TestEmptyKeyIsNoKey checks that an empty key authenticates no caller, not even
// one for which the SHA-256 of nothing was configured by mistake.
func TestEmptyKeyIsNoKey(t *testing.T) {
	up, requests := recordingServer(t)
	_, addr := start(t, up, func(c *proxy.Config) { c.Callers = []proxy.Caller{named("orders", "")} })
	for _, raw := range []string{
		get("/" + account + "/cgi-bin/a"),
		get("/"+account+"/cgi-bin/a", "X-Wxproxy-Key: "),
		get("/"+account+"/cgi-bin/a", "Authorization: Bearer "),
		get("/"+account+"/cgi-bin/a", "Authorization: "+basic("x", "")),
		get("/sns/jscode2session?js_code=1&secret=&appid=" + account),
	} {
		resp, body := send(t, addr, raw)
		checkResponse(t, raw, resp, body, 401, "")
	}
	raw := get("/cgi-bin/token?grant_type=client_credential&secret=&appid=" + account)
	resp, body := send(t, addr, raw)
	checkResponse(t, raw, resp, body, 200, `{"errcode":40125,`)
	if n := len(requests()); n != 0 {
		t.Errorf("got %d requests at WeChat, want 0", n)
	}
}

// TestUnauthenticatedRequestsCostNothing checks that neither the broker nor
// WeChat is called for unauthenticated requests.
func TestUnauthenticatedRequestsCostNothing(t *testing.T) {
	up, requests := recordingServer(t)
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Callers = []proxy.Caller{named("orders", ordersKey)}
		c.Tokens = unusedTokens{t}
		c.Exchange = func(context.Context, wechat.Secret) (tokens.Authorization, error) {
			t.Error("got an exchange of a code, want none")
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
			t.Errorf("%.80q: got %s %s, want 401 or errcode 40125", raw, resp.Status, body)
		}
	}
	if n := len(requests()); n != 0 {
		t.Errorf("got %d requests at WeChat, want 0", n)
	}
}

// TestBodyLimitDependsOnAuthentication checks that large bodies, which are held
// in memory, are read only from authenticated callers.
func TestBodyLimitDependsOnAuthentication(t *testing.T) {
	up, requests := recordingServer(t)
	limited := named("limited", stockKey)
	limited.AppIDs = []string{other}
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Callers, c.MaxBody = []proxy.Caller{named("orders", ordersKey), limited}, 1<<20
	})
	upload := func(n int, chunked bool, path string, headers ...string) string {
		if !chunked {
			return post(path, strings.Repeat("x", n), headers...)
		}
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n%s\r\n\r\n%x\r\n%s\r\n0\r\n\r\n",
			path, strings.Join(append(headers, "X-A: b"), "\r\n"), n, strings.Repeat("x", n))
	}
	path, k := "/"+account+"/cgi-bin/media/upload", "X-Wxproxy-Key: "+ordersKey
	st := fetchAccount(t, addr, account, ordersKey)
	for _, chunked := range []bool{false, true} {
		for name, c := range map[string]struct {
			raw    string
			status int
		}{
			"no key":             {upload(200_000, chunked, path), 401},
			"no key, small":      {upload(1000, chunked, path), 401},
			"no key, far over":   {upload(3_000_000, chunked, path), 401},
			"wrong key":          {upload(200_000, chunked, path, "X-Wxproxy-Key: wrong"), 401},
			"bad path":           {upload(200_000, chunked, "/a/../b"), 400},
			"key":                {upload(200_000, chunked, path, k), 200},
			"stand-in":           {upload(200_000, chunked, "/cgi-bin/media/upload?access_token="+st), 200},
			"key, at the limit":  {upload(1<<20, chunked, path, k), 200},
			"key, over":          {upload(1<<20+1, chunked, path, k), 413},
			"not permitted":      {upload(200_000, chunked, path, "X-Wxproxy-Key: "+stockKey), 403},
			"token request":      {upload(200_000, chunked, "/cgi-bin/stable_token"), 413},
			"token request, key": {upload(200_000, chunked, "/cgi-bin/stable_token", k), 413},
		} {
			resp, body := send(t, addr, c.raw)
			text := ""
			if c.status != 200 {
				text = fmt.Sprintf(`{"errcode":-%d,`, c.status)
			}
			checkResponse(t, fmt.Sprintf("%s, chunked %v", name, chunked), resp, body, c.status, text)
			// The rest of a body that is not read is never taken for a request.
			if want := len(c.raw) > 200_000 && c.status != 200; resp.Close != want {
				t.Errorf("%s, chunked %v: got a connection that is closed %v, want %v", name, chunked, resp.Close, want)
			}
		}
	}
	if n := len(requests()); n != 6 {
		t.Errorf("got %d requests at WeChat, want 6", n)
	}
	// With Expect the body need not be sent at all.
	expect := "POST " + path + " HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
	for raw, want := range map[string]int{
		expect + "Content-Length: 200000\r\n\r\n":               401,
		expect + "Content-Length: 5\r\n\r\n":                    401,
		expect + "Content-Length: 9999999\r\n" + k + "\r\n\r\n": 413,
	} {
		resp, body := send(t, addr, raw)
		checkResponse(t, raw, resp, body, want, fmt.Sprintf(`{"errcode":-%d,`, want))
	}
}
