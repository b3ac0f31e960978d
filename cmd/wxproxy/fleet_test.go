package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

// fleet is several replicas of wxproxy, each a process, that share a Redis, or
// one with a store in a file.
type fleet struct {
	t        *testing.T
	wx       *sandbox.WeChat
	wxURL    string
	redis    *sharedRedis // nil: the store is a file, or cluster
	cluster  string       // URL of the store; "": none
	dir      string
	replicas []*replica
	client   *http.Client
	pushURL  string // where WeChat pushes to
	next     atomic.Uint64
}

// replica is one wxproxy. It keeps its addresses when it is started again.
type replica struct {
	f                      *fleet
	proxy, callback, admin string
	config                 string
	toRedis, toWeChat      *link  // nil: without a link between
	linked                 string // a variable of the program; see proctest.Linked
	out                    *proctest.Output

	mu  sync.Mutex
	cmd *exec.Cmd // nil while it is not running
}

// newFleet starts WeChat, Redis and n replicas.
func newFleet(t *testing.T, n int, c sandbox.Config) *fleet {
	t.Helper()
	f := prepareFleet(t, n, c)
	f.redis = newSharedRedis(t)
	return f.start()
}

// prepareFleet starts WeChat, and returns a fleet of n replicas to start.
func prepareFleet(t *testing.T, n int, c sandbox.Config) *fleet {
	t.Helper()
	c.PushTimeout = proctest.Patience // WeChat's five seconds are too short for a busy machine
	wx, err := sandbox.New(c)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(wx)
	t.Cleanup(srv.Close)
	f := &fleet{t: t, wx: wx, wxURL: srv.URL, dir: t.TempDir()}
	f.client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}
	t.Cleanup(f.client.CloseIdleConnections)
	f.pushURL = f.pushes()
	if err := wx.SetPushURL(f.pushURL); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		r := &replica{f: f, proxy: proctest.FreeAddr(t), callback: proctest.FreeAddr(t),
			admin: proctest.FreeAddr(t), out: &proctest.Output{}}
		r.config = filepath.Join(f.dir, fmt.Sprintf("config%d.toml", i))
		f.replicas = append(f.replicas, r)
	}
	return f
}

// link puts links between each replica and what it needs.
func (f *fleet) link() *fleet {
	f.t.Helper()
	for _, r := range f.replicas {
		r.toWeChat = newLink(f.t, "tcp", strings.TrimPrefix(f.wxURL, "http://"))
		if f.redis != nil {
			r.toRedis = newLink(f.t, "unix", f.redis.socket)
		}
	}
	return f
}

// start starts the replicas.
func (f *fleet) start() *fleet {
	t := f.t
	t.Helper()
	t.Cleanup(func() {
		for _, r := range f.replicas {
			r.kill()
			if t.Failed() {
				t.Logf("output of %s:\n%s", r.proxy, tail(r.out.String(), 6000))
			}
		}
	})
	for _, r := range f.replicas {
		if err := os.WriteFile(r.config, []byte(f.configuration(r)), 0o600); err != nil {
			t.Fatal(err)
		}
		r.start()
	}
	return f
}

// tail returns the last n bytes of s.
func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// configuration returns the configuration of a replica.
func (f *fleet) configuration(r *replica) string {
	upstream := f.wxURL
	if r.toWeChat != nil {
		upstream = "http://" + r.toWeChat.addr()
	}
	store := "file:" + filepath.Join(f.dir, "wxproxy.db")
	switch {
	case r.toRedis != nil:
		store = "redis://" + r.toRedis.addr()
	case f.cluster != "":
		store = f.cluster
	case f.redis != nil:
		store = "redis+unix://" + f.redis.socket
	}
	return fmt.Sprintf(`
[component]
appid = %q
appsecret = %q
message_token = %q
message_key = %q
[proxy]
listen = %q
upstream = %q
timeout = "20s"
[callback]
listen = %q
[admin]
listen = %q
[store]
url = %q
key = %q
`, sandbox.DefaultComponentAppID, sandbox.DefaultComponentSecret, sandbox.DefaultMessageToken, sandbox.DefaultEncodingAESKey,
		r.proxy, upstream, r.callback, r.admin, store,
		base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32)))
}

