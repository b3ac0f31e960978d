package proxy_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"wxproxy/proxy"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

var key = []byte("0123456789abcdef0123456789abcdef")

func post(path, body string, headers ...string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\n%s\r\nContent-Length: %d\r\n\r\n%s", path, strings.Join(append(headers, "X-A: b"), "\r\n"), len(body), body)
}

const keptRefresh = "refreshtoken@@@wxproxy-keeps-it"

// fetch asks for a stand-in and gives it.
func fetch(t *testing.T, addr, raw string) string {
	t.Helper()
	resp, body := send(t, addr, raw)
	m := regexp.MustCompile(`^\{"(component_|authorizer_)?access_token":"(wxp_[A-Za-z0-9_-]+)","expires_in":7200(,"authorizer_refresh_token":"` + keptRefresh + `")?\}$`).FindStringSubmatch(body)
	if m == nil || resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") || len(m[2]) > 512 || resp.Header.Get("X-Wxproxy-Token") != "none" {
		t.Fatalf("%.120q: %s %s %s", raw, resp.Status, resp.Header, body)
	}
	return m[2]
}

func fetchAccount(t *testing.T, addr, appid, secret string) string {
	t.Helper()
	return fetch(t, addr, get("/cgi-bin/token?grant_type=client_credential&appid="+appid+"&secret="+secret))
}

func fetchComponent(t *testing.T, addr, secret string) string {
	t.Helper()
	return fetch(t, addr, post("/cgi-bin/component/api_component_token", fmt.Sprintf(`{"component_appid":%q,"component_appsecret":%q,"component_verify_ticket":"ticket@@@x"}`, component, secret)))
}

