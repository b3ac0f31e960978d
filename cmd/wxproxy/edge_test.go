package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
	"wxproxy/wechat"
)

// push sends an event that is signed and encrypted like WeChat's. change, if
// not nil, can damage the request.
func (w *testEnv) push(event string, change func(q url.Values, body *string)) (int, string) {
	w.t.Helper()
	crypt, err := wechat.NewCrypt(wechat.NewSecret(sandbox.DefaultMessageToken),
		wechat.NewSecret(sandbox.DefaultEncodingAESKey), sandbox.DefaultComponentAppID)
	if err != nil {
		w.t.Fatal(err)
	}
	now, nonce := strconv.FormatInt(time.Now().Unix(), 10), strconv.Itoa(len(w.seen.String())+len(event))
	sealed := crypt.Encrypt([]byte(event))
	q := url.Values{"timestamp": {now}, "nonce": {nonce}, "encrypt_type": {"aes"},
		"msg_signature": {crypt.Signature(now, nonce, sealed)}}
	body := "<xml><AppId><![CDATA[" + sandbox.DefaultComponentAppID + "]]></AppId><Encrypt><![CDATA[" +
		sealed + "]]></Encrypt></xml>"
	if change != nil {
		change(q, &body)
	}
	resp, err := http.Post("http://"+w.callback+"/component/events?"+q.Encode(), "text/xml", strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer)
}

// event returns the XML of an event about the component.
func event(infoType, fields string) string {
	return fmt.Sprintf("<xml><AppId>%s</AppId><CreateTime>%d</CreateTime><InfoType>%s</InfoType>%s</xml>",
		sandbox.DefaultComponentAppID, time.Now().Unix(), infoType, fields)
}

// Forged and damaged pushes are rejected, counted, and change nothing.
func TestHostilePushes(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{}).start().authorized(accountA)
	withdraw := event("unauthorized", "<AuthorizerAppid>"+accountA+"</AuthorizerAppid>")
	for name, c := range map[string]struct {
		event  string
		change func(url.Values, *string)
	}{
		"no signature": {withdraw, func(q url.Values, _ *string) { q.Del("msg_signature") }},
		"wrong signature": {withdraw, func(q url.Values,
			_ *string) {
			q.Set("msg_signature", strings.Repeat("0", 40))
		}},
		"the weak signature": {withdraw, func(q url.Values,
			_ *string) {
			q.Set("signature", q.Get("msg_signature"))
			q.Del("msg_signature")
		}},
		"other nonce":       {withdraw, func(q url.Values, _ *string) { q.Set("nonce", "1") }},
		"changed body":      {withdraw, func(_ url.Values, b *string) { *b = strings.Replace(*b, "A", "B", 1) }},
		"plain text":        {withdraw, func(_ url.Values, b *string) { *b = withdraw }},
		"foreign component": {strings.Replace(withdraw, sandbox.DefaultComponentAppID, "wxffffffffffffffff", 1), nil},
		"no XML":            {"unauthorized " + accountA, nil},
		"no account":        {event("unauthorized", ""), nil},
		"odd account":       {event("unauthorized", "<AuthorizerAppid>../"+accountA+"</AuthorizerAppid>"), nil},
		"too large": {withdraw, func(_ url.Values, b *string) {
			*b = "<xml>" +
				strings.Repeat(" ", 1<<20) + *b
		}},
		"empty":    {withdraw, func(_ url.Values, b *string) { *b = "" }},
		"entities": {withdraw, func(_ url.Values, b *string) { *b = `<!DOCTYPE x [<!ENTITY a "b">]>` + *b }},
	} {
		if status, answer := w.push(c.event, c.change); status < 400 || status >= 500 || answer == "success" {
			t.Errorf("push with %s: got %d %s, want a status 4xx", name, status, answer)
		}
	}
	w.call("/"+accountA+userInfo, "hit")

	// The original takes effect. A replay of it is answered and counted as
	// such.
	var again url.Values
	var body string
	if status, answer := w.push(withdraw, func(q url.Values, b *string) {
		again, body = q, *b
	}); status != 200 || answer != "success" {
		t.Fatalf("valid push: got %d %s, want 200 and success", status, answer)
	}
	if status, _, _ := w.try("GET", "/"+accountA+userInfo, ""); status != 410 {
		t.Errorf("request for a revoked account: got %d, want 410", status)
	}
	resp, err := http.Post("http://"+w.callback+"/component/events?"+again.Encode(), "text/xml",
		strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("replayed push: got %d, want 200", resp.StatusCode)
	}
	if status, answer := w.push(event("something_new", "<X>1</X>"), nil); status != 200 || answer != "success" {
		t.Errorf("push of an unknown event: got %d %s, want 200 and success", status, answer)
	}
	_, metrics := w.get(w.admin, "/metrics")
	for _, line := range []string{`{event="other",result="bad_signature"} `,
		`{event="unauthorized",result="ok"} 1`, `{event="other",result="ignored"} 1`, `result="replayed"} 1`,
		`result="too_large"} 1`} {
		if !strings.Contains(metrics, line) {
			t.Errorf("metrics: got no %s", line)
		}
	}
}

