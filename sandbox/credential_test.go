package sandbox_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"wxproxy/sandbox"
)

// The rows follow the tables of WeChat's documentation, traps included.
func TestEndpointsTakeTheirKindOfToken(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	authorizer, _ := wx.grant(shop)
	component := wx.CurrentToken(wx.ComponentAppID())
	app := wx.stableToken(solo, soloSecret, false).field("access_token")
	end := wx.get("/sns/oauth2/component/access_token?appid=" + shop +
		"&code=code01&grant_type=authorization_code&component_appid=" + wx.ComponentAppID() +
		"&component_access_token=" + component).wantCode(0).field("access_token")
	never := "98_" + strings.Repeat("x", 80)
	for _, c := range []struct {
		method, path, parameter, token string
		code                           int
	}{
		{"GET", "/cgi-bin/user/get", "access_token", authorizer, 0},
		{"GET", "/cgi-bin/user/get", "access_token", app, 0},
		{"GET", "/cgi-bin/user/get", "access_token", component, 61015},
		{"GET", "/cgi-bin/user/get", "access_token", end, 40001},
		{"GET", "/cgi-bin/user/get", "access_token", never, 40001},
		{"GET", "/cgi-bin/user/get", "access_token", "abc", 40014},
		{"GET", "/cgi-bin/user/get", "access_token", "", 41001},
		{"GET", "/cgi-bin/user/get", "component_access_token", authorizer, 41001},
		{"POST", "/cgi-bin/component/api_create_preauthcode", "access_token", component, 0},
		{"POST", "/cgi-bin/component/api_create_preauthcode", "component_access_token", component, 0},
		{"POST", "/cgi-bin/component/api_create_preauthcode", "access_token", authorizer, 61014},
		{"POST", "/cgi-bin/component/api_create_preauthcode", "access_token", app, 61014},
		{"POST", "/cgi-bin/component/api_create_preauthcode", "access_token", "", 41001},
		{"POST", "/cgi-bin/component/setprivacysetting", "access_token", authorizer, 0},
		{"POST", "/cgi-bin/component/getprivacysetting", "access_token", component, 40001},
		{"POST", "/cgi-bin/component/setprivacysetting", "access_token", component, 40001},
		{"GET", "/wxa/gettemplatelist", "access_token", component, 0},
		{"GET", "/wxa/gettemplatelist", "component_access_token", component, 41001},
		{"GET", "/wxa/gettemplatelist", "access_token", authorizer, 61014},
		{"GET", "/cgi-bin/getcallbackip", "access_token", component, 0},
		{"GET", "/cgi-bin/getcallbackip", "access_token", authorizer, 0},
		{"POST", "/tcb/modifyenv", "access_token", component, 0},
		{"POST", "/tcb/databasequery", "access_token", component, 61015},
		{"GET", "/sns/userinfo", "access_token", authorizer, 40001},
		{"GET", "/sns/component/jscode2session", "access_token", component, 41021},
		{"GET", "/sns/component/jscode2session", "component_access_token", authorizer, 61014},
	} {
		query := "?"
		if c.token != "" {
			query += c.parameter + "=" + c.token
		}
		g := wx.do(c.method, c.path+query, map[string]string{"GET": "", "POST": wx.componentBody()}[c.method])
		if g.code() != c.code {
			t.Errorf("%s with %s=%.12s: got %s, want %d", c.path, c.parameter, c.token, g.body, c.code)
		}
	}
	g := wx.get("/sns/userinfo?access_token=" + end + "&openid=" + wx.History()[0].Host)
	g.wantCode(40003)
}

func TestAccountsWithTheirOwnSecret(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	token := func(appid, secret, grant string) response {
		return wx.get("/cgi-bin/token?grant_type=" + grant + "&appid=" + appid + "&secret=" + secret)
	}
	token(solo, soloSecret, "client_credential").wantCode(0)
	token(solo, soloSecret, "x").wantCode(40002)
	token(solo, "x", "client_credential").wantCode(40125)
	token(solo, "", "client_credential").wantCode(41004)
	token("", "x", "client_credential").wantCode(41002)
	token(shop, "x", "client_credential").wantCode(40125)
	token("wxffffffffffffffff", "x", "client_credential").wantCode(40013)
	token(wx.ComponentAppID(), sandbox.DefaultComponentSecret, "client_credential").wantCode(61024)

	stable := func(force bool) string {
		return wx.stableToken(solo, soloSecret, force).wantCode(0).field("access_token")
	}
	first := stable(false)
	if stable(false) != first {
		t.Error("stable_token returned another token within its lifetime")
	}
	wx.clock.advance(2*time.Hour - 5*time.Minute)
	second := stable(false)
	if second == first {
		t.Error("got the old stable token five minutes before its end, want a new one")
	}
	wx.get(info + first).wantCode(0)
	third := stable(true)
	wx.get(info + second).wantCode(40001)
	wx.get(info + third).wantCode(0)
	if stable(true) != third {
		t.Error("got a new token, want the same one: forcing works once in thirty seconds")
	}
	for range 19 {
		wx.clock.advance(30 * time.Second)
		stable(true)
	}
	wx.clock.advance(30 * time.Second)
	wx.stableToken(solo, soloSecret, true).wantCode(45009)
	wx.stableToken(wx.ComponentAppID(), "x", false).wantCode(61024)
	// The two kinds of token are independent.
	if own := token(solo, soloSecret, "client_credential").field("access_token"); own == wx.CurrentToken(solo) {
		t.Error("/cgi-bin/token returned the stable token, want a token of its own")
	}
	wx.get(info + wx.CurrentToken(solo)).wantCode(0)
}

func TestSecretsListsEverySecret(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	access, refresh := wx.grant(shop)
	secrets := wx.Secrets()
	for name, v := range map[string]string{
		"access":    access,
		"refresh":   refresh,
		"component": wx.CurrentToken(wx.ComponentAppID()),
		"ticket":    wx.Ticket(),
		"own":       soloSecret,
		"app":       sandbox.DefaultComponentSecret,
		"message":   sandbox.DefaultMessageToken,
		"key":       sandbox.DefaultEncodingAESKey,
	} {
		if v == "" || !slices.Contains(secrets, v) {
			t.Errorf("Secrets lacks the %s secret %q", name, v)
		}
	}
	path := "/cgi-bin/component/api_create_preauthcode?access_token=" + wx.CurrentToken(wx.ComponentAppID())
	pre := wx.post(path, wx.componentBody()).field("pre_auth_code")
	if pre == "" || !slices.Contains(wx.UserSecrets(), pre) || slices.Contains(wx.Secrets(), pre) {
		t.Errorf("got pre-auth code %q, want it in UserSecrets and not in Secrets", pre)
	}
}
