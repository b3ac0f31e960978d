package sandbox_test

import (
	"strings"
	"testing"
	"time"

	"wxproxy/sandbox"
)

const info = "/cgi-bin/user/get?access_token="

func TestComponentTokenChecksWhatItIsGiven(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	ticket := w.Ticket()
	for _, c := range []struct {
		name, appid, secret, ticket string
		code                        int
	}{
		{"no appid", "", sandbox.DefaultComponentSecret, ticket, 41018},
		{"another appid", shop, sandbox.DefaultComponentSecret, ticket, 40013},
		{"no secret", w.ComponentAppID(), "", ticket, 41004},
		{"another secret", w.ComponentAppID(), "x", ticket, 40125},
		{"no ticket", w.ComponentAppID(), sandbox.DefaultComponentSecret, "", 41020},
		{"another ticket", w.ComponentAppID(), sandbox.DefaultComponentSecret, ticket + "x", 61006},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.post("/cgi-bin/component/api_component_token", js("component_appid", c.appid, "component_appsecret", c.secret, "component_verify_ticket", c.ticket)).want(c.code)
		})
	}
	w.clock.pass(12*time.Hour - time.Second)
	if w.componentToken() == "" {
		t.Error("a ticket is good for twelve hours")
	}
	w.clock.pass(time.Second)
	w.post("/cgi-bin/component/api_component_token", js("component_appid", w.ComponentAppID(), "component_appsecret", sandbox.DefaultComponentSecret, "component_verify_ticket", ticket)).want(61005)
}

func TestExpireTickets(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	ticket := w.Ticket()
	w.ExpireTickets()
	w.post("/cgi-bin/component/api_component_token", js("component_appid", w.ComponentAppID(), "component_appsecret", sandbox.DefaultComponentSecret, "component_verify_ticket", ticket)).want(61005)
}

// Only the previous token lives on, and only for five minutes.
func TestGrace(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	first, refresh := w.grant(shop)
	component := w.CurrentToken(w.ComponentAppID())
	second := w.renew(shop, refresh, component).want(0).field("authorizer_access_token")
	w.get(info + first).want(0)
	w.get(info + second).want(0)
	w.clock.pass(5*time.Minute - time.Second)
	w.get(info + first).want(0)
	w.clock.pass(time.Second)
	w.get(info + first).want(40001)
	w.get(info + second).want(0)
	third := w.renew(shop, refresh, component).want(0).field("authorizer_access_token")
	w.get(info + second).want(0)
	fourth := w.renew(shop, refresh, component).want(0).field("authorizer_access_token")
	w.get(info + second).want(40001)
	w.get(info + third).want(0)
	w.get(info + fourth).want(0)
	if got := w.CurrentToken(shop); got != fourth {
		t.Error("CurrentToken is not the newest")
	}
}

func TestNegativeGraceIsNone(t *testing.T) {
	w := newWorld(t, sandbox.Config{Grace: -1})
	first, refresh := w.grant(shop)
	w.renew(shop, refresh, w.CurrentToken(w.ComponentAppID())).want(0)
	w.get(info + first).want(40001)
}

func TestTokensExpire(t *testing.T) {
	for _, c := range []struct {
		life time.Duration
		says float64
	}{{0, 7200}, {100 * time.Millisecond, 1}, {2500 * time.Millisecond, 2}} {
		w := newWorld(t, sandbox.Config{TokenLife: c.life})
		code := w.AuthorizationCode(shop)
		g := w.post("/cgi-bin/component/api_component_token", js("component_appid", w.ComponentAppID(), "component_appsecret", sandbox.DefaultComponentSecret, "component_verify_ticket", w.Ticket()))
		if g.object()["expires_in"] != c.says {
			t.Errorf("expires_in of %v: %s", c.life, g.body)
		}
		access, _ := w.exchange(code, g.field("component_access_token"))
		w.get(info + access).want(0)
		w.clock.pass(2 * time.Hour)
		w.get(info + access).want(42001)
	}
}

func TestExpireAndSupersede(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	if w.Expire(shop) || w.Supersede(shop) || w.Expire("wxnobody") || w.Supersede("wxnobody") || w.CurrentToken(shop) != "" || w.CurrentToken("wxnobody") != "" {
		t.Error("something happened to what does not exist")
	}
	access, refresh := w.grant(shop)
	if !w.Expire(shop) {
		t.Error("Expire found nothing")
	}
	w.get(info + access).want(42001)
	access = w.renew(shop, refresh, w.CurrentToken(w.ComponentAppID())).want(0).field("authorizer_access_token")
	if !w.Supersede(shop) {
		t.Error("Supersede found nothing")
	}
	w.get(info + access).want(40001)
	w.get(info + w.CurrentToken(shop)).want(0)

	component := w.CurrentToken(w.ComponentAppID())
	w.Expire(w.ComponentAppID())
	w.renew(shop, refresh, component).want(42001)
	component = w.componentToken()
	w.Supersede(w.ComponentAppID())
	w.renew(shop, refresh, component).want(40001)
	w.renew(shop, refresh, w.CurrentToken(w.ComponentAppID())).want(0)
}

