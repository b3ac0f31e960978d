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

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
	"wxproxy/wechat"
)

const (
	listPath = "/cgi-bin/component/api_get_authorizer_list"
	infoPath = "/cgi-bin/component/api_get_authorizer_info"
)

// accountsIn returns how many accounts the metrics show in a state, or -1.
func (w *testEnv) accountsIn(state string) int {
	w.t.Helper()
	_, text := w.get(w.admin, "/metrics")
	n := -1
	for line := range strings.Lines(text) {
		fmt.Sscanf(line, `wxproxy_accounts{state="`+state+`"} %d`, &n)
	}
	return n
}

// The first ticket makes wxproxy read 10,000 accounts that authorized earlier,
// also after the store was lost.
func TestFirstTicketRestoresAccounts(t *testing.T) {
	const accounts = 10_000
	w := newTestEnv(t, sandbox.Config{})
	name := func(i int) string { return fmt.Sprintf("wx%016d", i) }
	for i := range accounts {
		if err := w.wx.AddAccount(name(i), sandbox.OfficialAccount,
			sandbox.WithAuthorization(time.Now().Add(-1000*time.Hour))); err != nil {
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
		for deadline := began.Add(10 * time.Minute); w.accountsIn("active") != accounts; {
			if time.Now().After(deadline) {
				t.Fatalf("accounts 10 minutes after the ticket: got %d, want %d", w.accountsIn("active"), accounts)
			}
		}
		took := time.Since(began)
		t.Logf("round %d: %d accounts within %v", round, accounts, took.Round(10*time.Millisecond))
		proctest.Promise(t, "reading all accounts after the first ticket", took, time.Minute)
		if lists, all := w.wx.Count(listPath),
			w.wx.CountFunc(func(sandbox.Call) bool { return true }); lists != accounts/500 || all > lists+3 {
			t.Errorf("requests to WeChat: got %d pages of the list and %d in total, want %d pages and "+
				"at most 3 more", lists, all, accounts/500)
		}
		w.call("/"+name(4321)+userInfo, "miss")
		w.call("/"+name(4321)+userInfo, "hit")
		if code := w.end(syscall.SIGTERM); code != 0 {
			t.Fatalf("exit code: got %d, want 0", code)
		}
		for _, file := range []string{"wxproxy.db", "wxproxy.db.key"} {
			if err := os.Remove(filepath.Join(w.dir, file)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// wxproxy repairs an outdated store, such as a restored backup: it finds new
// accounts, revoked accounts and changed refresh tokens.
func TestOutdatedStore(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{})
	w.start().authorized(accountA, accountB)
	if code := w.end(syscall.SIGTERM); code != 0 {
		t.Fatalf("exit code: got %d, want 0", code)
	}
	// While wxproxy is down, B revokes its authorization, A authorizes again
	// with another program, and C authorizes.
	const accountC = "wxcccccccccccccccc"
	ctx := context.Background()
	w.wx.SetPushURL("")
	w.wx.Unauthorize(ctx, accountB)
	w.wx.Expire(accountA)
	if w.wx.ReplaceRefreshToken(accountA) == "" {
		t.Fatal("ReplaceRefreshToken: got no token")
	}
	if err := w.wx.AddAccount(accountC, sandbox.MiniProgram, sandbox.WithAuthorization(time.Now())); err != nil {
		t.Fatal(err)
	}
	w.wx.SetPushURL("http://" + w.callback)
	w.start()
	w.call("/"+accountA+userInfo, "retried")
	w.call("/"+accountC+userInfo, "miss") // found with its first request
	if code, out := w.operate("accounts", "sync"); code != 0 {
		t.Fatalf("accounts sync: got exit code %d\n%s", code, out)
	}
	if status, answer, _ := w.try("GET", "/"+accountB+userInfo, ""); status != http.StatusGone {
		t.Errorf("request for a revoked account: got %d %s, want 410", status, answer)
	}
	before := len(w.wx.History())
	if status, _, _ := w.try("GET", "/"+accountB+userInfo, ""); status != http.StatusGone ||
		len(w.wx.History()) != before {
		t.Errorf("request for a revoked account: got %d and %d requests to WeChat, want 410 and none", status,
			len(w.wx.History())-before)
	}
	w.authorized(accountB) // it authorizes again
	if code, out := w.operate("accounts", "show", accountC); code != 0 ||
		!strings.Contains(out, "mini program") || !strings.Contains(out, "Sandbox "+accountC) {
		t.Errorf("accounts show: got %d %s, want the type and name of the account", code, out)
	}
}

// An errcode 61003 reveals a revocation whose push was lost.
func TestErrorRevealsRevocation(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{})
	w.start().authorized(accountA)
	w.wx.SetPushURL("")
	w.wx.Unauthorize(context.Background(), accountA)
	w.fault(sandbox.Fault{Path: "/cgi-bin/user/info", ErrCode: 61003})
	for range 20 {
		if status, answer, _ := w.try("GET", "/"+accountA+userInfo, ""); status != http.StatusGone &&
			!strings.Contains(answer, "61003") {
			t.Fatalf("request for a revoked account: got %d %s, want 410 or errcode 61003", status, answer)
		}
	}
	proctest.Eventually(t, func() bool {
		status, _, _ := w.try("GET", "/"+accountA+userInfo, "")
		return status == http.StatusGone
	})
	if n := w.wx.Count(infoPath); n > 2 { // one for its name when it authorized
		t.Errorf("requests for the account: got %d, want at most 2", n)
	}
	if n := w.accountsIn("revoked"); n != 1 {
		t.Errorf("revoked accounts in the metrics: got %d, want 1", n)
	}
}

// An account that was found to be revoked because WeChat answered 61003 twice
// in error is served again without a person, a minute later. Calls come every
// 10 ms meanwhile, and WeChat is asked once a minute at most.
func TestAccountHealsWithoutPush(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the minute between two questions")
	}
	t.Parallel()
	w := newTestEnv(t, sandbox.Config{})
	w.start().authorized(accountA)
	faults := []int{
		w.fault(sandbox.Fault{Path: "/cgi-bin/user/info", ErrCode: 61003}),
		w.fault(sandbox.Fault{Path: infoPath, ErrCode: 61003}),
	}
	status := func() int {
		status, _, _ := w.try("GET", "/"+accountA+userInfo, "")
		return status
	}
	proctest.Eventually(t, func() bool { return status() == http.StatusGone })
	began := time.Now()
	for _, id := range faults {
		w.wx.RemoveFault(id)
	}
	w.wx.ResetHistory()
	for status() != http.StatusOK && time.Since(began) < 3*time.Minute {
		time.Sleep(10 * time.Millisecond)
	}
	w.call("/"+accountA+userInfo, "")
	proctest.Promise(t, "healing", time.Since(began), 75*time.Second)
	if n := w.wx.Count(infoPath); n > 3 { // one for its name
		t.Errorf("questions about the account: got %d, want 3 at most", n)
	}
}

// authorizedElsewhere lets an account authorize the component. The push is lost,
// and another program exchanges the code.
func (w *testEnv) authorizedElsewhere(appid string) {
	w.t.Helper()
	w.wx.SetPushURL("")
	code, err := w.wx.Authorize(w.t.Context(), appid)
	if err != nil {
		w.t.Fatal(err)
	}
	w.wx.SetPushURL("http://" + w.callback)
	component := w.wx.ComponentAppID()
	client := wechat.NewClient(w.wxURL, nil)
	defer client.Close()
	token := wechat.NewSecret(w.wx.CurrentToken(component))
	_, err = client.QueryAuth(w.t.Context(), component, token, wechat.NewSecret(code))
	if err != nil {
		w.t.Fatal(err)
	}
}

// While WeChat cannot be asked, a request for an account without a record gets
// 503 with Retry-After, and so does one for its stand-in. It is asked about
// again when that is possible, so 404 comes from WeChat: WeChat drops
// connections, answers 500, or is busy × an authorized account and a made-up
// one.
func TestUnknownAccountWhileWeChatIsAway(t *testing.T) {
	const madeUp = "wx00000000000000ee"
	for name, fault := range map[string]sandbox.Fault{
		"connections dropped": {Break: sandbox.BreakBefore},
		"status 500":          {Status: 500},
		"busy":                {ErrCode: -1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTestEnv(t, sandbox.Config{})
			w.start().authorized(accountA)
			w.authorizedElsewhere(accountB)
			fault.Path = "/cgi-bin/component/api_get_authorizer"
			id := w.fault(fault)
			for _, appid := range []string{accountB, madeUp, accountB} {
				status, answer, header := w.try("GET", "/"+appid+userInfo, "")
				if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
					t.Errorf("%s without WeChat: got %d %s, want 503 with Retry-After", appid, status, answer)
				}
				status, answer, _ = w.try("GET", "/cgi-bin/token?secret=any&appid="+appid, "")
				if status != http.StatusServiceUnavailable {
					t.Errorf("stand-in of %s without WeChat: got %d %s, want 503", appid, status, answer)
				}
			}
			w.wx.RemoveFault(id)
			proctest.Eventually(t, func() bool {
				status, _, _ := w.try("GET", "/"+accountB+userInfo, "")
				return status == http.StatusOK
			})
			proctest.Eventually(t, func() bool {
				status, _, _ := w.try("GET", "/"+madeUp+userInfo, "")
				return status == http.StatusNotFound
			})
			w.standIn(accountB)
			if _, answer, _ := w.try("GET", "/cgi-bin/token?secret=any&appid="+madeUp, ""); !strings.Contains(answer, "40013") {
				t.Errorf("stand-in of a made-up appid: got %s, want 40013", answer)
			}
		})
	}
}

