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

// account is a world in which one account has authorized.
type accountWorld struct {
	*world
	appid, token, component string
}

func newAccount(t *testing.T, appid string) accountWorld {
	w := newWorld(t, sandbox.Config{})
	token, _ := w.grant(appid)
	return accountWorld{w, appid, token, w.CurrentToken(w.ComponentAppID())}
}

func (a accountWorld) send(path, body string) got {
	a.t.Helper()
	return a.post(with(path, a.token), body)
}
func (a accountWorld) read(path string) got { a.t.Helper(); return a.get(with(path, a.token)) }

// comp calls for the component.
func (a accountWorld) comp(path string, pairs ...any) got {
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
	a := newAccount(t, shop)
	a.AuthorizationCode(mini) // agreed, and not exchanged
	list := func(offset, count any) got {
		return a.comp("/cgi-bin/component/api_get_authorizer_list", "offset", offset, "count", count)
	}
	want := fmt.Sprintf(`{"list":[{"auth_time":%d,"authorizer_appid":"%s","refresh_token":"%s"},{"auth_time":%d,"authorizer_appid":"%s","refresh_token":""}],"total_count":2}`,
		a.clock.Now().Unix(), shop, a.AuthorizerRefreshToken(shop), a.clock.Now().Unix(), mini)
	if g := list(0, 500).want(0); string(g.body) != want {
		t.Errorf("got  %s\nwant %s", g.body, want)
	}
	if g := list(1, 1).want(0); strings.Contains(string(g.body), shop) || !strings.Contains(string(g.body), mini) {
		t.Errorf("second page: %s", g.body)
	}
	if g := list(2, 10).want(0); string(g.body) != `{"list":[],"total_count":2}` {
		t.Errorf("behind the end: %s", g.body)
	}
	list(0, 501).want(40170)
	list(-1, 1).want(47001)
	list("0", 1).want(47001)
	list(nil, 1).want(47001)
}

func TestAuthorizerInfoTellsMiniPrograms(t *testing.T) {
	a := newAccount(t, shop)
	a.AuthorizationCode(mini)
	if g := a.comp("/cgi-bin/component/api_get_authorizer_info", "authorizer_appid", mini).want(0); !bytes.Contains(g.body, []byte("MiniProgramInfo")) {
		t.Errorf("%s", g.body)
	}
	if g := a.comp("/cgi-bin/component/api_get_authorizer_info", "authorizer_appid", shop).want(0); bytes.Contains(g.body, []byte("MiniProgramInfo")) {
		t.Errorf("%s", g.body)
	}
	a.comp("/cgi-bin/component/api_get_authorizer_info", "authorizer_appid", solo).want(61003)
}

func TestOptions(t *testing.T) {
	a := newAccount(t, shop)
	a.comp("/cgi-bin/component/api_set_authorizer_option", "authorizer_appid", shop, "option_name", "location_report", "option_value", "2").want(0)
	if v := a.send("/cgi-bin/component/get_authorizer_option", js("option_name", "location_report")).want(0).field("option_value"); v != "2" {
		t.Errorf("the new pair sees %q", v)
	}
	a.send("/cgi-bin/component/set_authorizer_option", js("option_name", "voice_recognize", "option_value", "1")).want(0)
	if v := a.comp("/cgi-bin/component/api_get_authorizer_option", "authorizer_appid", shop, "option_name", "voice_recognize").want(0).field("option_value"); v != "1" {
		t.Errorf("the old pair sees %q", v)
	}
	a.send("/cgi-bin/component/set_authorizer_option", js("option_name", "x", "option_value", "1")).want(61012)
	a.send("/cgi-bin/component/set_authorizer_option", js("option_name", "voice_recognize", "option_value", "2")).want(61013)
	a.send("/cgi-bin/component/get_authorizer_option", js("option_name", "x")).want(61012)
}

func TestPrivacySetting(t *testing.T) {
	a := newAccount(t, mini)
	contains(t, a.send("/cgi-bin/component/getprivacysetting", "{}").want(0).body, `"code_exist":0`)
	a.send("/cgi-bin/component/setprivacysetting", `{"a":1}`).want(0)
	contains(t, a.send("/cgi-bin/component/getprivacysetting", "{}").want(0).body, `"setting":{"a":1}`)
}

