package proxy_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"wxproxy/proxy"
)

const placeholderRefresh = "refreshtoken@@@wxproxy-keeps-it"

// fetch asks for a stand-in and gives it.
func fetchStandIn(t *testing.T, addr, raw string) string {
	t.Helper()
	resp, body := send(t, addr, raw)
	m := regexp.MustCompile(`^\{"(component_|authorizer_)?access_token":"(wxp_[A-Za-z0-9_-]+)","expires_in":7200(,"authorizer_refresh_token":"` + placeholderRefresh + `")?\}$`).FindStringSubmatch(body)
	if m == nil || resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") || len(m[2]) > 512 || resp.Header.Get("X-Wxproxy-Token") != "none" {
		t.Fatalf("%.120q: %s %s %s", raw, resp.Status, resp.Header, body)
	}
	return m[2]
}

func fetchAccount(t *testing.T, addr, appid, secret string) string {
	t.Helper()
	return fetchStandIn(t, addr, get("/cgi-bin/token?grant_type=client_credential&appid="+appid+"&secret="+secret))
}

func fetchComponent(t *testing.T, addr, secret string) string {
	t.Helper()
	return fetchStandIn(t, addr, post("/cgi-bin/component/api_component_token", fmt.Sprintf(`{"component_appid":%q,"component_appsecret":%q,"component_verify_ticket":"ticket@@@x"}`, component, secret)))
}

// Where nobody is asked for a key SDKs get along with any secret.
func TestStandInsForEverybody(t *testing.T) {
	up, _ := recordingServer(t)
	config := proxy.Config{Component: component, Upstream: up, Tokens: &fakeTokens{current: "T0"}}
	p, addr := start(t, up, func(c *proxy.Config) { *c = config })
	for _, secret := range []string{"anything", "", strings.Repeat("x", 2000)} {
		st, c := fetchAccount(t, addr, account, secret), fetchComponent(t, addr, secret)
		if resp, body := send(t, addr, get("/"+component+"/cgi-bin/user/info?access_token="+st)); resp.StatusCode != 200 {
			t.Errorf("%s %s", resp.Status, body)
		}
		fetchStandIn(t, addr, post("/cgi-bin/component/api_authorizer_token?component_access_token="+c, `{"authorizer_appid":"`+account+`"}`))
	}
	fetchStandIn(t, addr, post("/cgi-bin/component/api_authorizer_token", `{"authorizer_appid":"`+account+`"}`))
	st := fetchAccount(t, addr, account, "x")
	// A reload without a key keeps the one that was made up.
	if err := p.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	if resp, body := send(t, addr, get("/cgi-bin/user/info?access_token="+st)); resp.StatusCode != 200 || !strings.Contains(body, "T0") {
		t.Errorf("%s %s", resp.Status, body)
	}
	// Nobody's stand-in is nobody's any more as soon as there are callers.
	config.Callers = []proxy.Caller{named("orders", ordersKey)}
	if err := p.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	if _, body := send(t, addr, get("/cgi-bin/user/info?access_token="+st)); !strings.Contains(body, `"errcode":40001,`) {
		t.Errorf("%s", body)
	}
	mine := fetchAccount(t, addr, account, ordersKey)
	config.Callers = nil
	if err := p.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	if _, body := send(t, addr, get("/cgi-bin/user/info?access_token="+mine)); !strings.Contains(body, `"errcode":40001,`) {
		t.Errorf("%s", body)
	}
}

