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

func TestTheZeroConfigIsLegal(t *testing.T) {
	s, err := sandbox.New(sandbox.Config{})
	must(t, err)
	if s.ComponentAppID() != sandbox.DefaultComponentAppID {
		t.Error("another appid than the default")
	}
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	for name, c := range map[string]sandbox.Config{
		"ComponentAppID":     {ComponentAppID: "wxshort"},
		"EncodingAESKey":     {EncodingAESKey: "tooshortandsecret"},
		"TokenLife":          {TokenLife: -1},
		"TicketLife":         {TicketLife: -1},
		"malformed push URL": {PushURL: "127.0.0.1:8081"},
	} {
		_, err := sandbox.New(c)
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "tooshort") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The client that wxproxy itself uses gets through the whole life of an account.
func TestWithTheClientOfThisProgram(t *testing.T) {
	w := newWorld(t, sandbox.Config{RotateRefreshTokens: true})
	c := wechat.NewClient(w.url, nil)
	defer c.Close()
	secret, ticket := wechat.NewSecret(sandbox.DefaultComponentSecret), wechat.NewSecret(w.Ticket())
	comp, err := c.ComponentToken(ctx(t), w.ComponentAppID(), secret, ticket)
	must(t, err)
	if comp.Life != 2*time.Hour || comp.Access.Reveal() != w.CurrentToken(w.ComponentAppID()) {
		t.Errorf("component token: %v", comp)
	}
	code := wechat.NewSecret(w.AuthorizationCode(shop))
	g, err := c.QueryAuth(ctx(t), w.ComponentAppID(), comp.Access, code)
	must(t, err)
	if g.AppID != shop || g.Refresh.Reveal() != w.AuthorizerRefreshToken(shop) || g.Access.Reveal() != w.CurrentToken(shop) {
		t.Error("exchange gives something else than the sandbox holds")
	}
	_, err = c.QueryAuth(ctx(t), w.ComponentAppID(), comp.Access, code)
	if wechat.Code(err) != 61009 {
		t.Errorf("second exchange: %v", err)
	}
	g2, err := c.AuthorizerToken(ctx(t), w.ComponentAppID(), comp.Access, shop, g.Refresh)
	must(t, err)
	if g2.Access.Equal(g.Access) || g2.Refresh.Equal(g.Refresh) {
		t.Error("renewal changed nothing")
	}
	if a, err := c.Authorizer(ctx(t), w.ComponentAppID(), comp.Access, shop); err != nil || !a.Refresh.Equal(g2.Refresh) || a.Name == "" || a.Type == "" {
		t.Errorf("api_get_authorizer_info: %v", err)
	}
	s, err := c.StableToken(ctx(t), solo, wechat.NewSecret(soloSecret), false)
	must(t, err)
	if s.Access.Reveal() != w.CurrentToken(solo) {
		t.Error("stable_token gives another token than the current one")
	}
	if v := w.Violations(); len(v) > 0 {
		t.Error(v)
	}
}

// Five hundred at once, of all sorts, under the race detector.
func TestManyCallsAtOnce(t *testing.T) {
	w := newWorld(t, sandbox.Config{Observe: func(c sandbox.Call) { _ = c.Path }})
	access, refresh := w.grant(shop)
	component := w.CurrentToken(w.ComponentAppID())
	w.ResetHistory()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 500}}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() {
			path, body := "/cgi-bin/message/custom/send?access_token="+access, `{"touser":"`+strings.Repeat("o", 28)+`","msgtype":"text","text":{}}`
			switch i % 5 {
			case 1:
				path, body = "/cgi-bin/component/api_authorizer_token?access_token="+component, js("component_appid", w.ComponentAppID(), "authorizer_appid", shop, "authorizer_refresh_token", refresh)
			case 2:
				path, body = "/sandbox/expire?appid="+mini, ""
			case 3:
				w.Supersede(solo)
				w.Secrets()
				w.History()
			}
			resp, err := client.Post(w.url+path, "application/json", strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		})
	}
	wg.Wait()
	if n := w.Count("/cgi-bin/message/custom/send"); n != 300 {
		t.Errorf("%d of 300 calls in the history", n)
	}
	if n := w.Count("/cgi-bin/component/api_authorizer_token"); n != 100 {
		t.Errorf("%d of 100 renewals in the history", n)
	}
}
