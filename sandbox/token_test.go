package sandbox_test

import (
	"strings"
	"testing"
	"time"

	"wxproxy/sandbox"
)

const info = "/cgi-bin/user/get?access_token="

func TestComponentTokenErrors(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	ticket := wx.Ticket()
	for _, c := range []struct {
		name, appid, secret, ticket string
		code                        int
	}{
		{"no appid", "", sandbox.DefaultComponentSecret, ticket, 41018},
		{"another appid", shop, sandbox.DefaultComponentSecret, ticket, 40013},
		{"no secret", wx.ComponentAppID(), "", ticket, 41004},
		{"another secret", wx.ComponentAppID(), "x", ticket, 40125},
		{"no ticket", wx.ComponentAppID(), sandbox.DefaultComponentSecret, "", 41020},
		{"another ticket", wx.ComponentAppID(), sandbox.DefaultComponentSecret, ticket + "x", 61006},
	} {
		t.Run(c.name, func(t *testing.T) {
			wx.requestComponentToken(c.appid, c.secret, c.ticket).wantCode(c.code)
		})
	}
	wx.clock.advance(12*time.Hour - time.Second)
	if wx.componentToken() == "" {
		t.Error("got no token, want one: a ticket works for twelve hours")
	}
	wx.clock.advance(time.Second)
	wx.requestComponentToken(wx.ComponentAppID(), sandbox.DefaultComponentSecret, ticket).wantCode(61005)
}

func TestExpireTickets(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	ticket := wx.Ticket()
	wx.ExpireTickets()
	wx.requestComponentToken(wx.ComponentAppID(), sandbox.DefaultComponentSecret, ticket).wantCode(61005)
}

// Only the previous token still works, and only for five minutes.
func TestReplacedTokenWorksForGrace(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	first, refresh := wx.grant(shop)
	component := wx.CurrentToken(wx.ComponentAppID())
	second := wx.renew(shop, refresh, component).wantCode(0).field("authorizer_access_token")
	wx.get(info + first).wantCode(0)
	wx.get(info + second).wantCode(0)
	wx.clock.advance(5*time.Minute - time.Second)
	wx.get(info + first).wantCode(0)
	wx.clock.advance(time.Second)
	wx.get(info + first).wantCode(40001)
	wx.get(info + second).wantCode(0)
	third := wx.renew(shop, refresh, component).wantCode(0).field("authorizer_access_token")
	wx.get(info + second).wantCode(0)
	fourth := wx.renew(shop, refresh, component).wantCode(0).field("authorizer_access_token")
	wx.get(info + second).wantCode(40001)
	wx.get(info + third).wantCode(0)
	wx.get(info + fourth).wantCode(0)
	if got := wx.CurrentToken(shop); got != fourth {
		t.Errorf("CurrentToken: got %q, want the newest %q", got, fourth)
	}
}

func TestNegativeGraceMeansNone(t *testing.T) {
	wx := newEnv(t, sandbox.Config{Grace: -1})
	first, refresh := wx.grant(shop)
	wx.renew(shop, refresh, wx.CurrentToken(wx.ComponentAppID())).wantCode(0)
	wx.get(info + first).wantCode(40001)
}

func TestTokenLifetime(t *testing.T) {
	for _, c := range []struct {
		life      time.Duration
		expiresIn float64
	}{{0, 7200}, {100 * time.Millisecond, 1}, {2500 * time.Millisecond, 2}} {
		wx := newEnv(t, sandbox.Config{TokenLife: c.life})
		code := wx.AuthorizationCode(shop)
		g := wx.requestComponentToken(wx.ComponentAppID(), sandbox.DefaultComponentSecret, wx.Ticket())
		if g.object()["expires_in"] != c.expiresIn {
			t.Errorf("lifetime %v: got %s, want expires_in %v", c.life, g.body, c.expiresIn)
		}
		access, _ := wx.exchange(code, g.field("component_access_token"))
		wx.get(info + access).wantCode(0)
		wx.clock.advance(2 * time.Hour)
		wx.get(info + access).wantCode(42001)
	}
}

func TestExpireAndSupersede(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	if wx.Expire(shop) || wx.Supersede(shop) || wx.Expire("wxunknown") || wx.Supersede("wxunknown") ||
		wx.CurrentToken(shop) != "" || wx.CurrentToken("wxunknown") != "" {
		t.Error("accounts without a token: got true or a token, want false and none")
	}
	access, refresh := wx.grant(shop)
	if !wx.Expire(shop) {
		t.Error("Expire: got false, want true")
	}
	wx.get(info + access).wantCode(42001)
	access = wx.renew(shop, refresh, wx.CurrentToken(wx.ComponentAppID())).wantCode(0).field("authorizer_access_token")
	if !wx.Supersede(shop) {
		t.Error("Supersede: got false, want true")
	}
	wx.get(info + access).wantCode(40001)
	wx.get(info + wx.CurrentToken(shop)).wantCode(0)

	component := wx.CurrentToken(wx.ComponentAppID())
	wx.Expire(wx.ComponentAppID())
	wx.renew(shop, refresh, component).wantCode(42001)
	component = wx.componentToken()
	wx.Supersede(wx.ComponentAppID())
	wx.renew(shop, refresh, component).wantCode(40001)
	wx.renew(shop, refresh, wx.CurrentToken(wx.ComponentAppID())).wantCode(0)
}

