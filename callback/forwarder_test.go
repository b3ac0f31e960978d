package callback_test

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"wxproxy/callback"
	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

func TestStoredEventsAreForwardedWithoutCodes(t *testing.T) {
	const register = "notify_third_fasteregister"
	appid := "<appid>" + account + "</appid>"
	replace := strings.NewReplacer("<![CDATA["+authCode+"]]>", "***", authCode, "***", "preauthcode@@@SECRET", "***")
	for name, tc := range map[string]struct{ account, doc string }{
		"authorized":   {account, authorizedDoc("authorized")},
		"unauthorized": {account, unauthorizedDoc()},
		"registered": {account, eventDoc(component, register,
			"<status>0</status>"+appid+"<auth_code>"+authCode+"</auth_code><info><code>91</code></info>")},
		"certification": {account, eventDoc(component, "notify_3rd_wxa_auth", appid+"<task_status>1</task_status>")},
		"filing": {account, eventDoc(component, "notify_apply_icpfiling_result",
			"<authorizer_appid>"+account+"</authorizer_appid>")},
		"verification": {account, eventDoc(component, "notify_icpfiling_verify_result",
			"<verify_appid>"+account+"</verify_appid>")},
		"without account": {component, eventDoc(component, "brand_new", "<a/><auth_code/>")},
		"code in the text of another field": {account, eventDoc(component, register,
			"<status>0</status>"+appid+"<auth_code>"+authCode+"</auth_code><msg>see "+authCode+"</msg>")},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, nil)
			w := start(t, callback.Config{Forwards: []callback.Forward{forwardAll(s.URL)}})
			w.wantResponse(w.push(tc.doc), 200)
			eventually(t, "the event is forwarded", func() bool { return len(s.deliveries()) > 0 })
			if err := w.handler.Close(t.Context()); err != nil { // waits for further tries
				t.Fatal(err)
			}
			s.wantDeliveries(t, 1)
			d := s.deliveries()[0]
			if want := replace.Replace(tc.doc); d.body != want || strings.Contains(d.body, "SECRET") {
				t.Errorf("service: got\n%s\nwant\n%s", d.body, want)
			}
			for name, want := range map[string]string{
				"X-WX-APPID": tc.account, "Content-Type": "text/xml", "X-WX-OPENID": "",
			} {
				if got := d.header.Get(name); got != want {
					t.Errorf("service: header %s: got %q, want %q", name, got, want)
				}
			}
			if d.header.Get("X-Request-Id") == "" {
				t.Error("service: got no X-Request-Id, want one")
			}
		})
	}
}

// Elements that hold credentials are masked wherever they are.
func TestNestedCredentialsAreMasked(t *testing.T) {
	s := newService(t, nil)
	w := start(t, callback.Config{Forwards: []callback.Forward{forwardAll(s.URL)}})
	w.wantResponse(w.push(eventDoc(component, "brand_new",
		"<list><Auth_Code>SECRET<b>SECRET</b></Auth_Code></list>"+
			"<ComponentVerifyTicket>SECRET</ComponentVerifyTicket>")), 200)
	eventually(t, "the event is forwarded", func() bool { return len(s.deliveries()) > 0 })
	want := eventDoc(component, "brand_new",
		"<list><Auth_Code>***</Auth_Code></list><ComponentVerifyTicket>***</ComponentVerifyTicket>")
	if got := s.deliveries()[0].body; got != want {
		t.Errorf("service: got\n%s\nwant\n%s", got, want)
	}
}

// Tickets are not forwarded, not even if a rule names them. Neither are events
// that were rejected, not stored, stale, repeated or not matched by a rule.
func TestEventsThatAreNotForwarded(t *testing.T) {
	s := newService(t, nil)
	rule := callback.Forward{
		AppIDs: []string{"*", component}, Events: []string{"*", "component_verify_ticket"}, URL: s.URL,
	}
	w := start(t, callback.Config{Forwards: []callback.Forward{rule}})
	w.wantResponse(w.push(ticketDoc()), 200)
	forged := seal(w.crypt, authorizedDoc("authorized"))
	forged.signature = strings.Repeat("0", 40)
	w.wantResponse(w.send(forged), 403)
	w.accounts.setResult(func(context.Context) error { return errors.New("disk full") })
	w.wantResponse(w.push(authorizedDoc("authorized")), 500)
	w.accounts.setResult(func(context.Context) error { return tokens.ErrStale })
	w.wantResponse(w.push(authorizedDoc("authorized")), 200)
	w.accounts.setResult(nil)

	stored := seal(w.crypt, authorizedDoc("authorized"))
	w.wantResponse(w.send(stored), 200) // the only event that is forwarded
	eventually(t, "the event is forwarded", func() bool { return len(s.deliveries()) > 0 })
	w.wantResponse(w.send(stored), 200) // a replay
	rule.Events = []string{"unauthorized"}
	w.handler.Reconfigure(callback.Config{
		ComponentAppID: component, Crypts: []*wechat.Crypt{w.crypt}, Forwards: []callback.Forward{rule},
	})
	w.wantResponse(w.push(authorizedDoc("updateauthorized")), 200)
	if err := w.handler.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wantDeliveries(t, 1)
}

// A try that fails is repeated: with the same document and the same event, and
// with a number. What a service responds to a copy does not matter beyond its
// status: any 2xx × success, nothing, something else, more than 1 MiB.
func TestUndeliveredEventIsRetried(t *testing.T) {
	for _, body := range []string{"success", "", "<html>", strings.Repeat("a", 2<<20)} {
		s := newService(t, respondWith(503, ""))
		w := start(t, callback.Config{Forwards: []callback.Forward{forwardAll(withKey(s.URL))}})
		w.wantResponse(w.push(authorizedDoc("authorized")), 200)
		eventually(t, "a first try", func() bool { return len(s.deliveries()) > 0 })
		s.setHandler(respondWith(202, body))
		eventually(t, "nothing waits", func() bool { return w.waiting() == 0 })
		d := s.deliveries()
		if len(d) < 2 {
			t.Fatalf("service: got %d requests, want at least 2", len(d))
		}
		for i, d1 := range d {
			if d1.body != d[0].body ||
				d1.header.Get("X-Wxproxy-Event") != d[0].header.Get("X-Wxproxy-Event") ||
				d1.header.Get("X-Wxproxy-Attempt") != strconv.Itoa(i+1) {
				t.Errorf("try %d: got %q %q, want the same document and event", i+1, d1.header, d1.body)
			}
		}
		w.wantCounted("authorized ok")
	}
}

// waiting returns how many copies are in the queue.
func (w *env) waiting() int {
	w.t.Helper()
	total, _, err := w.handler.Queue().List(w.t.Context(), store.QueueFilter{}, 0, 1)
	if err != nil {
		w.t.Fatal(err)
	}
	return total
}

// A service that hangs delays neither the response to WeChat nor, for longer
// than its context, Close. The event stays in the queue.
func TestCloseEndsWithItsContext(t *testing.T) {
	release := make(chan struct{})
	s := newService(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-release:
		}
	})
	defer close(release)
	w := start(t, callback.Config{Forwards: []callback.Forward{forwardAll(s.URL)}})
	w.wantResponse(w.push(authorizedDoc("authorized")), 200)
	eventually(t, "a first try", func() bool { return len(s.deliveries()) > 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := w.handler.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: got error %v, want %v", err, context.DeadlineExceeded)
	}
	w.wantCounted("authorized ok")
	w.wantStored(authorizeStored)
	if n := w.waiting(); n != 1 {
		t.Errorf("got %d copies in the queue, want 1", n)
	}
}