// Forget means stay away: a known account and one without a record × requests,
// stand-ins, a comparison, a late push and a restart × until it authorizes
// again.
func TestForgottenAccountStaysAway(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{})
	w.start().authorized(accountA)
	w.authorizedElsewhere(accountB)
	both := []string{accountA, accountB}
	wantForgotten := func(when string) {
		t.Helper()
		for _, appid := range both {
			status, answer, _ := w.try("GET", "/"+appid+userInfo, "")
			if status != http.StatusGone || !strings.Contains(answer, `"code":"forgotten"`) {
				t.Errorf("%s %s: got %d %s, want 410 with the code forgotten", appid, when, status, answer)
			}
			_, answer, _ = w.try("GET", "/cgi-bin/token?secret=any&appid="+appid, "")
			if !strings.Contains(answer, "40013") {
				t.Errorf("stand-in of %s %s: got %s, want 40013", appid, when, answer)
			}
		}
	}
	for _, appid := range both {
		if code, out := w.operate("accounts", "forget", "--yes", appid); code != 0 {
			t.Fatalf("accounts forget: got exit code %d, %s", code, out)
		}
	}
	wantForgotten("at once")
	if code, out := w.operate("accounts", "sync"); code != 0 {
		t.Fatalf("accounts sync: got exit code %d, %s", code, out)
	}
	wantForgotten("after a comparison")
	if _, err := w.wx.UpdateAuthorized(t.Context(), accountA); err != nil {
		t.Fatal(err)
	}
	wantForgotten("after updateauthorized")
	w.end(syscall.SIGTERM)
	w.start()
	wantForgotten("after a restart")
	if n := w.accountsIn("forgotten"); n != 2 {
		t.Errorf("forgotten accounts in the metrics: got %d, want 2", n)
	}
	w.authorized(accountA)
	if code, out := w.operate("accounts", "refresh", accountB); code != 0 {
		t.Errorf("accounts refresh: got exit code %d, %s", code, out)
	}
	for _, appid := range both {
		w.call("/"+appid+userInfo, "")
	}
}

// Events that are late or come twice change nothing, also if WeChat's clock is
// four minutes ahead or ten minutes behind. Pushes of a clock that differs more
// are rejected.
func TestLateAndDuplicateEvents(t *testing.T) {
	for name, off := range map[string]time.Duration{"right clock": 0, "four minutes ahead": 4 * time.Minute,
		"ten minutes behind": -10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			w := newTestEnv(t, sandbox.Config{Now: func() time.Time { return time.Now().Add(off) }})
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
			proctest.Eventually(t, func() bool {
				status, answer, _ := w.try("GET", "/"+accountA+userInfo, "")
				return status == 200 && !strings.Contains(answer, "errcode")
			})
			if err := w.wx.Unauthorize(ctx, accountA); err != nil {
				t.Fatal(err)
			}
			if status, _, _ := w.try("GET", "/"+accountA+userInfo, ""); status != http.StatusGone {
				t.Errorf("request for a revoked account: got %d, want 410", status)
			}
			push("unauthorized", time.Now().Add(off+time.Second))
			if _, err := w.wx.PushXML(ctx, "/component/events", "<xml><AppId>x"); err == nil {
				t.Error("push of a malformed event: got no error")
			}
		})
	}
}