func TestRefreshTokens(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	_, refresh := wx.grant(shop)
	component := wx.CurrentToken(wx.ComponentAppID())
	if again := wx.renew(shop, refresh, component).wantCode(0).field("authorizer_refresh_token"); again != refresh {
		t.Errorf("renewal: got refresh token %q, want the same %q", again, refresh)
	}
	wx.renew(shop, "", component).wantCode(61023)
	wx.renew(shop, refresh+"x", component).wantCode(61023)
	wx.renew(mini, refresh, component).wantCode(61003)

	// Reading it again helps after a replacement, but not after the other call.
	other := wx.ReplaceRefreshToken(shop)
	wx.renew(shop, refresh, component).wantCode(61023)
	if seen := wx.authorizerInfo(shop, component).field("authorization_info",
		"authorizer_refresh_token"); seen != other {
		t.Errorf("api_get_authorizer_info: got refresh token %q, want the new one", seen)
	}
	wx.renew(shop, other, component).wantCode(0)
	if !wx.KillRefreshToken(shop) || wx.KillRefreshToken(mini) || wx.ReplaceRefreshToken(mini) != "" {
		t.Error("KillRefreshToken and ReplaceRefreshToken: want success only for an account that has one")
	}
	wx.renew(shop, wx.AuthorizerRefreshToken(shop), component).wantCode(61023)
	wx.Authorize(ctx(t), shop)
	code := wx.AuthorizationCode(shop)
	_, refresh = wx.exchange(code, component)
	wx.renew(shop, refresh, component).wantCode(0)
}

func TestRotatedRefreshTokenWorksForGrace(t *testing.T) {
	wx := newEnv(t, sandbox.Config{RotateRefreshTokens: true, Grace: time.Minute})
	_, old := wx.grant(shop)
	component := wx.CurrentToken(wx.ComponentAppID())
	fresh := wx.renew(shop, old, component).wantCode(0).field("authorizer_refresh_token")
	if fresh == old || fresh != wx.AuthorizerRefreshToken(shop) {
		t.Fatalf("got refresh token %q, want a new one", fresh)
	}
	wx.clock.advance(59 * time.Second)
	if again := wx.renew(shop, old, component).wantCode(0).field("authorizer_refresh_token"); again == old ||
		again == fresh {
		t.Errorf("renewal with the old refresh token: got %q, want a new one", again)
	}
	wx.renew(shop, old, component).wantCode(61023)
	wx.renew(shop, wx.AuthorizerRefreshToken(shop), component).wantCode(0)
}

func TestAuthorizationCodeWorksOnceForTenMinutes(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	component := wx.componentToken()
	query := func(code string) response {
		return wx.queryAuth(code, component)
	}
	a, b := wx.AuthorizationCode(shop), wx.AuthorizationCode(shop)
	first := query(a).wantCode(0)
	query(a).wantCode(61009)
	if again := query(b).wantCode(0); again.field("authorization_info",
		"authorizer_refresh_token") != first.field("authorization_info", "authorizer_refresh_token") {
		t.Error("second code of one consent: got another refresh token, want the same")
	}
	c := wx.AuthorizationCode(shop)
	wx.clock.advance(10 * time.Minute)
	query(c).wantCode(61010)
	query("").wantCode(61009)
	wx.post("/cgi-bin/component/api_query_auth?access_token="+component,
		js("component_appid", shop, "authorization_code", c)).wantCode(40013)
	if wx.AuthorizationCode("no appid") != "" || wx.AuthorizationCode(wx.ComponentAppID()) != "" {
		t.Error("got a code for a malformed appid or the component, want none")
	}

	// A new consent voids codes and tokens of the earlier one.
	old := wx.AuthorizationCode(shop)
	access, refresh := wx.CurrentToken(shop), wx.AuthorizerRefreshToken(shop)
	fresh, err := wx.UpdateAuthorized(ctx(t), shop)
	must(t, err)
	query(old).wantCode(61009)
	wx.get(info + access).wantCode(40001)
	wx.renew(shop, refresh, component).wantCode(61023)
	wx.clock.advance(59 * time.Minute) // a pushed code works for an hour
	component = wx.componentToken()
	query(fresh).wantCode(0)
}

func TestUnauthorize(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	access, refresh := wx.grant(shop)
	code := wx.AuthorizationCode(shop)
	must(t, wx.Unauthorize(ctx(t), shop))
	component := wx.CurrentToken(wx.ComponentAppID())
	wx.renew(shop, refresh, component).wantCode(61003)
	wx.queryAuth(code, component).wantCode(61009)
	wx.authorizerInfo(shop, component).wantCode(61003)
	wx.get(info + access).wantCode(61003)
	wx.AuthorizationCode(shop) // a new consent: now the token counts as replaced
	wx.get(info + access).wantCode(40001)
	wx.queryAuth(code, component).wantCode(61009) // still void
	must(t, wx.Unauthorize(ctx(t), shop))
	if wx.Unauthorize(ctx(t), "wxffffffffffffffff") == nil {
		t.Error("unknown appid: got no error, want one")
	}
	if _, err := wx.UpdateAuthorized(ctx(t), shop); err == nil {
		t.Error("UpdateAuthorized after Unauthorize: got no error, want one")
	}
}

func TestAccountWithoutAPIPermission(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	must(t, wx.AddAccount("wx00000000000000dd", sandbox.OfficialAccount, sandbox.WithoutAPIPermission()))
	g := wx.queryAuth(wx.AuthorizationCode("wx00000000000000dd"), wx.componentToken()).wantCode(0)
	if strings.Contains(string(g.body), "token") || strings.Contains(string(g.body), "expires_in") {
		t.Errorf("got %s, want no tokens", g.body)
	}
}
