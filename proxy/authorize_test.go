package proxy_test

import (
	"strings"
	"testing"

	"wxproxy/proxy"
	"wxproxy/tokens"
)

// TestAuthorizationOrder checks that each limit of a caller is enforced, and
// that unauthorized callers do not learn which accounts exist.
func TestAuthorizationOrder(t *testing.T) {
	up, requests := recordingServer(t)
	broker := &fakeTokens{current: "T0", err: tokens.ErrUnknownAccount}
	limited := named("limited", stockKey)
	limited.AppIDs, limited.Methods = []string{account}, []string{"GET"}
	limited.Paths = []string{"/cgi-bin/user/*", "/cgi-bin/exact", "/wxa/*", "/cgi-bin/component/*", "/sns/*"}
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
		{get("/"+other+"/cgi-bin/user/info", few), 403}, // not 404, although there is no such account
		{get("/"+account+"/cgi-bin/menu/get", few), 403},
		{strings.Replace(get("/"+account+"/cgi-bin/user/info", few, "Content-Length: 0"), "GET", "POST", 1), 403},
		{strings.Replace(get("/"+account+"/cgi-bin/user/info", few), "GET", "get", 1), 403},
		{get("/"+account+"/wxa/gettemplatelist", few), 403}, // needs the component's token
		{get("/"+component+"/wxa/gettemplatelist", few), 403},
		{get("/wxa/gettemplatelist", few), 403},
		{get("/"+account+"/cgi-bin/component/api_get_authorizer_list", few), 403},
		{get("/wxa/gettemplatelist", all), 404},
		{get("/cgi-bin/user/info", few), 400},
		{get("/sns/component/jscode2session?js_code=1", few), 400},
		{get("/"+account+"/cgi-bin/user/../menu/get", few), 400},
		{get("/"+account+"/cgi-bin/user/info", few, "Origin: http://evil.example"), 403},
		{get("http://evil.example/cgi-bin/a", all), 403},
		{strings.Replace(get("x:443", all), "GET", "CONNECT", 1), 405},
	} {
		resp, body := send(t, addr, c.raw)
		checkResponse(t, c.raw, resp, body, c.status, "")
	}
	if n := len(requests()); n != 0 {
		t.Errorf("got %d requests at WeChat, want 0", n)
	}
	broker.mu.Lock()
	broker.err = nil
	broker.mu.Unlock()
	for _, c := range []struct {
		path    string
		allowed bool
	}{
		{"/" + account + "/cgi-bin/user/info", true},
		{"//" + account + "//cgi-bin/user/info", true},
		{"/" + account + "/cgi-bin/%75ser/info", true}, // decoded
		{"/" + account + "/cgi-bin/exact", true},
		{"/" + account + "/cgi-bin/exact/", false},
		{"/" + account + "/cgi-bin/exactly", false},
		{"/" + account + "/cgi-bin/Exact", false},
		{"/" + account + "/cgi-bin/users", false},
		{"/" + account + "/cgi-bin/user", false},
		{"/" + account + "/cgi-bin/user/", false}, // the same as without the slash
		{"/sns/jscode2session?js_code=1&appid=" + account, true},
		{"/sns/jscode2session?js_code=1&appid=" + other, false},
		{"/sns/component/jscode2session?js_code=1&appid=" + account, true},
		{"/sns/component/jscode2session?js_code=1&appid=" + other, false},
		{"/" + account + "/sns/component/jscode2session?js_code=1", true},
		{"/" + other + "/sns/component/jscode2session?js_code=1", false},
		{"/sns/userinfo?access_token=USER", true},
		{"/" + other + "/sns/userinfo?access_token=USER", false},
	} {
		want := 403
		if c.allowed {
			want = 200
		}
		resp, body := send(t, addr, get(c.path, few))
		checkResponse(t, c.path, resp, body, want, "")
	}
}

// TestCallerWithoutPermissions checks that a caller block without lists allows
// nothing.
func TestCallerWithoutPermissions(t *testing.T) {
	up, requests := recordingServer(t)
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Callers = []proxy.Caller{{Name: "nothing", KeySHA256: keyed("", ordersKey).KeySHA256}}
	})
	for _, path := range []string{"/" + account + "/cgi-bin/a", "/sns/userinfo?access_token=x", "/wxa/gettemplatelist"} {
		resp, body := send(t, addr, get(path, "X-Wxproxy-Key: "+ordersKey))
		checkResponse(t, path, resp, body, 403, "")
	}
	if n := len(requests()); n != 0 {
		t.Errorf("got %d requests at WeChat, want 0", n)
	}
}

// TestDefaultAccountNeedsPermission checks that default_appid does not bypass
// the appids of a caller.
func TestDefaultAccountNeedsPermission(t *testing.T) {
	up, _ := recordingServer(t)
	limited := named("limited", stockKey)
	limited.AppIDs = []string{other}
	_, addr := start(t, up, func(c *proxy.Config) { c.Callers, c.DefaultAppID = []proxy.Caller{limited}, account })
	for path, want := range map[string]int{
		"/cgi-bin/user/info": 403, "/" + other + "/cgi-bin/user/info": 200, "/sns/userinfo?access_token=USER": 200,
	} {
		resp, body := send(t, addr, get(path, "X-Wxproxy-Key: "+stockKey))
		checkResponse(t, path, resp, body, want, "")
	}
}