// A stand-in that is not good is answered as WeChat answers a token that is not; nothing of it reaches WeChat.
func TestStandInsRefused(t *testing.T) {
	up, seen := recordingServer(t)
	config := proxy.Config{Component: component, Upstream: up, Tokens: &fakeTokens{current: "T0"}, StandInKey: key,
		Callers: []proxy.Caller{named("orders", ordersKey), named("stock", stockKey)}}
	p, addr := start(t, up, func(c *proxy.Config) { *c = config })
	mine, theirs := fetchAccount(t, addr, account, ordersKey), fetchAccount(t, addr, account, stockKey)
	forOther, c := fetchAccount(t, addr, other, ordersKey), fetchComponent(t, addr, ordersKey)
	withKey := "X-Wxproxy-Key: " + ordersKey
	spoilt := func(i int) string { // one character another one
		b := []byte(mine)
		if b[i] ^= 1; !regexp.MustCompile(`^[A-Za-z0-9_-]$`).Match(b[i : i+1]) {
			b[i] = 'x'
		}
		return string(b)
	}
	path := "/cgi-bin/user/info?access_token="
	type question struct {
		raw    string
		status int
		want   string
	}
	questions := map[string]question{
		"junk":                      {get(path + "wxp_junk"), 200, `{"errcode":40001,"errmsg":"invalid credential, access_token is invalid or not latest`},
		"nothing behind wxp_":       {get(path + "wxp_"), 200, `{"errcode":40001,`},
		"junk, escaped":             {get(path + "%77%78p_junk"), 200, `{"errcode":40001,`},
		"junk, with a key":          {get(path+"wxp_junk", withKey), 200, `{"errcode":40001,`},
		"junk, no base64":           {get(path + "wxp_!!!!"), 200, `{"errcode":40001,`},
		"junk, long":                {get(path + "wxp_" + strings.Repeat("A", 8000)), 200, `{"errcode":40001,`},
		"longer":                    {get(path + mine + "AAAA"), 200, `{"errcode":40001,`},
		"shorter":                   {get(path + mine[:len(mine)-4]), 200, `{"errcode":40001,`},
		"another caller's and key":  {get(path+theirs, withKey), 200, `{"errcode":40001,`},
		"two callers'":              {get(path + mine + "&component_access_token=" + theirs), 200, `{"errcode":40001,`},
		"a good and a bad one":      {get(path + mine + "&component_access_token=wxp_junk"), 200, `{"errcode":40001,`},
		"a good one and a bad key":  {get(path+mine, "X-Wxproxy-Key: wrong"), 401, `{"errcode":-401,`},
		"foreign token, no key":     {get("/" + account + path + "80_real-looking"), 200, `{"errcode":40001,`},
		"foreign, other parameter":  {get("/" + account + "/cgi-bin/user/info?component_access_token=undefined"), 200, `{"errcode":40001,`},
		"empty token, no key":       {get("/" + account + path), 401, `{"errcode":-401,`},
		"for two accounts":          {get(path + mine + "&access_token=" + forOther), 400, `{"errcode":-400,`},
		"another prefix":            {get("/" + other + path + mine), 400, `{"errcode":-400,`},
		"another header":            {get(path+mine, "X-WX-APPID: "+other), 400, `{"errcode":-400,`},
		"an account's prefix, C":    {get("/" + account + path + c), 400, `{"errcode":-400,`},
		"C on an account's path":    {get(path + c), 400, `{"errcode":-400,`},
		"prefix, query's appid":     {get("/" + other + "/sns/component/jscode2session?appid=" + account + "&component_access_token=" + c), 400, `{"errcode":-400,`},
		"another query appid":       {get("/sns/component/jscode2session?appid=" + other + "&component_access_token=" + mine), 400, `{"errcode":-400,`},
		"user's token, no key":      {get("/sns/userinfo?access_token=USER&openid=x"), 401, `{"errcode":-401,`},
		"/sns/, junk":               {get("/sns/userinfo?access_token=wxp_junk"), 200, `{"errcode":40001,`},
		"/sns/ login, wrong secret": {get("/sns/jscode2session?appid=" + account + "&secret=wrong&js_code=1"), 401, `{"errcode":-401,`},
	}
	for i := len("wxp_"); i < len(mine); i += 7 {
		questions[fmt.Sprintf("spoilt at %d", i)] = question{get(path + spoilt(i)), 200, `{"errcode":40001,`}
	}
	for name, q := range questions {
		if resp, body := send(t, addr, q.raw); resp.StatusCode != q.status || !strings.HasPrefix(body, q.want) || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s %s, want %d %s", name, resp.Status, body, q.status, q.want)
		}
	}
	if n := len(seen()); n != 0 {
		t.Errorf("%d calls reached WeChat", n)
	}
	// Gone with its caller, at once; with another key of the replicas'; with another component.
	for name, change := range map[string]func(*proxy.Config){
		"caller removed": func(c *proxy.Config) { c.Callers = c.Callers[1:] },
		"another key":    func(c *proxy.Config) { c.StandInKey = []byte(strings.Repeat("k", 32)) },
	} {
		changed := config
		change(&changed)
		if err := p.Reconfigure(changed); err != nil {
			t.Fatal(err)
		}
		if _, body := send(t, addr, get(path+mine)); !strings.HasPrefix(body, `{"errcode":40001,`) {
			t.Errorf("%s: %s", name, body)
		}
		if err := p.Reconfigure(config); err != nil {
			t.Fatal(err)
		}
		if resp, body := send(t, addr, get(path+mine)); resp.StatusCode != 200 || !strings.Contains(body, "T0") {
			t.Errorf("after %s: %s %s", name, resp.Status, body)
		}
	}
	config.Component = "wxcccccccccccccccd"
	if err := p.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	if _, body := send(t, addr, get("/wxa/gettemplatelist?access_token="+c)); !strings.HasPrefix(body, `{"errcode":40001,`) {
		t.Errorf("another component: %s", body)
	}
	// The caller's limits are those of now, not those of the time at which it fetched.
	config.Component = component
	config.Callers[0].AppIDs = []string{account}
	if err := p.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]int{mine: 200, forOther: 403} {
		if resp, body := send(t, addr, get(path+token)); resp.StatusCode != want {
			t.Errorf("%s %s", resp.Status, body)
		}
	}
	if resp, body := send(t, addr, get("/wxa/gettemplatelist?access_token="+c)); resp.StatusCode != 403 {
		t.Errorf("%s %s", resp.Status, body)
	}
}

