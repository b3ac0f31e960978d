package callback_test

import (
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

const checker = "wx570bc396a51b8ff8" // one of WeChat's

// passive is a passive text reply.
type passive struct {
	ToUserName, FromUserName, MsgType, Content string
	CreateTime                                 int64
}

func (l *listener) passive(r reply) passive {
	l.t.Helper()
	var p passive
	if err := xml.Unmarshal([]byte(l.unsealed(l.crypt, r)), &p); err != nil {
		l.t.Fatal(err)
	}
	if p.ToUserName != user || p.FromUserName != original || p.MsgType != "text" || p.CreateTime < 1_700_000_000 {
		l.t.Errorf("%+v", p)
	}
	return p
}

// exchanger exchanges codes for the release checker.
type exchanger struct {
	mu    sync.Mutex
	n     int
	appid string            // of the account that it gives
	do    func(n int) error // n: which one it is, from 1
}

func (e *exchanger) exchange(context.Context, wechat.Secret) (tokens.Authorization, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.n++
	if e.do != nil {
		if err := e.do(e.n); err != nil {
			return tokens.Authorization{}, err
		}
	}
	return tokens.Authorization{AppID: e.appid}, nil
}

func (e *exchanger) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.n
}

// sent records what would be sent to users.
type sent struct {
	mu   sync.Mutex
	list []string
	fail func(n int) error // n: which one it is, from 1
}

func (s *sent) send(_ context.Context, appid, openid, text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, appid+" "+openid+" "+text)
	if s.fail != nil {
		return s.fail(len(s.list))
	}
	return nil
}

func (s *sent) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// The three steps, though a rule has everything forwarded: wxproxy passes by
// itself.
func TestReleaseChecker(t *testing.T) {
	s := newService(t, nil)
	var out sent
	x := exchanger{appid: checker}
	v := start(t, callback.Config{Forwards: []callback.Forward{everything(s.URL)}, ExchangeCode: x.exchange, SendText: out.send})
	to := func(doc string) reply { return v.sendTo(checker, toAccount(v.crypt, doc)) }
	if got := v.passive(to(text("TESTCOMPONENT_MSG_TYPE_TEXT"))).Content; got != "TESTCOMPONENT_MSG_TYPE_TEXT_callback" {
		t.Errorf("%q", got)
	}
	v.empty(to(text("QUERY_AUTH_CODE:" + theCode)))
	eventually(t, "the message is sent", func() bool { return len(out.all()) > 0 })
	if got := v.passive(to(event("LOCATION"))).Content; got != "LOCATIONfrom_callback" {
		t.Errorf("%q", got)
	}
	if err := v.handler.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if got := out.all(); !slices.Equal(got, []string{checker + " " + user + " " + theCode + "_from_api"}) {
		t.Errorf("sent %q", got)
	}
	v.wants([]string{"message ok", "message ok", "message ok"})
	if n := len(s.got()); n != 0 {
		t.Errorf("the service got %d", n)
	}
	// All else of these accounts goes by the rules, and a rule that names the
	// account has its events.
	v.is(to(text("TESTCOMPONENT_MSG_TYPE_TEXT?")), 200)
	v.is(to(text("QUERY_AUTH_CODE:")), 200)
	v.is(to(message("image")), 200)
	v.handler.Reconfigure(callback.Config{ComponentAppID: component, Crypts: []*wechat.Crypt{v.crypt}, Forwards: []callback.Forward{
		{AppIDs: []string{checker}, Events: []string{"location"}, URL: s.URL},
	}})
	v.is(to(event("LOCATION")), 200)
	if got := v.passive(to(event("subscribe"))).Content; got != "subscribefrom_callback" {
		t.Errorf("%q", got)
	}
	if n := len(s.got()); n != 4 {
		t.Errorf("the service got %d", n)
	}
}

// The checker's words mean nothing in other accounts.
func TestCheckersWordsElsewhere(t *testing.T) {
	var out sent
	var x exchanger
	v := start(t, callback.Config{ExchangeCode: x.exchange, SendText: out.send})
	for _, doc := range []string{text("TESTCOMPONENT_MSG_TYPE_TEXT"), text("QUERY_AUTH_CODE:" + theCode), event("LOCATION")} {
		v.is(v.message(doc), 200)
	}
	if err := v.handler.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if x.count() != 0 || len(out.all()) != 0 {
		t.Errorf("%d exchanges, sent %q", x.count(), out.all())
	}
	v.wants([]string{"message ignored", "message ignored", "message ignored"})
}

// A moment's trouble is waited out; what WeChat refuses is not asked again.
func TestReleaseCheckerTrouble(t *testing.T) {
	refused := &wechat.Error{Code: wechat.CodeCodeInvalid, Msg: "used " + theCode}
	unreachable := errors.Join(errors.New(theCode), wechat.ErrUnreachable)
	for name, v := range map[string]struct {
		exchange, send  func(n int) error
		exchanges, sent int
		logs            string
	}{
		"exchange unreachable": {func(n int) error {
			if n == 1 {
				return unreachable
			}
			return nil
		}, nil, 2, 1, "release checker answered"},
		"code refused": {func(int) error { return refused }, nil, 1, 0, "release checker not answered"},
		"send unreachable": {nil, func(n int) error {
			if n == 1 {
				return unreachable
			}
			return nil
		}, 2, 2, "release checker answered"},
		"send refused": {nil, func(int) error { return &wechat.Error{Code: 45015, Msg: "late"} }, 1, 1, "release checker not answered"},
	} {
		t.Run(name, func(t *testing.T) {
			out := sent{fail: v.send}
			x := exchanger{appid: checker, do: v.exchange}
			l := start(t, callback.Config{ExchangeCode: x.exchange, SendText: out.send})
			l.empty(l.sendTo(checker, toAccount(l.crypt, text("QUERY_AUTH_CODE:"+theCode))))
			eventually(t, v.logs, func() bool { return strings.Contains(l.logged(), v.logs) })
			if x.count() != v.exchanges || len(out.all()) != v.sent {
				t.Errorf("%d exchanges, %d sent", x.count(), len(out.all()))
			}
		})
	}
}
