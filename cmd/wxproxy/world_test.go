package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
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

// The tests below drive the program as its users do: the real binary, with a real configuration, before the
// sandbox WeChat, over TCP.

const (
	accountA = "wxaaaaaaaaaaaaaaaa"
	accountB = "wxbbbbbbbbbbbbbbbb"
)

// binary builds the program once; with WXPROXY_RACE=1 it has the race detector in it, and ends where that finds something.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "wxproxy-test")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "wxproxy")
	args := []string{"build", "-o", path}
	if os.Getenv("WXPROXY_RACE") != "" {
		args = append(args, "-race")
		os.Setenv("GORACE", "halt_on_error=1")
	}
	out, err := exec.Command("go", append(args, ".")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

func wxproxy(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return exec.Command(path, args...)
}

// output collects what a process prints, and can be waited on.
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

// world is a WeChat and a wxproxy in front of it.
type world struct {
	t                      *testing.T
	wx                     *sandbox.WeChat
	wxURL                  string
	dir                    string
	proxy, callback, admin string // host:port
	extra, callbackExtra   string // more configuration, of [proxy] and of [callback]
	store                  string // what stands in [store]; "": a file in dir
	adminExtra, storeExtra string // of [admin] and of [store]
	format                 string // of the log; "": text
	blocks                 string // behind all else
	cmd                    *exec.Cmd
	out                    *output
	seen                   *output // every answer that left it
}

// newWorld starts the sandbox; start starts wxproxy.
func newWorld(t *testing.T, c sandbox.Config) *world {
	t.Helper()
	c.PushTimeout = time.Minute // a busy machine can need more than WeChat's five seconds
	wx, err := sandbox.New(c)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(wx)
	t.Cleanup(srv.Close)
	w := &world{t: t, wx: wx, wxURL: srv.URL, dir: t.TempDir(), proxy: freeAddr(t), callback: freeAddr(t), admin: freeAddr(t), out: &output{}, seen: &output{}}
	if err := wx.SetPushURL("http://" + w.callback); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if w.cmd != nil {
			w.signal(syscall.SIGKILL)
			w.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("wxproxy said:\n%s", w.out)
		}
	})
	return w
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

func (w *world) file(name, text string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func (w *world) config() string {
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
		w.proxy, w.wxURL, w.extra, w.callback, w.callbackExtra, w.admin, w.adminExtra, store, w.storeExtra, cmp.Or(w.format, "text"), w.blocks))
}

// start runs the program and waits until it serves.
func (w *world) start() *world {
	w.t.Helper()
	w.cmd = wxproxy(w.t, "serve", "--config", w.config())
	w.cmd.Stdout, w.cmd.Stderr = w.out, w.out
	if err := w.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	eventually(w.t, func() bool {
		resp, err := http.Get("http://" + w.admin + "/healthz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	})
	return w
}

func (w *world) signal(s syscall.Signal) { w.cmd.Process.Signal(s) }

// end sends s and gives the exit code, -1 for death by signal.
func (w *world) end(s syscall.Signal) int {
	w.t.Helper()
	w.signal(s)
	return w.wait()
}

func (w *world) wait() int {
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

// authorized pushes a ticket and has the accounts authorize the component.
func (w *world) authorized(appids ...string) *world {
	w.t.Helper()
	ctx := context.Background()
	if err := w.wx.PushTicket(ctx); err != nil {
		w.t.Fatal(err)
	}
	for _, a := range appids {
		if _, err := w.wx.Authorize(ctx, a); err != nil {
			w.t.Fatal(err)
		}
		eventually(w.t, func() bool { status, _, _ := w.try("GET", "/"+a+userInfo, ""); return status == 200 })
	}
	return w
}

func (w *world) fault(f sandbox.Fault) int {
	w.t.Helper()
	id, err := w.wx.AddFault(f)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

const userInfo = "/cgi-bin/user/info?openid=oSandboxUser0000000000000001&lang=zh_CN"

// try makes a call through the proxy.
func (w *world) try(method, path, body string) (status int, answer string, header http.Header) {
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

// call wants an answer of WeChat's without an error.
func (w *world) call(path, token string) {
	w.t.Helper()
	status, answer, header := w.try("GET", path, "")
	if status != 200 || strings.Contains(answer, `"errcode":4`) || strings.Contains(answer, `"errcode":-`) {
		w.t.Errorf("%s: %d %s", path, status, answer)
	}
	if got := header.Get("X-Wxproxy-Token"); token != "" && got != token {
		w.t.Errorf("%s: token %s, want %s", path, got, token)
	}
}

func (w *world) get(addr, path string) (int, string) {
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

func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never came true")
		}
	}
}
