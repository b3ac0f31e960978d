package conformance_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

const (
	appid     = "wxaaaaaaaaaaaaaaaa"
	miniAppid = "wxbbbbbbbbbbbbbbbb"

	// callerKey is the only secret that an SDK has.
	callerKey = "key-of_the-orders-service-0123456789"

	// ownSecret is the app secret of both accounts.
	ownSecret = "5ec2e7ab1ee7ab1e5ec2e7ab1ee7ab1e"

	// programTimeout is for one program, which takes a second or two on an idle
	// machine.
	programTimeout = 5 * time.Minute
)

func TestMain(m *testing.M) { proctest.Main(m) }

// env is a WeChat with two accounts, and a wxproxy with one caller.
type env struct {
	t                      *testing.T
	wx                     *sandbox.WeChat
	wxURL                  string
	proxy, callback, admin string // host:port
	out                    proctest.Output
}

// newEnv starts WeChat and wxproxy. The accounts have authorized the component.
// If own, wxproxy has their app secrets instead. blocks are added to its
// configuration.
func newEnv(t *testing.T, own bool, blocks ...string) *env {
	t.Helper()
	path, err := proctest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	// A busy machine can take longer than WeChat's five seconds.
	wx, err := sandbox.New(sandbox.Config{PushTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(wx)
	t.Cleanup(srv.Close)
	w := &env{
		t: t, wx: wx, wxURL: srv.URL,
		proxy: proctest.FreeAddr(t), callback: proctest.FreeAddr(t), admin: proctest.FreeAddr(t),
	}
	if err := wx.SetPushURL("http://" + w.callback); err != nil {
		t.Fatal(err)
	}
	apps := ""
	for id, kind := range map[string]sandbox.Kind{appid: sandbox.OfficialAccount, miniAppid: sandbox.MiniProgram} {
		if err := wx.AddAccount(id, kind, sandbox.WithSecret(ownSecret)); err != nil {
			t.Fatal(err)
		}
		if own {
			apps += fmt.Sprintf("[[app]]\nappid = %q\nappsecret = %q\n", id, ownSecret)
		}
	}
	config := filepath.Join(t.TempDir(), "config.toml")
	text := fmt.Sprintf(`
[component]
appid = %q
appsecret = %q
message_token = %q
message_key = %q
[proxy]
listen = %q
upstream = %q
[callback]
listen = %q
[admin]
listen = %q
[store]
url = "memory:"
[log]
level = "debug"
[[caller]]
name = "orders"
key_sha256 = "%x"
%s`, sandbox.DefaultComponentAppID, sandbox.DefaultComponentSecret, sandbox.DefaultMessageToken, sandbox.DefaultEncodingAESKey,
		w.proxy, w.wxURL, w.callback, w.admin, sha256.Sum256([]byte(callerKey)), apps+strings.Join(blocks, ""))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "serve", "--config", config)
	cmd.Stdout, cmd.Stderr = &w.out, &w.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("wxproxy: got exit %v, want 0", err)
		}
		if t.Failed() {
			t.Logf("log of wxproxy:\n%s", &w.out)
		}
	})
	proctest.Eventually(t, func() bool { return w.ok("http://" + w.admin + "/healthz") })
	ctx := context.Background()
	if err := wx.PushTicket(ctx); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{appid, miniAppid} {
		if own {
			continue
		}
		if _, err := wx.Authorize(ctx, id); err != nil {
			t.Fatal(err)
		}
		call := "http://" + w.proxy + "/" + id + "/cgi-bin/get_api_domain_ip"
		proctest.Eventually(t, func() bool { return w.ok(call) })
	}
	// Wait for the requests that wxproxy makes itself: the list of accounts at
	// the first ticket, and then their names.
	proctest.Eventually(t, func() bool {
		names := 2
		if own {
			names = 0
		}
		return wx.Count("/cgi-bin/component/api_get_authorizer_list") > 0 &&
			wx.Count("/cgi-bin/component/api_get_authorizer_info") >= names
	})
	wx.ResetHistory()
	return w
}

// ok makes a request with the caller's key and reports whether it succeeded.
func (w *env) ok(url string) bool {
	w.t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("X-Wxproxy-Key", callerKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == 200
}

// checkSecrets fails the test for requests that WeChat must not receive, and
// for secrets in texts that left wxproxy.
func (w *env) checkSecrets(left map[string]string) {
	w.t.Helper()
	if v := w.wx.Violations(); len(v) > 0 {
		w.t.Errorf("violations: got %q, want none", v)
	}
	left["the log of wxproxy"] = w.out.String()
	for where, text := range left {
		for _, secret := range append(w.wx.Secrets(), ownSecret) {
			// An SDK has the authorization code from the merchant's browser.
			if strings.Contains(text, secret) && !strings.HasPrefix(secret, "queryauthcode@@@") {
				w.t.Errorf("%s: got a secret, %.8s…", where, secret)
			}
		}
	}
	for _, word := range []string{callerKey, "wxp_"} {
		if strings.Contains(w.out.String(), word) {
			w.t.Errorf("the log of wxproxy: got %s", word)
		}
	}
}
