package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

// operate runs a command against the admin listener of w and returns its exit
// code and output.
func (w *testEnv) operate(args ...string) (int, string) {
	w.t.Helper()
	cmd := proctest.Command(w.t, append(args, "--admin", "http://"+w.admin)...)
	out, _ := cmd.CombinedOutput()
	w.seen.Write(out)
	return cmd.ProcessState.ExitCode(), string(out)
}

// The commands work against a running wxproxy.
func TestOperatorCommands(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{})
	w.start().authorized(accountA, accountB)
	did := func(want int, words string, args ...string) string {
		t.Helper()
		code, out := w.operate(args...)
		if code != want || !strings.Contains(out, words) {
			t.Errorf("wxproxy %v: got exit code %d and\n%s\nwant %d and %q", args, code, out, want,
				words)
		}
		return out
	}
	if status, page := w.get(w.admin, "/"); status != http.StatusOK || !strings.Contains(page,
		"/console.js") {
		t.Errorf("GET /: got %d %s, want the page", status, page)
	}
	if status, answer := w.get(w.admin, "/api/status"); status != http.StatusOK ||
		!strings.Contains(answer, `"ready":true`) || !strings.Contains(answer, `"active":2`) {
		t.Errorf("GET /api/status: got %d %s, want ready and two accounts", status, answer)
	}
	did(0, accountA, "accounts", "list")
	did(0, accountB, "accounts", "list", "--q", accountB[:6])
	before := did(0, "active", "accounts", "show", accountA)
	if after := did(0, "active", "accounts", "refresh", accountA); after == before {
		t.Errorf("accounts refresh: got the same token as before\n%s", after)
	}
	w.call("/"+accountA+userInfo, "")
	did(0, "the token of the authorizer "+accountA, "explain", accountA, "GET", userInfo)
	did(0, "the component's token", "explain", "-", "POST",
		"/cgi-bin/component/api_create_preauthcode")
	did(0, "403", "explain", accountA, "POST", "/cgi-bin/clear_quota/v2", "--caller", "orders")

	did(0, accountA+" is forgotten", "accounts", "forget", "--yes", accountA)
	did(0, accountA, "accounts", "list", "--state", "forgotten")
	did(0, "forgotten ", "accounts", "show", accountA)
	for _, sync := range []struct {
		args []string
		want int // accounts that it brings back
	}{{[]string{"--json"}, 0}, {[]string{"--json", "--restore"}, 1}} {
		var synced struct{ Listed, Recovered int }
		out := did(0, "", append([]string{"accounts", "sync"}, sync.args...)...)
		if err := json.Unmarshal([]byte(out), &synced); err != nil ||
			synced.Listed != 2 || synced.Recovered != sync.want {
			t.Errorf("accounts sync %v: got %+v, %v, want 2 listed and %d recovered",
				sync.args, synced, err, sync.want)
		}
	}
	w.call("/"+accountA+userInfo, "")

	// An import keeps the refresh tokens that wxproxy has.
	file := filepath.Join(w.dir, "tokens.csv")
	if err := os.WriteFile(file, []byte("appid,refresh_token\n"+accountA+
		",refreshtoken@@@elsewhere\nwx0000000000000000,refreshtoken@@@elsewhere\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	did(0, "1 added, 1 kept as they were, 0 not imported", "accounts", "import", file)
	did(0, "0 added, 2 kept as they were, 0 not imported", "accounts", "import", file)
	w.call("/"+accountA+userInfo, "")
	if strings.Contains(w.seen.String()+w.out.String(), "elsewhere") {
		t.Error("an imported refresh token was printed or logged")
	}
}

// An operator finds out why a service gets no events, reads one, and has it
// delivered: with the commands and the API of a running wxproxy × a message ×
// an authorization event × before and after a killed process. Neither the log
// nor the list has the user's text, and no document a code.
func TestOperatorRepairsAService(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{})
	var works atomic.Bool
	var got proctest.Output
	service := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !works.Load() {
			rw.WriteHeader(http.StatusInternalServerError)
			return
		}
		io.Copy(&got, r.Body)
	}))
	defer service.Close()
	w.callbackExtra = "[[forward]]\nname = \"orders\"\nmode = \"queue\"\nevents = [\"text\", " +
		"\"authorized\"]\nurl = \"" + service.URL + "\""
	w.start().authorized(accountA)
	const words = "the words of a user"
	message := messageDoc("text", "<Content>"+words+"</Content><MsgId>7</MsgId>")
	if _, err := w.wx.PushXML(t.Context(), "/"+accountA+"/events", message); err != nil {
		t.Fatal(err)
	}
	var list struct {
		Events []struct{ ID, Service, AppID, State, Error string }
	}
	listed := func() int {
		_, text := w.get(w.admin, "/api/events?service=orders")
		list.Events = nil
		if err := json.Unmarshal([]byte(text), &list); err != nil || strings.Contains(text, words) {
			t.Fatalf("list: got %s, %v, want events without the text", text, err)
		}
		return len(list.Events)
	}
	proctest.Eventually(t, func() bool { return listed() == 2 && list.Events[0].Error != "" })
	w.end(syscall.SIGKILL)
	w.start()
	proctest.Eventually(t, func() bool { return listed() == 2 && list.Events[0].Error != "" })
	shown := ""
	for _, e := range list.Events {
		code, out := w.operate("events", "show", e.ID)
		if code != 0 || !strings.Contains(out, "orders") {
			t.Errorf("events show: got exit code %d and\n%s", code, out)
		}
		shown += out
	}
	if !strings.Contains(shown, words) || !strings.Contains(shown, "<AuthorizationCode>***<") ||
		strings.Contains(w.out.String(), words) {
		t.Errorf(
			"documents and log: got\n%s\n%s\nwant the text and a masked code in documents only",
			shown, w.out.String())
	}
	works.Store(true)
	if code, out := w.operate("events", "retry", "--all", "--state", "waiting"); code != 0 {
		t.Errorf("events retry: got exit code %d and %s", code, out)
	}
	proctest.Eventually(t, func() bool { return listed() == 0 })
	if text := got.String(); !strings.Contains(text, words) || !strings.Contains(text,
		"authorized") {
		t.Errorf("deliveries after the repair: got %s, want both documents", text)
	}
}
