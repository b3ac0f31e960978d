package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
	"wxproxy/wechat"
)

const (
	ownToken = "tokenOfTheOwnAccount"
	ownKey   = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)

// ownBlock is the [[app]] block of an own account. key may be "".
func ownBlock(appid, key string) string {
	return fmt.Sprintf("[[app]]\nappid = %q\nappsecret = \"secret\"\nmessage_token = %q\n"+
		"message_key = %q\n", appid, ownToken, key)
}

// replier is a service that replies in the form of the push.
type replier struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string // "APPID Content-Type document"
}

func newReplier(t *testing.T) *replier {
	t.Helper()
	s := &replier{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		contentType := r.Header.Get("Content-Type")
		s.seen = append(s.seen, r.Header.Get("X-WX-APPID")+" "+contentType+" "+string(b))
		if contentType == wechat.TypeJSON {
			_, _ = io.WriteString(w, `{"a":"b"}`)
			return
		}
		_, _ = io.WriteString(w, "<xml><a>b</a></xml>")
	}))
	t.Cleanup(s.Close)
	return s
}

// last returns the newest delivery.
func (s *replier) last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen) == 0 {
		return ""
	}
	return s.seen[len(s.seen)-1]
}

// TestOwnAccounts: a wxproxy with own accounts, with a component and without,
// answers WeChat's check of their URLs, hands their pushes to a service and
// replies in their form. Mode safe, compatible, plain × XML, JSON, through the
// control endpoint of the sandbox. A reload takes the keys of an account away.
func TestOwnAccounts(t *testing.T) {
	for _, hasComponent := range []bool{true, false} {
		t.Run(fmt.Sprint("component ", hasComponent), func(t *testing.T) {
			service := newReplier(t)
			w := newTestEnv(t, sandbox.Config{})
			w.callbackExtra = fmt.Sprintf("[[forward]]\nurl = %q\n%s%s", service.URL,
				ownBlock(accountA, ownKey), ownBlock(accountB, ""))
			path := w.config()
			if !hasComponent {
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				component := regexp.MustCompile(`(?s)\[component\].*?(\[proxy\])`)
				w.file("config.toml", component.ReplaceAllString(string(text), "$1"))
			}
			w.run(proctest.Linked(t, w.linked, "serve", "--config", path))
			testOwnAccounts(w, service)

			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			w.file("config.toml", strings.Replace(string(text), ownKey, "B"+ownKey[1:], 1))
			w.signal(syscall.SIGHUP)
			proctest.Eventually(t, func() bool {
				status, _ := w.pushOwn(accountA, "safe", `{"MsgType":"text"}`)
				return status == 502 // the sandbox reports wxproxy's 4xx
			})
		})
	}
}

func testOwnAccounts(w *testEnv, service *replier) {
	t := w.t
	for _, account := range []string{accountA, accountB} {
		if status, answer := w.pushOwn(account, "check", ""); status != 200 {
			t.Errorf("URL check of %s: got %d %s", account, status, answer)
		}
	}
	for i, tc := range []struct{ account, mode string }{
		{accountA, "safe"}, {accountA, "compatible"}, {accountB, "plain"},
	} {
		for doc, contentType := range map[string]string{
			fmt.Sprintf("<xml><MsgType>text</MsgType><MsgId>%d</MsgId></xml>", i): wechat.TypeXML,
			fmt.Sprintf(`{"MsgType":"text","MsgId":%d}`, i):                       wechat.TypeJSON,
		} {
			status, answer := w.pushOwn(tc.account, tc.mode, doc)
			want := "<xml><a>b</a></xml>"
			if contentType == wechat.TypeJSON {
				want = `{"a":"b"}`
			}
			if got := openOwn(t, tc.account, tc.mode, answer); status != 200 || got != want {
				t.Errorf("%s %s: got %d %s", tc.mode, doc, status, answer)
			}
			if got := service.last(); got != tc.account+" "+contentType+" "+doc {
				t.Errorf("service: got %q, want %q as %s", got, doc, contentType)
			}
		}
	}
	for account, mode := range map[string]string{accountA: "plain", accountB: "safe"} {
		status, answer := w.pushOwn(account, mode, "<xml><MsgType>text</MsgType></xml>")
		if status != 502 {
			t.Errorf("%s at %s: got %d %s, want a rejection", mode, account, status, answer)
		}
	}
	log := w.out.String()
	if strings.Contains(log, ownToken) || strings.Contains(log, ownKey) {
		t.Error("the log contains a key of an own account")
	}
}

// pushOwn pushes a document through the control endpoint of the sandbox, and
// returns the status of that and wxproxy's response.
func (w *testEnv) pushOwn(account, mode, doc string) (status int, response string) {
	w.t.Helper()
	body, err := json.Marshal(map[string]string{
		"appid": account, "token": ownToken, "key": ownKey, "mode": mode, "document": doc,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.Post(w.wxURL+"/sandbox/push", wechat.TypeJSON, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	var out struct{ Response, Error string }
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, out.Response + out.Error
}

// openOwn returns the passive reply in a response to an own account's push.
func openOwn(t *testing.T, account, mode, response string) string {
	t.Helper()
	if mode == "plain" {
		return response
	}
	e, err := wechat.ParseOwnEnvelope([]byte(response))
	if err != nil {
		t.Fatalf("reply %q: %v", response, err)
	}
	c, err := wechat.NewCrypt(wechat.NewSecret(ownToken), wechat.NewSecret(ownKey), account)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := c.Decrypt(e.Encrypt)
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

// TestWrongAddressesInTheLog: a ticket that is pushed to a wrong address is
// logged by the program with the right one and counted; a request without a
// push's query is not.
func TestWrongAddressesInTheLog(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{}).start()
	for _, path := range []string{"/component/events/", "/$APPID$/events", "/wechat/callback"} {
		if _, err := w.wx.PushXML(t.Context(), path, "<xml></xml>"); err == nil {
			t.Errorf("push to %s: got no error, want HTTP 404", path)
		}
	}
	if status, _ := w.get(w.callback, "/wp-login.php"); status != 404 {
		t.Errorf("other request: got %d, want 404", status)
	}
	for _, text := range []string{"is /component/events,", "problem=placeholder", "/wechat/callback"} {
		if !strings.Contains(w.out.String(), text) {
			t.Errorf("the log has no %q", text)
		}
	}
	if strings.Contains(w.out.String(), "wp-login") {
		t.Error("the log has a request that is no push")
	}
	const line = `wxproxy_callback_events_total{event="other",result="wrong_address"} 3`
	if _, metrics := w.get(w.admin, "/metrics"); !strings.Contains(metrics, line) {
		t.Errorf("metrics: got no %s", line)
	}
}