func TestQuotaAndRID(t *testing.T) {
	a := newAccount(t, shop)
	quota := func() string {
		return string(a.send("/cgi-bin/openapi/quota/get", js("cgi_path", "/cgi-bin/user/get")).want(0).body)
	}
	a.read("/cgi-bin/user/get").want(0)
	a.read("/cgi-bin/user/get").want(0)
	contains(t, []byte(quota()), `"used":2`)
	a.send("/cgi-bin/openapi/quota/get", js("cgi_path", "/sns/userinfo")).want(76022)
	a.send("/cgi-bin/openapi/quota/get", js("cgi_path", "/none")).want(76003)
	a.send("/cgi-bin/openapi/quota/clear", js("cgi_path", "/cgi-bin/user/get")).want(0)
	contains(t, []byte(quota()), `"used":0`)
	a.send("/cgi-bin/clear_quota", js("appid", mini)).want(49001)
	for range 9 {
		a.send("/cgi-bin/clear_quota", js("appid", shop)).want(0)
	}
	secret := js("component_appid", a.ComponentAppID(), "appsecret", sandbox.DefaultComponentSecret, "appid", shop)
	a.post("/cgi-bin/component/clear_quota/v2", secret).want(0)
	a.post("/cgi-bin/component/clear_quota/v2", secret).want(48006)
	a.clock.pass(31 * 24 * time.Hour)
	a.post("/cgi-bin/component/clear_quota/v2", secret).want(0)
	a.post("/cgi-bin/component/clear_quota/v2", js("component_appid", a.ComponentAppID(), "appsecret", "x")).want(40125)

	// The number of a failed call gives away its token, as in life.
	a = newAccount(t, shop)
	failed := a.send("/cgi-bin/menu/create", `{"button":[]}`).want(40016)
	rid := failed.field("errmsg")[strings.Index(failed.field("errmsg"), "rid: ")+5:]
	g := a.send("/cgi-bin/openapi/rid/get", js("rid", rid)).want(0)
	contains(t, g.body, "access_token="+a.token, `{\"button\":[]}`, `\"errcode\":40016`)
	a.send("/cgi-bin/openapi/rid/get", js("rid", "x")).want(76001)
	other, _ := a.grant(mini)
	a.post("/cgi-bin/openapi/rid/get?access_token="+other, js("rid", rid)).want(76002)
}

func TestLoginOfEndUsers(t *testing.T) {
	a := newAccount(t, mini)
	login := func(pairs ...string) got {
		q := url.Values{"appid": {mini}, "js_code": {"code-1"}, "grant_type": {"authorization_code"}, "component_appid": {a.ComponentAppID()}, "component_access_token": {a.component}}
		for i := 0; i < len(pairs); i += 2 {
			q.Set(pairs[i], pairs[i+1])
			if pairs[i+1] == "" {
				q.Del(pairs[i])
			}
		}
		return a.get("/sns/component/jscode2session?" + q.Encode())
	}
	g := login().want(0)
	if g.field("openid") == "" || !slices.Contains(a.UserSecrets(), g.field("session_key")) || g.header.Get("Content-Type") != "text/plain" {
		t.Errorf("%s %v", g.body, g.header)
	}
	login().want(40163)
	contains(t, login("js_code", "invalid").body, `{"errcode":"40029","errmsg":"invalid code rid: `)
	login("js_code", "").want(41008)
	login("component_appid", "").want(41018)
	login("component_appid", mini).want(40013)
	login("appid", shop).want(61003)
	login("appid", "").want(41002)
	login("grant_type", "x").want(40002)
	login("component_access_token", "").want(41021)
	a.get("/sns/jscode2session?grant_type=authorization_code&appid=" + solo + "&secret=" + soloSecret + "&js_code=code-1").want(0)
	a.get("/sns/jscode2session?grant_type=authorization_code&appid=" + solo + "&secret=x&js_code=code-2").want(40125)
}

func TestOAuthOfEndUsers(t *testing.T) {
	a := newAccount(t, shop)
	component := "&component_appid=" + a.ComponentAppID() + "&component_access_token=" + a.component
	g := a.get("/sns/oauth2/component/access_token?grant_type=authorization_code&code=code-1&appid=" + shop + component).want(0)
	who := "?access_token=" + g.field("access_token") + "&openid=" + g.field("openid")
	if got := a.get("/sns/userinfo" + who).want(0).field("openid"); got != g.field("openid") {
		t.Error(got)
	}
	a.get("/sns/auth" + who).want(0)
	a.get("/sns/auth" + who + "x").want(40003)
	a.get("/sns/auth?access_token=" + g.field("access_token")).want(41009)
	a.get("/sns/auth").want(41001)
	r := a.get("/sns/oauth2/component/refresh_token?grant_type=refresh_token&refresh_token=" + g.field("refresh_token") + "&appid=" + shop + component).want(0)
	if r.field("openid") != g.field("openid") || r.field("access_token") == g.field("access_token") {
		t.Errorf("%s", r.body)
	}
	a.get("/sns/oauth2/component/refresh_token?grant_type=refresh_token&refresh_token=x&appid=" + shop + component).want(40030)
	own := a.get("/sns/oauth2/access_token?grant_type=authorization_code&code=code-1&appid=" + solo + "&secret=" + soloSecret).want(0)
	a.get("/sns/oauth2/refresh_token?grant_type=refresh_token&appid=" + solo + "&refresh_token=" + own.field("refresh_token")).want(0)
	a.get("/sns/oauth2/refresh_token?grant_type=refresh_token&appid=" + shop + "&refresh_token=" + own.field("refresh_token")).want(40030)
	a.clock.pass(31 * 24 * time.Hour)
	a.get("/sns/userinfo" + who).want(42001)
	a.get("/sns/oauth2/refresh_token?grant_type=refresh_token&appid=" + solo + "&refresh_token=" + own.field("refresh_token")).want(42002)
}

