package callback_test

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"wxproxy/callback"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

const checkerAccount = "wx570bc396a51b8ff8" // one of WeChat's

// wantTextReply checks a passive text reply to the user.
func (w *env) wantTextReply(r response, content string) {
	w.t.Helper()
	var p struct {
		ToUserName, FromUserName, MsgType, Content string
		CreateTime                                 int64
	}
	if err := xml.Unmarshal([]byte(w.decryptReply(w.crypt, r)), &p); err != nil {
		w.t.Fatal(err)
	}
	if p.ToUserName != user || p.FromUserName != originalID || p.MsgType != "text" ||
		p.CreateTime < 1_700_000_000 {
		w.t.Errorf("got reply %+v, want a text from %s to %s", p, originalID, user)
	}
	if p.Content != content {
		w.t.Errorf("got reply %q, want %q", p.Content, content)
	}
}

// fakeExchanger stands in for the broker: it exchanges codes for one account.
type fakeExchanger struct {
	account string // default: checkerAccount

	mu     sync.Mutex
	n      int
	result func(n int) error // n: the number of the exchange, from 1; nil: all succeed
}

func (e *fakeExchanger) exchange(context.Context, wechat.Secret) (tokens.Authorization, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.n++
	if e.result != nil {
		if err := e.result(e.n); err != nil {
			return tokens.Authorization{}, err
		}
	}
	return tokens.Authorization{AppID: cmp.Or(e.account, checkerAccount)}, nil
}

func (e *fakeExchanger) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.n
}

// fakeSender records the texts that are sent to users.
type fakeSender struct {
	mu     sync.Mutex
	texts  []string
	result func(n int) error // n: the number of the text, from 1; nil: all succeed
}

func (s *fakeSender) send(_ context.Context, appid, openid, text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.texts = append(s.texts, appid+" "+openid+" "+text)
	if s.result != nil {
		return s.result(len(s.texts))
	}
	return nil
}

func (s *fakeSender) sent() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.texts)
}

// wxproxy passes the three steps of the test, although a rule forwards
// everything.
func TestReleaseCheckIsAnswered(t *testing.T) {
	s := newService(t, nil)
	var x fakeExchanger
	var sender fakeSender
	w := start(t, callback.Config{
		Forwards: []callback.Forward{forwardAll(s.URL)}, ExchangeCode: x.exchange, SendText: sender.send,
	})
	to := func(doc string) response { return w.sendTo(checkerAccount, sealMessage(w.crypt, doc)) }
	w.wantTextReply(to(textDoc("TESTCOMPONENT_MSG_TYPE_TEXT")), "TESTCOMPONENT_MSG_TYPE_TEXT_callback")
	w.wantEmpty(to(textDoc("QUERY_AUTH_CODE:" + authCode)))
	eventually(t, "the text is sent", func() bool { return len(sender.sent()) > 0 })
	w.wantTextReply(to(accountEventDoc("LOCATION")), "LOCATIONfrom_callback")
	if err := w.handler.Close(t.Context()); err != nil {
		t.Error(err)
	}
	sent := []string{checkerAccount + " " + user + " " + authCode + "_from_api"}
	if got := sender.sent(); !slices.Equal(got, sent) {
		t.Errorf("got texts %q, want %q", got, sent)
	}
	w.wantCounted("message ok", "message ok", "message ok")
	s.wantDeliveries(t, 0)

	// Other messages to these accounts are forwarded, and so are events if a
	// rule names the account.
	w.wantResponse(to(textDoc("TESTCOMPONENT_MSG_TYPE_TEXT?")), 200)
	w.wantResponse(to(textDoc("QUERY_AUTH_CODE:")), 200)
	w.wantResponse(to(messageDoc("image")), 200)
	s.wantDeliveries(t, 3)
	w.handler.Reconfigure(callback.Config{
		ComponentAppID: component, Crypts: []*wechat.Crypt{w.crypt},
		Forwards: []callback.Forward{{AppIDs: []string{checkerAccount}, Events: []string{"location"}, URL: s.URL}},
	})
	w.wantResponse(to(accountEventDoc("LOCATION")), 200)
	s.wantDeliveries(t, 4)
	w.wantTextReply(to(accountEventDoc("subscribe")), "subscribefrom_callback")
	s.wantDeliveries(t, 4)
}

