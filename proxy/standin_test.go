package proxy_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"wxproxy/proxy"
)

// placeholderRefresh is the refresh token in responses.
const placeholderRefresh = "refreshtoken@@@wxproxy-keeps-it"

// standInResponse matches the responses to requests for stand-ins.
var standInResponse = regexp.MustCompile(`^\{"(component_|authorizer_)?access_token":"(wxp_[A-Za-z0-9_-]+)","expires_in":7200` +
	`(,"authorizer_refresh_token":"` + placeholderRefresh + `")?\}$`)

// fetchStandIn sends a request for a stand-in, checks the response, and returns
// the stand-in.
func fetchStandIn(t *testing.T, addr, raw string) string {
	t.Helper()
	resp, body := send(t, addr, raw)
	m := standInResponse.FindStringSubmatch(body)
	if m == nil || resp.StatusCode != 200 || len(m[2]) > 512 {
		t.Fatalf("%.120q: got %s %s, want 200 and a stand-in of up to 512 characters", raw, resp.Status, body)
	}
	contentType, status := resp.Header.Get("Content-Type"), resp.Header.Get("X-Wxproxy-Token")
	if !strings.HasPrefix(contentType, "application/json") || status != "none" {
		t.Fatalf("%.120q: got type %s, token %s, want application/json, none", raw, contentType, status)
	}
	return m[2]
}

// fetchAccount fetches a stand-in as SDKs do that know one account only.
func fetchAccount(t *testing.T, addr, appid, secret string) string {
	t.Helper()
	return fetchStandIn(t, addr, get("/cgi-bin/token?grant_type=client_credential&appid="+appid+"&secret="+secret))
}

// fetchComponent fetches the component's stand-in.
func fetchComponent(t *testing.T, addr, secret string) string {
	t.Helper()
	return fetchStandIn(t, addr, post("/cgi-bin/component/api_component_token", fmt.Sprintf(
		`{"component_appid":%q,"component_appsecret":%q,"component_verify_ticket":"ticket@@@x"}`, component, secret)))
}

// TestStandInsWithoutAuthentication checks that SDKs work with any secret while
// authentication is disabled, and that their stand-ins are worthless
// afterwards.
func TestStandInsWithoutAuthentication(t *testing.T) {
	up, _ := recordingServer(t)
	config := proxy.Config{
		Component: component, Upstream: up, Tokens: &fakeTokens{current: "T0"}, Hosts: []string{"x"},
	}
	p, addr := start(t, up, func(c *proxy.Config) { *c = config })
	for _, secret := range []string{"anything", "", strings.Repeat("x", 2000)} {
		st, c := fetchAccount(t, addr, account, secret), fetchComponent(t, addr, secret)
		raw := get("/" + component + "/cgi-bin/user/info?access_token=" + st)
		resp, body := send(t, addr, raw)
		checkResponse(t, raw, resp, body, 200, "")
		fetchStandIn(t, addr, post("/cgi-bin/component/api_authorizer_token?component_access_token="+c,
			`{"authorizer_appid":"`+account+`"}`))
	}
	fetchStandIn(t, addr, post("/cgi-bin/component/api_authorizer_token", `{"authorizer_appid":"`+account+`"}`))
	st := fetchAccount(t, addr, account, "x")
	// A reload without a signing key keeps the random one.
	if err := p.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	resp, body := send(t, addr, get("/cgi-bin/user/info?access_token="+st))
	checkResponse(t, "after a reload", resp, body, 200, "T0")
	// A stand-in without a caller is invalid as soon as there are callers.
	config.Callers = []proxy.Caller{named("orders", ordersKey)}
	if err := p.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	resp, body = send(t, addr, get("/cgi-bin/user/info?access_token="+st))
	checkResponse(t, "after callers were added", resp, body, 200, `{"errcode":40001,`)
	mine := fetchAccount(t, addr, account, ordersKey)
	config.Callers = nil
	if err := p.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	resp, body = send(t, addr, get("/cgi-bin/user/info?access_token="+mine))
	checkResponse(t, "after callers were removed", resp, body, 200, `{"errcode":40001,`)
}

