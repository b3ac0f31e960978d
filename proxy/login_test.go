package proxy_test

import (
	"fmt"
	"strings"
	"testing"

	"wxproxy/proxy"
	"wxproxy/wechat"
)

// TestLoginQueries checks that a login is forwarded only if every parser of
// queries finds the account in it that was decided about: way to name the
// account × login path (of the component, of the account's secret) × account
// (an authorizer, an own account) × beside it a stand-in of the account, one of
// the component, or a key × GET, POST. WeChat receives one appid, one
// component_appid and one token.
func TestLoginQueries(t *testing.T) {
	w := newWitness(t)
	_, addr := start(t, w.upstream, func(c *proxy.Config) {
		*c = agreementConfig(w, []proxy.Caller{named("orders", ordersKey)})
	})
	client := &rawClient{t: t, addr: addr}
	for _, appid := range []string{account, ownApp} {
		forAccount := "access_token=" + fetchAccount(t, addr, appid, ordersKey)
		forComponent := "component_access_token=" + fetchComponent(t, addr, ordersKey)
		for query, status := range loginQueries(appid) {
			for _, e := range wechat.Endpoints {
				if !isLogin(e) {
					continue
				}
				for name, credential := range map[string]string{
					"key": "", "account's": forAccount, "component's": forComponent,
				} {
					own, secret := appid == ownApp, e.Need == wechat.NeedSecret
					if own && (name == "component's" && secret || name == "account's" && !secret) {
						continue // rejected: see TestStandInGrants
					}
					q := question{method: "GET", path: strings.Replace(rowPath(e), "*", "x", 1)}
					if client.requests++; client.requests%2 == 0 {
						q.method = "POST"
					}
					prefix := ""
					if strings.HasPrefix(query, "/") {
						prefix, query, _ = strings.Cut(query, "?")
					}
					q.path = prefix + withQuery(q.path, strings.Trim(query+"&"+credential, "&"))
					if name == "key" {
						q.headers = []string{"X-Wxproxy-Key: " + ordersKey}
					}
					want := status
					switch {
					case e.Need == wechat.NeedSecret && query == "appid="+appid+"&component_appid="+other:
						want = 200 // it is replaced
					case prefix == "/"+component && query == "a=1" && name == "account's":
						want = 200 // the stand-in names the account
					}
					got := client.do(w, q.raw())
					checkLogin(t, q, appid, want, got)
					query = strings.Trim(prefix+"?"+query, "?")
				}
			}
		}
	}
}

// loginQueries returns queries of logins for appid and their status. Those that
// begin with a slash have a prefix before the path.
func loginQueries(appid string) map[string]int {
	all := map[string]int{
		"js_code=1&appid=" + appid: 200, "js_code=1&%61ppid=" + appid: 200,
		"appid=%77" + appid[1:] + "&&neededText=": 200,
		"/" + appid + "?js_code=1":                200, "/" + appid + "?js_code=1&appid=": 200,
		"/" + appid + "?appid=&component_appid=":                          200,
		"/" + component + "?appid=" + appid:                               200,
		"/" + appid + "?appid=" + appid + "&component_appid=" + component: 200,
		"appid=" + appid + "&component_appid=" + other:                    400,
		"/" + other + "?appid=" + appid:                                   400,
	}
	for _, bad := range []string{
		"appid=" + appid + "&appid=" + appid, "appid=" + appid + "&appid=" + other,
		"appid=" + other + "&appid=" + appid,
		"appid=" + appid + "&appid=", "appid=" + appid + ";appid=" + other, "a=1;appid=" + appid,
		"appid=" + appid + ";a=1",
		"appid=" + appid + "&a=1;appid=" + other, "appid=" + appid + "&a=%3Bappid=" + other,
		"appid=" + appid + "&a=%26appid=" + other,
		"appid=" + appid + "&appid[]=" + other, "appid=" + appid + "&appid%5B0%5D=" + other,
		"appid=" + appid + "&appid%00=" + other,
		"appid=" + appid + "&APPID=" + other, "appid=" + appid + "&AppId=" + other,
		"appid=" + appid + "&%2561ppid=" + other,
		"appid=" + appid + "&+appid=" + other, "appid=" + appid + "&%20appid=" + other,
		"appid=" + appid + "&appid%20=" + other,
		"appid=" + appid + "&x%26appid=" + other, "appid=" + appid + "&x%3Bappid=" + other,
		"appid=" + appid + "&ａppid=" + other,
		"appid=" + appid + "&component_appid=" + component + "&component_appid=" + other,
		"appid=" + appid + "&component.appid=" + other,
		"appid=" + appid + "&Component_AppID=" + other, "appid=" + appid + "&Access_Token=x",
		"appid=" + appid + "&access_token[]=x",
		"APPID=" + appid, "appid[]=" + appid, "appid=x", "appid=" + strings.ToUpper(appid),
		"appid=" + appid + "%00", "appid=+" + appid,
		"appid=" + appid + "%20", "appid=%2577" + appid[1:], "appid=" + appid[:17],
		"appid=" + component, "/" + appid + "?appid=x", "/" + component + "?a=1",
	} {
		all[bad] = 400
	}
	return all
}

