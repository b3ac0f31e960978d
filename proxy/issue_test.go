package proxy_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"wxproxy/proxy"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// TestTokenRequestsOfSDKs checks every way in which SDKs are known to fetch
// tokens. The stand-in that they receive works on every replica and after a
// restart.
func TestTokenRequestsOfSDKs(t *testing.T) {
	up, requests := recordingServer(t)
	configure := func(c *proxy.Config) {
		c.Callers = []proxy.Caller{named("orders", ordersKey), named(strings.Repeat("n", 64), stockKey)}
		c.StandInKey = key
		c.Apps = map[string]wechat.Secret{ownApp: wechat.NewSecret("s3cret")}
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
			st := fetchStandIn(t, addr, raw)
			if strings.Contains(name, "authorizer") {
				resp, body := send(t, addr, raw)
				checkResponse(t, raw, resp, body, 200, `"authorizer_refresh_token":"`+placeholderRefresh+`"`)
			}
			for _, at := range []string{addr, replica} {
				const want = `{"errcode":0,"uri":"/cgi-bin/user/info?access_token=T0&a=1&b=2"}`
				resp, body := send(t, at, get("/cgi-bin/user/info?a=1&access_token="+st+"&b=2"))
				if resp.StatusCode != 200 || body != want {
					t.Errorf("got %s %s, want 200 %s", resp.Status, body, want)
				}
			}
		})
	}
	// Own accounts, long names, and the component itself.
	own := fetchAccount(t, addr, ownApp, stockKey)
	for _, path := range []string{
		"/cgi-bin/user/info?access_token=" + own, "/wxa/gettemplatelist?access_token=" + c,
		"/cgi-bin/component/api_create_preauthcode?component_access_token=" + c, "/cgi-bin/clear_quota?access_token=" + c,
	} {
		resp, body := send(t, addr, get(path))
		checkResponse(t, path, resp, body, 200, "")
	}
	for _, got := range requests() {
		if strings.Contains(got, "wxp_") || strings.Contains(got, ordersKey) {
			t.Errorf("WeChat got %s, want no stand-in and no key in it", got)
		}
	}
}

