package sandbox_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"wxproxy/sandbox"
)

// control checks the status, which speaks at this door.
func (w *world) control(method, pathQuery, body string, status int, headers ...string) got {
	w.t.Helper()
	g := w.do(method, pathQuery, body, headers...)
	if g.status != status {
		w.t.Errorf("%s %s: HTTP %d %s, want %d", method, pathQuery, g.status, g.body, status)
	}
	if status >= 400 && g.field("error") == "" {
		w.t.Errorf("%s %s: no sentence: %s", method, pathQuery, g.body)
	}
	return g
}

func TestControlOfTokens(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	access, refresh := w.grant(shop)
	w.control("POST", "/sandbox/expire?appid="+shop, "", 200)
	w.get(info + access).want(42001)
	w.renew(shop, refresh, w.CurrentToken(w.ComponentAppID())).want(0)
	access = w.CurrentToken(shop)
	w.control("POST", "/sandbox/supersede?appid="+shop, "", 200)
	w.get(info + access).want(40001)
	component := w.CurrentToken(w.ComponentAppID())
	w.control("POST", "/sandbox/refresh-token/replace?appid="+shop, "", 200)
	w.renew(shop, refresh, component).want(61023)
	w.control("POST", "/sandbox/refresh-token/kill?appid="+shop, "", 200)
	w.renew(shop, w.AuthorizerRefreshToken(shop), component).want(61023)
	w.control("POST", "/sandbox/expire?appid=component", "", 200)
	w.renew(shop, refresh, component).want(42001)

	w.control("POST", "/sandbox/expire?appid="+mini, "", 409)
	w.control("POST", "/sandbox/expire?appid=wxffffffffffffffff", "", 404)
	w.control("POST", "/sandbox/expire", "", 400)
}

func TestControlOfConsentAndPushes(t *testing.T) {
	cb := newCallback(t)
	w := newWorld(t, sandbox.Config{})
	ticket := w.control("POST", "/sandbox/ticket", "", 200).field("ticket")
	if ticket == "" || ticket != w.Ticket() {
		t.Error("no ticket where it cannot be pushed")
	}
	w.control("POST", "/sandbox/push-url?url=nonsense", "", 400)
	w.control("POST", "/sandbox/push-url?url="+cb.URL, "", 200)
	if g := w.control("POST", "/sandbox/ticket", "", 200); strings.Contains(string(g.body), "ticket@@@") || cb.last(t).InfoType != "component_verify_ticket" {
		t.Errorf("%s", g.body)
	}
	code := w.control("POST", "/sandbox/authorize?appid="+shop, "", 200).field("code")
	if cb.last(t).AuthorizationCode.Reveal() != code || code == "" {
		t.Error("another code")
	}
	w.exchange(code, w.componentToken())
	w.control("POST", "/sandbox/updateauthorized?appid="+shop, "", 200)
	w.control("POST", "/sandbox/unauthorize?appid="+shop, "", 200)
	if cb.last(t).InfoType != "unauthorized" {
		t.Error("not pushed")
	}
	w.control("POST", "/sandbox/updateauthorized?appid="+shop, "", 409)
	w.control("POST", "/sandbox/unauthorize?appid=component", "", 400)
	w.control("POST", "/sandbox/authorize?appid=x", "", 400)
	w.control("POST", "/sandbox/code?appid=x", "", 400)
	w.exchange(w.control("POST", "/sandbox/code?appid="+shop, "", 200).field("code"), w.componentToken())
	cb.set(500, "")
	if w.control("POST", "/sandbox/authorize?appid="+shop, "", 502).field("code") == "" {
		t.Error("the code is kept back because the push failed")
	}
	w.control("POST", "/sandbox/ticket", "", 502)

	w.control("POST", "/sandbox/accounts", `{"appid":"wx00000000000000ff","kind":"mini","secret":"abc"}`, 200)
	w.get("/cgi-bin/token?grant_type=client_credential&appid=wx00000000000000ff&secret=abc").want(0)
	w.control("POST", "/sandbox/accounts", `{"appid":"wx00000000000000ff"}`, 400)
	w.control("POST", "/sandbox/accounts", `{"appid":"wx00000000000000f1","kind":"x"}`, 400)
}

