package sandbox_test

import (
	"bytes"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"wxproxy/sandbox"
)

// accountEnv is an env in which one account has authorized.
type accountEnv struct {
	*env
	appid, token, component string
}

func newAccountEnv(t *testing.T, appid string) accountEnv {
	wx := newEnv(t, sandbox.Config{})
	token, _ := wx.grant(appid)
	return accountEnv{wx, appid, token, wx.CurrentToken(wx.ComponentAppID())}
}

func (a accountEnv) postJSON(path, body string) response {
	a.t.Helper()
	return a.post(with(path, a.token), body)
}
func (a accountEnv) getAs(path string) response { a.t.Helper(); return a.get(with(path, a.token)) }

// postAsComponent sends a request with the component's token and appid.
func (a accountEnv) postAsComponent(path string, pairs ...any) response {
	a.t.Helper()
	return a.post(with(path, a.component), js(append([]any{"component_appid", a.ComponentAppID()}, pairs...)...))
}

func with(path, token string) string {
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	return path + sep + "access_token=" + token
}

func TestAuthorizerList(t *testing.T) {
	a := newAccountEnv(t, shop)
	a.AuthorizationCode(mini) // consented, not exchanged
	list := func(offset, count any) response {
		return a.postAsComponent("/cgi-bin/component/api_get_authorizer_list", "offset", offset, "count", count)
	}
	want := fmt.Sprintf(`{"list":[{"auth_time":%d,"authorizer_appid":"%s","refresh_token":"%s"},`+
		`{"auth_time":%d,"authorizer_appid":"%s","refresh_token":""}],"total_count":2}`,
		a.clock.Now().Unix(), shop, a.AuthorizerRefreshToken(shop), a.clock.Now().Unix(), mini)
	if g := list(0, 500).wantCode(0); string(g.body) != want {
		t.Errorf("got  %s\nwant %s", g.body, want)
	}
	if g := list(1, 1).wantCode(0); strings.Contains(string(g.body), shop) ||
		!strings.Contains(string(g.body), mini) {
		t.Errorf("second page: got %s, want %s only", g.body, mini)
	}
	if g := list(2, 10).wantCode(0); string(g.body) != `{"list":[],"total_count":2}` {
		t.Errorf("page after the end: got %s, want an empty list", g.body)
	}
	list(0, 501).wantCode(40170)
	list(-1, 1).wantCode(47001)
	list("0", 1).wantCode(47001)
	list(nil, 1).wantCode(47001)
}

func TestAuthorizerInfoMarksMiniPrograms(t *testing.T) {
	a := newAccountEnv(t, shop)
	a.AuthorizationCode(mini)
	if g := a.postAsComponent("/cgi-bin/component/api_get_authorizer_info", "authorizer_appid",
		mini).wantCode(0); !bytes.Contains(g.body, []byte("MiniProgramInfo")) {
		t.Errorf("mini program: got %s, want MiniProgramInfo", g.body)
	}
	if g := a.postAsComponent("/cgi-bin/component/api_get_authorizer_info", "authorizer_appid",
		shop).wantCode(0); bytes.Contains(g.body, []byte("MiniProgramInfo")) {
		t.Errorf("official account: got %s, want no MiniProgramInfo", g.body)
	}
	a.postAsComponent("/cgi-bin/component/api_get_authorizer_info", "authorizer_appid", solo).wantCode(61003)
}

func TestAuthorizerOptions(t *testing.T) {
	a := newAccountEnv(t, shop)
	a.postAsComponent("/cgi-bin/component/api_set_authorizer_option", "authorizer_appid", shop, "option_name",
		"location_report", "option_value", "2").wantCode(0)
	if v := a.postJSON("/cgi-bin/component/get_authorizer_option",
		js("option_name", "location_report")).wantCode(0).field("option_value"); v != "2" {
		t.Errorf("get_authorizer_option: got %q, want 2, set by api_set_authorizer_option", v)
	}
	a.postJSON("/cgi-bin/component/set_authorizer_option",
		js("option_name", "voice_recognize", "option_value", "1")).wantCode(0)
	if v := a.postAsComponent("/cgi-bin/component/api_get_authorizer_option", "authorizer_appid", shop,
		"option_name", "voice_recognize").wantCode(0).field("option_value"); v != "1" {
		t.Errorf("api_get_authorizer_option: got %q, want 1, set by set_authorizer_option", v)
	}
	a.postJSON("/cgi-bin/component/set_authorizer_option",
		js("option_name", "x", "option_value", "1")).wantCode(61012)
	a.postJSON("/cgi-bin/component/set_authorizer_option",
		js("option_name", "voice_recognize", "option_value", "2")).wantCode(61013)
	a.postJSON("/cgi-bin/component/get_authorizer_option", js("option_name", "x")).wantCode(61012)
}