// checkLogin checks the outcome of a login for appid.
func checkLogin(t *testing.T, q question, appid string, status int, got outcome) {
	t.Helper()
	if got.status != status || (status == 200) != (got.forwarded != "") {
		t.Errorf("%s %s: got %d %s, forwarded as %q, want %d",
			q.method, q.path, got.status, got.body, got.forwarded, status)
	}
	if got.forwarded == "" {
		return
	}
	secrets := len(got.query["component_access_token"]) + len(got.query["access_token"]) +
		len(got.query["secret"])
	if fmt.Sprint(got.query["appid"]) != "["+appid+"]" || secrets != 1 {
		t.Errorf("%s %s: WeChat got %v, want the account %s and one credential",
			q.method, q.path, got.query, appid)
	}
	platform := fmt.Sprint(got.query["component_appid"])
	if got.query.Has("component_access_token") && platform != "["+component+"]" {
		t.Errorf("%s %s: WeChat got %v, want the component once", q.method, q.path, got.query)
	}
}

// TestLoginsTakeNoBody checks that a path below /sns/ has no body, which could
// name another account than the query: row × method × way to send a body ×
// Expect. Empty bodies are fine.
func TestLoginsTakeNoBody(t *testing.T) {
	w := newWitness(t)
	_, addr := start(t, w.upstream, func(c *proxy.Config) {
		*c = agreementConfig(w, []proxy.Caller{named("orders", ordersKey)})
	})
	client := &rawClient{t: t, addr: addr}
	body := "appid=" + other
	length := fmt.Sprintf("Content-Length: %d\r\n", len(body))
	for _, e := range wechat.Endpoints {
		if !strings.HasPrefix(e.Path, "/sns/") {
			continue
		}
		for framing, want := range map[string]int{
			"\r\n": 200, "Content-Length: 0\r\n\r\n": 200,
			"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n":                             200,
			length + "\r\n" + body:                                                    400,
			length + "Content-Type: application/x-www-form-urlencoded\r\n\r\n" + body: 400,
			"Transfer-Encoding: chunked\r\n\r\n5\r\nappid\r\n0\r\n\r\n":               400,
			length + "Expect: 100-continue\r\n\r\n":                                   400,
			"Content-Length: 70000\r\n\r\n" + strings.Repeat("a", 70000):              400,
		} {
			for _, method := range []string{"GET", "POST", "PUT"} {
				path := strings.Replace(e.Path, "*", "x", 1) + "?appid=" + account
				head := " HTTP/1.1\r\nHost: x\r\nX-Wxproxy-Key: " + ordersKey + "\r\n"
				raw := method + " " + path + head + framing
				if method == "GET" && strings.Contains(framing, "Expect") {
					continue // fasthttp looks at it for other methods only
				}
				got := client.do(w, raw)
				if got.status != want || (want == 200) != (got.forwarded != "") {
					t.Errorf("%.200q: got %d %s, forwarded as %q, want %d",
						raw, got.status, got.body, got.forwarded, want)
				}
			}
		}
	}
	// An operator's own row is for the operator to decide.
	_, addr = start(t, w.upstream, func(c *proxy.Config) {
		*c = agreementConfig(w, nil)
		c.Routes = []wechat.Endpoint{{Path: "/sns/upload", Need: wechat.NeedAccount}}
	})
	resp, answer := send(t, addr, post("/"+account+"/sns/upload", body))
	checkResponse(t, "own row", resp, answer, 200, "{}")
}