// Every way in which SDKs are known to ask is answered, and what they get is good for a call, on every replica and
// after a restart.
func TestStandInsAreFetched(t *testing.T) {
	up, seen := mirror(t)
	configure := func(c *proxy.Config) {
		c.Callers, c.StandInKey = []proxy.Caller{named("orders", ordersKey), named(strings.Repeat("n", 64), stockKey)}, key
		c.Apps = map[string]wechat.Secret{"wx00000000000000ff": wechat.NewSecret("s3cret")}
	}
	_, addr := start(t, up, configure)
	_, replica := start(t, up, configure)
	c := fetchComponent(t, addr, ordersKey)
	stable := `{"grant_type":"client_credential","appid":"` + account + `","secret":"` + ordersKey + `","force_refresh":false,"neededText":""}`
	authorizer := `{"component_appid":"` + component + `","authorizer_appid":"` + account + `","authorizer_refresh_token":%s}`
	for name, raw := range map[string]string{
		"token":                     get("/cgi-bin/token?grant_type=client_credential&appid=" + account + "&secret=" + ordersKey),
		"token, other order":        get("//cgi-bin/token?neededText=&secret=" + ordersKey + "&appid=" + account + "&x=%zz"),
		"token, escaped":            get("/cgi-bin/token?%61ppid=" + account + "&secret=" + strings.ReplaceAll(ordersKey, "-", "%2D")),
		"token, prefix":             get("/" + account + "/cgi-bin/token?appid=" + account + "&secret=" + ordersKey),
		"token, prefix only":        get("/" + account + "/cgi-bin/token?secret=" + ordersKey),
		"token, component's prefix": get("/" + component + "//cgi-bin/token?appid=" + account + "&secret=" + ordersKey),
		"token, component's header": get("/cgi-bin/token?appid="+account+"&secret="+ordersKey, "X-WX-APPID: "+component),
		"token, POST":               post("/cgi-bin/token?appid="+account+"&secret="+ordersKey, ""),
		"token, POST form":          post("/cgi-bin/token", "appid="+account+"&secret="+ordersKey),
		"token, POST JSON":          post("/cgi-bin/token", stable),
		"token, absolute":           get("http://api.weixin.qq.com/cgi-bin/token?appid=" + account + "&secret=" + ordersKey),
		"token, key in the header":  get("/cgi-bin/token?appid="+account+"&secret=whatever", "X-Wxproxy-Key: "+ordersKey),
		"stable":                    post("/cgi-bin/stable_token", stable),
		"stable, no Content-Type":   post("/"+account+"/cgi-bin/stable_token", "\r\n "+stable+"\n"),
		"stable, as a form":         post("/cgi-bin/stable_token", stable, "Content-Type: application/x-www-form-urlencoded"),
		"authorizer":                post("/cgi-bin/component/api_authorizer_token?component_access_token="+c, fmt.Sprintf(authorizer, `"refreshtoken@@@x"`)),
		"authorizer, other name":    post("/"+component+"/cgi-bin/component/api_authorizer_token?access_token="+c, fmt.Sprintf(authorizer, `""`)),
		"authorizer, null":          post("//cgi-bin/component/api_authorizer_token?component_access_token="+c, fmt.Sprintf(authorizer, `null`)),
		"authorizer, a number":      post("//cgi-bin/component/api_authorizer_token?component_access_token="+c, fmt.Sprintf(authorizer, `{"a":[1]}`)),
		"authorizer, by key":        post("/cgi-bin/component/api_authorizer_token", fmt.Sprintf(authorizer, `"x"`), "Authorization: Bearer "+ordersKey),
		"authorizer, more fields":   post("/cgi-bin/component/api_authorizer_token?component_access_token="+c, `{"neededText":"","appid":"`+component+`","secret":"r","authorizer_appid":"`+account+`"}`),
	} {
		t.Run(name, func(t *testing.T) {
			st := fetch(t, addr, raw)
			if strings.Contains(name, "authorizer") {
				if _, body := send(t, addr, raw); !strings.Contains(body, `"authorizer_refresh_token":"`+keptRefresh+`"`) {
					t.Errorf("%s", body)
				}
			}
			for _, at := range []string{addr, replica} {
				if resp, body := send(t, at, get("/cgi-bin/user/info?a=1&access_token="+st+"&b=2")); resp.StatusCode != 200 || body != `{"errcode":0,"uri":"/cgi-bin/user/info?access_token=T0\u0026a=1\u0026b=2"}` &&
					body != `{"errcode":0,"uri":"/cgi-bin/user/info?access_token=T0&a=1&b=2"}` {
					t.Errorf("%s %s", resp.Status, body)
				}
			}
		})
	}
	// own accounts, long names, and the component itself
	own := fetchAccount(t, addr, "wx00000000000000ff", stockKey)
	for _, path := range []string{"/cgi-bin/user/info?access_token=" + own, "/wxa/gettemplatelist?access_token=" + c, "/cgi-bin/component/api_create_preauthcode?component_access_token=" + c,
		"/cgi-bin/clear_quota?access_token=" + c} {
		if resp, body := send(t, addr, get(path)); resp.StatusCode != 200 {
			t.Errorf("%s: %s %s", path, resp.Status, body)
		}
	}
	for _, got := range seen() {
		if strings.Contains(got, "wxp_") || strings.Contains(got, ordersKey) {
			t.Errorf("WeChat got what is ours: %s", got)
		}
	}
}