func TestMessagesAndMenus(t *testing.T) {
	a := newAccount(t, shop)
	a.send(customSend, `{"touser":"x","msgtype":"text","text":{}}`).want(40003)
	a.send(customSend, `{"touser":"o`+strings.Repeat("A", 27)+`","msgtype":"text"}`).want(47001)
	to := `{"touser":"o` + strings.Repeat("A", 27) + `",`
	first := a.send("/cgi-bin/message/template/send", to+`"template_id":"x","data":{}}`).want(0).object()["msgid"]
	if second := a.send("/cgi-bin/message/template/send", to+`"template_id":"x","data":{}}`).want(0); first == nil || bytes.Contains(second.body, []byte("200000000000000001")) {
		t.Errorf("msgid: %s", second.body)
	}
	a.send("/cgi-bin/message/template/send", to+`"data":{}}`).want(40037)
	a.send("/cgi-bin/message/subscribe/send", to+`"template_id":"x","data":{}}`).want(0)
	a.send("/cgi-bin/message/subscribe/send", to+`"template_id":"x"}`).want(47001)
	a.send("/cgi-bin/template/api_add_template", `{"template_id_short":"TM1"}`).want(0)
	a.send("/cgi-bin/template/api_add_template", `{}`).want(40037)

	a.read("/cgi-bin/menu/get").want(46003)
	a.send("/cgi-bin/menu/create", `{"button":[{"name":"今日","type":"click","key":"K"}]}`).want(0)
	if g := a.read("/cgi-bin/menu/get").want(0); string(g.body) != `{"menu":{"button":[{"name":"今日","type":"click","key":"K"}]}}` {
		t.Errorf("%s", g.body)
	}
	a.read("/cgi-bin/menu/delete").want(0)
	a.read("/cgi-bin/menu/get").want(46003)
	a.send("/cgi-bin/menu/create", `{"button":[{"name":"\u4eca"}]}`).want(40033)
	a.send("/cgi-bin/menu/create", `{"button":[1,2,3,4]}`).want(40016)
}

func TestUsersAndTags(t *testing.T) {
	a := newAccount(t, shop)
	data, _ := a.read("/cgi-bin/user/get").want(0).object()["data"].(map[string]any)
	list, _ := data["openid"].([]any)
	if len(list) != 3 {
		t.Fatalf("%v", list)
	}
	first, last := list[0].(string), list[2].(string)
	contains(t, a.read("/cgi-bin/user/get?next_openid="+first).want(0).body, `"count":2`)
	if g := a.read("/cgi-bin/user/get?next_openid=" + last).want(0); string(g.body) != `{"count":0,"next_openid":"","total":3}` {
		t.Errorf("%s", g.body)
	}
	a.read("/cgi-bin/user/get?next_openid=x").want(40003)
	if a.read("/cgi-bin/user/info?openid="+first).want(0).field("openid") != first {
		t.Error("another user")
	}
	a.read("/cgi-bin/user/info").want(41009)
	a.read("/cgi-bin/user/info?openid=x").want(40003)
	contains(t, a.send("/cgi-bin/user/info/batchget", `{"user_list":[{"openid":"`+first+`"},{"openid":"`+last+`"}]}`).want(0).body, first, last)
	a.send("/cgi-bin/user/info/batchget", `{"user_list":[]}`).want(47001)
	a.send("/cgi-bin/user/info/batchget", `{"user_list":[`+strings.Repeat(`{},`, 100)+`{}]}`).want(40170)

	contains(t, a.send("/cgi-bin/tags/create", `{"tag":{"name":"广东"}}`).want(0).body, `{"tag":{"id":100,"name":"广东"}}`)
	a.send("/cgi-bin/tags/create", `{"tag":{"name":"广东"}}`).want(45157)
	contains(t, a.read("/cgi-bin/tags/get").want(0).body, `{"tags":[{"id":100,"name":"广东","count":0}]}`)
	a.send("/cgi-bin/tags/delete", `{"tag":{"id":100}}`).want(0)
	a.send("/cgi-bin/tags/delete", `{"tag":{"id":100}}`).want(45157)
	contains(t, a.read("/cgi-bin/tags/get").want(0).body, `{"tags":[]}`)
	contains(t, a.read("/cgi-bin/ticket/getticket?type=jsapi").want(0).body, `"expires_in":7200`)
	a.read("/cgi-bin/ticket/getticket?type=x").want(40035)
	contains(t, a.read("/cgi-bin/getcallbackip").want(0).body, `{"ip_list":["127.0.0.1"]}`)
	contains(t, a.send("/cgi-bin/qrcode/create", `{"action_name":"QR_SCENE","action_info":{}}`).want(0).body, `"expire_seconds":60`, `"ticket":"gQ`)
	a.send("/cgi-bin/qrcode/create", `{"action_name":"X","action_info":{}}`).want(40053)
}
