package callback_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"wxproxy/callback"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// An event is handed on after it was stored and answered, without what is
// secret in it.
func TestEventsAreHandedOn(t *testing.T) {
	for name, v := range map[string]struct{ doc, account, want string }{
		"authorized": {authorizedDoc("authorized"), account,
			strings.ReplaceAll(strings.Replace(authorizedDoc("authorized"), "<![CDATA["+theCode+"]]>", "***", 1), "preauthcode@@@SECRET", "***")},
		"unauthorized": {document(component, "unauthorized", "<AuthorizerAppid>"+account+"</AuthorizerAppid>"), account, "="},
		"registered": {document(component, "notify_third_fasteregister", "<status>0</status><appid>"+account+"</appid><auth_code>"+theCode+"</auth_code><info><code>91</code></info>"), account,
			document(component, "notify_third_fasteregister", "<status>0</status><appid>"+account+"</appid><auth_code>***</auth_code><info><code>91</code></info>")},
		"a certification": {document(component, "notify_3rd_wxa_auth", "<appid>"+account+"</appid><task_status>1</task_status>"), account, "="},
		"a filing":        {document(component, "notify_apply_icpfiling_result", "<authorizer_appid>"+account+"</authorizer_appid>"), account, "="},
		"a face":          {document(component, "notify_icpfiling_verify_result", "<verify_appid>"+account+"</verify_appid>"), account, "="},
		"of nobody":       {document(component, "brand_new", "<a/><auth_code/>"), component, "="},
		"codes elsewhere": {document(component, "brand_new", "<list><Auth_Code>SECRET<b>SECRET</b></Auth_Code></list><ComponentVerifyTicket>SECRET</ComponentVerifyTicket>"), component,
			document(component, "brand_new", "<list><Auth_Code>***</Auth_Code></list><ComponentVerifyTicket>***</ComponentVerifyTicket>")},
		"a code repeated": {document(component, "notify_third_fasteregister", "<status>0</status><appid>"+account+"</appid><auth_code>"+theCode+"</auth_code><msg>see "+theCode+"</msg>"), account,
			document(component, "notify_third_fasteregister", "<status>0</status><appid>"+account+"</appid><auth_code>***</auth_code><msg>see ***</msg>")},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, nil)
			l := start(t, callback.Config{Forwards: []callback.Forward{everything(s.URL)}})
			l.is(l.push(v.doc), 200)
			eventually(t, "the service gets it", func() bool { return len(s.got()) > 0 })
			if v.want == "=" {
				v.want = v.doc
			}
			g := s.got()[0]
			if g.body != v.want || strings.Contains(g.body, "SECRET") {
				t.Errorf("the service got\n%s\nwant\n%s", g.body, v.want)
			}
			if g.header.Get("X-WX-APPID") != v.account || g.header.Get("Content-Type") != "text/xml" || g.header.Get("X-Request-Id") == "" || g.header.Values("X-WX-OPENID") != nil {
				t.Errorf("headers %v", g.header)
			}
			if err := l.handler.Close(t.Context()); err != nil || len(s.got()) != 1 {
				t.Errorf("%v, %d deliveries", err, len(s.got()))
			}
		})
	}
}