func TestRefreshTokens(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	_, refresh := w.grant(shop)
	component := w.CurrentToken(w.ComponentAppID())
	if again := w.renew(shop, refresh, component).want(0).field("authorizer_refresh_token"); again != refresh {
		t.Error("it changed, although it was not to")
	}
	w.renew(shop, "", component).want(61023)
	w.renew(shop, refresh+"x", component).want(61023)
	w.renew(mini, refresh, component).want(61003)

	// Reading it again helps once WeChat has another, and does not once it is dead.
	other := w.ReplaceRefreshToken(shop)
	w.renew(shop, refresh, component).want(61023)
	if seen := w.post("/cgi-bin/component/api_get_authorizer_info?access_token="+component, js("component_appid", w.ComponentAppID(), "authorizer_appid", shop)).field("authorization_info", "authorizer_refresh_token"); seen != other {
		t.Error("api_get_authorizer_info shows another refresh token")
	}
	w.renew(shop, other, component).want(0)
	if !w.KillRefreshToken(shop) || w.KillRefreshToken(mini) || w.ReplaceRefreshToken(mini) != "" {
		t.Error("killed what is not there, or not what is")
	}
	w.renew(shop, w.AuthorizerRefreshToken(shop), component).want(61023)
	w.Authorize(ctx(t), shop)
	code := w.AuthorizationCode(shop)
	_, refresh = w.exchange(code, component)
	w.renew(shop, refresh, component).want(0)
}

func TestRotatedRefreshTokensLiveOnForGrace(t *testing.T) {
	w := newWorld(t, sandbox.Config{RotateRefreshTokens: true, Grace: time.Minute})
	_, old := w.grant(shop)
	component := w.CurrentToken(w.ComponentAppID())
	fresh := w.renew(shop, old, component).want(0).field("authorizer_refresh_token")
	if fresh == old || fresh != w.AuthorizerRefreshToken(shop) {
		t.Fatal("it did not rotate")
	}
	w.clock.pass(59 * time.Second)
	if again := w.renew(shop, old, component).want(0).field("authorizer_refresh_token"); again == old || again == fresh {
		t.Error("the old one gives no new one")
	}
	w.renew(shop, old, component).want(61023)
	w.renew(shop, w.AuthorizerRefreshToken(shop), component).want(0)
}

func TestCodesServeOnceAndForTenMinutes(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	component := w.componentToken()
	query := func(code string) got {
		return w.post("/cgi-bin/component/api_query_auth?access_token="+component, js("component_appid", w.ComponentAppID(), "authorization_code", code))
	}
	a, b := w.AuthorizationCode(shop), w.AuthorizationCode(shop)
	first := query(a).want(0)
	query(a).want(61009)
	if again := query(b).want(0); again.field("authorization_info", "authorizer_refresh_token") != first.field("authorization_info", "authorizer_refresh_token") {
		t.Error("a second code of one consent gives another refresh token")
	}
	c := w.AuthorizationCode(shop)
	w.clock.pass(10 * time.Minute)
	query(c).want(61010)
	query("").want(61009)
	w.post("/cgi-bin/component/api_query_auth?access_token="+component, js("component_appid", shop, "authorization_code", c)).want(40013)
	if w.AuthorizationCode("no appid") != "" || w.AuthorizationCode(w.ComponentAppID()) != "" {
		t.Error("a code for what is no account")
	}

	// A later consent voids what an earlier one gave.
	old := w.AuthorizationCode(shop)
	access, refresh := w.CurrentToken(shop), w.AuthorizerRefreshToken(shop)
	fresh, err := w.UpdateAuthorized(ctx(t), shop)
	must(t, err)
	query(old).want(61009)
	w.get(info + access).want(40001)
	w.renew(shop, refresh, component).want(61023)
	w.clock.pass(59 * time.Minute) // a pushed code has an hour
	component = w.componentToken()
	query(fresh).want(0)
}

func TestWithdrawal(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	access, refresh := w.grant(shop)
	code := w.AuthorizationCode(shop)
	must(t, w.Unauthorize(ctx(t), shop))
	component := w.CurrentToken(w.ComponentAppID())
	w.renew(shop, refresh, component).want(61003)
	w.post("/cgi-bin/component/api_query_auth?access_token="+component, js("component_appid", w.ComponentAppID(), "authorization_code", code)).want(61009)
	w.post("/cgi-bin/component/api_get_authorizer_info?access_token="+component, js("component_appid", w.ComponentAppID(), "authorizer_appid", shop)).want(61003)
	w.get(info + access).want(61003)
	w.AuthorizationCode(shop) // agreed again: the token of before is not the newest one
	w.get(info + access).want(40001)
	must(t, w.Unauthorize(ctx(t), shop))
	if w.Unauthorize(ctx(t), "wxffffffffffffffff") == nil {
		t.Error("somebody unknown has withdrawn")
	}
	if _, err := w.UpdateAuthorized(ctx(t), shop); err == nil {
		t.Error("updateauthorized of an account that has withdrawn")
	}
}

func TestAccountWithoutAPIPermission(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	must(t, w.AddAccount("wx00000000000000dd", sandbox.OfficialAccount, sandbox.WithoutAPIPermission()))
	g := w.post("/cgi-bin/component/api_query_auth?access_token="+w.componentToken(), js("component_appid", w.ComponentAppID(), "authorization_code", w.AuthorizationCode("wx00000000000000dd"))).want(0)
	if strings.Contains(string(g.body), "token") || strings.Contains(string(g.body), "expires_in") {
		t.Errorf("tokens in %s", g.body)
	}
}
