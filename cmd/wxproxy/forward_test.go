package main

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
	"wxproxy/wechat"
)

// checkerAccount is one of the accounts with which WeChat checks a platform
// before its release.
const checkerAccount = "wx570bc396a51b8ff8"

// inbox is a service that receives forwarded messages.
type inbox struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string // "APPID document"
}

// newInbox returns an inbox that responds to each message with answer.
func newInbox(t *testing.T, answer string) *inbox {
	t.Helper()
	s := &inbox{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		s.seen = append(s.seen, r.Header.Get("X-WX-APPID")+" "+string(b))
		s.mu.Unlock()
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(s.Close)
	return s
}

// has reports whether a received message contains text.
func (s *inbox) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(strings.Join(s.seen, "\n"), text)
}

const fromUser = "oSandboxUser0000000000000001"

// messageDoc returns the XML of a message, with more elements in more.
func messageDoc(msgType, more string) string {
	return fmt.Sprintf("<xml><ToUserName>gh_1</ToUserName><FromUserName>%s</FromUserName><CreateTime>1715943329</CreateTime><MsgType>%s</MsgType>%s</xml>", fromUser, msgType, more)
}

// unsealed decrypts a reply as WeChat does.
func unsealed(t *testing.T, answer []byte) string {
	t.Helper()
	var x struct{ Encrypt, MsgSignature, TimeStamp, Nonce string }
	if err := xml.Unmarshal(answer, &x); err != nil {
		t.Fatalf("parsing the reply %s: %v", answer, err)
	}
	c, err := wechat.NewCrypt(wechat.NewSecret(sandbox.DefaultMessageToken),
		wechat.NewSecret(sandbox.DefaultEncodingAESKey), sandbox.DefaultComponentAppID)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := c.Open(x.MsgSignature, x.TimeStamp, x.Nonce, x.Encrypt)
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

// Messages and events are forwarded to the configured service, also after a
// reload, and its response is the reply to the user.
func TestForward(t *testing.T) {
	const passive = "<xml><MsgType>text</MsgType><Content>你好</Content></xml>"
	chat, rest := newInbox(t, passive), newInbox(t, "success")
	w := newTestEnv(t, sandbox.Config{})
	w.callbackExtra = fmt.Sprintf("[[forward]]\nappids = [%q]\nevents = [\"Text\"]\nurl = "+
		"\"%s/wechat\"\n[[forward]]\nurl = %q", accountA, chat.URL, rest.URL)
	w.start().authorized(accountA)
	ctx := context.Background()
	push := func(account, doc string) string {
		t.Helper()
		answer, err := w.wx.PushXML(ctx, "/"+account+"/events", doc)
		if err != nil {
			t.Fatal(err)
		}
		return string(answer)
	}
	hello := messageDoc("text", "<Content>hello</Content><MsgId>1</MsgId>")
	if got := unsealed(t, []byte(push(accountA, hello))); got != passive || !chat.has(accountA+" "+hello) {
		t.Errorf("reply to the message of %s: got %s, want %s", accountA, got, passive)
	}
	helloB := strings.Replace(hello, "gh_1", "gh_2", 1)
	if got := push(accountB, helloB); got != "success" || !rest.has(accountB+" "+helloB) {
		t.Errorf("reply to the message of %s: got %s, want success", accountB, got)
	}
	// The authorization was forwarded without its code, and the ticket was not.
	proctest.Eventually(t, func() bool { return rest.has("<InfoType><![CDATA[authorized]]></InfoType>") })
	if !rest.has("<AuthorizationCode>***</AuthorizationCode>") || rest.has("@@@") ||
		rest.has("component_verify_ticket") {
		t.Errorf("forwarded events: got %q, want a masked code and no ticket", rest.seen)
	}

	// While the service is down, WeChat gets an error and repeats the push.
	chat.Close()
	if _, err := w.wx.PushXML(ctx, "/"+accountA+"/events", hello); err == nil ||
		!strings.Contains(err.Error(), "HTTP 500") {
		t.Errorf("push while the service is down: got %v, want HTTP 500", err)
	}
	path := filepath.Join(w.dir, "config.toml")
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	back := newInbox(t, passive)
	w.file("config.toml", strings.Replace(string(old), chat.URL, back.URL, 1))
	w.signal(syscall.SIGHUP)
	proctest.Eventually(t, func() bool {
		answer, err := w.wx.PushXML(ctx, "/"+accountA+"/events", hello)
		return err == nil && unsealed(t, answer) == passive
	})
	if !back.has(hello) {
		t.Error("the new service received no message")
	}
	if _, metrics := w.get(w.admin, "/metrics"); !strings.Contains(metrics,
		`wxproxy_callback_events_total{event="message",result="ok"} 3`) ||
		!strings.Contains(metrics, `wxproxy_callback_events_total{event="message",result="undelivered"}`) {
		t.Errorf("metrics: got no counters of delivered and undelivered messages in\n%s", metrics)
	}
	if code := w.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
	if strings.Contains(w.out.String(), "hello") {
		t.Error("the log contains the text of a message")
	}
}

// A copy waits while its service is down, and a reload that changes address and
// mode of the service, and adds others, delivers it: nothing depends on the
// block as it was when the message arrived. A raw service gets the push as
// WeChat sent it.
func TestForwardModesAreReloaded(t *testing.T) {
	down, back, raw := newInbox(t, "success"), newInbox(t, "success"), newInbox(t, "as it is")
	down.Close()
	w := newTestEnv(t, sandbox.Config{})
	w.callbackExtra = fmt.Sprintf("[[forward]]\nname = \"orders\"\nmode = \"queue\"\n"+
		"secret = \"signingSecret\"\nurl = %q", down.URL)
	w.start()
	ctx := context.Background()
	hello := messageDoc("text", "<Content>hello</Content><MsgId>1</MsgId>")
	answer, err := w.wx.PushXML(ctx, "/"+accountA+"/events", hello)
	if err != nil || string(answer) != "success" {
		t.Fatalf("push while the service is down: got %s, %v, want success", answer, err)
	}
	path := filepath.Join(w.dir, "config.toml")
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer(down.URL, back.URL, `"queue"`, `"reply"`).Replace(string(old))
	changed += fmt.Sprintf("\n[[forward]]\nmode = \"raw\"\nappids = [%q]\nurl = %q\n",
		accountB, raw.URL)
	changed = strings.Replace(changed, "[[forward]]\nname",
		fmt.Sprintf("[[forward]]\nappids = [%q]\nname", accountA), 1)
	w.file("config.toml", changed)
	w.signal(syscall.SIGHUP)
	proctest.Eventually(t, func() bool { return back.has(accountA + " " + hello) })
	helloB := strings.Replace(hello, "gh_1", "gh_2", 1)
	answer, err = w.wx.PushXML(ctx, "/"+accountB+"/events", helloB)
	if err != nil || string(answer) != "as it is" || !raw.has("<Encrypt>") || raw.has("hello") {
		t.Errorf("raw: got reply %s, %v and request %q, want the encrypted push",
			answer, err, raw.seen)
	}
	if code := w.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
	out := w.out.String()
	if strings.Contains(out, "hello") || strings.Contains(out, "signingSecret") {
		t.Error("the log contains the text of a message, or a secret")
	}
}

// wxproxy passes WeChat's release check without any service behind it.
func TestReleaseChecker(t *testing.T) {
	const send = "/cgi-bin/message/custom/send"
	w := newTestEnv(t, sandbox.Config{}).start()
	ctx := context.Background()
	if err := w.wx.PushTicket(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.wx.AddAccount(checkerAccount, sandbox.OfficialAccount); err != nil {
		t.Fatal(err)
	}
	answer, err := w.wx.PushXML(ctx, "/"+checkerAccount+"/events",
		messageDoc("text", "<Content>TESTCOMPONENT_MSG_TYPE_TEXT</Content>"))
	if err != nil || !strings.Contains(unsealed(t, answer), "<Content>TESTCOMPONENT_MSG_TYPE_TEXT_callback</Content>") {
		t.Errorf("reply to the text of the check: got %s, %v", answer, err)
	}
	for round := range 2 { // the second time its token is rejected first
		code := w.wx.AuthorizationCode(checkerAccount)
		if round == 1 {
			w.fault(sandbox.Fault{Path: send, ErrCode: 40001, Times: 1})
		}
		answer, err = w.wx.PushXML(ctx, "/"+checkerAccount+"/events",
			messageDoc("text", "<Content>QUERY_AUTH_CODE:"+code+"</Content>"))
		if err != nil || len(answer) != 0 {
			t.Errorf("reply to QUERY_AUTH_CODE: got %q, %v, want an empty one", answer, err)
		}
		proctest.Eventually(t, func() bool {
			return w.wx.CountFunc(func(c sandbox.Call) bool {
				return c.Path == send && c.ErrCode == 0 && c.Appid == checkerAccount &&
					strings.TrimSpace(string(c.Body)) == fmt.Sprintf(`{"msgtype":"text",`+
						`"text":{"content":"%s_from_api"},"touser":"%s"}`, code, fromUser)
			}) == 1
		})
	}
	if answer, err = w.wx.PushXML(ctx, "/"+checkerAccount+"/events",
		messageDoc("event", "<Event>LOCATION</Event>")); err != nil ||
		!strings.Contains(unsealed(t, answer), "<Content>LOCATIONfrom_callback</Content>") {
		t.Errorf("reply to the event of the check: got %s, %v", answer, err)
	}
	if code := w.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
	for _, secret := range w.wx.Secrets() {
		if strings.Contains(w.out.String(), secret) {
			t.Errorf("the log contains a secret that starts with %.12s", secret)
		}
	}
	if v := w.wx.Violations(); len(v) > 0 {
		t.Errorf("violations of WeChat's protocol: got %q, want none", v)
	}
}