func TestReleaseCheckTextsMeanNothingToOtherAccounts(t *testing.T) {
	var x fakeExchanger
	var sender fakeSender
	w := start(t, callback.Config{ExchangeCode: x.exchange, SendText: sender.send})
	for _, doc := range []string{
		textDoc("TESTCOMPONENT_MSG_TYPE_TEXT"), textDoc("QUERY_AUTH_CODE:" + authCode), accountEventDoc("LOCATION"),
	} {
		w.wantResponse(w.message(doc), 200)
	}
	if err := w.handler.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if x.count() != 0 || len(sender.sent()) != 0 {
		t.Errorf("got %d exchanges and texts %q, want none", x.count(), sender.sent())
	}
	w.wantCounted("message ignored", "message ignored", "message ignored")
}

// What fails for a moment is tried again; what WeChat rejects is not.
func TestFailedReleaseCheckIsRetried(t *testing.T) {
	const answered, notAnswered = "release checker answered", "release checker not answered"
	unreachable := errors.Join(errors.New(authCode), wechat.ErrUnreachable)
	once := func(err error) func(int) error {
		return func(n int) error {
			if n == 1 {
				return err
			}
			return nil
		}
	}
	always := func(err error) func(int) error { return func(int) error { return err } }
	used := &wechat.Error{Code: wechat.CodeCodeInvalid, Msg: "used " + authCode}
	late := &wechat.Error{Code: 45015, Msg: "late"}
	for name, tc := range map[string]struct {
		exchange, send  func(n int) error
		exchanges, sent int
		logged          string
	}{
		"exchange unreachable": {once(unreachable), nil, 2, 1, answered},
		"code rejected":        {always(used), nil, 1, 0, notAnswered},
		"send unreachable":     {nil, once(unreachable), 2, 2, answered},
		"send rejected":        {nil, always(late), 1, 1, notAnswered},
	} {
		t.Run(name, func(t *testing.T) {
			x, sender := fakeExchanger{result: tc.exchange}, fakeSender{result: tc.send}
			w := start(t, callback.Config{ExchangeCode: x.exchange, SendText: sender.send})
			w.wantEmpty(w.sendTo(checkerAccount, sealMessage(w.crypt, textDoc("QUERY_AUTH_CODE:"+authCode))))
			eventually(t, tc.logged+" in the log", func() bool { return strings.Contains(w.logged(), tc.logged) })
			if x.count() != tc.exchanges || len(sender.sent()) != tc.sent {
				t.Errorf("got %d exchanges and %d texts, want %d and %d",
					x.count(), len(sender.sent()), tc.exchanges, tc.sent)
			}
		})
	}
}

// A code that another account has given is not sent to a user of this one.
func TestReleaseCheckWithCodeOfAnotherAccountIsNotAnswered(t *testing.T) {
	x, sender := fakeExchanger{account: otherAccount}, fakeSender{}
	w := start(t, callback.Config{ExchangeCode: x.exchange, SendText: sender.send})
	w.wantEmpty(w.sendTo(checkerAccount, sealMessage(w.crypt, textDoc("QUERY_AUTH_CODE:"+authCode))))
	if err := w.handler.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if x.count() != 1 || len(sender.sent()) != 0 {
		t.Errorf("got %d exchanges and texts %q, want 1 and none", x.count(), sender.sent())
	}
	w.wantLogged("release checker not answered")
}

func TestPanicInBackgroundJobIsLogged(t *testing.T) {
	x := fakeExchanger{result: func(int) error { panic("SECRET") }}
	w := start(t, callback.Config{ExchangeCode: x.exchange, SendText: new(fakeSender).send})
	w.wantEmpty(w.sendTo(checkerAccount, sealMessage(w.crypt, textDoc("QUERY_AUTH_CODE:"+authCode))))
	eventually(t, "the panic is logged", func() bool { return strings.Contains(w.logged(), "BUG: panic") })
	if err := w.handler.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
