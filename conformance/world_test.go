package conformance_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"wxproxy/sandbox"
)

const (
	appid     = "wxaaaaaaaaaaaaaaaa"
	miniAppid = "wxbbbbbbbbbbbbbbbb"
	// callerKey is all that an SDK is given.
	callerKey = "key-of_the-orders-service-0123456789"
	ownSecret = "5ec2e7ab1ee7ab1e5ec2e7ab1ee7ab1e"
	deadline  = 60 * time.Second // of one program; each takes a second or two
)

var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "wxproxy-conformance")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "wxproxy")
	if out, err := exec.Command("go", "build", "-o", path, "wxproxy/cmd/wxproxy").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if enabled {
		if path, err := binary(); err == nil {
			os.RemoveAll(filepath.Dir(path))
		}
	}
	os.Exit(code)
}

// output collects what a process prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// world is a WeChat, a wxproxy before it that has one caller, and two accounts.
type world struct {
	t                      *testing.T
	wx                     *sandbox.WeChat
	wxURL                  string
	proxy, callback, admin string // host:port
	out                    output
}

// newWorld starts all. The accounts have authorized the platform, or, if own, wxproxy has their app secrets.
func newWorld(t *testing.T, own bool) *world {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	// A busy machine can need more than WeChat's five seconds.
	wx, err := sandbox.New(sandbox.Config{PushTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(wx)
	t.Cleanup(srv.Close)
	w := &world{t: t, wx: wx, wxURL: srv.URL, proxy: freeAddr(t), callback: freeAddr(t), admin: freeAddr(t)}
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
		w.proxy, w.wxURL, w.callback, w.admin, sha256.Sum256([]byte(callerKey)), apps)
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
			t.Errorf("wxproxy ended: %v", err)
		}
		if t.Failed() {
			t.Logf("wxproxy said:\n%s", &w.out)
		}
	})
	eventually(t, func() bool { return w.ok("http://" + w.admin + "/healthz") })
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
		eventually(t, func() bool { return w.ok("http://" + w.proxy + "/" + id + "/cgi-bin/get_api_domain_ip") })
	}
	// What wxproxy does by itself is over: the list of accounts is read at the first ticket, their names after that.
	eventually(t, func() bool {
		names := 2
		if own {
			names = 0
		}
		return wx.Count("/cgi-bin/component/api_get_authorizer_list") > 0 && wx.Count("/cgi-bin/component/api_get_authorizer_info") >= names
	})
	wx.ResetHistory()
	return w
}

// ok makes a call with the caller's key.
func (w *world) ok(url string) bool {
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

// clean looks for what must be nowhere: what WeChat should not have seen, and secrets in what left wxproxy.
func (w *world) clean(left map[string]string) {
	w.t.Helper()
	if v := w.wx.Violations(); len(v) > 0 {
		w.t.Errorf("WeChat saw what it must not see: %q", v)
	}
	left["wxproxy's log"] = w.out.String()
	for where, text := range left {
		for _, secret := range append(w.wx.Secrets(), ownSecret) {
			// An authorization code is the merchant's browser's: an SDK brings it.
			if strings.Contains(text, secret) && !strings.HasPrefix(secret, "queryauthcode@@@") {
				w.t.Errorf("a secret of WeChat's is in %s: %.8s…", where, secret)
			}
		}
	}
	for _, word := range []string{callerKey, "wxp_"} {
		if strings.Contains(w.out.String(), word) {
			w.t.Errorf("%s is in wxproxy's log", word)
		}
	}
}

// taken are the addresses that were given out: the kernel may offer one again.
var taken sync.Map

func freeAddr(t testing.TB) string {
	t.Helper()
	for {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := ln.Addr().String()
		ln.Close()
		if _, again := taken.LoadOrStore(addr, true); !again {
			return addr
		}
	}
}

func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never came true")
		}
	}
}