// pushes starts a balancer for the callback listeners, which tries the replicas
// until one responds, and returns its URL.
func (f *fleet) pushes() string {
	balancer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		start := int(f.next.Add(1))
		for i := range f.replicas {
			r := f.replicas[(start+i)%len(f.replicas)]
			failed := false
			one := &httputil.ReverseProxy{
				Rewrite:      func(p *httputil.ProxyRequest) { p.Out.URL.Scheme, p.Out.URL.Host = "http", r.callback },
				ErrorHandler: func(http.ResponseWriter, *http.Request, error) { failed = true },
			}
			ctx, cancel := context.WithTimeout(req.Context(), 5*time.Second)
			again := req.Clone(ctx)
			again.Body = io.NopCloser(bytes.NewReader(body))
			one.ServeHTTP(w, again)
			cancel()
			if !failed {
				return
			}
		}
		w.WriteHeader(http.StatusBadGateway)
	}))
	f.t.Cleanup(balancer.Close)
	return balancer.URL
}

// start runs the replica and waits until it serves.
func (r *replica) start() {
	t := r.f.t
	t.Helper()
	cmd := proctest.Linked(t, r.linked, "serve", "--config", r.config)
	cmd.Stdout, cmd.Stderr = r.out, r.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.cmd = cmd
	r.mu.Unlock()
	proctest.Eventually(t, func() bool { status, _ := r.get("/healthz"); return status == 200 })
}

// signal sends s to the replica if it is running.
func (r *replica) signal(s syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd != nil {
		r.cmd.Process.Signal(s)
	}
}

// kill kills the replica, even while it is stopped by SIGSTOP.
func (r *replica) kill() {
	r.signal(syscall.SIGKILL)
	r.wait()
}

// stop ends the replica with SIGTERM, as operators do.
func (r *replica) stop() {
	r.f.t.Helper()
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != 0 {
		r.f.t.Errorf("exit code after SIGTERM: got %d, want 0", code)
	}
}

// wait waits until the replica exits and returns its exit code.
func (r *replica) wait() int {
	r.mu.Lock()
	cmd := r.cmd
	r.cmd = nil
	r.mu.Unlock()
	if cmd == nil {
		return 0
	}
	cmd.Wait()
	return cmd.ProcessState.ExitCode()
}