func TestPrivacySetting(t *testing.T) {
	a := newAccountEnv(t, mini)
	contains(t, a.postJSON("/cgi-bin/component/getprivacysetting", "{}").wantCode(0).body, `"code_exist":0`)
	a.postJSON("/cgi-bin/component/setprivacysetting", `{"a":1}`).wantCode(0)
	contains(t, a.postJSON("/cgi-bin/component/getprivacysetting", "{}").wantCode(0).body, `"setting":{"a":1}`)
}

func TestQuotaAndRID(t *testing.T) {
	a := newAccountEnv(t, shop)
	quota := func() string {
		return string(a.postJSON("/cgi-bin/openapi/quota/get",
			js("cgi_path", "/cgi-bin/user/get")).wantCode(0).body)
	}
	a.getAs("/cgi-bin/user/get").wantCode(0)
	a.getAs("/cgi-bin/user/get").wantCode(0)
	contains(t, []byte(quota()), `"used":2`)
	a.postJSON("/cgi-bin/openapi/quota/get", js("cgi_path", "/sns/userinfo")).wantCode(76022)
	a.postJSON("/cgi-bin/openapi/quota/get", js("cgi_path", "/none")).wantCode(76003)
	a.postJSON("/cgi-bin/openapi/quota/clear", js("cgi_path", "/cgi-bin/user/get")).wantCode(0)
	contains(t, []byte(quota()), `"used":0`)
	a.postJSON("/cgi-bin/clear_quota", js("appid", mini)).wantCode(49001)
	for range 9 {
		a.postJSON("/cgi-bin/clear_quota", js("appid", shop)).wantCode(0)
	}
	secret := js("component_appid", a.ComponentAppID(), "appsecret", sandbox.DefaultComponentSecret, "appid", shop)
	a.post("/cgi-bin/component/clear_quota/v2", secret).wantCode(0)
	a.post("/cgi-bin/component/clear_quota/v2", secret).wantCode(48006)
	a.clock.advance(31 * 24 * time.Hour)
	a.post("/cgi-bin/component/clear_quota/v2", secret).wantCode(0)
	a.post("/cgi-bin/component/clear_quota/v2", js("component_appid", a.ComponentAppID(), "appsecret",
		"x")).wantCode(40125)

	// What WeChat remembers of a failed request includes its token.
	a = newAccountEnv(t, shop)
	failed := a.postJSON("/cgi-bin/menu/create", `{"button":[]}`).wantCode(40016)
	rid := failed.field("errmsg")[strings.Index(failed.field("errmsg"), "rid: ")+5:]
	g := a.postJSON("/cgi-bin/openapi/rid/get", js("rid", rid)).wantCode(0)
	contains(t, g.body, "access_token="+a.token, `{\"button\":[]}`, `\"errcode\":40016`)
	a.postJSON("/cgi-bin/openapi/rid/get", js("rid", "x")).wantCode(76001)
	other, _ := a.grant(mini)
	a.post("/cgi-bin/openapi/rid/get?access_token="+other, js("rid", rid)).wantCode(76002)
}

func TestMiniProgramLogin(t *testing.T) {
	a := newAccountEnv(t, mini)
	login := func(pairs ...string) response {
		q := url.Values{"appid": {mini}, "js_code": {"code-1"}, "grant_type": {"authorization_code"},
			"component_appid": {a.ComponentAppID()}, "component_access_token": {a.component}}
		for i := 0; i < len(pairs); i += 2 {
			q.Set(pairs[i], pairs[i+1])
			if pairs[i+1] == "" {
				q.Del(pairs[i])
			}
		}
		return a.get("/sns/component/jscode2session?" + q.Encode())
	}
	g := login().wantCode(0)
	if g.field("openid") == "" || !slices.Contains(a.UserSecrets(), g.field("session_key")) ||
		g.header.Get("Content-Type") != "text/plain" {
		t.Errorf("got %s %v, want an openid, a recorded session key, and text/plain", g.body, g.header)
	}
	login().wantCode(40163)
	contains(t, login("js_code", "invalid").body, `{"errcode":"40029","errmsg":"invalid code rid: `)
	login("js_code", "").wantCode(41008)
	login("component_appid", "").wantCode(41018)
	login("component_appid", mini).wantCode(40013)
	login("appid", shop).wantCode(61003)
	login("appid", "").wantCode(41002)
	login("grant_type", "x").wantCode(40002)
	login("component_access_token", "").wantCode(41021)
	a.get("/sns/jscode2session?grant_type=authorization_code&appid=" + solo + "&secret=" + soloSecret +
		"&js_code=code-1").wantCode(0)
	a.get("/sns/jscode2session?grant_type=authorization_code&appid=" + solo +
		"&secret=x&js_code=code-2").wantCode(40125)
}