// TestInvalidStandIns checks that an invalid stand-in gets the response with
// which WeChat rejects a token, and never reaches WeChat.
func TestInvalidStandIns(t *testing.T) {
	up, requests := recordingServer(t)
	config := proxy.Config{
		Component: component, Upstream: up, Tokens: &fakeTokens{current: "T0"}, StandInKey: key,
		Callers: []proxy.Caller{named("orders", ordersKey), named("stock", stockKey)},
	}
	_, addr := start(t, up, func(c *proxy.Config) { *c = config })
	mine, theirs := fetchAccount(t, addr, account, ordersKey), fetchAccount(t, addr, account, stockKey)
	forOther, c := fetchAccount(t, addr, other, ordersKey), fetchComponent(t, addr, ordersKey)
	withKey := "X-Wxproxy-Key: " + ordersKey
	altered := func(i int) string { // one character replaced
		b := []byte(mine)
		if b[i] ^= 1; !regexp.MustCompile(`^[A-Za-z0-9_-]$`).Match(b[i : i+1]) {
			b[i] = 'x'
		}
		return string(b)
	}
	path := "/cgi-bin/user/info?access_token="
	const component61014 = "/wxa/gettemplatelist?access_token="
	type question struct {
		raw    string
		status int
		want   string
	}
	questions := map[string]question{
		"junk":                        {get(path + "wxp_junk"), 200, `{"errcode":40001,"errmsg":"invalid credential, access_token is invalid or not latest`},
		"prefix only":                 {get(path + "wxp_"), 200, `{"errcode":40001,`},
		"junk, escaped":               {get(path + "%77%78p_junk"), 200, `{"errcode":40001,`},
		"junk, with a key":            {get(path+"wxp_junk", withKey), 200, `{"errcode":40001,`},
		"junk, not base64":            {get(path + "wxp_!!!!"), 200, `{"errcode":40001,`},
		"junk, long":                  {get(path + "wxp_" + strings.Repeat("A", 8000)), 200, `{"errcode":40001,`},
		"longer":                      {get(path + mine + "AAAA"), 200, `{"errcode":40001,`},
		"shorter":                     {get(path + mine[:len(mine)-4]), 200, `{"errcode":40001,`},
		"another caller's, with key":  {get(path+theirs, withKey), 200, `{"errcode":40001,`},
		"two callers'":                {get(path + mine + "&component_access_token=" + theirs), 200, `{"errcode":40001,`},
		"valid and invalid":           {get(path + mine + "&component_access_token=wxp_junk"), 200, `{"errcode":40001,`},
		"valid, wrong key":            {get(path+mine, "X-Wxproxy-Key: wrong"), 401, `{"errcode":-401,`},
		"foreign token, no key":       {get("/" + account + path + "80_real-looking"), 200, `{"errcode":40001,`},
		"foreign, other parameter":    {get("/" + account + "/cgi-bin/user/info?component_access_token=undefined"), 200, `{"errcode":40001,`},
		"empty token, no key":         {get("/" + account + path), 401, `{"errcode":-401,`},
		"for two accounts":            {get(path + mine + "&access_token=" + forOther), 400, `{"errcode":-400,`},
		"another prefix":              {get("/" + other + path + mine), 400, `{"errcode":-400,`},
		"another header":              {get(path+mine, "X-WX-APPID: "+other), 400, `{"errcode":-400,`},
		"component's, prefix":         {get("/" + account + path + c), 400, `{"errcode":-400,`},
		"component's, account's path": {get(path + c), 400, `{"errcode":-400,`},
		"prefix, query's appid":       {get("/" + other + "/sns/component/jscode2session?appid=" + account + "&component_access_token=" + c), 400, `{"errcode":-400,`},
		"account's, component's path": {get(component61014 + mine), 200, `{"errcode":61014,"errmsg":"must use component token`},
		"the same, and the key":       {get(component61014+mine, withKey), 200, `{"errcode":61014,`},
		"another query appid":         {get("/sns/component/jscode2session?appid=" + other + "&component_access_token=" + mine), 400, `{"errcode":-400,`},
		"another caller's key":        {get("/sns/jscode2session?js_code=1&access_token=" + mine + "&secret=" + stockKey), 401, `{"errcode":-401,`},
		"another key and secret":      {get("/"+account+"/sns/jscode2session?js_code=1&secret="+stockKey, withKey), 401, `{"errcode":-401,`},
		"user's token, no key":        {get("/sns/userinfo?access_token=USER&openid=x"), 401, `{"errcode":-401,`},
		"/sns/, junk":                 {get("/sns/userinfo?access_token=wxp_junk"), 200, `{"errcode":40001,`},
		"/sns/ login, wrong secret":   {get("/sns/jscode2session?appid=" + account + "&secret=wrong&js_code=1"), 401, `{"errcode":-401,`},
	}
	for i := len("wxp_"); i < len(mine); i += 7 {
		questions[fmt.Sprintf("altered at %d", i)] = question{get(path + altered(i)), 200, `{"errcode":40001,`}
	}
	for name, q := range questions {
		resp, body := send(t, addr, q.raw)
		checkResponse(t, name, resp, body, q.status, q.want)
		if got := resp.Header.Get("Content-Type"); got != "application/json" {
			t.Errorf("%s: got type %q, want application/json", name, got)
		}
	}
	if n := len(requests()); n != 0 {
		t.Errorf("got %d requests at WeChat, want 0", n)
	}
}