// What the stand-in decides, and what WeChat gets of the query.
func TestStandInsRoute(t *testing.T) {
	up, seen := recordingServer(t)
	_, addr := start(t, up, func(c *proxy.Config) { c.Callers = []proxy.Caller{named("orders", ordersKey)} })
	a, c, k := fetchAccount(t, addr, account, ordersKey), fetchComponent(t, addr, ordersKey), "X-Wxproxy-Key: "+ordersKey
	long := "component_appid=" + component + "&component_access_token=T0&"
	for _, q := range []struct{ path, header, want string }{
		{"/" + component + "/cgi-bin/a?access_token=" + a, "X-A: b", "/cgi-bin/a?access_token=T0"},
		{"/cgi-bin/a?access_token=" + a, "X-WX-APPID: " + component, "/cgi-bin/a?access_token=T0"},
		{"/" + account + "/cgi-bin/a?access_token=" + a, "X-WX-APPID: " + account, "/cgi-bin/a?access_token=T0"},
		{"/cgi-bin/a?x=%20&component_access_token=" + a + "&y", "X-A: b", "/cgi-bin/a?access_token=T0&x=%20&y"},
		{"/cgi-bin/a?acc%65ss_token=" + strings.Replace(a, "w", "%77", 1), "X-A: b", "/cgi-bin/a?access_token=T0"},
		{"/cgi-bin/a?access_token=80_foreign&component_access_token=" + a, "X-A: b", "/cgi-bin/a?access_token=T0"},
		{"/" + account + "/cgi-bin/a?access_token=80_foreign", k, "/cgi-bin/a?access_token=T0"},
		{"/" + account + "/cgi-bin/a?access_token=", k, "/cgi-bin/a?access_token=T0"},
		{"/cgi-bin/a?access_token=" + a, k, "/cgi-bin/a?access_token=T0"},
		{"/wxa/gettemplatelist?access_token=" + c, "X-A: b", "/wxa/gettemplatelist?access_token=T0"},
		{"/" + component + "/wxa/gettemplatelist?component_access_token=" + c, "X-A: b", "/wxa/gettemplatelist?access_token=T0"},
		{"/wxa/gettemplatelist?access_token=" + a, "X-A: b", "/wxa/gettemplatelist?access_token=T0"}, // the table decides which token, the caller's limits whether
		{"/sns/component/jscode2session?appid=" + account + "&js_code=1&component_access_token=" + c, "X-A: b", "/sns/component/jscode2session?" + long + "appid=" + account + "&js_code=1"},
		{"/sns/component/jscode2session?appid=" + account + "&component_access_token=" + c + "&access_token=" + a, "X-A: b", "/sns/component/jscode2session?" + long + "appid=" + account},
		{"/sns/component/jscode2session?appid=" + account + "&access_token=" + a + "&component_access_token=" + c, "X-A: b", "/sns/component/jscode2session?" + long + "appid=" + account},
		{"/" + account + "/sns/component/jscode2session?appid=" + account + "&component_access_token=" + c, "X-A: b", "/sns/component/jscode2session?" + long + "appid=" + account},
		{"/" + component + "/sns/component/jscode2session?appid=" + account + "&component_access_token=" + c, "X-WX-APPID: " + component, "/sns/component/jscode2session?" + long + "appid=" + account},
		// logins of SDKs: with a stand-in that has no business there, and with the key for the secret
		{"/sns/jscode2session?appid=" + account + "&secret=x&access_token=" + a + "&js_code=1", "X-A: b", "/sns/component/jscode2session?" + long + "appid=" + account + "&js_code=1"},
		{"/sns/jscode2session?appid=" + account + "&secret=" + ordersKey + "&js_code=1", "X-A: b", "/sns/component/jscode2session?" + long + "appid=" + account + "&js_code=1"},
		{"/sns/jscode2session?appid=" + account + "&secret=" + ordersKey + "&js_code=1&access_token=undefined", "X-A: b", "/sns/component/jscode2session?" + long + "appid=" + account + "&js_code=1"},
		// an end user's token passes, a stand-in never
		{"/sns/userinfo?access_token=USER&openid=o", k, "/sns/userinfo?access_token=USER&openid=o"},
		{"/sns/userinfo?access_token=" + a + "&openid=o", k, "/sns/userinfo?openid=o"},
		{"/sns/userinfo?access_token=USER&component_access_token=" + a + "&access_token=%77" + a[1:], "X-A: b", "/sns/userinfo?access_token=USER"},
	} {
		before := len(seen())
		resp, body := send(t, addr, get(q.path, q.header))
		all := seen()
		if len(all) != before+1 || resp.StatusCode != 200 {
			t.Errorf("%s: %s %s", q.path, resp.Status, body)
			continue
		}
		got, _, _ := strings.Cut(strings.TrimPrefix(all[before], "GET "), "\n")
		if got != q.want {
			t.Errorf("%s: WeChat got %s, want %s", q.path, got, q.want)
		}
		if strings.Contains(all[before], "wxp_") || strings.Contains(all[before], ordersKey) {
			t.Errorf("%s: WeChat got what is ours: %s", q.path, all[before])
		}
	}
}

