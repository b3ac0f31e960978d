package sandbox_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"wxproxy/sandbox"
)

// control sends a request to a control endpoint and checks the status. Errors
// must come with a sentence.
func (wx *env) control(method, pathQuery, body string, status int, headers ...string) response {
	wx.t.Helper()
	g := wx.do(method, pathQuery, body, headers...)
	if g.status != status {
		wx.t.Errorf("%s %s: got HTTP %d %s, want %d", method, pathQuery, g.status, g.body, status)
	}
	if status >= 400 && g.field("error") == "" {
		wx.t.Errorf("%s %s: got %s, want an error text", method, pathQuery, g.body)
	}
	return g
}

func TestControlTokens(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	access, refresh := wx.grant(shop)
	wx.control("POST", "/sandbox/expire?appid="+shop, "", 200)
	wx.get(info + access).wantCode(42001)
	wx.renew(shop, refresh, wx.CurrentToken(wx.ComponentAppID())).wantCode(0)
	access = wx.CurrentToken(shop)
	wx.control("POST", "/sandbox/supersede?appid="+shop, "", 200)
	wx.get(info + access).wantCode(40001)
	component := wx.CurrentToken(wx.ComponentAppID())
	wx.control("POST", "/sandbox/refresh-token/replace?appid="+shop, "", 200)
	wx.renew(shop, refresh, component).wantCode(61023)
	wx.control("POST", "/sandbox/refresh-token/kill?appid="+shop, "", 200)
	wx.renew(shop, wx.AuthorizerRefreshToken(shop), component).wantCode(61023)
	wx.control("POST", "/sandbox/expire?appid=component", "", 200)
	wx.renew(shop, refresh, component).wantCode(42001)

	wx.control("POST", "/sandbox/expire?appid="+mini, "", 409)
	wx.control("POST", "/sandbox/expire?appid=wxffffffffffffffff", "", 404)
	wx.control("POST", "/sandbox/expire", "", 400)
}

func TestControlConsentsAndPushes(t *testing.T) {
	cb := newCallback(t)
	wx := newEnv(t, sandbox.Config{})
	ticket := wx.control("POST", "/sandbox/ticket", "", 200).field("ticket")
	if ticket == "" || ticket != wx.Ticket() {
		t.Errorf("without a push URL: got ticket %q, want the newest", ticket)
	}
	wx.control("POST", "/sandbox/push-url?url=nonsense", "", 400)
	wx.control("POST", "/sandbox/push-url?url="+cb.URL, "", 200)
	if g := wx.control("POST", "/sandbox/ticket", "", 200); strings.Contains(string(g.body), "ticket@@@") ||
		cb.last(t).InfoType != "component_verify_ticket" {
		t.Errorf("got %s, want a ticket that was pushed and is not in the response", g.body)
	}
	code := wx.control("POST", "/sandbox/authorize?appid="+shop, "", 200).field("code")
	if cb.last(t).AuthorizationCode.Reveal() != code || code == "" {
		t.Errorf("got code %q, want the one that was pushed", code)
	}
	wx.exchange(code, wx.componentToken())
	wx.control("POST", "/sandbox/updateauthorized?appid="+shop, "", 200)
	wx.control("POST", "/sandbox/unauthorize?appid="+shop, "", 200)
	if cb.last(t).InfoType != "unauthorized" {
		t.Errorf("got push %q, want unauthorized", cb.last(t).InfoType)
	}
	wx.control("POST", "/sandbox/updateauthorized?appid="+shop, "", 409)
	wx.control("POST", "/sandbox/unauthorize?appid=component", "", 400)
	wx.control("POST", "/sandbox/authorize?appid=x", "", 400)
	wx.control("POST", "/sandbox/code?appid=x", "", 400)
	wx.exchange(wx.control("POST", "/sandbox/code?appid="+shop, "", 200).field("code"), wx.componentToken())
	cb.set(500, "")
	if wx.control("POST", "/sandbox/authorize?appid="+shop, "", 502).field("code") == "" {
		t.Error("push failed: got no code, want one")
	}
	wx.control("POST", "/sandbox/ticket", "", 502)

	wx.control("POST", "/sandbox/accounts", `{"appid":"wx00000000000000ff","kind":"mini","secret":"abc"}`, 200)
	wx.get("/cgi-bin/token?grant_type=client_credential&appid=wx00000000000000ff&secret=abc").wantCode(0)
	wx.control("POST", "/sandbox/accounts", `{"appid":"wx00000000000000ff"}`, 400)
	wx.control("POST", "/sandbox/accounts", `{"appid":"wx00000000000000f1","kind":"x"}`, 400)
}