func TestEndUserOAuth(t *testing.T) {
	a := newAccountEnv(t, shop)
	component := "&component_appid=" + a.ComponentAppID() + "&component_access_token=" + a.component
	g := a.get("/sns/oauth2/component/access_token?grant_type=authorization_code&code=code-1&appid=" + shop +
		component).wantCode(0)
	user := "?access_token=" + g.field("access_token") + "&openid=" + g.field("openid")
	if got := a.get("/sns/userinfo" + user).wantCode(0).field("openid"); got != g.field("openid") {
		t.Errorf("userinfo: got openid %q, want %q", got, g.field("openid"))
	}
	a.get("/sns/auth" + user).wantCode(0)
	a.get("/sns/auth" + user + "x").wantCode(40003)
	a.get("/sns/auth?access_token=" + g.field("access_token")).wantCode(41009)
	a.get("/sns/auth").wantCode(41001)
	r := a.get("/sns/oauth2/component/refresh_token?grant_type=refresh_token&refresh_token=" +
		g.field("refresh_token") + "&appid=" + shop + component).wantCode(0)
	if r.field("openid") != g.field("openid") || r.field("access_token") == g.field("access_token") {
		t.Errorf("renewal: got %s, want the same openid and another token", r.body)
	}
	a.get("/sns/oauth2/component/refresh_token?grant_type=refresh_token&refresh_token=x&appid=" + shop +
		component).wantCode(40030)
	own := a.get("/sns/oauth2/access_token?grant_type=authorization_code&code=code-1&appid=" + solo +
		"&secret=" + soloSecret).wantCode(0)
	a.get("/sns/oauth2/refresh_token?grant_type=refresh_token&appid=" + solo + "&refresh_token=" +
		own.field("refresh_token")).wantCode(0)
	a.get("/sns/oauth2/refresh_token?grant_type=refresh_token&appid=" + shop + "&refresh_token=" +
		own.field("refresh_token")).wantCode(40030)
	a.clock.advance(31 * 24 * time.Hour)
	a.get("/sns/userinfo" + user).wantCode(42001)
	a.get("/sns/oauth2/refresh_token?grant_type=refresh_token&appid=" + solo + "&refresh_token=" +
		own.field("refresh_token")).wantCode(42002)
}

func TestMessagesAndMenus(t *testing.T) {
	a := newAccountEnv(t, shop)
	a.postJSON(customSend, `{"touser":"x","msgtype":"text","text":{}}`).wantCode(40003)
	a.postJSON(customSend, `{"touser":"o`+strings.Repeat("A", 27)+`","msgtype":"text"}`).wantCode(47001)
	to := `{"touser":"o` + strings.Repeat("A", 27) + `",`
	first := a.postJSON("/cgi-bin/message/template/send",
		to+`"template_id":"x","data":{}}`).wantCode(0).object()["msgid"]
	if second := a.postJSON("/cgi-bin/message/template/send",
		to+`"template_id":"x","data":{}}`).wantCode(0); first == nil ||
		bytes.Contains(second.body, []byte("200000000000000001")) {
		t.Errorf("got msgid in %s, want another one than before", second.body)
	}
	a.postJSON("/cgi-bin/message/template/send", to+`"data":{}}`).wantCode(40037)
	a.postJSON("/cgi-bin/message/subscribe/send", to+`"template_id":"x","data":{}}`).wantCode(0)
	a.postJSON("/cgi-bin/message/subscribe/send", to+`"template_id":"x"}`).wantCode(47001)
	a.postJSON("/cgi-bin/template/api_add_template", `{"template_id_short":"TM1"}`).wantCode(0)
	a.postJSON("/cgi-bin/template/api_add_template", `{}`).wantCode(40037)

	a.getAs("/cgi-bin/menu/get").wantCode(46003)
	const menu = `{"button":[{"name":"今日","type":"click","key":"K"}]}`
	a.postJSON("/cgi-bin/menu/create", menu).wantCode(0)
	if g := a.getAs("/cgi-bin/menu/get").wantCode(0); string(g.body) != `{"menu":`+menu+`}` {
		t.Errorf("got menu %s, want it as it was created", g.body)
	}
	a.getAs("/cgi-bin/menu/delete").wantCode(0)
	a.getAs("/cgi-bin/menu/get").wantCode(46003)
	a.postJSON("/cgi-bin/menu/create", `{"button":[{"name":"\u4eca"}]}`).wantCode(40033)
	a.postJSON("/cgi-bin/menu/create", `{"button":[1,2,3,4]}`).wantCode(40016)
}

