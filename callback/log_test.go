package callback_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"wxproxy/callback"
	"wxproxy/wechat"
)

func TestPanicIsAnswered(t *testing.T) {
	for name, v := range map[string]struct {
		panics func()
		logs   string
	}{
		"with a text":       {func() { panic("ticket " + theTicket) }, "not logged"},
		"with an error":     {func() { panic(fmt.Errorf("SECRET")) }, "not logged"},
		"with a defect":     {func() { _ = strings.Fields("SECRET")[len(theTicket)] }, "index out of range"},
		"with a nil secret": {func() { var s *wechat.Secret; _ = s.Reveal() }, "nil pointer"},
	} {
		t.Run(name, func(t *testing.T) {
			l := start(t, callback.Config{})
			l.accounts.answer(func(context.Context) error { v.panics(); return nil })
			s := sealed(l.crypt, ticketDoc())
			l.is(l.send(s), http.StatusInternalServerError)
			if out := l.logged(); !strings.Contains(out, "BUG: panic") || !strings.Contains(out, v.logs) || !strings.Contains(out, "log_test.go") {
				t.Errorf("logged as\n%s", out)
			}
			// It was not handled, so it can be repeated.
			l.accounts.answer(nil)
			l.is(l.send(s), http.StatusOK)
			l.wants([]string{"other store", "component_verify_ticket ok"}, ticketTold, ticketTold)
		})
	}
}

// Whatever handler is served: net/http logs what it panicked with, and that may
// be a piece of a request.
func TestServerLogQuotesNothing(t *testing.T) {
	l := &listener{t: t, accounts: &accounts{}}
	log := slog.New(slog.NewTextHandler(lockedWriter{l}, nil))
	done := make(chan struct{})
	l.serve(callback.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		defer close(done)
		panic("SECRET")
	}), log))
	conn := l.dial()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-done
	if _, err := io.ReadAll(conn); err != nil { // the log is written before the connection is closed
		t.Fatal(err)
	}
	if out := l.logged(); strings.Count(out, "\n") != 1 || !strings.Contains(out, "panic in a handler") || strings.Contains(out, "SECRET") {
		t.Errorf("logged as\n%s", out)
	}
}

// What is logged of a refused push is enough to find it, and no query.
func TestRefusalIsLogged(t *testing.T) {
	l := start(t, callback.Config{})
	s := sealed(l.crypt, ticketDoc())
	s.signature = strings.Repeat("0", 40)
	l.is(l.send(s), http.StatusForbidden)
	out := l.logged()
	for _, want := range []string{"level=WARN", "result=bad_signature", "status=403", "method=POST", "path=/component/events", fmt.Sprintf("query_bytes=%d", len(s.query())), "wrong msg_signature"} {
		if !strings.Contains(out, want) {
			t.Errorf("%s is not in\n%s", want, out)
		}
	}
	if strings.Contains(out, s.nonce) || strings.Contains(out, s.signature) {
		t.Errorf("the query is in\n%s", out)
	}
}
