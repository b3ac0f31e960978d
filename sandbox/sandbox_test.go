package sandbox_test

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/sandbox"
	"wxproxy/wechat"
)

func TestZeroConfigIsValid(t *testing.T) {
	s, err := sandbox.New(sandbox.Config{})
	must(t, err)
	if s.ComponentAppID() != sandbox.DefaultComponentAppID {
		t.Errorf("got component %s, want the default %s", s.ComponentAppID(), sandbox.DefaultComponentAppID)
	}
}

func TestNewNamesTheInvalidField(t *testing.T) {
	for name, c := range map[string]sandbox.Config{
		"ComponentAppID":     {ComponentAppID: "wxshort"},
		"EncodingAESKey":     {EncodingAESKey: "tooshortandsecret"},
		"TokenLife":          {TokenLife: -1},
		"TicketLife":         {TicketLife: -1},
		"PushTimeout":        {PushTimeout: -1},
		"malformed push URL": {PushURL: "127.0.0.1:8081"},
	} {
		_, err := sandbox.New(c)
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "tooshort") {
			t.Errorf("got error %v, want one that contains %q and no secret", err, name)
		}
	}
}

// The client that wxproxy itself uses finds every response well-formed.
func TestWholeLifeOfAnAccountWithWechatClient(t *testing.T) {
	wx := newEnv(t, sandbox.Config{RotateRefreshTokens: true})
	c := wechat.NewClient(wx.url, nil)
	defer c.Close()
	secret, ticket := wechat.NewSecret(sandbox.DefaultComponentSecret), wechat.NewSecret(wx.Ticket())
	comp, err := c.ComponentToken(ctx(t), wx.ComponentAppID(), secret, ticket)
	must(t, err)
	if comp.Life != 2*time.Hour || comp.Access.Reveal() != wx.CurrentToken(wx.ComponentAppID()) {
		t.Errorf("got component token %v, want the current one for two hours", comp)
	}
	code := wechat.NewSecret(wx.AuthorizationCode(shop))
	g, err := c.QueryAuth(ctx(t), wx.ComponentAppID(), comp.Access, code)
	must(t, err)
	if g.AppID != shop || g.Refresh.Reveal() != wx.AuthorizerRefreshToken(shop) ||
		g.Access.Reveal() != wx.CurrentToken(shop) {
		t.Error("exchange returned other tokens than the sandbox reports")
	}
	_, err = c.QueryAuth(ctx(t), wx.ComponentAppID(), comp.Access, code)
	if wechat.Code(err) != 61009 {
		t.Errorf("second exchange: got %v, want errcode 61009", err)
	}
	g2, err := c.AuthorizerToken(ctx(t), wx.ComponentAppID(), comp.Access, shop, g.Refresh)
	must(t, err)
	if g2.Access.Equal(g.Access) || g2.Refresh.Equal(g.Refresh) {
		t.Error("renewal: got an old token, want a new access token and a new refresh token")
	}
	if a, err := c.Authorizer(ctx(t), wx.ComponentAppID(), comp.Access, shop); err != nil ||
		!a.Refresh.Equal(g2.Refresh) || a.Name == "" || a.Type == "" {
		t.Errorf("api_get_authorizer_info: got %v %+v, want the new refresh token, a name and a type", err, a)
	}
	s, err := c.StableToken(ctx(t), solo, wechat.NewSecret(soloSecret), false)
	must(t, err)
	if s.Access.Reveal() != wx.CurrentToken(solo) {
		t.Error("stable_token returned another token than the current one")
	}
	if v := wx.Violations(); len(v) > 0 {
		t.Errorf("got violations %q, want none", v)
	}
}

// Five hundred requests and method calls of all sorts, for the race detector.
func TestConcurrentRequests(t *testing.T) {
	wx := newEnv(t, sandbox.Config{Observe: func(c sandbox.Call) { _ = c.Path }})
	access, refresh := wx.grant(shop)
	component := wx.CurrentToken(wx.ComponentAppID())
	wx.ResetHistory()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 500}}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() {
			path, body := customSend+"?access_token="+access, text("x")
			switch i % 5 {
			case 1:
				path = "/cgi-bin/component/api_authorizer_token?access_token=" + component
				body = js("component_appid", wx.ComponentAppID(), "authorizer_appid", shop, "authorizer_refresh_token", refresh)
			case 2:
				path, body = "/sandbox/expire?appid="+mini, ""
			case 3:
				wx.Supersede(solo)
				wx.Secrets()
				wx.History()
			}
			resp, err := client.Post(wx.url+path, "application/json", strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		})
	}
	wg.Wait()
	if n := wx.Count(customSend); n != 300 {
		t.Errorf("got %d messages in the history, want 300", n)
	}
	if n := wx.Count("/cgi-bin/component/api_authorizer_token"); n != 100 {
		t.Errorf("got %d renewals in the history, want 100", n)
	}
}
