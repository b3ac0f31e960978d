package proxy_test

import (
	"slices"
	"strings"
	"testing"

	"wxproxy/proxy"
)

// pathLine is the end of a request line, and getLine begins a request.
const (
	pathLine = "/" + account + "/cgi-bin/a HTTP/1.1\r\n"
	getLine  = "GET " + pathLine
)

// requestLines are the ways in which a request names its host, with HOST in
// its place.
var requestLines = []string{
	getLine + "Host: HOST\r\n",
	"GET /" + account + "/cgi-bin/a HTTP/1.0\r\nHost: HOST\r\n",
	"GET /cgi-bin/token?appid=" + account + "&secret=s HTTP/1.1\r\nHost: HOST\r\n",
	"POST " + pathLine + "Expect: 100-continue\r\nhost:HOST\r\nContent-Length: 0\r\n",
}

// TestForeignHostsAreRejected checks the name in a request while authentication
// is disabled, against DNS rebinding: localhost, IP addresses, WeChat's hosts
// and configured names × port × case; other names, malformed and missing ones ×
// forwarded, HTTP/1.0, token request, Expect. In absolute form the authority
// decides. With callers, and with "*", every name is accepted.
func TestForeignHostsAreRejected(t *testing.T) {
	up, requests := recordingServer(t)
	_, open := start(t, up, func(c *proxy.Config) {
		c.Hosts = []string{"wxproxy", "wx_proxy.internal"}
	})
	_, anyHost := start(t, up, func(c *proxy.Config) { c.Hosts = []string{"a", "*"} })
	_, locked := start(t, up, func(c *proxy.Config) {
		c.Hosts, c.Callers = nil, []proxy.Caller{named("orders", ordersKey)}
	})
	for _, host := range []string{
		"localhost", "LocalHost:8080", "127.0.0.1", "127.0.0.1:8080", "10.1.2.3:80",
		"[::1]:8080",
		"[2001:db8::1]", "api.weixin.qq.com", "SH.api.weixin.qq.com:443", "wxproxy",
		"WXPROXY:8080",
		"wx_proxy.internal",
	} {
		for _, line := range requestLines {
			raw := strings.Replace(line, "HOST", host, 1) + "\r\n"
			resp, body := send(t, open, raw)
			if resp.StatusCode != 200 && resp.StatusCode != 100 {
				t.Errorf("%q: got %s %s, want 200", raw, resp.Status, body)
			}
		}
	}
	forwarded := len(requests())
	for _, host := range []string{
		"evil.test", "evil.test:8080", "localhost.", "localhost.:8080", "wxproxy.",
		"127.0.0.1.",
		"api.weixin.qq.com.", "127.0.0.1.evil.test", "localhost.evil.test",
		"evil-localhost", "wxproxy.evil.test",
		"127.1", "0x7f000001", "2130706433", "*", "a.weixin.qq.com",
	} {
		for _, line := range requestLines {
			raw := strings.Replace(line, "HOST", host, 1) + "\r\n"
			resp, body := send(t, open, raw)
			checkResponse(t, raw, resp, body, 403, `{"errcode":-403`)
			for name, addr := range map[string]string{"*": anyHost, "with a key": locked} {
				keyed := strings.TrimSuffix(raw, "\r\n") + "X-Wxproxy-Key: " + ordersKey + "\r\n\r\n"
				keyed = strings.Replace(keyed, "&secret=s", "&secret="+ordersKey, 1)
				if resp, body := send(t, addr, keyed); resp.StatusCode != 200 && resp.StatusCode != 100 {
					t.Errorf("%s: %q: got %s %s, want 200", name, keyed, resp.Status, body)
				}
			}
		}
	}
	got := requests()[forwarded:]
	hasToken := func(s string) bool { return strings.Contains(s, "=T0") }
	if !slices.ContainsFunc(got, hasToken) {
		t.Errorf("got %d requests of those with a key, want some", len(got))
	}
	// Another server, because an accepted request can still be on its way to the
	// first one.
	up, requests = recordingServer(t)
	_, open = start(t, up, func(c *proxy.Config) {
		c.Hosts = []string{"wxproxy", "wx_proxy.internal"}
	})
	for _, host := range []string{ // no names
		"", "user@localhost", "localhost@evil.test", "localhost:80@evil.test",
		"http://localhost",
		"localhost/", "localhost#", "localhost, evil.test", "::1", "[::1", "[evil.test]",
		"[::1%25lo]",
		"\xe5\xb0\x8f", "localhost\r\n .evil.test",
	} {
		for _, line := range requestLines {
			raw := strings.Replace(line, "HOST", host, 1) + "\r\n"
			resp, body := send(t, open, raw)
			if s := resp.StatusCode; s != 403 && (s != 400 || host == "") {
				t.Errorf("%q: got %s %s, want 403", raw, resp.Status, body)
			}
		}
	}
	if n := len(requests()); n != 0 {
		t.Errorf("got %d requests at WeChat, want 0", n)
	}
	for raw, status := range map[string]int{
		getLine + "\r\n": 403,
		"GET /" + account + "/cgi-bin/a HTTP/1.0\r\n\r\n":                       403,
		"GET http://api.weixin.qq.com" + pathLine + "Host: evil.test\r\n\r\n":   200,
		"GET http://evil.test" + pathLine + "Host: localhost\r\n\r\n":           403,
		"GET http://localhost" + pathLine + "Host: localhost\r\n\r\n":           403,
		"GET http://api.weixin.qq.com." + pathLine + "Host: localhost\r\n\r\n":  403,
		"GET http://u@api.weixin.qq.com" + pathLine + "Host: localhost\r\n\r\n": 403,
		getLine + "Host: localhost\r\nHost: evil.test\r\n\r\n":                  400,
		getLine + "Host: evil.test\r\nX-Forwarded-Host: localhost\r\n\r\n":      403,
	} {
		resp, body := send(t, open, raw)
		checkResponse(t, raw, resp, body, status, "")
	}
	raw := get("/" + account + "/cgi-bin/a")
	resp, body := send(t, open, strings.Replace(raw, "Host: x", "Host: Wx.proxy:8080", 1))
	checkResponse(t, raw, resp, body, 403, `hosts = [\"Wx.proxy\"] in [proxy]`)
}