// TestReloadInvalidatesStandIns checks that a stand-in is worthless as soon as
// its caller, the signing key or the component is another one, and that the
// permissions of the caller are the present ones.
func TestReloadInvalidatesStandIns(t *testing.T) {
	up, _ := recordingServer(t)
	config := proxy.Config{
		Component: component, Upstream: up, Tokens: &fakeTokens{current: "T0"}, StandInKey: key,
		Callers: []proxy.Caller{named("orders", ordersKey), named("stock", stockKey)},
	}
	p, addr := start(t, up, func(c *proxy.Config) { *c = config })
	mine, forOther := fetchAccount(t, addr, account, ordersKey), fetchAccount(t, addr, other, ordersKey)
	c := fetchComponent(t, addr, ordersKey)
	path := "/cgi-bin/user/info?access_token="
	for name, change := range map[string]func(*proxy.Config){
		"caller removed": func(c *proxy.Config) { c.Callers = c.Callers[1:] },
		"another key":    func(c *proxy.Config) { c.StandInKey = []byte(strings.Repeat("k", 32)) },
	} {
		changed := config
		change(&changed)
		if err := p.Reconfigure(changed); err != nil {
			t.Fatal(err)
		}
		resp, body := send(t, addr, get(path+mine))
		checkResponse(t, name, resp, body, 200, `{"errcode":40001,`)
		if err := p.Reconfigure(config); err != nil {
			t.Fatal(err)
		}
		resp, body = send(t, addr, get(path+mine))
		checkResponse(t, name+", undone", resp, body, 200, "T0")
	}
	config.Component = "wxcccccccccccccccd"
	if err := p.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	resp, body := send(t, addr, get("/wxa/gettemplatelist?access_token="+c))
	checkResponse(t, "another component", resp, body, 200, `{"errcode":40001,`)
	// What counts are the permissions of now, not those at the time of issue.
	config.Component = component
	config.Callers[0].AppIDs = []string{account}
	if err := p.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]int{mine: 200, forOther: 403} {
		resp, body := send(t, addr, get(path+token))
		checkResponse(t, token, resp, body, want, "")
	}
	resp, body = send(t, addr, get("/wxa/gettemplatelist?access_token="+c))
	checkResponse(t, "component's stand-in", resp, body, 403, "")
}