// No path of one listener is served by another, and input that is not HTTP does
// no harm.
func TestListenersAreSeparate(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{}).start().authorized(accountA)
	for _, c := range []struct {
		addr, path string
		want       int
	}{
		{w.proxy, "/metrics", 400}, {w.proxy, "/healthz", 400}, {w.proxy, "/component/events", 400},
		{w.callback, "/metrics", 404}, {w.callback, "/" + accountA + userInfo, 404},
		{w.callback, "/readyz", 404}, {w.callback, "/healthz", 200},
		{w.admin, "/component/events", 404}, {w.admin, "/" + accountA + userInfo, 404},
		{w.admin, "/debug/pprof/", 404}, {w.admin, "/healthz", 200},
	} {
		if status, body := w.get(c.addr, c.path); status != c.want {
			t.Errorf("GET %s on %s: got %d %s, want %d", c.path, c.addr, status, body, c.want)
		}
	}
	for _, addr := range []string{w.proxy, w.callback, w.admin} {
		for _, raw := range []string{"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", "GET / HTTP/9.9\r\n\r\n",
			strings.Repeat("A", 100_000), "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "\r\n\r\n\r\n\x00"} {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(proctest.Patience))
			io.WriteString(conn, raw)
			conn.(*net.TCPConn).CloseWrite()
			answer, _ := io.ReadAll(conn)
			conn.Close()
			if strings.HasPrefix(string(answer), "HTTP/1.1 2") {
				t.Errorf("response to %.30q: got %.60q, want no success", raw, answer)
			}
		}
	}
	w.call("/"+accountA+userInfo, "hit")
	if code := w.end(syscall.SIGINT); code != 0 {
		t.Errorf("exit code after SIGINT: got %d, want 0", code)
	}
}

// check and serve report every fault, one in each line, and exit with 1. An
// unknown key can be a misplaced secret, so its line is named instead. Wrong
// usage exits with 2.
func TestInvalidConfigurations(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{})
	path := w.file("config.toml", `
[component]
appid = "wx1"
appsecret = "${WXPROXY_TEST_UNSET}"
message_key = "short"
[proxy]
listen = "0.0.0.0:8080"
timeout = "soon"
[admin]
listen = "0.0.0.0:8082"
[store]
url = "redis://"
[stor]
key = ""
[[route]]
path = "/a"
token = "x"
`)
	for _, command := range []string{"check", "serve"} {
		out, err := proctest.Command(t, command, "--config", path).CombinedOutput()
		if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 {
			t.Errorf("%s with an invalid configuration: got %v, want exit code 1", command, err)
		}
		for _, key := range []string{"component.appid:", "component.appsecret:", "component.message_key:",
			"proxy.listen:", "proxy.timeout:", "admin.listen:", "store.url:", "line 13:", "route[1].token:"} {
			if !strings.Contains(string(out), key) {
				t.Errorf("%s: got no fault for %s in\n%s", command, key, out)
			}
		}
		for line := range strings.Lines(string(out)) {
			if !strings.HasPrefix(line, "wxproxy: ") {
				t.Errorf("%s: got line %q, want wxproxy: first", command, line)
			}
		}
	}
	for _, args := range [][]string{{}, {"nothing"}, {"serve", "--nothing"}, {"check", "extra"}} {
		if exit, ok := proctest.Command(t, args...).Run().(*exec.ExitError); !ok || exit.ExitCode() != 2 {
			t.Errorf("wxproxy %q: got %v, want exit code 2", args, exit)
		}
	}
	// The error of a busy address names the key.
	ln, err := net.Listen("tcp", w.proxy)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	out, err := proctest.Command(t, "serve", "--config", w.config()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "proxy.listen: cannot listen on "+w.proxy) {
		t.Errorf("serve on a busy address: got %v %s", err, out)
	}
}
