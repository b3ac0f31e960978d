//go:build unix

package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

// eventSink is a service that notes each delivery.
type eventSink struct {
	*httptest.Server
	mu   sync.Mutex
	got  []received
	fail func(received) bool // nil: all are accepted
}

// received is a delivery, and whether it was accepted.
type received struct {
	event, attempt, source, appid, doc string
	accepted                           bool
}

// newEventSink returns an eventSink that listens until the test ends.
func newEventSink(t *testing.T) *eventSink {
	t.Helper()
	s := &eventSink{}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *eventSink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return // wxproxy was killed
	}
	d := received{
		event: r.Header.Get("X-Wxproxy-Event"), attempt: r.Header.Get("X-Wxproxy-Attempt"),
		source: r.Header.Get("X-Wxproxy-Source"), appid: r.Header.Get("X-WX-APPID"),
		doc: string(b),
	}
	s.mu.Lock()
	d.accepted = s.fail == nil || !s.fail(d)
	s.got = append(s.got, d)
	s.mu.Unlock()
	if !d.accepted {
		w.WriteHeader(http.StatusInternalServerError)
	}
}

// setFail replaces fail.
func (s *eventSink) setFail(fail func(received) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

// accepted returns the deliveries whose document contains text and that were
// accepted, in their order.
func (s *eventSink) accepted(text string) (all []received) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.got {
		if d.accepted && strings.Contains(d.doc, text) {
			all = append(all, d)
		}
	}
	return all
}

// TestUnpushedChangesReachServices: a withdrawal whose push was lost, a return
// whose push was lost, and a withdrawal that was pushed × the comparison that
// finds it, another one, and kill -9 in between. The service gets one event of
// each, and those that were not pushed are marked.
func TestUnpushedChangesReachServices(t *testing.T) {
	service := newEventSink(t)
	w := newTestEnv(t, sandbox.Config{})
	w.callbackExtra = fmt.Sprintf("[[forward]]\nurl = %q", service.URL)
	w.start().authorized(accountA)
	sync := func() {
		t.Helper()
		if code, out := w.operate("accounts", "sync"); code != 0 {
			t.Fatalf("accounts sync: got exit code %d, %s", code, out)
		}
	}
	restart := func() {
		w.end(syscall.SIGKILL)
		w.start()
	}
	sync() // from here on an account without a record is news
	w.wx.SetPushURL("")
	if err := w.wx.Unauthorize(t.Context(), accountA); err != nil {
		t.Fatal(err)
	}
	sync()
	restart()
	sync()
	const gone, back = "<InfoType>unauthorized</InfoType>", "<InfoType>authorized</InfoType>"
	proctest.Eventually(t, func() bool { return len(service.accepted(gone)) > 0 })
	w.authorizedElsewhere(accountA)
	sync()
	restart()
	sync()
	proctest.Eventually(t, func() bool { return len(service.accepted(back)) > 0 })
	if err := w.wx.Unauthorize(t.Context(), accountA); err != nil { // is pushed
		t.Fatal(err)
	}
	sync()
	proctest.Eventually(t, func() bool {
		return len(service.accepted("<InfoType><![CDATA[unauthorized]]></InfoType>")) == 1
	})
	w.end(syscall.SIGTERM)
	for _, text := range []string{gone, back} {
		all := service.accepted(text)
		if len(all) != 1 || all[0].source != "comparison" || all[0].appid != accountA ||
			!strings.Contains(all[0].doc, "<AuthorizerAppid>"+accountA+"</AuthorizerAppid>") {
			t.Errorf("events with %s: got %+v, want one of %s from a comparison", text, all, accountA)
		}
	}
}
