package sandbox_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"wxproxy/sandbox"
	"wxproxy/wechat"
)

func TestPushTicket(t *testing.T) {
	cb := newCallback(t)
	wx := newEnv(t, sandbox.Config{PushURL: cb.URL + "/"})
	must(t, wx.PushTicket(ctx(t)))
	e := cb.last(t)
	if e.InfoType != "component_verify_ticket" || e.AppID != wx.ComponentAppID() ||
		e.Ticket.Reveal() != wx.Ticket() || !e.CreateTime.Equal(wx.clock.Now()) {
		t.Errorf("got %+v, want the newest ticket", e)
	}
	if cb.urls[0].Path != "/component/events" || cb.outer[0].AppID != wx.ComponentAppID() {
		t.Errorf("got %s %+v, want /component/events and the component", cb.urls[0], cb.outer[0])
	}
	first := wx.Ticket()
	must(t, wx.PushTicket(ctx(t)))
	if wx.Ticket() == first {
		t.Error("got the same ticket, want a new one with each push")
	}

	for _, c := range []struct {
		status int
		answer string
	}{{200, "success\n"}, {200, ""}, {200, "SUCCESS"}, {403, "success"}, {302, "success"}} {
		cb.set(c.status, c.answer)
		if wx.PushTicket(ctx(t)) == nil {
			t.Errorf("response %d %q: got no error, want one", c.status, c.answer)
		}
	}
	cb.Close()
	err := wx.PushTicket(ctx(t))
	if err == nil || strings.Contains(err.Error(), "signature") {
		t.Errorf("callback closed: got %v, want an error without the signature", err)
	}
	must(t, wx.SetPushURL(""))
	if err := wx.PushTicket(ctx(t)); !errors.Is(err, sandbox.ErrNoPushURL) {
		t.Errorf("got %v, want ErrNoPushURL", err)
	}
	for _, bad := range []string{"x", "ftp://x", "http://", "http://x?y=z", "http://\x7f"} {
		if wx.SetPushURL(bad) == nil {
			t.Errorf("SetPushURL(%q): got no error, want one", bad)
		}
	}
}

// WeChat does not follow redirects.
func TestPushIsNotRedirected(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			io.WriteString(rw, "success")
			return
		}
		http.Redirect(rw, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	defer srv.Close()
	must(t, wx.SetPushURL(srv.URL))
	if err := wx.PushTicket(ctx(t)); err == nil {
		t.Error("response 307: got no error, want one")
	}
}

func TestConsentPushes(t *testing.T) {
	cb := newCallback(t)
	wx := newEnv(t, sandbox.Config{PushURL: cb.URL})
	code, err := wx.Authorize(ctx(t), shop)
	must(t, err)
	e := cb.last(t)
	if e.InfoType != "authorized" || e.AuthorizerAppID != shop || e.AuthorizationCode.Reveal() != code ||
		!e.AuthorizationCodeExpires.Equal(wx.clock.Now().Add(time.Hour)) {
		t.Errorf("got %+v, want authorized with the code, for an hour", e)
	}
	code, err = wx.UpdateAuthorized(ctx(t), shop)
	must(t, err)
	if e := cb.last(t); e.InfoType != "updateauthorized" || e.AuthorizationCode.Reveal() != code {
		t.Errorf("got %+v, want updateauthorized with the code", e)
	}
	must(t, wx.Unauthorize(ctx(t), shop))
	if e := cb.last(t); e.InfoType != "unauthorized" || e.AuthorizerAppID != shop ||
		!e.AuthorizationCode.IsEmpty() {
		t.Errorf("got %+v, want unauthorized without a code", e)
	}
	// The consent stands even if the push fails.
	cb.set(500, "")
	if code, err := wx.Authorize(ctx(t), "wx00000000000000ee"); err == nil || code == "" {
		t.Errorf("failed push: got code %q and error %v, want both", code, err)
	}
	if _, err := wx.Authorize(ctx(t), "nonsense"); err == nil {
		t.Error("malformed appid: got no error, want one")
	}
	if _, err := wx.Authorize(ctx(t), wx.ComponentAppID()); err == nil {
		t.Error("component: got no error, want one")
	}
}