// The quota is that of one day in China, which begins at 16:00 UTC.
func TestQuotaCountsTheRequestsOfOneDay(t *testing.T) {
	wx := newEnv(t, sandbox.Config{TokenLife: 3 * 24 * time.Hour})
	access, _ := wx.grant(shop)
	wantUsed := func(want string) {
		t.Helper()
		wx.get("/cgi-bin/user/get?access_token=" + access).wantCode(0)
		g := wx.post("/cgi-bin/openapi/quota/get?access_token="+access, js("cgi_path", "/cgi-bin/user/get"))
		contains(t, g.wantCode(0).body, `"used":`+want+"}")
	}
	now := wx.clock.Now().UTC()
	nextDay := time.Date(now.Year(), now.Month(), now.Day()+1, 16, 0, 0, 0, time.UTC)
	wx.clock.advance(nextDay.Sub(now) - 2*time.Second)
	wantUsed("1")
	wx.clock.advance(time.Second)
	wantUsed("2")
	wx.clock.advance(time.Second)
	wantUsed("1")
}

func TestFollowersAndTags(t *testing.T) {
	a := newAccountEnv(t, shop)
	data, _ := a.getAs("/cgi-bin/user/get").wantCode(0).object()["data"].(map[string]any)
	list, _ := data["openid"].([]any)
	if len(list) != 3 {
		t.Fatalf("got followers %v, want 3", list)
	}
	first, last := list[0].(string), list[2].(string)
	contains(t, a.getAs("/cgi-bin/user/get?next_openid="+first).wantCode(0).body, `"count":2`)
	if g := a.getAs("/cgi-bin/user/get?next_openid=" +
		last).wantCode(0); string(g.body) != `{"count":0,"next_openid":"","total":3}` {
		t.Errorf("page after the last follower: got %s, want it empty, without data", g.body)
	}
	a.getAs("/cgi-bin/user/get?next_openid=x").wantCode(40003)
	if got := a.getAs("/cgi-bin/user/info?openid=" + first).wantCode(0).field("openid"); got != first {
		t.Errorf("user/info: got openid %q, want %q", got, first)
	}
	a.getAs("/cgi-bin/user/info").wantCode(41009)
	a.getAs("/cgi-bin/user/info?openid=x").wantCode(40003)
	contains(t, a.postJSON("/cgi-bin/user/info/batchget",
		`{"user_list":[{"openid":"`+first+`"},{"openid":"`+last+`"}]}`).wantCode(0).body, first, last)
	a.postJSON("/cgi-bin/user/info/batchget", `{"user_list":[]}`).wantCode(47001)
	a.postJSON("/cgi-bin/user/info/batchget", `{"user_list":[`+strings.Repeat(`{},`, 100)+`{}]}`).wantCode(40170)

	contains(t, a.postJSON("/cgi-bin/tags/create", `{"tag":{"name":"广东"}}`).wantCode(0).body,
		`{"tag":{"id":100,"name":"广东"}}`)
	a.postJSON("/cgi-bin/tags/create", `{"tag":{"name":"广东"}}`).wantCode(45157)
	contains(t, a.getAs("/cgi-bin/tags/get").wantCode(0).body, `{"tags":[{"id":100,"name":"广东","count":0}]}`)
	a.postJSON("/cgi-bin/tags/delete", `{"tag":{"id":100}}`).wantCode(0)
	a.postJSON("/cgi-bin/tags/delete", `{"tag":{"id":100}}`).wantCode(45157)
	contains(t, a.getAs("/cgi-bin/tags/get").wantCode(0).body, `{"tags":[]}`)
	for n := range 100 {
		a.postJSON("/cgi-bin/tags/create", js("tag", map[string]string{"name": fmt.Sprint("tag ", n)})).wantCode(0)
	}
	a.postJSON("/cgi-bin/tags/create", `{"tag":{"name":"one too many"}}`).wantCode(45056)
	contains(t, a.getAs("/cgi-bin/ticket/getticket?type=jsapi").wantCode(0).body, `"expires_in":7200`)
	a.getAs("/cgi-bin/ticket/getticket?type=x").wantCode(40035)
	contains(t, a.getAs("/cgi-bin/getcallbackip").wantCode(0).body, `{"ip_list":["127.0.0.1"]}`)
	contains(t, a.postJSON("/cgi-bin/qrcode/create",
		`{"action_name":"QR_SCENE","action_info":{}}`).wantCode(0).body, `"expire_seconds":60`, `"ticket":"gQ`)
	a.postJSON("/cgi-bin/qrcode/create", `{"action_name":"X","action_info":{}}`).wantCode(40053)
}