// TestBrowsersAreRejected checks headers that browsers send while authentication
// is disabled: each mark × its values × as spelled, in lower case × forwarded,
// absolute form, Expect × Host an IP address, localhost, any. With a key,
// only Origin and Sec-Fetch-Site are rejected, the latter unless it is none.
func TestBrowsersAreRejected(t *testing.T) {
	up, requests := recordingServer(t)
	_, open := start(t, up, nil)
	_, anyHost := start(t, up, func(c *proxy.Config) { c.Hosts = []string{"*"} })
	_, locked := start(t, up, func(c *proxy.Config) {
		c.Callers = []proxy.Caller{named("orders", ordersKey)}
	})
	marks := map[string]int{ // status with a key
		"Origin: http://evil.test": 403, "Origin: null": 403, "Origin:": 403,
		"Sec-Fetch-Site: cross-site": 403, "Sec-Fetch-Site: same-origin": 403,
		"Sec-Fetch-Site: none":    200,
		"Sec-Fetch-Mode: no-cors": 200, "Sec-Fetch-Dest: image": 200, "Sec-Fetch-User: ?1": 200,
		"Sec-Fetch-Storage-Access: active": 200, "Sec-Fetch-New-And-Very-Long-Name: a": 200,
		"Sec-CH-UA: \"Chromium\"": 200, "Sec-CH-UA-Mobile: ?0": 200,
		"Sec-CH-UA-Full-Version-List: a": 200,
		"Sec-GPC: 1":                     200, "Upgrade-Insecure-Requests: 1": 200,
		"Upgrade-Insecure-Requests:": 200, "Referer: http://evil.test/": 200,
		"Referer: HTTPS://evil.test/a?b":                          200,
		"Referer: https://servicewechat.com/wx/1/page-frame.html": 200,
		"Referer:\thttp://evil.test":                              200,
	}
	for mark := range marks {
		for _, header := range []string{mark, strings.ToLower(mark), strings.Replace(mark, ": ", ":", 1)} {
			for _, host := range []string{"127.0.0.1:8080", "localhost", "[::1]:80"} {
				for _, raw := range []string{
					getLine + "Host: " + host + "\r\n" + header + "\r\n\r\n",
					"GET http://api.weixin.qq.com" + pathLine + "Host: a\r\n" + header + "\r\n\r\n",
					"POST /" + account + "/cgi-bin/a HTTP/1.1\r\nHost: " + host + "\r\n" + header +
						"\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
				} {
					for _, addr := range []string{open, anyHost} {
						resp, body := send(t, addr, raw)
						checkResponse(t, raw, resp, body, 403, "web browsers")
					}
				}
			}
		}
	}
	if n := len(requests()); n != 0 {
		t.Errorf("got %d requests at WeChat, want 0", n)
	}
	for mark, status := range marks {
		raw := get("/"+account+"/cgi-bin/a", mark, "X-Wxproxy-Key: "+ordersKey)
		resp, body := send(t, locked, raw)
		checkResponse(t, raw, resp, body, status, "")
	}
	for _, header := range []string{
		"Referer: /internal", "Referer:", "Referer: httpx://a", "Secure: a", "Sec: a",
		"Sec-WebSocket-Key: a", "X-Sec-Fetch-Mode: a",
		"Upgrade-Insecure: 1", "Upgrade-Insecure-Requests-X: 1", "User-Agent: Mozilla/5.0",
	} {
		raw := get("/"+account+"/cgi-bin/a", header)
		resp, body := send(t, open, raw)
		checkResponse(t, raw, resp, body, 200, "")
	}
}
