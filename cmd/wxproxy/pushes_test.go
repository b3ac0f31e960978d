//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"wxproxy/sandbox"
	"wxproxy/wechat"
)

// recordedPush is a push that can be sent again, to any address.
type recordedPush struct{ query, body string }

// record makes a push that was signed at a time.
func record(t *testing.T, doc string, signed time.Time) recordedPush {
	t.Helper()
	crypt, err := wechat.NewCrypt(wechat.NewSecret(sandbox.DefaultMessageToken),
		wechat.NewSecret(sandbox.DefaultEncodingAESKey), sandbox.DefaultComponentAppID)
	if err != nil {
		t.Fatal(err)
	}
	timestamp, sealed := strconv.FormatInt(signed.Unix(), 10), crypt.Encrypt([]byte(doc))
	q := url.Values{
		"timestamp": {timestamp}, "nonce": {"415670741"}, "encrypt_type": {"aes"},
		"msg_signature": {crypt.Signature(timestamp, "415670741", sealed)},
		"openid":        {"oFromTheQuery"},
	}
	return recordedPush{q.Encode(), "<xml><Encrypt>" + sealed + "</Encrypt></xml>"}
}

// send sends the push to a path of a callback listener. It can be called in
// goroutines.
func (p recordedPush) send(t *testing.T, callback, path string) (status int, answer string) {
	t.Helper()
	resp, err := http.Post("http://"+callback+path+"?"+p.query, "text/xml", strings.NewReader(p.body))
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, string(b)
}

// messageTo returns a message to an account by its original id.
func messageTo(userName, content string) string {
	return strings.Replace(messageDoc("text", "<Content>"+content+"</Content>"), "gh_1", userName, 1)
}

// originalID asks for the original id of an account through the proxy.
func (w *testEnv) originalID(account string) string {
	w.t.Helper()
	status, answer, _ := w.try("POST", "/cgi-bin/component/api_get_authorizer_info",
		fmt.Sprintf(`{"component_appid":%q,"authorizer_appid":%q}`, sandbox.DefaultComponentAppID, account))
	var info struct {
		Info struct {
			UserName string `json:"user_name"`
		} `json:"authorizer_info"`
	}
	if err := json.Unmarshal([]byte(answer), &info); err != nil || info.Info.UserName == "" {
		w.t.Fatalf("name of %s: got %d %s, error %v", account, status, answer, err)
	}
	return info.Info.UserName
}

// count returns how often text was received.
func (s *inbox) count(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(strings.Join(s.seen, "\n"), text)
}

// TestRecordedPushes: a message of account A × on the path of B and of an
// unknown account, before and after A's, × again in the same process and after
// kill -9 × signed 400 days and 16 minutes ago and 6 minutes ahead. The service
// gets it once, as A's. A ticket that was signed 400 days ago is accepted.
func TestRecordedPushes(t *testing.T) {
	const passive = "<xml><MsgType>text</MsgType><Content>hi</Content></xml>"
	service := newInbox(t, passive)
	w := newTestEnv(t, sandbox.Config{})
	w.callbackExtra = fmt.Sprintf("[[forward]]\nurl = %q", service.URL)
	w.start().authorized(accountA, accountB)
	pathA, pathB := "/"+accountA+"/events", "/"+accountB+"/events"
	now := time.Now()
	doc := messageTo(w.originalID(accountA), "hello")
	p := record(t, doc, now)
	reject := func(p recordedPush, path string) {
		t.Helper()
		if status, answer := p.send(t, w.callback, path); status < 400 || status > 499 {
			t.Errorf("push to %s: got %d %s, want a status 4xx", path, status, answer)
		}
	}
	for _, age := range []time.Duration{400 * 24 * time.Hour, 16 * time.Minute, -6 * time.Minute} {
		reject(record(t, doc, now.Add(-age)), pathA)
	}
	reject(p, pathB)
	reject(p, "/wx0000000000000000/events")
	status, reply := p.send(t, w.callback, pathA)
	if status != 200 || unsealed(t, []byte(reply)) != passive {
		t.Errorf("message of A: got %d %s, want %s", status, reply, passive)
	}
	if status, again := p.send(t, w.callback, pathA); status != 200 || again != reply {
		t.Errorf("repeat: got %d %s, want the same bytes %s", status, again, reply)
	}
	reject(p, pathB)
	w.end(syscall.SIGKILL)
	w.start()
	if status, again := p.send(t, w.callback, pathA); status != 200 || again != "success" {
		t.Errorf("repeat after kill -9: got %d %s, want success", status, again)
	}
	reject(p, pathB)
	if n := service.count("hello"); n != 1 || !service.has(accountA+" "+doc) {
		t.Errorf("service: got the message %d times, want once, as that of %s", n, accountA)
	}
	ticket := event("component_verify_ticket", "<ComponentVerifyTicket>ticket@@@new</ComponentVerifyTicket>")
	old := record(t, ticket, now.Add(-400*24*time.Hour))
	if status, answer := old.send(t, w.callback, "/component/events"); status != 200 || answer != "success" {
		t.Errorf("ticket that was signed 400 days ago: got %d %s, want success", status, answer)
	}
	_, metrics := w.get(w.admin, "/metrics")
	for _, line := range []string{
		`{event="message",result="replayed"} 1`, `{event="message",result="wrong_account"} 1`,
		`{event="component_verify_ticket",result="ok"} 1`,
	} {
		if !strings.Contains(metrics, "wxproxy_callback_events_total"+line) {
			t.Errorf("metrics: got no %s", line)
		}
	}
}

// TestReplicasHandlePushesOnce: 30 copies of a message and of an event, sent to
// three replicas at once. The service gets each once, and every copy is
// answered with 200.
func TestReplicasHandlePushesOnce(t *testing.T) {
	service := newInbox(t, "success")
	f := newFleet(t, 3, sandbox.Config{})
	for _, r := range f.replicas {
		r.kill()
		file, err := os.OpenFile(r.config, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(file, "[[forward]]\nurl = %q\n", service.URL)
		file.Close()
		r.start()
	}
	message := record(t, messageTo("gh_1", "hello"), time.Now())
	revoked := record(t, event("unauthorized", "<AuthorizerAppid>"+accountA+"</AuthorizerAppid>"), time.Now())
	var all sync.WaitGroup
	for i := range 30 {
		r := f.replicas[i%3]
		for path, p := range map[string]recordedPush{
			"/" + accountA + "/events": message, "/component/events": revoked,
		} {
			all.Go(func() {
				if status, answer := p.send(t, r.callback, path); status != 200 || answer != "success" {
					t.Errorf("copy to %s: got %d %s, want success", path, status, answer)
				}
			})
		}
	}
	all.Wait()
	for _, r := range f.replicas {
		r.stop() // delivers events
	}
	if n, m := service.count("hello"), service.count("unauthorized"); n != 1 || m != 1 {
		t.Errorf("service: got the message %d times and the event %d times, want each once", n, m)
	}
}