// TestRefusedTwin checks that a login is refused if a [[route]] refuses the path
// that WeChat would receive.
func TestRefusedTwin(t *testing.T) {
	w := newWitness(t)
	_, addr := start(t, w.upstream, func(c *proxy.Config) {
		*c = agreementConfig(w, nil)
		c.Routes = []wechat.Endpoint{{Path: "/sns/component/*", Need: wechat.NeedRefusal}}
	})
	for path, status := range map[string]int{
		"/sns/jscode2session": 403, "/sns/component/jscode2session": 403, "/sns/oauth2/access_token": 200,
	} {
		resp, body := send(t, addr, get(path+"?appid="+account+"&js_code=a&code=a"))
		if resp.StatusCode != status {
			t.Errorf("%s: got %s %s, want %d", path, resp.Status, body, status)
		}
	}
}

// TestRefusedPathsInEverySpelling checks that what is refused for a path is
// refused for everything that a server could take for it: refused row of the
// table, and [[route]] that is exact, has a slash at its end, or is a prefix ×
// spelling. Nothing of it reaches WeChat.
func TestRefusedPathsInEverySpelling(t *testing.T) {
	w := newWitness(t)
	routes := []wechat.Endpoint{
		{Path: "/cgi-bin/hidden", Need: wechat.NeedRefusal},
		{Path: "/cgi-bin/Closed/", Need: wechat.NeedRefusal},
		{Path: "/cgi-bin/folder/*", Need: wechat.NeedRefusal},
		{Path: "/cgi-bin/begin*", Need: wechat.NeedRefusal},
	}
	_, addr := start(t, w.upstream, func(c *proxy.Config) {
		*c = agreementConfig(w, nil)
		c.Routes = routes
	})
	client := &rawClient{t: t, addr: addr}
	paths := []string{
		"/cgi-bin/hidden", "/cgi-bin/closed", "/cgi-bin/folder", "/cgi-bin/folder/a/b", "/cgi-bin/beginning",
	}
	for _, e := range wechat.Endpoints {
		if e.Need == wechat.NeedRefusal {
			paths = append(paths, e.Path)
		}
	}
	for _, path := range paths {
		last := path[len(path)-1:]
		folder := path[:strings.LastIndex(path, "/")]
		for spelling, status := range map[string]int{
			path: 403, path + "/": 403, strings.ToUpper(path): 403,
			strings.ToUpper(path[:5]) + path[5:] + "/":                         403,
			path[:len(path)-1] + fmt.Sprintf("%%%02x", last):                   403,
			path[:len(path)-1] + fmt.Sprintf("%%%02X/", strings.ToUpper(last)): 403,
			"/" + path: 403, "http://api.weixin.qq.com" + path + "/": 403,
			path + "//": 400, "//" + path: 400, folder + "//" + path[len(folder)+1:]: 400,
			folder + "/." + path[len(folder):]:    400,
			folder + "/x/.." + path[len(folder):]: 400, folder + "/%2e" + path[len(folder):]: 400,
			folder + "/%2E%2e" + path:             400,
			folder + "%2f" + path[len(folder)+1:]: 400, folder + "%5c" + path[len(folder)+1:]: 400,
			folder + "\\" + path[len(folder)+1:]: 400,
			folder + "／" + path[len(folder)+1:]:  400, folder + "/．" + path[len(folder):]: 400,
			folder + "%EF%BC%8F" + path[len(folder)+1:]: 400,
			path + ";x=1": 400, path + "%3bx": 400, path + "%20": 400, path + "%00": 400,
			path + "%09": 400, path + "%25": 400, path + "%3F": 400, path + "/.": 400,
			path + "/%2e": 400, path + "\\": 400, path + "%c0%af": 400, path + "%ff": 400,
			path[:len(path)-1] + "\uff41": 400, path[:len(path)-1] + "\u212a": 400,
		} {
			for _, prefix := range []string{"", "/" + account, "/" + account + "/"} {
				if prefix != "" && (strings.HasPrefix(spelling, "//") || strings.HasPrefix(spelling, "http")) {
					continue
				}
				q := question{method: "POST", path: prefix + spelling + "?a=1", appid: account}
				if got := client.do(w, q.raw()); got.status != status || got.forwarded != "" {
					t.Errorf("%s: got %d %s, forwarded as %q, want %d",
						q.path, got.status, got.body, got.forwarded, status)
				}
			}
		}
	}
}