// Where nobody is asked for a key SDKs get along with any secret.
func TestStandInsForEverybody(t *testing.T) {
	up, _ := mirror(t)
	config := proxy.Config{Component: component, Upstream: up, Tokens: &scripted{current: "T0"}}
	p, addr := start(t, up, func(c *proxy.Config) { *c = config })
	for _, secret := range []string{"anything", "", strings.Repeat("x", 2000)} {
		st, c := fetchAccount(t, addr, account, secret), fetchComponent(t, addr, secret)
		if resp, body := send(t, addr, get("/"+component+"/cgi-bin/user/info?access_token="+st)); resp.StatusCode != 200 {
			t.Errorf("%s %s", resp.Status, body)
		}
		fetch(t, addr, post("/cgi-bin/component/api_authorizer_token?component_access_token="+c, `{"authorizer_appid":"`+account+`"}`))
	}
	fetch(t, addr, post("/cgi-bin/component/api_authorizer_token", `{"authorizer_appid":"`+account+`"}`))
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

// What WeChat says of a wrong appid or secret, and never 40001, 40014 or 42001, on which SDKs ask again without end.
func TestTokenRequestsRefused(t *testing.T) {
	up, seen := mirror(t)
	limited := named("limited", stockKey)
	limited.AppIDs, limited.Paths, limited.Methods = []string{account}, []string{"/nothing"}, []string{"GET"}
	broker := &scripted{current: "T0", knownErr: map[string]error{
		other: tokens.ErrUnknownAccount, "wxdddddddddddddddd": tokens.ErrRevoked, "wxeeeeeeeeeeeeeeee": fmt.Errorf("%w: disk", tokens.ErrUnavailable),
	}}
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Callers, c.Tokens = []proxy.Caller{named("orders", ordersKey), limited}, broker
	})
	c, a := fetchComponent(t, addr, ordersKey), fetchAccount(t, addr, account, ordersKey)
	k := "&secret=" + ordersKey
	componentToken, authorizerToken := "/cgi-bin/component/api_component_token", "/cgi-bin/component/api_authorizer_token?component_access_token="
	authorizer := func(appid string) string {
		return `{"component_appid":"` + component + `","authorizer_appid":` + appid + `}`
	}
	withKey := "X-Wxproxy-Key: " + ordersKey
	for name, q := range map[string]struct {
		raw    string
		status int
		want   string
	}{
		"wrong key":                {get("/cgi-bin/token?appid=" + account + "&secret=wrong"), 200, `{"errcode":40125,"errmsg":"invalid appsecret`},
		"wrong key, wrong appid":   {get("/cgi-bin/token?appid=" + other + "&secret=wrong"), 200, `{"errcode":40125,`},
		"no key":                   {get("/cgi-bin/token?appid=" + account), 200, `{"errcode":40125,`},
		"two keys":                 {get("/cgi-bin/token?appid=" + account + k + "&secret=" + stockKey), 200, `{"errcode":40125,`},
		"another key above":        {get("/cgi-bin/token?appid="+account+"&secret="+stockKey, withKey), 200, `{"errcode":40125,`},
		"a wrong key above":        {get("/cgi-bin/token?appid="+account+k, "X-Wxproxy-Key: wrong"), 401, `{"errcode":-401,`},
		"unknown appid":            {get("/cgi-bin/token?appid=" + other + k), 200, `{"errcode":40013,"errmsg":"invalid appid`},
		"withdrawn":                {get("/cgi-bin/token?appid=wxdddddddddddddddd" + k), 200, `{"errcode":40013,`},
		"store down":               {get("/cgi-bin/token?appid=wxeeeeeeeeeeeeeeee" + k), 503, `{"errcode":-503,`},
		"no appid":                 {get("/cgi-bin/token?x" + k), 200, `{"errcode":40013,`},
		"no appid's form":          {get("/cgi-bin/token?appid=wx1" + k), 200, `{"errcode":40013,`},
		"two appids":               {get("/cgi-bin/token?appid=" + account + "&appid=" + other + k), 200, `{"errcode":40013,`},
		"the component's":          {get("/cgi-bin/token?appid=" + component + k), 200, `{"errcode":40013,`},
		"another prefix":           {get("/" + other + "/cgi-bin/token?appid=" + account + k), 400, `{"errcode":-400,`},
		"another header":           {get("/cgi-bin/token?appid="+account+k, "X-WX-APPID: "+other), 400, `{"errcode":-400,`},
		"beyond the limits":        {get("/cgi-bin/token?appid=" + other + "&secret=" + stockKey), 403, `{"errcode":-403,`},
		"stable, no JSON":          {post("/cgi-bin/stable_token", `{"appid":`), 200, `{"errcode":40125,`},
		"stable, empty":            {post("/cgi-bin/stable_token", ``), 200, `{"errcode":40125,`},
		"stable, types":            {post("/cgi-bin/stable_token", `{"appid":5,"secret":["`+ordersKey+`"]}`), 200, `{"errcode":40125,`},
		"stable, appid's type":     {post("/cgi-bin/stable_token", `{"appid":null,"secret":"`+ordersKey+`"}`), 200, `{"errcode":40013,`},
		"stable, too large":        {post("/cgi-bin/stable_token", `{"a":"`+strings.Repeat("x", 70_000)+`"}`), 413, `{"errcode":-413,`},
		"stable, deep":             {post("/cgi-bin/stable_token", strings.Repeat(`{"a":`, 12_000)), 200, `{"errcode":40125,`},
		"component, wrong key":     {post(componentToken, `{"component_appid":"`+component+`","component_appsecret":"wrong"}`), 200, `{"errcode":40125,`},
		"component, wrong appid":   {post(componentToken, `{"component_appid":"`+account+`","component_appsecret":"`+ordersKey+`"}`), 200, `{"errcode":40013,`},
		"component, no appid":      {post(componentToken, `{"component_appsecret":"`+ordersKey+`"}`), 200, `{"errcode":40013,`},
		"component, beyond limits": {post(componentToken, `{"component_appid":"`+component+`","component_appsecret":"`+stockKey+`"}`), 403, `{"errcode":-403,`},

		"authorizer, nothing":        {post(authorizerToken, authorizer(`"`+account+`"`)), 401, `{"errcode":-401,`},
		"authorizer, wrong key":      {post(authorizerToken, authorizer(`"`+account+`"`), "X-Wxproxy-Key: wrong"), 401, `{"errcode":-401,`},
		"authorizer, foreign token":  {post(authorizerToken+"80_x", authorizer(`"`+account+`"`)), 503, `{"errcode":-503,`},
		"authorizer, forged":         {post(authorizerToken+"wxp_x", authorizer(`"`+account+`"`)), 503, `{"errcode":-503,`},
		"authorizer, forged and key": {post(authorizerToken+"wxp_x", authorizer(`"`+account+`"`), withKey), 503, `{"errcode":-503,`},
		"authorizer, account's":      {post(authorizerToken+a, authorizer(`"`+account+`"`)), 503, `{"errcode":-503,`},
		"authorizer, two callers":    {post(authorizerToken+c, authorizer(`"`+account+`"`), "X-Wxproxy-Key: "+stockKey), 401, `{"errcode":-401,`},
		"authorizer, unknown":        {post(authorizerToken+c, authorizer(`"`+other+`"`)), 503, `{"errcode":-503,`},
		"authorizer, withdrawn":      {post(authorizerToken+c, authorizer(`"wxdddddddddddddddd"`)), 503, `{"errcode":-503,`},
		"authorizer, store down":     {post(authorizerToken+c, authorizer(`"wxeeeeeeeeeeeeeeee"`)), 503, `{"errcode":-503,`},
		"authorizer, null":           {post(authorizerToken+c, authorizer(`null`)), 503, `{"errcode":-503,`},
		"authorizer, component's":    {post(authorizerToken+c, authorizer(`"`+component+`"`)), 503, `{"errcode":-503,`},
		"authorizer, no JSON":        {post(authorizerToken+c, `<xml>`), 503, `{"errcode":-503,`},
		"authorizer, other platform": {post(authorizerToken+c, `{"component_appid":"`+other+`","authorizer_appid":"`+account+`"}`), 503, `{"errcode":-503,`},
		"authorizer, another prefix": {post("/"+other+authorizerToken+c, authorizer(`"`+account+`"`)), 400, `{"errcode":-400,`},
		"authorizer, beyond limits":  {post(authorizerToken, authorizer(`"`+other+`"`), "X-Wxproxy-Key: "+stockKey), 403, `{"errcode":-403,`},
		"exchange is not possible":   {post("/cgi-bin/component/api_query_auth", `{"authorization_code":"c"}`, withKey), 503, `{"errcode":-503,`},
	} {
		resp, body := send(t, addr, q.raw)
		if resp.StatusCode != q.status || !strings.HasPrefix(body, q.want) || strings.Contains(body, "expires_in") {
			t.Errorf("%s: %s %s, want %d %s", name, resp.Status, body, q.status, q.want)
		}
		if (resp.StatusCode == 503) != (resp.Header.Get("Retry-After") != "") || !json.Valid([]byte(body)) || strings.Contains(body, ordersKey) {
			t.Errorf("%s: %s %s", name, resp.Header, body)
		}
	}
	// The limits of paths and methods are for calls to WeChat; these are none.
	fetchAccount(t, addr, account, stockKey)
	fetch(t, addr, post("/cgi-bin/stable_token", `{"appid":"`+account+`","secret":"`+stockKey+`"}`))
	if n := len(seen()); n != 0 {
		t.Errorf("%d calls reached WeChat", n)
	}
}

