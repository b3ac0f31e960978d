package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"wxproxy/sandbox"
)

// The life of accounts over years, in minutes: lost stores, lost pushes, withdrawals, from outside.

const (
	listPath = "/cgi-bin/component/api_get_authorizer_list"
	infoPath = "/cgi-bin/component/api_get_authorizer_info"
)

// known says how many accounts wxproxy has, by state.
func (w *world) known(state string) int {
	w.t.Helper()
	_, text := w.get(w.admin, "/metrics")
	n := -1
	for line := range strings.Lines(text) {
		fmt.Sscanf(line, `wxproxy_accounts{state="`+state+`"} %d`, &n)
	}
	return n
}

// Ten thousand accounts that authorized before there was a wxproxy are there within a minute of the first ticket; and
// again after the store was lost.
func TestRebuiltFromOneTicket(t *testing.T) {
	const accounts = 10_000
	w := newWorld(t, sandbox.Config{})
	name := func(i int) string { return fmt.Sprintf("wx%016d", i) }
	for i := range accounts {
		if err := w.wx.AddAccount(name(i), sandbox.OfficialAccount, sandbox.WithAuthorization(time.Now().Add(-1000*time.Hour))); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 2 {
		w.wx.ResetHistory()
		w.start()
		began := time.Now()
		if err := w.wx.PushTicket(context.Background()); err != nil {
			t.Fatal(err)
		}
		for w.known("active") != accounts {
			if time.Since(began) > time.Minute {
				t.Fatalf("after a minute there are %d accounts", w.known("active"))
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Logf("round %d: %d accounts within %v", round, accounts, time.Since(began).Round(10*time.Millisecond))
		if lists, all := w.wx.Count(listPath), w.wx.CountFunc(func(sandbox.Call) bool { return true }); lists != accounts/500 || all > lists+3 {
			t.Errorf("%d pages, %d calls in all", lists, all)
		}
		w.call("/"+name(4321)+userInfo, "miss")
		w.call("/"+name(4321)+userInfo, "hit")
		if code := w.end(syscall.SIGTERM); code != 0 {
			t.Fatalf("exit %d", code)
		}
		for _, file := range []string{"wxproxy.db", "wxproxy.db.key"} {
			if err := os.Remove(filepath.Join(w.dir, file)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// An outdated store (a backup) is put right: who came, who left, whose refresh token is another one.
func TestOutdatedStore(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start().authorized(accountA, accountB)
	if code := w.end(syscall.SIGTERM); code != 0 {
		t.Fatal(code)
	}
	// While nobody listens: B leaves, A authorizes anew and its code goes to somebody else, C comes.
	const accountC = "wxcccccccccccccccc"
	ctx := context.Background()
	w.wx.SetPushURL("")
	w.wx.Unauthorize(ctx, accountB)
	w.wx.Expire(accountA)
	if w.wx.ReplaceRefreshToken(accountA) == "" {
		t.Fatal("nothing to replace")
	}
	if err := w.wx.AddAccount(accountC, sandbox.MiniProgram, sandbox.WithAuthorization(time.Now())); err != nil {
		t.Fatal(err)
	}
	w.wx.SetPushURL("http://" + w.callback)
	w.start()
	w.call("/"+accountA+userInfo, "retried")
	w.call("/"+accountC+userInfo, "miss") // found by its first call
	if code, out := w.operate("accounts", "sync"); code != 0 {
		t.Fatal(out)
	}
	if status, answer, _ := w.try("GET", "/"+accountB+userInfo, ""); status != http.StatusGone {
		t.Errorf("withdrawn: %d %s", status, answer)
	}
	before := len(w.wx.History())
	if status, _, _ := w.try("GET", "/"+accountB+userInfo, ""); status != http.StatusGone || len(w.wx.History()) != before {
		t.Error("a withdrawn account costs a call to WeChat")
	}
	w.authorized(accountB) // and back to life
	if code, out := w.operate("accounts", "show", accountC); code != 0 || !strings.Contains(out, "mini program") || !strings.Contains(out, "Sandbox "+accountC) {
		t.Errorf("%d %s", code, out)
	}
}

// WeChat refuses a call with 61003: the account has left, and the push about it was lost.
func TestWithdrawalNobodyTold(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start().authorized(accountA)
	w.wx.SetPushURL("")
	w.wx.Unauthorize(context.Background(), accountA)
	w.fault(sandbox.Fault{Path: "/cgi-bin/user/info", ErrCode: 61003})
	for range 20 {
		if status, answer, _ := w.try("GET", "/"+accountA+userInfo, ""); status != http.StatusGone && !strings.Contains(answer, "61003") {
			t.Fatalf("%d %s", status, answer)
		}
	}
	eventually(t, func() bool { status, _, _ := w.try("GET", "/"+accountA+userInfo, ""); return status == http.StatusGone })
	if n := w.wx.Count(infoPath); n > 2 { // one for its name when it authorized
		t.Errorf("asked %d times", n)
	}
	if w.known("revoked") != 1 {
		t.Error("it is not counted as revoked")
	}
}

// An `unauthorized` that is older than the `authorized` after it, events of WeChat's that come twice, and a clock that is
// off by ten minutes either way.
func TestLateAndDuplicateEvents(t *testing.T) {
	for name, off := range map[string]time.Duration{"right clock": 0, "ten minutes ahead": 10 * time.Minute, "ten minutes behind": -10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sandbox.Config{Now: func() time.Time { return time.Now().Add(off) }})
			w.start().authorized(accountA)
			ctx := context.Background()
			push := func(infoType string, at time.Time) {
				t.Helper()
				xml := fmt.Sprintf("<xml><AppId>%s</AppId><CreateTime>%d</CreateTime><InfoType>%s</InfoType><AuthorizerAppid>%s</AuthorizerAppid></xml>",
					w.wx.ComponentAppID(), at.Unix(), infoType, accountA)
				if _, err := w.wx.PushXML(ctx, "/component/events", xml); err != nil {
					t.Fatal(err)
				}
			}
			push("unauthorized", time.Now().Add(off-time.Hour))
			w.call("/"+accountA+userInfo, "")
			if _, err := w.wx.UpdateAuthorized(ctx, accountA); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() bool {
				status, answer, _ := w.try("GET", "/"+accountA+userInfo, "")
				return status == 200 && !strings.Contains(answer, "errcode")
			})
			if err := w.wx.Unauthorize(ctx, accountA); err != nil {
				t.Fatal(err)
			}
			if status, _, _ := w.try("GET", "/"+accountA+userInfo, ""); status != http.StatusGone {
				t.Errorf("withdrawn: %d", status)
			}
			push("unauthorized", time.Now().Add(off+time.Second))
			if _, err := w.wx.PushXML(ctx, "/component/events", "<xml><AppId>x"); err == nil {
				t.Error("a malformed event was taken")
			}
		})
	}
}