func TestControlOfFaults(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.control("POST", "/sandbox/faults", `{"path":"/cgi-bin","times":2,"errcode":-1,"delay":"1ms"}`, 200)
	contains(t, w.control("GET", "/sandbox/faults", "", 200).body, `"id":1`, `"delay":"1ms"`, `"times":2`)
	w.get("/cgi-bin/user/get").want(-1)
	w.control("DELETE", "/sandbox/faults?id=1", "", 200)
	w.control("DELETE", "/sandbox/faults?id=1", "", 404)
	w.control("DELETE", "/sandbox/faults?id=x", "", 400)
	w.get("/cgi-bin/user/get").want(41001)
	w.control("POST", "/sandbox/faults", `{"status":500}`, 200)
	w.control("DELETE", "/sandbox/faults", "", 200)
	for _, bad := range []string{``, `{}`, `[]`, `{"errcode":1,"nonsense":2}`, `{"errcode":1}{}`, `{"errcode":"1"}`, `{"delay":"soon"}`, `{"delay":"-1s"}`, `{"id":3,"errcode":1}`, `{"errcode":1,"status":500}`, `{"Hold":1}`} {
		w.control("POST", "/sandbox/faults", bad, 400)
	}
	w.control("POST", "/sandbox/faults", strings.Repeat(" ", 1<<20+1), 413)
}

func TestControlRefusesWhatItDoesNotKnow(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.control("GET", "/sandbox/none", "", 404)
	w.control("GET", "/sandbox/expire?appid="+shop, "", 405)
	w.control("POST", "/sandbox/", "", 405)
	w.control("POST", "/sandbox/expire?appid="+shop+"&more=1", "", 400)
	w.control("POST", "/sandbox/expire?appid="+shop+"&appid="+shop, "", 400)
	w.control("POST", "/sandbox/expire?appid=%zz", "", 400)
	w.control("POST", "/sandbox/expire?appid="+shop, "{}", 400)
	w.control("GET", "/sandbox/history?limit=-1", "", 400)
	w.control("GET", "/sandbox/state?limit=x", "", 400)
}

func TestControlRefusesOtherSites(t *testing.T) {
	w := newWorld(t, sandbox.Config{ControlHosts: []string{"sandbox.example.com"}})
	for _, h := range [][2]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"}} {
		w.control("POST", "/sandbox/ticket", "", 403, h[0], h[1])
		w.control("GET", "/sandbox/", "", 403, h[0], h[1])
	}
	w.control("POST", "/sandbox/ticket", "", 200, "Sec-Fetch-Site", "same-origin", "Origin", w.url)
	w.control("GET", "/sandbox/state", "", 200, "Sec-Fetch-Site", "none")
	for host, status := range map[string]int{
		"evil.example": 403, "evil.example:80": 403, "": 403, "localhost": 200, "localhost:9": 200, "127.0.0.1": 200, "[::1]:80": 200,
		"sandbox": 200, "wx.test": 200, "sandbox.example.com": 200, "localhost.evil.example": 403,
	} {
		r := httptest.NewRequest("GET", "/sandbox/state", nil)
		r.Host = host
		rec := httptest.NewRecorder()
		w.ServeHTTP(rec, r)
		if rec.Code != status {
			t.Errorf("host %q: %d", host, rec.Code)
		}
	}
}

