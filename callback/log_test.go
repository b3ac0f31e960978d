package callback_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"wxproxy/callback"
	"wxproxy/wechat"
)

func TestPanicIsLoggedAndAnswered(t *testing.T) {
	for name, tc := range map[string]struct {
		panics func()
		logged string
	}{
		"with a string":     {func() { panic("ticket " + ticket) }, "not logged"},
		"with an error":     {func() { panic(fmt.Errorf("SECRET")) }, "not logged"},
		"of the runtime":    {func() { _ = strings.Fields("SECRET")[len(ticket)] }, "index out of range"},
		"with a nil secret": {func() { var s *wechat.Secret; _ = s.Reveal() }, "nil pointer"},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, callback.Config{})
			w.accounts.setResult(func(context.Context) error { tc.panics(); return nil })
			s := seal(w.crypt, ticketDoc())
			w.wantResponse(w.send(s), http.StatusInternalServerError)
			w.wantLogged("BUG: panic", tc.logged, "log_test.go")
			// The push was not handled, so a repeat is not a replay.
			w.accounts.setResult(nil)
			w.wantResponse(w.send(s), http.StatusOK)
			w.wantCounted("other store", "component_verify_ticket ok")
			w.wantStored(ticketStored, ticketStored)
		})
	}
}

// net/http logs the value of a panic, which can be a piece of a request.
func TestServerLogDoesNotQuotePanics(t *testing.T) {
	w := newEnv(t)
	panicking := make(chan struct{})
	w.serve(callback.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		defer close(panicking)
		panic("SECRET")
	}), w.logger()))
	conn := w.dial()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-panicking
	if _, err := io.ReadAll(conn); err != nil { // net/http logs before it closes the connection
		t.Fatal(err)
	}
	w.wantLogged("panic in a handler")
	if n := strings.Count(w.logged(), "\n"); n != 1 {
		t.Errorf("got %d lines in the log, want 1:\n%s", n, w.logged())
	}
}

// The log has enough to find a rejected push, but not its query.
func TestRejectedPushIsLogged(t *testing.T) {
	w := start(t, callback.Config{})
	s := seal(w.crypt, ticketDoc())
	s.signature = strings.Repeat("0", 40)
	w.wantResponse(w.send(s), http.StatusForbidden)
	w.wantLogged("level=WARN", "result=bad_signature", "status=403", "method=POST", "path=/component/events",
		fmt.Sprintf("query_bytes=%d", len(s.query())), wechat.ErrSignature.Error())
	if log := w.logged(); strings.Contains(log, s.nonce) || strings.Contains(log, s.signature) {
		t.Errorf("got the query in the log:\n%s", log)
	}
}

// TestRejectedPushesDoNotFillTheLog: 100 requests of each kind that needs no
// key leave ten lines for each result. Kinds: a wrong signature × the path of
// events, of a message, of an own account; no query; no XML; a body that says
// that it is too long; a check of the URL that is wrong, or malformed.
func TestRejectedPushesDoNotFillTheLog(t *testing.T) {
	own := callback.App{AppID: ownAccount, Token: wechat.NewSecret("token")}
	now := time.Now()
	w := start(t, callback.Config{
		Apps: []callback.App{own}, Now: func() time.Time { return now },
	})
	const signed = "?timestamp=1715943329&nonce=1&signature=a"
	const body = "<xml><Encrypt>aaaa</Encrypt></xml>"
	for range 100 {
		w.request("POST", "/component/events"+signed+"&msg_signature=a", strings.NewReader(body))
		w.request("POST", "/wx1111111111111111/events"+signed+"&msg_signature=a",
			strings.NewReader(body))
		w.request("POST", "/"+ownAccount+"/events"+signed, strings.NewReader(body))
		w.request("POST", "/component/events", strings.NewReader(body))
		w.request("POST", "/component/events"+signed+"&msg_signature=a", strings.NewReader("a"))
		w.request("GET", "/"+ownAccount+"/events"+signed+"&echostr=1", nil)
		w.request("GET", "/"+ownAccount+"/events?echostr=1", nil)
		w.raw(w.dial(), "POST", "POST /component/events"+signed+"&msg_signature=a HTTP/1.1\r\n"+
			"Host: a\r\nContent-Length: 2000000\r\n\r\n")
	}
	log := w.logged()
	for _, result := range []string{"bad_signature", "bad_message", "too_large"} {
		if n := strings.Count(log, "result="+result+" "); n != 10 {
			t.Errorf("got %d lines with %s, want 10", n, result)
		}
	}
	if n := len(w.counted()); n != 800 {
		t.Errorf("got %d pushes counted, want 800", n)
	}
}