// Tickets go to nobody, not even where a rule names them; nor does what was
// refused, failed, is old, or no rule's.
func TestEventsThatAreNotHandedOn(t *testing.T) {
	s := newService(t, nil)
	named := callback.Forward{AppIDs: []string{"*", component}, Events: []string{"*", "component_verify_ticket"}, URL: s.URL}
	l := start(t, callback.Config{Forwards: []callback.Forward{named}})
	l.is(l.push(ticketDoc()), 200)
	bad := sealed(l.crypt, authorizedDoc("authorized"))
	bad.signature = strings.Repeat("0", 40)
	l.is(l.send(bad), 403)
	l.accounts.answer(func(context.Context) error { return errors.New("disk full") })
	l.is(l.push(authorizedDoc("authorized")), 500)
	l.accounts.answer(func(context.Context) error { return tokens.ErrStale })
	l.is(l.push(authorizedDoc("authorized")), 200)
	l.accounts.answer(nil)
	once := sealed(l.crypt, authorizedDoc("authorized"))
	l.is(l.send(once), 200)
	eventually(t, "it is handed on", func() bool { return len(s.got()) > 0 }) // behind the answer
	l.is(l.send(once), 409)
	named.Events = []string{"unauthorized"}
	l.handler.Reconfigure(callback.Config{ComponentAppID: component, Crypts: []*wechat.Crypt{l.crypt}, Forwards: []callback.Forward{named}})
	l.is(l.push(authorizedDoc("updateauthorized")), 200)
	if err := l.handler.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(s.got()); n != 1 {
		t.Errorf("%d deliveries: %q", n, s.got())
	}
}

// A service that is away for a moment gets the event all the same.
func TestEventIsTriedAgain(t *testing.T) {
	s := newService(t, says(503, ""))
	l := start(t, callback.Config{Forwards: []callback.Forward{everything(withKey(s.URL))}})
	l.is(l.push(authorizedDoc("authorized")), 200)
	eventually(t, "it is tried", func() bool { return len(s.got()) > 0 })
	s.change(nil)
	eventually(t, "it is tried again", func() bool { return strings.Contains(l.logged(), "event delivered") })
	g := s.got()
	if len(g) < 2 || g[0].body != g[1].body || g[0].header.Get("X-Request-Id") != g[1].header.Get("X-Request-Id") {
		t.Errorf("%q", g)
	}
	if got := l.counted(); !slices.Equal(got, []string{"authorized ok"}) {
		t.Errorf("counted %q", got)
	}
}

// At the end each event has one more try; what fails then is dropped, logged
// and counted. Nothing is taken afterwards.
func TestCloseEndsTheTries(t *testing.T) {
	s := newService(t, says(503, ""))
	l := start(t, callback.Config{Forwards: []callback.Forward{everything(s.URL)}})
	l.is(l.push(authorizedDoc("authorized")), 200)
	eventually(t, "it is tried", func() bool { return len(s.got()) > 0 })
	if err := l.handler.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if n := len(s.got()); n < 2 {
		t.Errorf("%d tries", n)
	}
	l.is(l.push(document(component, "brand_new")), 200)
	// What is refused behind an answer is told after it.
	eventually(t, "both are counted and logged", func() bool {
		return slices.Equal(l.counted(), []string{"authorized ok", "authorized undelivered", "other ignored", "other undelivered"}) &&
			strings.Count(l.logged(), "dropped") == 2
	})
}

// A service that hangs does not keep wxproxy from stopping, nor WeChat from its
// success.
func TestCloseWithHangingService(t *testing.T) {
	release := make(chan struct{})
	s := newService(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-release:
		}
	})
	defer close(release)
	l := start(t, callback.Config{Forwards: []callback.Forward{everything(s.URL)}})
	l.is(l.push(authorizedDoc("authorized")), 200)
	eventually(t, "it is tried", func() bool { return len(s.got()) > 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := l.handler.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	l.wants([]string{"authorized ok", "authorized undelivered"}, "authorize "+account+" "+theCode+" 1512631134 1512627534")
}

// While a service is away, so many events wait and no more.
func TestWaitingEventsAreBounded(t *testing.T) {
	const many = 1024 + 10
	s := newService(t, says(503, ""))
	s.Close()
	l := start(t, callback.Config{Forwards: []callback.Forward{everything(s.URL)}})
	for range many {
		if r := l.push(document(component, "brand_new")); r.status != 200 {
			t.Fatal(r.status)
		}
	}
	if err := l.handler.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(l.logged(), "too many jobs are waiting") {
		t.Error("nothing was dropped")
	}
	if n := strings.Count(strings.Join(l.counted(), "\n"), "other undelivered"); n != many {
		t.Errorf("%d were given up", n)
	}
}