func TestFastRegister(t *testing.T) {
	cb := newCallback(t)
	wx := newEnv(t, sandbox.Config{PushURL: cb.URL})
	appid, code, err := wx.FastRegister(ctx(t), sandbox.FastRegistration{Name: "a ]]> & <b>", Code: "1"})
	must(t, err)
	e := cb.last(t)
	if e.InfoType != wechat.InfoFastRegister || e.NewAppID != appid || e.AuthCode.Reveal() != code ||
		e.Status != 0 || e.Msg != "OK" || e.AppID != wx.ComponentAppID() {
		t.Errorf("got %+v, want a new mini program with a code", e)
	}
	contains(t, []byte(cb.docs[0]), "<info><name><![CDATA[a ]]]]><![CDATA[> & <b>]]></name>",
		"<code_type>1</code_type>", "<legal_persona_wechat>")
	if access, _ := wx.exchange(code, wx.componentToken()); access == "" {
		t.Error("exchange of the code: got no token")
	}
	appid, code, err = wx.FastRegister(ctx(t), sandbox.FastRegistration{Status: 100001, Msg: "not confirmed"})
	must(t, err)
	if e := cb.last(t); e.Status != 100001 || e.Msg != "not confirmed" || !e.AuthCode.IsEmpty() ||
		appid != "" || code != "" {
		t.Errorf("failed registration: got %+v, %q, %q, want its status and no account", e, appid, code)
	}
	if _, _, err := wx.FastRegister(ctx(t), sandbox.FastRegistration{AppID: shop}); err == nil {
		t.Error("known appid: got no error, want one")
	}
}

func TestPushXMLToAccount(t *testing.T) {
	cb := newCallback(t)
	cb.set(200, "reply")
	wx := newEnv(t, sandbox.Config{PushURL: cb.URL})
	answer, err := wx.PushXML(ctx(t), "/"+shop+"/events", "<xml><MsgType>text</MsgType></xml>")
	must(t, err)
	if string(answer) != "reply" || cb.docs[0] != "<xml><MsgType>text</MsgType></xml>" {
		t.Errorf("got response %q to %q, want the document pushed and its response", answer, cb.docs)
	}
	if e := cb.outer[0]; !strings.HasPrefix(e.ToUserName, "gh_") || e.AppID != "" ||
		cb.urls[0].Query().Get("openid") == "" {
		t.Errorf("got %+v at %s, want the account's original ID and an openid", e, cb.urls[0])
	}
}

func TestStartPushTicketEndpoint(t *testing.T) {
	cb := newCallback(t)
	wx := newEnv(t, sandbox.Config{PushURL: cb.URL})
	start := func(field, secret string) response {
		return wx.post("/cgi-bin/component/api_start_push_ticket",
			js("component_appid", wx.ComponentAppID(), field, secret))
	}
	start("component_appsecret", sandbox.DefaultComponentSecret).wantCode(41004) // not the name used here
	start("component_secret", "x").wantCode(40125)
	contains(t, start("component_secret", sandbox.DefaultComponentSecret).wantCode(0).body, `"errmsg":"ok"`)
	wx.Close() // waits for the push
	if e := cb.last(t); e.Ticket.Reveal() != wx.Ticket() {
		t.Errorf("got %+v, want the newest ticket", e)
	}
	contains(t, start("component_secret", sandbox.DefaultComponentSecret).wantCode(0).body, "in a normal state")
	wx.clock.advance(12 * time.Hour)
	contains(t, start("component_secret", sandbox.DefaultComponentSecret).wantCode(0).body, `"errmsg":"ok"`)
	wx.Close()
	if n := cb.count(); n != 1 {
		t.Errorf("got %d pushes, want none after Close", n)
	}
}

func TestRunPushesAtOnceUntilContextEnds(t *testing.T) {
	cb := newCallback(t)
	cb.set(500, "")
	wx := newEnv(t, sandbox.Config{PushURL: cb.URL})
	c, cancel := context.WithCancel(ctx(t))
	failed := make(chan error, 1)
	ended := make(chan struct{})
	go func() { wx.Run(c, func(err error) { failed <- err }); close(ended) }()
	if err := <-failed; !strings.Contains(err.Error(), "HTTP 500") {
		t.Errorf("got %v, want the status of the callback", err)
	}
	cancel()
	<-ended
	if e := cb.last(t); e.Ticket.Reveal() != wx.Ticket() {
		t.Errorf("got %+v, want the newest ticket", e)
	}
}