func TestControlFaults(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	wx.control("POST", "/sandbox/faults", `{"path":"/cgi-bin","times":2,"errcode":-1,"delay":"1ms"}`, 200)
	contains(t, wx.control("GET", "/sandbox/faults", "", 200).body, `"id":1`, `"delay":"1ms"`, `"times":2`)
	wx.get("/cgi-bin/user/get").wantCode(-1)
	wx.control("DELETE", "/sandbox/faults?id=1", "", 200)
	wx.control("DELETE", "/sandbox/faults?id=1", "", 404)
	wx.control("DELETE", "/sandbox/faults?id=x", "", 400)
	wx.get("/cgi-bin/user/get").wantCode(41001)
	wx.control("POST", "/sandbox/faults", `{"status":500}`, 200)
	wx.control("DELETE", "/sandbox/faults", "", 200)
	for _, bad := range []string{``, `{}`, `[]`, `{"errcode":1,"nonsense":2}`, `{"errcode":1}{}`,
		`{"errcode":"1"}`, `{"delay":"soon"}`, `{"delay":"-1s"}`, `{"id":3,"errcode":1}`,
		`{"errcode":1,"status":500}`, `{"Hold":1}`} {
		wx.control("POST", "/sandbox/faults", bad, 400)
	}
	wx.control("POST", "/sandbox/faults", strings.Repeat(" ", 1<<20+1), 413)
}

func TestControlRejectsUnknownInput(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	wx.control("GET", "/sandbox/none", "", 404)
	wx.control("GET", "/sandbox/expire?appid="+shop, "", 405)
	wx.control("POST", "/sandbox/", "", 405)
	wx.control("POST", "/sandbox/expire?appid="+shop+"&more=1", "", 400)
	wx.control("POST", "/sandbox/expire?appid="+shop+"&appid="+shop, "", 400)
	wx.control("POST", "/sandbox/expire?appid=%zz", "", 400)
	wx.control("POST", "/sandbox/expire?appid="+shop, "{}", 400)
	wx.control("GET", "/sandbox/history?limit=-1", "", 400)
	wx.control("GET", "/sandbox/state?limit=x", "", 400)
}

func TestControlRejectsCrossSiteRequests(t *testing.T) {
	wx := newEnv(t, sandbox.Config{ControlHosts: []string{"sandbox.example.com"}})
	for _, h := range [][2]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"},
		{"Origin", "https://evil.example"}, {"Origin", "null"}} {
		wx.control("POST", "/sandbox/ticket", "", 403, h[0], h[1])
		wx.control("GET", "/sandbox/", "", 403, h[0], h[1])
	}
	wx.control("POST", "/sandbox/ticket", "", 200, "Sec-Fetch-Site", "same-origin", "Origin", wx.url)
	wx.control("GET", "/sandbox/state", "", 200, "Sec-Fetch-Site", "none")
	for host, status := range map[string]int{
		"evil.example": 403, "evil.example:80": 403, "localhost.evil.example": 403, "": 403,
		"localhost": 200, "localhost:9": 200, "127.0.0.1": 200, "[::1]:80": 200,
		"sandbox": 200, "wx.test": 200, "sandbox.example.com": 200,
	} {
		r := httptest.NewRequest("GET", "/sandbox/state", nil)
		r.Host = host
		rec := httptest.NewRecorder()
		wx.ServeHTTP(rec, r)
		if rec.Code != status {
			t.Errorf("host %q: got HTTP %d, want %d", host, rec.Code, status)
		}
	}
}

