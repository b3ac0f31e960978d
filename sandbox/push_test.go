package sandbox_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"wxproxy/sandbox"
	"wxproxy/wechat"
)

func TestPushTicket(t *testing.T) {
	cb := newCallback(t)
	w := newWorld(t, sandbox.Config{PushURL: cb.URL + "/"})
	must(t, w.PushTicket(ctx(t)))
	e := cb.last(t)
	if e.InfoType != "component_verify_ticket" || e.AppID != w.ComponentAppID() || e.Ticket.Reveal() != w.Ticket() || !e.CreateTime.Equal(w.clock.Now()) {
		t.Errorf("%+v", e)
	}
	if cb.urls[0].Path != "/component/events" || cb.outer[0].AppID != w.ComponentAppID() {
		t.Errorf("%s %+v", cb.urls[0], cb.outer[0])
	}
	first := w.Ticket()
	must(t, w.PushTicket(ctx(t)))
	if w.Ticket() == first {
		t.Error("the same ticket again")
	}

	for _, c := range []struct {
		status int
		answer string
	}{{200, "success\n"}, {200, ""}, {200, "SUCCESS"}, {403, "success"}, {302, "success"}} {
		cb.set(c.status, c.answer)
		if w.PushTicket(ctx(t)) == nil {
			t.Errorf("%d %q was enough", c.status, c.answer)
		}
	}
	cb.Close()
	err := w.PushTicket(ctx(t))
	if err == nil || strings.Contains(err.Error(), "signature") {
		t.Errorf("nobody there: %v", err)
	}
	must(t, w.SetPushURL(""))
	if err := w.PushTicket(ctx(t)); !errors.Is(err, sandbox.ErrNoPushURL) {
		t.Errorf("nowhere to push: %v", err)
	}
	for _, bad := range []string{"x", "ftp://x", "http://", "http://x?y=z", "http://\x7f"} {
		if w.SetPushURL(bad) == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestPushesOfConsent(t *testing.T) {
	cb := newCallback(t)
	w := newWorld(t, sandbox.Config{PushURL: cb.URL})
	code, err := w.Authorize(ctx(t), shop)
	must(t, err)
	e := cb.last(t)
	if e.InfoType != "authorized" || e.AuthorizerAppID != shop || e.AuthorizationCode.Reveal() != code || !e.AuthorizationCodeExpires.Equal(w.clock.Now().Add(time.Hour)) {
		t.Errorf("%+v", e)
	}
	code, err = w.UpdateAuthorized(ctx(t), shop)
	must(t, err)
	if e := cb.last(t); e.InfoType != "updateauthorized" || e.AuthorizationCode.Reveal() != code {
		t.Errorf("%+v", e)
	}
	must(t, w.Unauthorize(ctx(t), shop))
	if e := cb.last(t); e.InfoType != "unauthorized" || e.AuthorizerAppID != shop || !e.AuthorizationCode.IsEmpty() {
		t.Errorf("%+v", e)
	}
	// Somebody new, and a callback that fails: the code is there all the same.
	cb.set(500, "")
	if code, err := w.Authorize(ctx(t), "wx00000000000000ee"); err == nil || code == "" {
		t.Errorf("%q %v", code, err)
	}
	if _, err := w.Authorize(ctx(t), "nonsense"); err == nil {
		t.Error("an appid that cannot be one")
	}
	if _, err := w.Authorize(ctx(t), w.ComponentAppID()); err == nil {
		t.Error("the component authorized itself")
	}
}

func TestFastRegister(t *testing.T) {
	cb := newCallback(t)
	w := newWorld(t, sandbox.Config{PushURL: cb.URL})
	appid, code, err := w.FastRegister(ctx(t), sandbox.FastRegistration{Name: "a ]]> & <b>", Code: "1"})
	must(t, err)
	e := cb.last(t)
	if e.InfoType != wechat.InfoFastRegister || e.NewAppID != appid || e.AuthCode.Reveal() != code || e.Status != 0 || e.Msg != "OK" || e.AppID != w.ComponentAppID() {
		t.Errorf("%+v", e)
	}
	contains(t, []byte(cb.docs[0]), "<info><name><![CDATA[a ]]]]><![CDATA[> & <b>]]></name>", "<code_type>1</code_type>", "<legal_persona_wechat>")
	if access, _ := w.exchange(code, w.componentToken()); access == "" {
		t.Error("the code is worth nothing")
	}
	appid, code, err = w.FastRegister(ctx(t), sandbox.FastRegistration{Status: 100001, Msg: "not confirmed"})
	must(t, err)
	if e := cb.last(t); e.Status != 100001 || e.Msg != "not confirmed" || !e.AuthCode.IsEmpty() || appid != "" || code != "" {
		t.Errorf("%+v", e)
	}
	if _, _, err := w.FastRegister(ctx(t), sandbox.FastRegistration{AppID: shop}); err == nil {
		t.Error("registered what exists")
	}
}

func TestPushXMLToAnAccount(t *testing.T) {
	cb := newCallback(t)
	cb.set(200, "reply")
	w := newWorld(t, sandbox.Config{PushURL: cb.URL})
	answer, err := w.PushXML(ctx(t), "/"+shop+"/events", "<xml><MsgType>text</MsgType></xml>")
	must(t, err)
	if string(answer) != "reply" || cb.docs[0] != "<xml><MsgType>text</MsgType></xml>" {
		t.Errorf("%q %q", answer, cb.docs)
	}
	if e := cb.outer[0]; !strings.HasPrefix(e.ToUserName, "gh_") || e.AppID != "" || cb.urls[0].Query().Get("openid") == "" {
		t.Errorf("%+v %s", e, cb.urls[0])
	}
}

func TestStartPushTicket(t *testing.T) {
	cb := newCallback(t)
	w := newWorld(t, sandbox.Config{PushURL: cb.URL})
	start := func(field, secret string) got {
		return w.post("/cgi-bin/component/api_start_push_ticket", js("component_appid", w.ComponentAppID(), field, secret))
	}
	start("component_appsecret", sandbox.DefaultComponentSecret).want(41004) // the field has another name here
	start("component_secret", "x").want(40125)
	contains(t, start("component_secret", sandbox.DefaultComponentSecret).want(0).body, `"errmsg":"ok"`)
	w.Close() // waits for the push
	if e := cb.last(t); e.Ticket.Reveal() != w.Ticket() {
		t.Errorf("%+v", e)
	}
	contains(t, start("component_secret", sandbox.DefaultComponentSecret).want(0).body, "in a normal state")
	w.clock.pass(12 * time.Hour)
	contains(t, start("component_secret", sandbox.DefaultComponentSecret).want(0).body, `"errmsg":"ok"`)
	w.Close()
	if len(cb.docs) != 1 {
		t.Error("pushed after Close")
	}
}

func TestRunPushesAtOnceAndEndsWithItsContext(t *testing.T) {
	cb := newCallback(t)
	cb.set(500, "")
	w := newWorld(t, sandbox.Config{PushURL: cb.URL})
	c, cancel := context.WithCancel(ctx(t))
	failed := make(chan error, 1)
	ended := make(chan struct{})
	go func() { w.Run(c, func(err error) { failed <- err }); close(ended) }()
	if err := <-failed; !strings.Contains(err.Error(), "HTTP 500") {
		t.Error(err)
	}
	cancel()
	<-ended
	if e := cb.last(t); e.Ticket.Reveal() != w.Ticket() {
		t.Errorf("%+v", e)
	}
}
