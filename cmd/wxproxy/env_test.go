package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
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
	accountA = "wxaaaaaaaaaaaaaaaa"
	accountB = "wxbbbbbbbbbbbbbbbb"
)

func TestMain(m *testing.M) { proctest.Main(m) }

// testEnv is a sandbox WeChat and a wxproxy before it, which is used as its
// users do: the real program, with a configuration file, over TCP.
type testEnv struct {
	t                      *testing.T
	wx                     *sandbox.WeChat
	wxURL                  string
	dir                    string
	proxy, callback, admin string // host:port
	extra, callbackExtra   string // more lines for [proxy] and for [callback]
	store                  string // the lines of [store]; "": a file in dir
	adminExtra, storeExtra string // more lines for [admin] and for [store]
	format                 string // of the log; "": text
	blocks                 string // at the end of the configuration
	linked                 string // a variable of the program; see proctest.Linked
	cmd                    *exec.Cmd
	out                    *proctest.Output // of the process
	seen                   *proctest.Output // all responses of the process
}

// newTestEnv starts the sandbox. start starts wxproxy.
func newTestEnv(t *testing.T, c sandbox.Config) *testEnv {
	t.Helper()
	c.PushTimeout = time.Minute // a busy machine can need more than WeChat's five seconds
	if c.PushTimeout == 0 {
		c.PushTimeout = proctest.Patience // WeChat's five seconds are too short for a busy machine
	}
	wx, err := sandbox.New(c)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(wx)
	t.Cleanup(srv.Close)
	w := &testEnv{t: t, wx: wx, wxURL: srv.URL, dir: t.TempDir(), proxy: proctest.FreeAddr(t),
		callback: proctest.FreeAddr(t), admin: proctest.FreeAddr(t),
		out: &proctest.Output{}, seen: &proctest.Output{}}
	if err := wx.SetPushURL("http://" + w.callback); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if w.cmd != nil {
			w.signal(syscall.SIGKILL)
			w.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("output of wxproxy:\n%s", w.out)
		}
	})
	return w
}

// file writes a file in the folder of w and returns its path.
func (w *testEnv) file(name, text string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// config writes config.toml and returns its path.
func (w *testEnv) config() string {
	store := w.store
	if store == "" {
		store = fmt.Sprintf("url = %q", "file:"+w.dir+"/wxproxy.db")
	}
	return w.file("config.toml", fmt.Sprintf(`
[component]
appid = %q
appsecret = %q
message_token = %q
message_key = %q
[proxy]
listen = %q
upstream = %q
%s
[callback]
listen = %q
%s
[admin]
listen = %q
%s
[store]
%s
%s
[log]
level = "debug"
format = %q
%s
`, sandbox.DefaultComponentAppID, sandbox.DefaultComponentSecret, sandbox.DefaultMessageToken, sandbox.DefaultEncodingAESKey,
		w.proxy, w.wxURL, w.extra, w.callback, w.callbackExtra, w.admin, w.adminExtra, store, w.storeExtra,
		cmp.Or(w.format, "text"), w.blocks))
}

// start runs wxproxy and waits until it serves.
func (w *testEnv) start() *testEnv {
	w.t.Helper()
	return w.run(proctest.Linked(w.t, w.linked, "serve", "--config", w.config()))
}

// run runs cmd, which is a wxproxy, and waits until it serves.
func (w *testEnv) run(cmd *exec.Cmd) *testEnv {
	w.t.Helper()
	w.cmd = cmd
	w.cmd.Stdout, w.cmd.Stderr = w.out, w.out
	if err := w.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	proctest.Eventually(w.t, func() bool {
		resp, err := http.Get("http://" + w.admin + "/healthz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	})
	return w
}

// signal sends s to wxproxy.
func (w *testEnv) signal(s syscall.Signal) { w.cmd.Process.Signal(s) }

// end sends s and returns the exit code, -1 if the signal killed the process.
func (w *testEnv) end(s syscall.Signal) int {
	w.t.Helper()
	w.signal(s)
	return w.wait()
}

// wait waits until wxproxy exits and returns the exit code.
func (w *testEnv) wait() int {
	w.t.Helper()
	err := w.cmd.Wait()
	code := w.cmd.ProcessState.ExitCode()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	w.cmd = nil
	return code
}

// authorized pushes a ticket and lets the accounts authorize the component.
func (w *testEnv) authorized(appids ...string) *testEnv {
	w.t.Helper()
	ctx := context.Background()
	if err := w.wx.PushTicket(ctx); err != nil {
		w.t.Fatal(err)
	}
	for _, a := range appids {
		if _, err := w.wx.Authorize(ctx, a); err != nil {
			w.t.Fatal(err)
		}
		proctest.Eventually(w.t, func() bool {
			status, _, _ := w.try("GET", "/"+a+userInfo, "")
			return status == 200
		})
	}
	return w
}

// fault adds a fault to the sandbox and returns its number.
func (w *testEnv) fault(f sandbox.Fault) int {
	w.t.Helper()
	id, err := w.wx.AddFault(f)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

const userInfo = "/cgi-bin/user/info?openid=oSandboxUser0000000000000001&lang=zh_CN"

// try sends a request to the proxy. The status is 0 if there is no response.
func (w *testEnv) try(method, path, body string) (status int, answer string, header http.Header) {
	w.t.Helper()
	req, err := http.NewRequest(method, "http://"+w.proxy+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error(), nil
	}
	fmt.Fprintln(w.seen, resp.Header, string(b))
	return resp.StatusCode, string(b), resp.Header
}

// call sends a request and checks that WeChat accepts it, and that
// X-Wxproxy-Token is token unless that is "".
func (w *testEnv) call(path, token string) {
	w.t.Helper()
	status, answer, header := w.try("GET", path, "")
	if status != 200 || strings.Contains(answer, `"errcode":4`) || strings.Contains(answer, `"errcode":-`) {
		w.t.Errorf("GET %s: got %d %s, want 200 without an errcode", path, status, answer)
	}
	if got := header.Get("X-Wxproxy-Token"); token != "" && got != token {
		w.t.Errorf("GET %s: got X-Wxproxy-Token %q, want %q", path, got, token)
	}
}

// get requests a path from a listener.
func (w *testEnv) get(addr, path string) (int, string) {
	w.t.Helper()
	resp, err := http.Get("http://" + addr + path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	w.seen.Write(b)
	return resp.StatusCode, string(b)
}

// standIn returns a stand-in for appid. No callers may be configured.
func (w *testEnv) standIn(appid string) string {
	w.t.Helper()
	const path = "/cgi-bin/token?grant_type=client_credential&secret=any&appid="
	_, answer, _ := w.try("GET", path+appid, "")
	_, rest, _ := strings.Cut(answer, `"access_token":"`)
	token, _, _ := strings.Cut(rest, `"`)
	if !strings.HasPrefix(token, "wxp_") {
		w.t.Fatalf("stand-in of %s: got %s", appid, answer)
	}
	return token
}