// A stand-in that is not good is answered as WeChat answers a token that is not; nothing of it reaches WeChat.
func TestStandInsRefused(t *testing.T) {
	up, seen := mirror(t)
	config := proxy.Config{Component: component, Upstream: up, Tokens: &scripted{current: "T0"}, StandInKey: key,
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
	up, seen := mirror(t)
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

// A code is really exchanged, once for each request; what WeChat says of it goes back, except that its token was refused.
func TestExchange(t *testing.T) {
	up, _ := mirror(t)
	var asked []string
	limited := named("limited", stockKey)
	limited.AppIDs, limited.Paths = []string{component}, []string{"/cgi-bin/component/api_query_auth"}
	narrow := named("narrow", "narrow-key")
	narrow.Paths = []string{"/cgi-bin/user/*"}
	single := named("single", "single-key")
	single.AppIDs = []string{account}
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Callers = []proxy.Caller{named("orders", ordersKey), limited, narrow, single}
		c.Exchange = func(_ context.Context, code wechat.Secret) (proxy.Authorization, error) {
			asked = append(asked, code.Reveal())
			switch code.Reveal() {
			case "good":
				return proxy.Authorization{AppID: account, FuncInfo: json.RawMessage(`[{"funcscope_category":{"id":1}}]`)}, nil
			case "bare":
				return proxy.Authorization{AppID: account}, nil
			case "down":
				return proxy.Authorization{}, fmt.Errorf("%w: no ticket", tokens.ErrUnavailable)
			case "unreachable":
				return proxy.Authorization{}, wechat.ErrUnreachable
			case "odd":
				return proxy.Authorization{}, errors.New("secret detail")
			}
			var n int
			fmt.Sscan(code.Reveal(), &n)
			return proxy.Authorization{}, &wechat.Error{Code: n, Msg: "as WeChat says"}
		}
	})
	c := fetchComponent(t, addr, ordersKey)
	path := "/cgi-bin/component/api_query_auth"
	swap := func(code string, headers ...string) (*http.Response, string) {
		return send(t, addr, post("/"+component+path+"?component_access_token="+c, `{"component_appid":"`+component+`","authorization_code":"`+code+`"}`, headers...))
	}
	resp, body := swap("good")
	m := regexp.MustCompile(`^\{"authorization_info":\{"authorizer_appid":"` + account + `","authorizer_access_token":"(wxp_[A-Za-z0-9_-]+)","expires_in":7200,"authorizer_refresh_token":"` + keptRefresh +
		`","func_info":\[\{"funcscope_category":\{"id":1\}\}\]\}\}$`).FindStringSubmatch(body)
	if resp.StatusCode != 200 || m == nil {
		t.Fatalf("%s %s", resp.Status, body)
	}
	if resp, body := send(t, addr, get("/cgi-bin/user/info?access_token="+m[1])); resp.StatusCode != 200 || !strings.Contains(body, "T0") {
		t.Errorf("%s %s", resp.Status, body)
	}
	if _, body := swap("bare"); !strings.Contains(body, `"func_info":[]`) {
		t.Errorf("%s", body)
	}
	for code, want := range map[string]struct {
		status int
		body   string
	}{
		"61009": {200, `{"errcode":61009,"errmsg":"as WeChat says"}`}, "61010": {200, `{"errcode":61010,"errmsg":"as WeChat says"}`}, "-1": {200, `{"errcode":-1,`},
		"40001": {503, `{"errcode":-503,`}, "40014": {503, `{"errcode":-503,`}, "42001": {503, `{"errcode":-503,`},
		"down": {503, `{"errcode":-503,`}, "unreachable": {502, `{"errcode":-502,`}, "odd": {500, `{"errcode":-500,`}, "": {200, `{"errcode":61009,`},
	} {
		if resp, body := swap(code); resp.StatusCode != want.status || !strings.HasPrefix(body, want.body) || strings.Contains(body, "detail") {
			t.Errorf("%s: %s %s", code, resp.Status, body)
		}
	}
	asked = nil
	request := `{"authorization_code":"good"}`
	for name, q := range map[string]struct {
		raw    string
		status int
	}{
		"nobody":          {post(path, request), 401},
		"forged":          {post(path+"?access_token=wxp_x", request), 503},
		"foreign":         {post(path+"?access_token=80_x", request), 503},
		"an account's":    {post(path+"?access_token="+m[1], request), 503},
		"narrow":          {post(path, request, "X-Wxproxy-Key: narrow-key"), 403},
		"one account":     {post(path, request, "X-Wxproxy-Key: single-key"), 403},
		"other platform":  {post(path, `{"component_appid":"`+other+`","authorization_code":"good"}`, "X-Wxproxy-Key: "+ordersKey), 200},
		"code's type":     {post(path, `{"authorization_code":{"a":1}}`, "X-Wxproxy-Key: "+ordersKey), 200},
		"too large":       {post(path, strings.Repeat(" ", 70_000)+request, "X-Wxproxy-Key: "+ordersKey), 413},
		"for one account": {post(path+"/", request, "X-Wxproxy-Key: "+stockKey), 403}, // the path is not quite the one allowed
	} {
		resp, body := send(t, addr, q.raw)
		if resp.StatusCode != q.status || strings.Contains(body, "wxp_") || regexp.MustCompile(`"errcode":4(0001|0014|2001)`).MatchString(body) {
			t.Errorf("%s: %s %s", name, resp.Status, body)
		}
	}
	if len(asked) != 0 {
		t.Errorf("exchanged: %q", asked)
	}
	// The exchange may be made by one who may not call for the account; he does not get its stand-in.
	if resp, body := send(t, addr, post(path, request, "X-Wxproxy-Key: "+stockKey)); resp.StatusCode != 403 || strings.Contains(body, "wxp_") || len(asked) != 1 {
		t.Errorf("%s %s, exchanged %q", resp.Status, body, asked)
	}
}

// forge makes a stand-in as somebody could who has the key.
func forge(version, kind byte, end time.Time, appid, caller string) string {
	b := append([]byte{version, kind}, binary.BigEndian.AppendUint32(nil, uint32(end.Unix()))...)
	b = append(b, appid+caller...)
	mac := hmac.New(sha256.New, key)
	mac.Write(b)
	return "wxp_" + base64.RawURLEncoding.EncodeToString(mac.Sum(b))
}

// A stand-in works for the whole of the life that was announced and a little longer; then WeChat's "expired" is what is
// said. The form is fixed: other replicas, and later versions, have to read it.
func TestStandInForm(t *testing.T) {
	up, seen := mirror(t)
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