// TestStandInNamesAccount checks which account a stand-in selects, and what of
// the query WeChat receives.
func TestStandInNamesAccount(t *testing.T) {
	up, requests := recordingServer(t)
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
		{
			"/wxa/gettemplatelist?access_token=" + a + "&component_access_token=" + c,
			"X-A: b", "/wxa/gettemplatelist?access_token=T0",
		},
		{"/sns/component/jscode2session?appid=" + account + "&js_code=1&component_access_token=" + c, "X-A: b", "/sns/component/jscode2session?" + long + "appid=" + account + "&js_code=1"},
		{"/sns/component/jscode2session?appid=" + account + "&component_access_token=" + c + "&access_token=" + a, "X-A: b", "/sns/component/jscode2session?" + long + "appid=" + account},
		{"/sns/component/jscode2session?appid=" + account + "&access_token=" + a + "&component_access_token=" + c, "X-A: b", "/sns/component/jscode2session?" + long + "appid=" + account},
		{"/" + account + "/sns/component/jscode2session?appid=" + account + "&component_access_token=" + c, "X-A: b", "/sns/component/jscode2session?" + long + "appid=" + account},
		{"/" + component + "/sns/component/jscode2session?appid=" + account + "&component_access_token=" + c, "X-WX-APPID: " + component, "/sns/component/jscode2session?" + long + "appid=" + account},
		// Logins of SDKs: with a stand-in that is not needed, and with the key
		// as secret.
		{"/sns/jscode2session?appid=" + account + "&secret=x&access_token=" + a + "&js_code=1", "X-A: b", "/sns/component/jscode2session?" + long + "appid=" + account + "&js_code=1"},
		{"/sns/jscode2session?appid=" + account + "&secret=" + ordersKey + "&js_code=1", "X-A: b", "/sns/component/jscode2session?" + long + "appid=" + account + "&js_code=1"},
		{"/sns/jscode2session?appid=" + account + "&secret=" + ordersKey + "&js_code=1&access_token=undefined", "X-A: b", "/sns/component/jscode2session?" + long + "appid=" + account + "&js_code=1"},
		{"/sns/jscode2session?component_appid=" + other + "&appid=" + account + "&secret=" + ordersKey, "X-A: b", "/sns/component/jscode2session?" + long + "appid=" + account},
		// An end user's token passes, a stand-in never does.
		{"/sns/userinfo?access_token=USER&openid=o", k, "/sns/userinfo?access_token=USER&openid=o"},
		{"/sns/userinfo?access_token=" + a + "&openid=o", k, "/sns/userinfo?openid=o"},
		{"/sns/userinfo?access_token=USER&component_access_token=" + a + "&access_token=%77" + a[1:], "X-A: b", "/sns/userinfo?access_token=USER"},
	} {
		before := len(requests())
		resp, body := send(t, addr, get(q.path, q.header))
		all := requests()
		if len(all) != before+1 || resp.StatusCode != 200 {
			t.Errorf("%s: got %s %s, want 200 and one request at WeChat", q.path, resp.Status, body)
			continue
		}
		got, _, _ := strings.Cut(strings.TrimPrefix(all[before], "GET "), "\n")
		if got != q.want {
			t.Errorf("%s: WeChat got %s, want %s", q.path, got, q.want)
		}
		if strings.Contains(all[before], "wxp_") || strings.Contains(all[before], ordersKey) {
			t.Errorf("%s: WeChat got %s, want no stand-in and no key in it", q.path, all[before])
		}
	}
}

// TestComponentStandInDoesNotSelectDefaultAccount checks that a login with the
// component's stand-in that names no account is rejected. The default account
// would log in the users of an account that the SDK did not mean.
func TestComponentStandInDoesNotSelectDefaultAccount(t *testing.T) {
	up, requests := recordingServer(t)
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Callers, c.DefaultAppID = []proxy.Caller{named("orders", ordersKey)}, account
	})
	raw := get("/sns/jscode2session?js_code=1&access_token=" + fetchComponent(t, addr, ordersKey))
	resp, body := send(t, addr, raw)
	checkResponse(t, raw, resp, body, 400, "but the appid is the component's")
	if n := len(requests()); n != 0 {
		t.Errorf("got %d requests at WeChat, want 0", n)
	}
}