// get requests a path from the admin listener. The status is 0 if there is no
// response.
func (r *replica) get(path string) (status int, body string) {
	resp, err := r.f.client.Get("http://" + r.admin + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// answer is the result of a request.
type answer struct {
	status int
	token  string // X-Wxproxy-Token
	text   string
	took   time.Duration
	err    error
}

// ok reports whether WeChat accepted the request.
func (a answer) ok() bool {
	return a.err == nil && a.status == 200 && strings.Contains(a.text, `"errcode":0`)
}

// String describes the result for failures of tests.
func (a answer) String() string {
	return fmt.Sprintf("%d %s %.200s %v after %v", a.status, a.token, a.text, a.err, a.took.Round(time.Millisecond))
}

// call sends a request for the account to this replica. net/http never repeats
// it, because it is a POST.
func (r *replica) call(account string) (a answer) {
	body := `{"touser":"oSandboxUser0000000000000001","msgtype":"text","text":{"content":"hello"}}`
	req, err := http.NewRequest("POST", "http://"+r.proxy+"/"+account+"/cgi-bin/message/custom/send",
		io.NopCloser(strings.NewReader(body)))
	if err != nil {
		return answer{err: err}
	}
	req.ContentLength = int64(len(body))
	req.Header.Set("Content-Type", "application/json")
	began := time.Now()
	defer func() { a.took = time.Since(began) }()
	resp, err := r.f.client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, token: resp.Header.Get("X-Wxproxy-Token"), text: string(b), err: err}
}

// call sends a request for the account to one of the replicas. It tries the
// next one only if the connection is refused.
func (f *fleet) call(account string) (a answer) {
	start := int(f.next.Add(1))
	for i := range f.replicas {
		a = f.replicas[(start+i)%len(f.replicas)].call(account)
		if !errors.Is(a.err, syscall.ECONNREFUSED) {
			break
		}
	}
	return a
}

// everywhere waits until requests for the account succeed at each replica.
func (f *fleet) everywhere(account string) {
	f.t.Helper()
	for _, r := range f.replicas {
		proctest.Eventually(f.t, func() bool { return r.call(account).ok() })
	}
}

// authorized pushes a ticket and lets the accounts authorize the component.
// Each replica then knows each of them.
func (f *fleet) authorized(appids ...string) *fleet {
	f.t.Helper()
	f.ticket()
	for _, a := range appids {
		if _, err := f.wx.Authorize(f.t.Context(), a); err != nil {
			f.t.Fatal(err)
		}
		f.everywhere(a)
	}
	return f
}

// ticket pushes a ticket.
func (f *fleet) ticket() {
	f.t.Helper()
	if err := f.wx.PushTicket(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
}

// sharedRedis is a redis-server on a socket that keeps its data on disk.
type sharedRedis struct {
	t           *testing.T
	dir, socket string
	cmd         *exec.Cmd
}

// newSharedRedis starts a Redis that ends with the test.
func newSharedRedis(t *testing.T) *sharedRedis {
	t.Helper()
	dir, err := os.MkdirTemp("", "fleet") // t.TempDir can be too long for the name of a socket
	if err != nil {
		t.Fatal(err)
	}
	r := &sharedRedis{t: t, dir: dir, socket: filepath.Join(dir, "socket")}
	t.Cleanup(func() { r.kill(); os.RemoveAll(dir) })
	r.start()
	return r
}

// start starts the server, with the data of an earlier run.
func (r *sharedRedis) start() {
	r.t.Helper()
	var out bytes.Buffer
	os.Remove(r.socket)
	r.cmd = exec.Command(toolPath(r.t, "redis-server"), "--port", "0", "--unixsocket", r.socket,
		"--save", "", "--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no", "--dir", r.dir)
	r.cmd.Stdout, r.cmd.Stderr = &out, &out
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	proctest.Eventually(r.t, func() bool { return r.do("PING") == "+PONG" })
}

func (r *sharedRedis) signal(s syscall.Signal) { r.cmd.Process.Signal(s) }

func (r *sharedRedis) kill() {
	if r.cmd != nil {
		r.cmd.Process.Kill()
		r.cmd.Wait()
		r.cmd = nil
	}
}

// do sends a command and returns the first line of the reply, or "".
func (r *sharedRedis) do(command string) string {
	conn, err := net.Dial("unix", r.socket)
	if err != nil {
		return ""
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "%s\r\n", command)
	b := make([]byte, 512)
	n, _ := conn.Read(b)
	line, _, _ := strings.Cut(string(b[:n]), "\r\n")
	return line
}

// eval runs a Lua script, which contains no double quotes, with an argument,
// and returns the first line of its result.
func (r *sharedRedis) eval(script, arg string) string {
	return r.do(fmt.Sprintf(`EVAL "%s" 0 %s`, strings.ReplaceAll(script, "\n", " "), arg))
}

// eachRecord calls a function f of Lua with the key of a hash and a field of it
// for the record of an account, or of the component, and returns what f does.
const eachRecord = `
for _, k in ipairs(redis.call('KEYS', 'wxproxy:{*}:records')) do
  for _, name in ipairs(redis.call('HKEYS', k)) do
    if name:sub(-#ARGV[1] - 8) == 'account/' .. ARGV[1] then return f(k, name) end
  end
end
return 0`

// loseBucket deletes all keys of the bucket that has the account's record, as a
// cluster does whose node is empty after a restart. It returns the number of
// records, 0 if there is no record of the account.
func (r *sharedRedis) loseBucket(account string) (records int) {
	fmt.Sscanf(r.eval(`
local function f(k)
  local n = redis.call('HLEN', k)
  for _, lost in ipairs(redis.call('KEYS', k:sub(1, -8) .. '*')) do redis.call('DEL', lost) end
  return n
end`+eachRecord, account), ":%d", &records)
	return records
}

// damage replaces the account's record by text that is no record. It reports
// whether there was one.
func (r *sharedRedis) damage(account string) bool {
	return r.eval(`
local function f(k, name)
  redis.call('HSET', k, name, 'damaged')
  return 1
end`+eachRecord, account) == ":1"
}
