package main

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

// shifted makes the next start run the program with a clock that is off by d.
func (w *testEnv) shifted(d time.Duration) *testEnv {
	w.linked = ""
	if d != 0 {
		w.linked = "wxproxy/internal/clock.offset=" + d.String()
	}
	return w
}

// skew returns how far WeChat's clock is ahead, as the metrics say it, in
// seconds; false while it is not known.
func (w *testEnv) skew() (seconds float64, known bool) {
	w.t.Helper()
	_, text := w.get(w.admin, "/metrics")
	for line := range strings.Lines(text) {
		n, err := fmt.Sscanf(line, `wxproxy_clock_skew_seconds{of="wechat"} %g`, &seconds)
		if n == 1 && err == nil {
			return seconds, seconds == seconds
		}
	}
	return 0, false
}

// A program runs with a clock that is a month ahead, during which a renewal
// fails, then with the right one, then with one that is six hours behind. While
// the clock is wrong, /readyz says so in words and the metric by how much, and
// Retry-After is 30 minutes at most. With the right clock the account is served
// at once and the comparison with WeChat's list is made. All of 12 tickets are
// stored with the clock that was set back.
func TestWrongClockIsReportedAndForgotten(t *testing.T) {
	const month = 720 * time.Hour
	w := newTestEnv(t, sandbox.Config{})
	w.start().authorized(accountA)
	stop := func() {
		t.Helper()
		if code := w.end(syscall.SIGTERM); code != 0 {
			t.Fatalf("exit code: got %d, want 0", code)
		}
	}
	ready := func(status int, reason string) {
		t.Helper()
		proctest.Eventually(t, func() bool {
			got, body := w.get(w.admin, "/readyz")
			return got == status && strings.Contains(body, reason)
		})
	}
	stop()

	fault := w.fault(sandbox.Fault{Path: refreshPath, ErrCode: 40125})
	w.shifted(month).start()
	if err := w.wx.PushTicket(t.Context()); err != nil {
		t.Fatal(err)
	}
	ready(http.StatusServiceUnavailable, "ahead of WeChat's")
	if got, known := w.skew(); !known || got+month.Seconds() > 5 || got+month.Seconds() < -5 {
		t.Errorf("skew of WeChat's clock: got %v, %v, want %v", got, known, -month.Seconds())
	}
	status, answer, header := w.try("GET", "/"+accountA+userInfo, "")
	var seconds int
	fmt.Sscan(header.Get("Retry-After"), &seconds)
	if status != http.StatusServiceUnavailable || seconds < 1 || seconds > 1800 {
		t.Errorf("request: got %d %s, Retry-After %d, want 503 and 1800 at most",
			status, answer, seconds)
	}
	stop()

	w.wx.RemoveFault(fault)
	w.wx.Expire(accountA)
	lists := w.wx.Count(listPath)
	w.shifted(0).start()
	w.call("/"+accountA+userInfo, "")
	ready(http.StatusOK, "")
	proctest.Eventually(t, func() bool { return w.wx.Count(listPath) > lists })
	stop()

	w.shifted(-6 * time.Hour).start()
	for range 12 {
		if err := w.wx.PushTicket(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	const stored = `wxproxy_callback_events_total{event="component_verify_ticket",result="ok"} 12`
	if _, metrics := w.get(w.admin, "/metrics"); !strings.Contains(metrics, stored) {
		t.Errorf("tickets after a step back: got no line %s, want it", stored)
	}
	w.call("/"+accountA+userInfo, "")
	stop()
}