// None of the pages and lists contains a secret, as it is or percent-encoded.
func TestControlShowsNoSecrets(t *testing.T) {
	wx := newEnv(t, sandbox.Config{ComponentSecret: "short"})
	must(t, wx.AddAccount("wx00000000000000ff", sandbox.OfficialAccount, sandbox.WithSecret("pa ss/+")))
	wx.requestComponentToken(wx.ComponentAppID(), "short", wx.Ticket()).wantCode(0)
	component := wx.CurrentToken(wx.ComponentAppID())
	access, refresh := wx.exchange(wx.AuthorizationCode(shop), component)
	wx.renew(shop, refresh, component).wantCode(0)
	wx.get("/cgi-bin/token?grant_type=client_credential&appid=wx00000000000000ff&secret=pa+ss%2F%2B").wantCode(0)
	wx.get("/sns/component/jscode2session?appid=" + shop +
		"&js_code=code01&grant_type=authorization_code&component_appid=" + wx.ComponentAppID() +
		"&component_access_token=" + component).wantCode(0)
	wx.do("GET", "/cgi-bin/user/get?access_token="+access, "", "Authorization", "Bearer "+access, "Cookie",
		"a="+refresh)
	wx.get("/" + access)
	wx.get("/cgi-bin/user/get?note=pa+ss%2F%2B") // under a name that says nothing
	wx.get("/cgi-bin/token?grant_type=client_credential&appid=wx00000000000000ff&secret=mistyped").wantCode(40125)
	wx.do("POST", "/sns/auth", `{"appsecret": "mistyped"}`, "Authorization", "Basic bWlzdHlwZWQ=")

	shown := map[string]response{}
	for _, path := range []string{"/sandbox/", "/sandbox/history", "/sandbox/state", "/sandbox/violations",
		"/sandbox/faults"} {
		shown[path] = wx.control("GET", path, "", 200)
	}
	for path, g := range shown {
		for _, secret := range append(append(wx.Secrets(), wx.UserSecrets()...), "mistyped", "bWlzdHlwZWQ=") {
			escaped := strings.NewReplacer("@", "%40", "/", "%2F", "+", "%2B", " ", "+").Replace(secret)
			if strings.Contains(string(g.body), secret) || strings.Contains(string(g.body), escaped) {
				t.Errorf("%s contains the secret %q", path, secret)
			}
		}
	}
	contains(t, shown["/sandbox/history"].body, "access_token="+access[:8]+"…",
		"/cgi-bin/component/api_authorizer_token", `"errcode":40066`)
	contains(t, shown["/sandbox/state"].body, shop, `"authorized":true`, `"kind":"component"`)
	contains(t, shown["/sandbox/violations"].body, "Authorization")
}

func TestControlPage(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	wx.grant(shop)
	wx.get("/<script>alert(1)</script>?x='\"><img>")
	wx.fault(sandbox.Fault{ErrCode: 45009, Path: "/never"})
	g := wx.control("GET", "/sandbox/", "", 200)
	page := string(g.body)
	contains(t, g.body, shop, "/cgi-bin/component/api_query_auth", "POST /sandbox/refresh-token/kill?appid=",
		"errcode 45009", "/sandbox/faults")
	if strings.Contains(page, "<script>") || strings.Contains(page, "<img>") ||
		regexp.MustCompile(`(src|href)=`).MatchString(page) {
		t.Error("page contains markup of a request, or loads something from elsewhere")
	}
	if csp := g.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") ||
		strings.Contains(csp, "unsafe") {
		t.Errorf("got Content-Security-Policy %q, want default-src 'none' and nothing unsafe", csp)
	}
	nonce := regexp.MustCompile(`nonce-([^']+)'`).FindStringSubmatch(g.header.Get("Content-Security-Policy"))[1]
	if strings.Count(page, `nonce="`+nonce+`"`) != 2 {
		t.Errorf("got %d elements with the nonce, want the style and the script",
			strings.Count(page, `nonce="`+nonce+`"`))
	}
	wx.control("GET", "/sandbox", "", 200)
	if again := wx.control("GET", "/sandbox/", "", 200); strings.Contains(string(again.body), nonce) {
		t.Error("got the same nonce twice, want a new one for each response")
	}
}

func TestControlResetsHistoryAndViolations(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	wx.do("GET", "/x", "", "Cookie", "a")
	wx.control("DELETE", "/sandbox/history", "", 200)
	wx.control("DELETE", "/sandbox/violations", "", 200)
	contains(t, wx.control("GET", "/sandbox/history", "", 200).body, `{"calls":[]}`)
	contains(t, wx.control("GET", "/sandbox/violations", "", 200).body, `{"violations":[]}`)
	for range 3 {
		wx.get("/y")
	}
	if n := strings.Count(string(wx.control("GET", "/sandbox/history?limit=2", "", 200).body),
		`"path":"/y"`); n != 2 {
		t.Errorf("got %d calls, want 2", n)
	}
	if g := wx.control("GET", "/sandbox/state?offset=1&limit=1", "", 200); !strings.Contains(string(g.body),
		mini) || strings.Contains(string(g.body), shop) {
		t.Errorf("second page of one account: got %s, want %s only", g.body, mini)
	}
	// Control requests are not in the history.
	if n := wx.CountFunc(func(c sandbox.Call) bool { return strings.HasPrefix(c.Path, "/sandbox") }); n != 0 {
		t.Errorf("got %d control requests in the history, want none", n)
	}
	if g := wx.do("HEAD", "/sandbox/", ""); g.status != http.StatusOK {
		t.Errorf("HEAD: got HTTP %d, want 200", g.status)
	}
}