// Whatever the door shows, it shows no secret.
func TestControlShowsNoSecrets(t *testing.T) {
	w := newWorld(t, sandbox.Config{ComponentSecret: "short"})
	must(t, w.AddAccount("wx00000000000000ff", sandbox.OfficialAccount, sandbox.WithSecret("pa ss/+")))
	w.post("/cgi-bin/component/api_component_token", js("component_appid", w.ComponentAppID(), "component_appsecret", "short", "component_verify_ticket", w.Ticket())).want(0)
	component := w.CurrentToken(w.ComponentAppID())
	access, refresh := w.exchange(w.AuthorizationCode(shop), component)
	w.renew(shop, refresh, component).want(0)
	w.get("/cgi-bin/token?grant_type=client_credential&appid=wx00000000000000ff&secret=pa+ss%2F%2B").want(0)
	w.get("/sns/component/jscode2session?appid=" + shop + "&js_code=code01&grant_type=authorization_code&component_appid=" + w.ComponentAppID() + "&component_access_token=" + component).want(0)
	w.do("GET", "/cgi-bin/user/get?access_token="+access, "", "Authorization", "Bearer "+access, "Cookie", "a="+refresh)
	w.get("/" + access)
	w.get("/cgi-bin/token?grant_type=client_credential&appid=wx00000000000000ff&secret=mistyped").want(40125)
	w.do("POST", "/sns/auth", `{"appsecret": "mistyped"}`, "Authorization", "Basic bWlzdHlwZWQ=")

	shown := map[string]got{}
	for _, path := range []string{"/sandbox/", "/sandbox/history", "/sandbox/state", "/sandbox/violations", "/sandbox/faults"} {
		shown[path] = w.control("GET", path, "", 200)
	}
	for path, g := range shown {
		for _, secret := range append(append(w.Secrets(), w.UserSecrets()...), "mistyped", "bWlzdHlwZWQ=") {
			escaped := strings.NewReplacer("@", "%40", "/", "%2F", "+", "%2B", " ", "+").Replace(secret)
			if strings.Contains(string(g.body), secret) || strings.Contains(string(g.body), escaped) {
				t.Errorf("%s shows %q", path, secret)
			}
		}
	}
	contains(t, shown["/sandbox/history"].body, "access_token="+access[:8]+"…", "/cgi-bin/component/api_authorizer_token", `"errcode":40066`)
	contains(t, shown["/sandbox/state"].body, shop, `"authorized":true`, `"kind":"component"`)
	contains(t, shown["/sandbox/violations"].body, "Authorization")
}

func TestPage(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.grant(shop)
	w.get("/<script>alert(1)</script>?x='\"><img>")
	w.fault(sandbox.Fault{ErrCode: 45009, Path: "/never"})
	g := w.control("GET", "/sandbox/", "", 200)
	page := string(g.body)
	contains(t, g.body, shop, "/cgi-bin/component/api_query_auth", "POST /sandbox/refresh-token/kill?appid=", "errcode 45009", "/sandbox/faults")
	if strings.Contains(page, "<script>") || strings.Contains(page, "<img>") || regexp.MustCompile(`(src|href)=`).MatchString(page) {
		t.Error("something of a request, or from elsewhere, is in the page")
	}
	if csp := g.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		t.Errorf("%s", csp)
	}
	nonce := regexp.MustCompile(`nonce-([^']+)'`).FindStringSubmatch(g.header.Get("Content-Security-Policy"))[1]
	if strings.Count(page, `nonce="`+nonce+`"`) != 2 {
		t.Error("the page's own style and script do not carry the nonce")
	}
	w.control("GET", "/sandbox", "", 200)
	if again := w.control("GET", "/sandbox/", "", 200); strings.Contains(string(again.body), nonce) {
		t.Error("the nonce comes twice")
	}
}

func TestControlForgets(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.do("GET", "/x", "", "Cookie", "a")
	w.control("DELETE", "/sandbox/history", "", 200)
	w.control("DELETE", "/sandbox/violations", "", 200)
	contains(t, w.control("GET", "/sandbox/history", "", 200).body, `{"calls":[]}`)
	contains(t, w.control("GET", "/sandbox/violations", "", 200).body, `{"violations":[]}`)
	for range 3 {
		w.get("/y")
	}
	if n := strings.Count(string(w.control("GET", "/sandbox/history?limit=2", "", 200).body), `"path":"/y"`); n != 2 {
		t.Errorf("%d calls", n)
	}
	if g := w.control("GET", "/sandbox/state?offset=1&limit=1", "", 200); !strings.Contains(string(g.body), mini) || strings.Contains(string(g.body), shop) {
		t.Errorf("%s", g.body)
	}
	// The door is not in its own history.
	if w.CountFunc(func(c sandbox.Call) bool { return strings.HasPrefix(c.Path, "/sandbox") }) != 0 {
		t.Error("it is")
	}
	if g := w.do("HEAD", "/sandbox/", ""); g.status != http.StatusOK {
		t.Errorf("HEAD: %d", g.status)
	}
}