// TestStandInExpiryAndFormat checks that a stand-in is accepted until a few
// minutes after it expires, and that nothing but the fixed format is accepted.
func TestStandInExpiryAndFormat(t *testing.T) {
	up, requests := recordingServer(t)
	_, addr := start(t, up, func(c *proxy.Config) { c.Callers, c.StandInKey = []proxy.Caller{named("orders", ordersKey)}, key })
	now := time.Now()
	const a = "/cgi-bin/a?access_token="
	longAgo := now.Add(-6 * time.Minute)
	expired, unknown := `{"errcode":42001,"errmsg":"access_token expired`, `{"errcode":40001,`
	for name, c := range map[string]struct{ path, want string }{
		"fresh":                {a + forge(1, 1, now.Add(2*time.Hour), account, "orders"), `{"errcode":0`},
		"expired, in grace":    {a + forge(1, 1, now.Add(-4*time.Minute), account, "orders"), `{"errcode":0`},
		"component's":          {"/wxa/gettemplatelist?access_token=" + forge(1, 2, now, component, "orders"), `{"errcode":0`},
		"expired":              {a + forge(1, 1, longAgo, account, "orders"), expired},
		"expired, component's": {"/wxa/gettemplatelist?component_access_token=" + forge(1, 2, longAgo, component, "orders"), expired},
		"expired, on /sns/":    {"/sns/userinfo?access_token=" + forge(1, 1, longAgo, account, "orders"), expired},
		"expired, no caller":   {a + forge(1, 1, longAgo, account, "gone"), unknown},
		"caller removed":       {a + forge(1, 1, now, account, "gone"), unknown},
		"no caller":            {a + forge(1, 1, now, account, ""), unknown},
		"long caller":          {a + forge(1, 1, now, account, strings.Repeat("x", 65)), unknown},
		"no version":           {a + forge(0, 1, now, account, "orders"), unknown},
		"a later version":      {a + forge(3, 1, now, account, "orders"), unknown},
		"version 2":            {a + forge(2, 1, now, account, noKeyID+"orders"), `{"errcode":0`},
		"2, no key id":         {a + forge(2, 1, now, account, "orders"), unknown},
		"2, unknown key id":    {a + forge(2, 1, now, account, "01234567orders"), unknown},
		"2, no caller":         {a + forge(2, 1, now, account, noKeyID), unknown},
		"2, caller removed":    {a + forge(2, 1, now, account, noKeyID+"gone"), unknown},
		"2, expired":           {a + forge(2, 1, longAgo, account, noKeyID+"orders"), expired},
		"2, expired, key gone": {a + forge(2, 1, longAgo, account, "01234567orders"), unknown},
		"another kind":         {a + forge(1, 3, now, account, "orders"), unknown},
		"component's, account": {a + forge(1, 2, now, account, "orders"), unknown},
		"account's, component": {"/wxa/gettemplatelist?access_token=" + forge(1, 1, now, component, "orders"), unknown},
		"no appid":             {a + forge(1, 1, now, "", ""), unknown},
	} {
		before := len(requests())
		resp, body := send(t, addr, get(c.path))
		checkResponse(t, name, resp, body, 200, c.want)
		if forwarded := len(requests()) > before; forwarded != (c.want == `{"errcode":0`) {
			t.Errorf("%s: got forwarded %v with %s", name, forwarded, body)
		}
	}
	// Another spelling in base64 is another text, and no stand-in.
	st := forge(1, 1, now.Add(time.Hour), account, "orders")
	for _, spelling := range []string{st + "=", st + "==", strings.Replace(st, "wxp_", "wxp_%0A", 1), st[:20] + "%0d%0a" + st[20:]} {
		resp, body := send(t, addr, get("/cgi-bin/a?access_token="+spelling))
		checkResponse(t, spelling, resp, body, 200, unknown)
	}
}
