package sandbox_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"wxproxy/sandbox"
)

// What wants which token, as the tables of the documentation and their traps have it.
func TestKindsOfTokens(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	authorizer, _ := w.grant(shop)
	component := w.CurrentToken(w.ComponentAppID())
	app := w.post("/cgi-bin/stable_token", js("grant_type", "client_credential", "appid", solo, "secret", soloSecret)).field("access_token")
	end := w.get("/sns/oauth2/component/access_token?appid=" + shop + "&code=code01&grant_type=authorization_code&component_appid=" + w.ComponentAppID() + "&component_access_token=" + component).want(0).field("access_token")
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
		g := w.do(c.method, c.path+query, map[string]string{"GET": "", "POST": w.componentBody()}[c.method])
		if g.code() != c.code {
			t.Errorf("%s with %s of kind %.12s: %s, want %d", c.path, c.parameter, c.token, g.body, c.code)
		}
	}
	g := w.get("/sns/userinfo?access_token=" + end + "&openid=" + w.History()[0].Host)
	g.want(40003)
}

func TestOwnAccounts(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	token := func(appid, secret, grant string) got {
		return w.get("/cgi-bin/token?grant_type=" + grant + "&appid=" + appid + "&secret=" + secret)
	}
	token(solo, soloSecret, "client_credential").want(0)
	token(solo, soloSecret, "x").want(40002)
	token(solo, "x", "client_credential").want(40125)
	token(solo, "", "client_credential").want(41004)
	token("", "x", "client_credential").want(41002)
	token(shop, "x", "client_credential").want(40125)
	token("wxffffffffffffffff", "x", "client_credential").want(40013)
	token(w.ComponentAppID(), sandbox.DefaultComponentSecret, "client_credential").want(61024)

	stable := func(force bool) string {
		return w.post("/cgi-bin/stable_token", js("grant_type", "client_credential", "appid", solo, "secret", soloSecret, "force_refresh", force)).want(0).field("access_token")
	}
	first := stable(false)
	if stable(false) != first {
		t.Error("the stable token is not stable")
	}
	w.clock.pass(2*time.Hour - 5*time.Minute)
	second := stable(false)
	if second == first {
		t.Error("no new one five minutes before the end")
	}
	w.get(info + first).want(0)
	third := stable(true)
	w.get(info + second).want(40001)
	w.get(info + third).want(0)
	if stable(true) != third {
		t.Error("forced twice within thirty seconds")
	}
	for range 19 {
		w.clock.pass(30 * time.Second)
		stable(true)
	}
	w.clock.pass(30 * time.Second)
	w.post("/cgi-bin/stable_token", js("grant_type", "client_credential", "appid", solo, "secret", soloSecret, "force_refresh", true)).want(45009)
	w.post("/cgi-bin/stable_token", js("grant_type", "client_credential", "appid", w.ComponentAppID(), "secret", "x")).want(61024)
	// The kinds do not disturb each other.
	if own := token(solo, soloSecret, "client_credential").field("access_token"); own == w.CurrentToken(solo) {
		t.Error("/cgi-bin/token gives the stable token")
	}
	w.get(info + w.CurrentToken(solo)).want(0)
}

func TestSecretsHoldsAllOfThem(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	access, refresh := w.grant(shop)
	secrets := w.Secrets()
	for name, v := range map[string]string{
		"access": access, "refresh": refresh, "component": w.CurrentToken(w.ComponentAppID()), "ticket": w.Ticket(), "own": soloSecret,
		"app": sandbox.DefaultComponentSecret, "message": sandbox.DefaultMessageToken, "key": sandbox.DefaultEncodingAESKey,
	} {
		if v == "" || !slices.Contains(secrets, v) {
			t.Errorf("the %s one is missing", name)
		}
	}
	pre := w.post("/cgi-bin/component/api_create_preauthcode?access_token="+w.CurrentToken(w.ComponentAppID()), w.componentBody()).field("pre_auth_code")
	if pre == "" || !slices.Contains(w.UserSecrets(), pre) || slices.Contains(w.Secrets(), pre) {
		t.Error("the pre-auth code is in the wrong list")
	}
}