// A stand-in works for the whole of the life that was announced and a little longer; then WeChat's "expired" is what is
// said. The form is fixed: other replicas, and later versions, have to read it.
func TestStandInForm(t *testing.T) {
	up, seen := recordingServer(t)
	_, addr := start(t, up, func(c *proxy.Config) { c.Callers, c.StandInKey = []proxy.Caller{named("orders", ordersKey)}, key })
	now := time.Now()
	expired, unknown := `{"errcode":42001,"errmsg":"access_token expired`, `{"errcode":40001,`
	for name, c := range map[string]struct{ path, want string }{
		"fresh":                {"/cgi-bin/a?access_token=" + forge(1, 1, now.Add(2*time.Hour), account, "orders"), `{"errcode":0`},
		"over, still accepted": {"/cgi-bin/a?access_token=" + forge(1, 1, now.Add(-4*time.Minute), account, "orders"), `{"errcode":0`},
		"component's":          {"/wxa/gettemplatelist?access_token=" + forge(1, 2, now, component, "orders"), `{"errcode":0`},
		"over":                 {"/cgi-bin/a?access_token=" + forge(1, 1, now.Add(-6*time.Minute), account, "orders"), expired},
		"over, component's":    {"/wxa/gettemplatelist?component_access_token=" + forge(1, 2, now.Add(-6*time.Minute), component, "orders"), expired},
		"over, on /sns/":       {"/sns/userinfo?access_token=" + forge(1, 1, now.Add(-6*time.Minute), account, "orders"), expired},
		"over, caller is gone": {"/cgi-bin/a?access_token=" + forge(1, 1, now.Add(-6*time.Minute), account, "gone"), unknown},
		"caller is gone":       {"/cgi-bin/a?access_token=" + forge(1, 1, now, account, "gone"), unknown},
		"no caller":            {"/cgi-bin/a?access_token=" + forge(1, 1, now, account, ""), unknown},
		"long caller":          {"/cgi-bin/a?access_token=" + forge(1, 1, now, account, strings.Repeat("x", 65)), unknown},
		"another version":      {"/cgi-bin/a?access_token=" + forge(2, 1, now, account, "orders"), unknown},
		"another kind":         {"/cgi-bin/a?access_token=" + forge(1, 3, now, account, "orders"), unknown},
		"component's, account": {"/cgi-bin/a?access_token=" + forge(1, 2, now, account, "orders"), unknown},
		"account's, component": {"/wxa/gettemplatelist?access_token=" + forge(1, 1, now, component, "orders"), unknown},
		"no appid":             {"/cgi-bin/a?access_token=" + forge(1, 1, now, "", ""), unknown},
	} {
		before := len(seen())
		resp, body := send(t, addr, get(c.path))
		if resp.StatusCode != 200 || !strings.HasPrefix(body, c.want) || (len(seen()) > before) != (c.want == `{"errcode":0`) {
			t.Errorf("%s: %s %s", name, resp.Status, body)
		}
	}
	// With the base64 of another spelling it is another text, and no stand-in.
	st := forge(1, 1, now.Add(time.Hour), account, "orders")
	for _, spelling := range []string{st + "=", st + "==", strings.Replace(st, "wxp_", "wxp_%0A", 1), st[:20] + "%0d%0a" + st[20:]} {
		if _, body := send(t, addr, get("/cgi-bin/a?access_token="+spelling)); !strings.HasPrefix(body, unknown) {
			t.Errorf("%q: %s", spelling, body)
		}
	}
}
