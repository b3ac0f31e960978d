package tokens

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/wechat"
)

// lines collects a log.
type lines struct {
	mu  sync.Mutex
	all []string
}

// Write implements [io.Writer].
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(p))
	return len(p), nil
}

// wait waits until the log has n lines, and returns the last one.
func (l *lines) wait(t *testing.T, n int) string {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		all := l.all
		l.mu.Unlock()
		if len(all) >= n {
			if len(all) > n {
				t.Errorf("log: got %q, want %d lines", all, n)
			}
			return all[n-1]
		}
		if time.Now().After(end) {
			t.Fatalf("log: got %q, want %d lines", all, n)
		}
	}
}

// A difference is logged once when it begins and once when it ends, although it
// is looked for every millisecond.
func TestClockDifferenceIsLoggedOnce(t *testing.T) {
	var log lines
	c := &clocks{
		tasks: newTaskGroup(), now: time.Now, log: slog.New(slog.NewTextHandler(&log, nil)),
	}
	go c.run(time.Millisecond)
	defer c.tasks.close()
	observe := func(ahead time.Duration) {
		for range 5 {
			now := time.Now()
			c.weChat.Observe(now, now, now.Add(ahead), time.Second)
		}
	}
	for round := range 3 {
		observe(0)
		observe(-6 * time.Hour)
		line := log.wait(t, 2*round+1)
		for _, want := range []string{`msg="clock differs"`, "of=wechat", "6h0m0s ahead of WeChat's"} {
			if !strings.Contains(line, want) {
				t.Errorf("log: got %q, want %q in it", line, want)
			}
		}
		observe(0)
		if line := log.wait(t, 2*round+2); !strings.Contains(line, `msg="clock agrees again"`) {
			t.Errorf("log: got %q, want the end of the difference", line)
		}
	}
}

// Whatever an account's record says, with times up to two months off, no
// renewal waits for longer than the longest pause: every kind of request is
// granted at some time within it, by a right clock.
func TestNoStoredTimeStopsRenewals(t *testing.T) {
	now := at(0)
	offsets := []time.Duration{
		-60 * 24 * time.Hour, -6 * time.Hour, -time.Minute, 0, time.Minute, 20 * time.Minute,
		31 * time.Minute, 6 * time.Hour, 60 * 24 * time.Hour, 290 * 365 * 24 * time.Hour,
	}
	for _, retry := range offsets {
		for _, throttled := range offsets {
			for _, issued := range offsets {
				acc := holding("T")
				acc.IssuedAt = millis(now.Add(issued))
				acc.ExpiresAt = millis(now.Add(issued + 2*time.Hour))
				acc.RetryAt = millis(now.Add(retry))
				acc.Throttle.At, acc.Throttle.Throttled = []int64{millis(now.Add(throttled))}, true
				for _, stale := range []string{"", "T"} {
					why := reasonMissing
					if stale != "" {
						why = reasonRejected
					}
					granted := false
					for m := range 32 {
						r := tokenRequest{
							appid: "wx", kind: Authorizer, stale: wechat.NewSecret(stale), why: why,
						}
						later := now.Add(time.Duration(m) * time.Minute)
						d := decide(r, acc, later, 10*time.Minute)
						granted = granted || d.action != deny
					}
					if !granted {
						t.Errorf("retry %v, throttled %v, issued %v ahead, rejected %q: "+
							"got no token within %v, want one", retry, throttled, issued, stale, longestPause)
					}
				}
			}
		}
	}
}
