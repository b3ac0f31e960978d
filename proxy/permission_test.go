package proxy_test

import (
	"strings"
	"testing"

	"wxproxy/proxy"
)

// TestPermission checks what Permission says about a caller, and compares it
// with a real request.
func TestPermission(t *testing.T) {
	up, _ := recordingServer(t)
	limited := named("limited", stockKey)
	limited.AppIDs, limited.Methods = []string{account}, []string{"GET"}
	limited.Paths = []string{"/cgi-bin/user/*", "/wxa/*"}
	platform := named("platform", "platform-key")
	platform.AppIDs = []string{component}
	config := proxy.Config{
		Component: component, Upstream: up, Tokens: &fakeTokens{current: "T0"},
		Callers: []proxy.Caller{limited, platform},
	}
	p, addr := start(t, up, func(c *proxy.Config) { *c = config })
	keys := map[string]string{"limited": stockKey, "platform": "platform-key"}
	f := func(name, appid, method, path string, want bool, wantReason string) {
		t.Helper()
		allowed, reason := p.Permission(name, appid, method, path)
		if allowed != want || !strings.Contains(reason, wantReason) {
			t.Errorf("%s %s %s: got %v, %q, want %v, %q", name, method, path, allowed, reason, want, wantReason)
		}
		if keys[name] == "" || strings.Contains(path, "token") || strings.Contains(path, "query_auth") {
			return
		}
		headers := []string{"Content-Length: 0", "X-Wxproxy-Key: " + keys[name]}
		if appid != "" {
			headers = append(headers, "X-WX-APPID: "+appid)
		}
		if resp, body := send(t, addr, method+strings.TrimPrefix(get(path, headers...), "GET")); (resp.StatusCode == 200) != want {
			t.Errorf("%s %s %s: got %s %s, Permission says %v", name, method, path, resp.Status, body, allowed)
		}
	}
	f("limited", "", "GET", "/"+account+"/cgi-bin/user/info", true, "allowed")
	f("limited", account, "GET", "/cgi-bin/user/info?x=1", true, "allowed")
	f("limited", "", "POST", "/"+account+"/cgi-bin/user/info", false, "method POST")
	f("limited", "", "GET", "/"+other+"/cgi-bin/user/info", false, other)
	f("limited", "", "GET", "/"+account+"/cgi-bin/menu/get", false, "path")
	f("limited", "", "GET", "/"+account+"/wxa/gettemplatelist", false, component)
	f("limited", "", "GET", "/cgi-bin/user/info", false, "no account given")
	f("limited", "", "GET", "/a/../b", false, "path")
	f("platform", "", "GET", "/wxa/gettemplatelist", true, "allowed")
	f("platform", "", "GET", "/"+account+"/cgi-bin/user/info", false, account)
	f("limited", "", "GET", "/cgi-bin/token?appid="+account, true, "allowed")
	f("limited", "", "GET", "/cgi-bin/token?appid="+other, false, other)
	f("limited", "", "GET", "/"+other+"/cgi-bin/token", false, other)
	f("limited", "", "POST", "/cgi-bin/component/api_component_token", false, component)
	f("limited", "", "POST", "/cgi-bin/component/api_query_auth", false, "method")
	f("platform", "", "POST", "/cgi-bin/component/api_component_token", true, "allowed")
	f("platform", "", "POST", "/cgi-bin/component/api_query_auth", true, "allowed")
	f("platform", "", "POST", "/cgi-bin/component/api_authorizer_token", true, "allowed")
	f("unknown", "", "GET", "/"+account+"/cgi-bin/user/info", false, "no caller has this name")
	config.Callers = nil
	if err := p.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	keys = nil
	f("unknown", "", "GET", "/"+account+"/cgi-bin/user/info", true, "no caller is configured")
}