// TestRejectedTokenRequests checks the errors of token requests. They are those
// of WeChat for a wrong appid or secret, and never 40001, 40014 or 42001, on
// which SDKs would fetch again without end.
func TestRejectedTokenRequests(t *testing.T) {
	up, requests := recordingServer(t)
	limited := named("limited", stockKey)
	limited.AppIDs, limited.Paths, limited.Methods = []string{account}, []string{"/nothing"}, []string{"GET"}
	broker := &fakeTokens{current: "T0", knownErr: map[string]error{
		other: tokens.ErrUnknownAccount, "wxdddddddddddddddd": tokens.ErrRevoked,
		"wxeeeeeeeeeeeeeeee": fmt.Errorf("%w: disk", tokens.ErrUnavailable),
	}}
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Callers, c.Tokens = []proxy.Caller{named("orders", ordersKey), limited}, broker
	})
	c, a := fetchComponent(t, addr, ordersKey), fetchAccount(t, addr, account, ordersKey)
	k := "&secret=" + ordersKey
	componentToken := "/cgi-bin/component/api_component_token"
	authorizerToken := "/cgi-bin/component/api_authorizer_token?component_access_token="
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
		"another key in header":    {get("/cgi-bin/token?appid="+account+"&secret="+stockKey, withKey), 200, `{"errcode":40125,`},
		"wrong key in header":      {get("/cgi-bin/token?appid="+account+k, "X-Wxproxy-Key: wrong"), 401, `{"errcode":-401,`},
		"unknown appid":            {get("/cgi-bin/token?appid=" + other + k), 200, `{"errcode":40013,"errmsg":"invalid appid`},
		"revoked":                  {get("/cgi-bin/token?appid=wxdddddddddddddddd" + k), 200, `{"errcode":40013,`},
		"store down":               {get("/cgi-bin/token?appid=wxeeeeeeeeeeeeeeee" + k), 503, `{"errcode":-503,`},
		"no appid":                 {get("/cgi-bin/token?x" + k), 200, `{"errcode":40013,`},
		"not an appid":             {get("/cgi-bin/token?appid=wx1" + k), 200, `{"errcode":40013,`},
		"two appids":               {get("/cgi-bin/token?appid=" + account + "&appid=" + other + k), 200, `{"errcode":40013,`},
		"the component's":          {get("/cgi-bin/token?appid=" + component + k), 200, `{"errcode":40013,`},
		"another prefix":           {get("/" + other + "/cgi-bin/token?appid=" + account + k), 400, `{"errcode":-400,`},
		"another header":           {get("/cgi-bin/token?appid="+account+k, "X-WX-APPID: "+other), 400, `{"errcode":-400,`},
		"not permitted":            {get("/cgi-bin/token?appid=" + other + "&secret=" + stockKey), 403, `{"errcode":-403,`},
		"stable, not JSON":         {post("/cgi-bin/stable_token", `{"appid":`), 200, `{"errcode":40125,`},
		"stable, empty":            {post("/cgi-bin/stable_token", ``), 200, `{"errcode":40125,`},
		"stable, types":            {post("/cgi-bin/stable_token", `{"appid":5,"secret":["`+ordersKey+`"]}`), 200, `{"errcode":40125,`},
		"stable, appid's type":     {post("/cgi-bin/stable_token", `{"appid":null,"secret":"`+ordersKey+`"}`), 200, `{"errcode":40013,`},
		"stable, too large":        {post("/cgi-bin/stable_token", `{"a":"`+strings.Repeat("x", 70_000)+`"}`), 413, `{"errcode":-413,`},
		"stable, deep":             {post("/cgi-bin/stable_token", strings.Repeat(`{"a":`, 12_000)), 200, `{"errcode":40125,`},
		"component, wrong key":     {post(componentToken, `{"component_appid":"`+component+`","component_appsecret":"wrong"}`), 200, `{"errcode":40125,`},
		"component, wrong appid":   {post(componentToken, `{"component_appid":"`+account+`","component_appsecret":"`+ordersKey+`"}`), 200, `{"errcode":40013,`},
		"component, no appid":      {post(componentToken, `{"component_appsecret":"`+ordersKey+`"}`), 200, `{"errcode":40013,`},
		"component, not permitted": {post(componentToken, `{"component_appid":"`+component+`","component_appsecret":"`+stockKey+`"}`), 403, `{"errcode":-403,`},

		"authorizer, no key":         {post(authorizerToken, authorizer(`"`+account+`"`)), 401, `{"errcode":-401,`},
		"authorizer, wrong key":      {post(authorizerToken, authorizer(`"`+account+`"`), "X-Wxproxy-Key: wrong"), 401, `{"errcode":-401,`},
		"authorizer, foreign token":  {post(authorizerToken+"80_x", authorizer(`"`+account+`"`)), 503, `{"errcode":-503,`},
		"authorizer, forged":         {post(authorizerToken+"wxp_x", authorizer(`"`+account+`"`)), 503, `{"errcode":-503,`},
		"authorizer, forged and key": {post(authorizerToken+"wxp_x", authorizer(`"`+account+`"`), withKey), 503, `{"errcode":-503,`},
		"authorizer, account's":      {post(authorizerToken+a, authorizer(`"`+account+`"`)), 503, `{"errcode":-503,`},
		"authorizer, two callers":    {post(authorizerToken+c, authorizer(`"`+account+`"`), "X-Wxproxy-Key: "+stockKey), 401, `{"errcode":-401,`},
		"authorizer, unknown":        {post(authorizerToken+c, authorizer(`"`+other+`"`)), 503, `{"errcode":-503,`},
		"authorizer, revoked":        {post(authorizerToken+c, authorizer(`"wxdddddddddddddddd"`)), 503, `{"errcode":-503,`},
		"authorizer, store down":     {post(authorizerToken+c, authorizer(`"wxeeeeeeeeeeeeeeee"`)), 503, `{"errcode":-503,`},
		"authorizer, null":           {post(authorizerToken+c, authorizer(`null`)), 503, `{"errcode":-503,`},
		"authorizer, component's":    {post(authorizerToken+c, authorizer(`"`+component+`"`)), 503, `{"errcode":-503,`},
		"authorizer, not JSON":       {post(authorizerToken+c, `<xml>`), 503, `{"errcode":-503,`},
		"authorizer, other platform": {post(authorizerToken+c, `{"component_appid":"`+other+`","authorizer_appid":"`+account+`"}`), 503, `{"errcode":-503,`},
		"authorizer, another prefix": {post("/"+other+authorizerToken+c, authorizer(`"`+account+`"`)), 400, `{"errcode":-400,`},
		"authorizer, not permitted":  {post(authorizerToken, authorizer(`"`+other+`"`), "X-Wxproxy-Key: "+stockKey), 403, `{"errcode":-403,`},
		"exchange is not possible":   {post("/cgi-bin/component/api_query_auth", `{"authorization_code":"c"}`, withKey), 503, `{"errcode":-503,`},
	} {
		resp, body := send(t, addr, q.raw)
		checkResponse(t, name, resp, body, q.status, q.want)
		if !json.Valid([]byte(body)) || strings.Contains(body, ordersKey) || strings.Contains(body, "expires_in") {
			t.Errorf("%s: got %s, want JSON without a key or a token", name, body)
		}
		if retryAfter := resp.Header.Get("Retry-After"); (resp.StatusCode == 503) != (retryAfter != "") {
			t.Errorf("%s: got Retry-After %q with %s, want it with 503 only", name, retryAfter, resp.Status)
		}
	}
	// Paths and methods limit requests to WeChat. These are not forwarded.
	fetchAccount(t, addr, account, stockKey)
	fetchStandIn(t, addr, post("/cgi-bin/stable_token", `{"appid":"`+account+`","secret":"`+stockKey+`"}`))
	if n := len(requests()); n != 0 {
		t.Errorf("got %d requests at WeChat, want 0", n)
	}
}
