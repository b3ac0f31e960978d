package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

const refreshPath = "/cgi-bin/component/api_authorizer_token"

// With and without WXPROXY_PLAIN_SOCKETS a caller is served, over the connection
// that it has and over new ones, and the log says which sockets there are.
func TestPlainSockets(t *testing.T) {
	for _, plain := range []string{"", "1"} {
		t.Setenv("WXPROXY_PLAIN_SOCKETS", plain)
		w := newTestEnv(t, sandbox.Config{}).start()
		w.authorized(accountA)
		for range 3 {
			w.call("/"+accountA+userInfo, "hit")
		}
		want := plain != "" && runtime.GOOS == "linux"
		if got := strings.Contains(w.out.String(), "plain sockets"); got != want {
			t.Errorf("WXPROXY_PLAIN_SOCKETS=%q: got %t for the line in the log, want %t", plain, got, want)
		}
	}
}

// The main job: requests without credentials succeed, and metrics show them.
func TestServe(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{}).start()
	if status, body := w.get(w.admin, "/readyz"); status != 503 || !strings.Contains(body, "component_verify_ticket") {
		t.Errorf("/readyz without a ticket: got %d %s, want 503", status, body)
	}
	w.authorized(accountA, accountB)
	if status, body := w.get(w.admin, "/readyz"); status != 200 {
		t.Errorf("/readyz: got %d %s, want 200", status, body)
	}
	w.call("/"+accountA+userInfo, "hit")
	w.call("/"+accountB+userInfo, "hit")
	w.call("/wxa/gettemplatelist", "")
	w.call("/wxa/gettemplatelist", "hit")

	// After an expiry the token is renewed once and the request is sent again.
	w.wx.Expire(accountA)
	w.call("/"+accountA+userInfo, "retried")
	w.call("/"+accountA+userInfo, "hit")
	if n := w.wx.Count(refreshPath); n != 1 {
		t.Errorf("renewals after an expiry: got %d, want 1", n)
	}
	w.wx.Expire(sandbox.DefaultComponentAppID)
	w.call("/wxa/gettemplatelist", "retried")

	// A message is forwarded byte for byte; an upload and a download work.
	if status, answer, _ := w.try("POST", "/"+accountA+"/cgi-bin/message/custom/send",
		`{"touser":"oSandboxUser0000000000000001","msgtype":"text",`+
			`"text":{"content":"你好 <b>&"}}`); status != 200 || !strings.Contains(answer, `"errcode":0`) {
		t.Errorf("sending a message: got %d %s, want errcode 0", status, answer)
	}
	picture := bytes.Repeat([]byte("\xff\xd8picture"), 10_000)
	var form bytes.Buffer
	fmt.Fprintf(&form, "--x\r\nContent-Disposition: form-data; name=\"media\"; "+
		"filename=\"a.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n%s\r\n--x--\r\n", picture)
	req, _ := http.NewRequest("POST", "http://"+w.proxy+"/cgi-bin/media/upload?type=image", io.MultiReader(&form)) // chunked
	req.Header.Set("X-WX-APPID", accountA)
	req.Header.Set("Content-Type", "multipart/form-data; boundary=x")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	media := regexp.MustCompile(`"media_id":"([^"]+)"`).FindSubmatch(answer)
	if media == nil {
		t.Fatalf("upload: got %s, want a media_id", answer)
	}
	status, back, header := w.try("GET", "/"+accountA+"/cgi-bin/media/get?media_id="+string(media[1]), "")
	if status != 200 || sha256.Sum256([]byte(back)) != sha256.Sum256(picture) ||
		header.Get("Content-Disposition") == "" {
		t.Errorf("download: got %d, %d bytes, %s, want the %d bytes of the upload", status, len(back), header,
			len(picture))
	}

	// Logins of an authorizer use the component's token, whatever the request
	// contains.
	if status, answer, _ := w.try("GET", "/sns/jscode2session?appid="+accountA+
		"&secret=whatever&js_code=sandbox&grant_type=authorization_code", ""); status != 200 ||
		strings.Contains(answer, "-40") {
		t.Errorf("login: got %d %s, want 200", status, answer)
	}
	if _, metrics := w.get(w.admin, "/metrics"); !strings.Contains(metrics,
		`wxproxy_retries_total{credential="authorizer",errcode="42001",result="ok"} 1`) ||
		!strings.Contains(metrics, `wxproxy_accounts{state="active"} 2`) ||
		!strings.Contains(metrics, "wxproxy_verify_ticket_age_seconds") {
		t.Errorf("metrics: got no retry, two active accounts and ticket age in\n%s", metrics)
	}
	if v := w.wx.Violations(); len(v) > 0 {
		t.Errorf("violations of WeChat's protocol: got %q, want none", v)
	}
	for path, want := range map[string]int{"/cgi-bin/user/get": 400,
		"/wxeeeeeeeeeeeeeeee/cgi-bin/user/get": 404, "/" + accountA + "/cgi-bin/clear_quota/v2": 403, "/" +
			accountA + "/a/../b": 400} {
		if status, answer, _ := w.try("GET", path, ""); status != want ||
			!strings.HasPrefix(answer, fmt.Sprintf(`{"errcode":-%d,"errmsg":"wxproxy: `, want)) {
			t.Errorf("GET %s: got %d %s, want %d from wxproxy", path, status, answer, want)
		}
	}
	// A revocation takes effect at once, without a request to WeChat.
	if err := w.wx.Unauthorize(context.Background(), accountB); err != nil {
		t.Fatal(err)
	}
	if status, answer, _ := w.try("GET", "/"+accountB+userInfo, ""); status != 410 {
		t.Errorf("request for a revoked account: got %d %s, want 410", status, answer)
	}
	if code := w.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code after SIGTERM: got %d, want 0", code)
	}
}

// 500 requests whose token is rejected at the same moment cause one renewal,
// and all of them succeed.
func TestManyRejectionsCauseOneRenewal(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{Grace: -1}).start().authorized(accountA)
	for round := range 3 { // a fourth within a minute would be throttled
		before := w.wx.Count(refreshPath)
		w.wx.Expire(accountA)
		var wg sync.WaitGroup
		var failed atomic.Int32
		for range 500 {
			wg.Go(func() {
				if status, answer, _ := w.try("GET", "/"+accountA+userInfo, ""); status != 200 ||
					strings.Contains(answer, `"errcode":4`) {
					failed.Add(1)
				}
			})
		}
		wg.Wait()
		if n := w.wx.Count(refreshPath) - before; n != 1 || failed.Load() != 0 {
			t.Errorf("round %d: got %d renewals and %d failed requests, want 1 and 0", round, n, failed.Load())
		}
	}
}

// After kill -9 at any moment, also between a renewal and its saving, every
// account works without an operator, and good tokens are not fetched again.
func TestKill(t *testing.T) {
	const rounds = 50
	var midRenewal atomic.Pointer[func()] // called once, while WeChat handles a renewal
	w := newTestEnv(t, sandbox.Config{RotateRefreshTokens: true, Observe: func(c sandbox.Call) {
		if c.Path == refreshPath {
			if f := midRenewal.Swap(nil); f != nil {
				(*f)()
			}
		}
	}})
	// Each round has another account: repeated rejections of one are throttled.
	var accounts []string
	for i := range rounds {
		accounts = append(accounts, fmt.Sprintf("wx%016x", i))
	}
	w.start().authorized(accounts...)
	w.end(syscall.SIGKILL)
	for round, account := range accounts {
		w.start()
		killed := make(chan struct{})
		var once sync.Once
		kill := func() {
			once.Do(func() {
				time.AfterFunc(time.Duration(rand.IntN(3000))*time.Microsecond, func() {
					w.signal(syscall.SIGKILL)
					close(killed)
				})
			})
		}
		if round%3 == 0 { // at any moment
			time.AfterFunc(time.Duration(rand.IntN(20))*time.Millisecond, kill)
		} else { // around the response to a renewal, before or after it is saved
			midRenewal.Store(&kill)
		}
		w.wx.Expire(account)
		for {
			if status, _, _ := w.try("GET", "/"+account+userInfo, ""); status == 0 {
				break
			}
		}
		<-killed
		w.wait()
	}
	w.start()
	for _, a := range accounts {
		w.call("/"+a+userInfo, "")
	}
	// The tokens that work now work after the next kill, too.
	w.end(syscall.SIGKILL)
	before := w.wx.Count(refreshPath) + w.wx.Count("/cgi-bin/component/api_component_token")
	w.start()
	for _, a := range accounts {
		w.call("/"+a+userInfo, "miss")
	}
	if n := w.wx.Count(refreshPath) + w.wx.Count("/cgi-bin/component/api_component_token") - before; n != 0 {
		t.Errorf("good tokens fetched again after a kill: got %d, want 0", n)
	}
}

// While the token endpoint fails, requests with valid tokens succeed and
// expired tokens are not sent. Afterwards everything works again.
func TestTokenEndpointFails(t *testing.T) {
	for name, fault := range map[string]sandbox.Fault{
		"5xx":       {Path: refreshPath, Status: 503},
		"empty 200": {Path: refreshPath, Empty: true},
		"html 200":  {Path: refreshPath, Body: "<html>maintenance</html>", BodyType: "text/html"},
		"broken":    {Path: refreshPath, Break: sandbox.BreakBefore},
		"busy":      {Path: refreshPath, ErrCode: -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTestEnv(t, sandbox.Config{}).start().authorized(accountA, accountB)
			id := w.fault(fault)
			w.call("/"+accountB+userInfo, "hit")
			w.wx.Expire(accountA)
			status, answer, header := w.try("GET", "/"+accountA+userInfo, "")
			if status != 503 || header.Get("Retry-After") == "" {
				t.Errorf("request with an expired token: got %d %s, want 503 with Retry-After", status, answer)
			}
			w.call("/"+accountB+userInfo, "hit")
			w.wx.RemoveFault(id)
			proctest.Eventually(t, func() bool {
				status, _, _ := w.try("GET", "/"+accountA+userInfo, "")
				return status == 200
			})
			w.call("/"+accountA+userInfo, "hit")
		})
	}
}

// Large responses are streamed: three concurrent downloads of 200 MiB need
// little memory.
func TestLargeDownloadsNeedLittleMemory(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{}).start().authorized(accountA)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			resp, err := http.Get("http://" + w.proxy + "/" + accountA + "/cgi-bin/media/get?media_id=sandbox-200MiB")
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != 200<<20 {
				t.Errorf("download: got %d bytes, %v, want 200 MiB", n, err)
			}
		})
	}
	wg.Wait()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.cmd.Process.Pid))
	if err != nil {
		t.Skip("no /proc here")
	}
	peak := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if kib, _ := strconv.Atoi(string(peak[1])); kib > 150<<10 {
		t.Errorf("peak memory: got %d KiB, want at most 150 MiB", kib)
	} else {
		t.Logf("peak memory %d MiB", kib>>10)
	}
}

// After SIGTERM requests in flight are finished, and the exit code is 0.
func TestStopFinishesRequests(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{}).start().authorized(accountA)
	hold := make(chan struct{})
	w.fault(sandbox.Fault{Path: "/cgi-bin/user/info", Hold: hold})
	answer := make(chan int, 1)
	before := w.wx.Count("/cgi-bin/user/info")
	go func() { status, _, _ := w.try("GET", "/"+accountA+userInfo, ""); answer <- status }()
	proctest.Eventually(t, func() bool { return w.wx.Count("/cgi-bin/user/info") > before })
	w.signal(syscall.SIGTERM)
	proctest.Eventually(t, func() bool { return strings.Contains(w.out.String(), "stopping") })
	close(hold)
	if code := w.wait(); code != 0 {
		t.Errorf("exit code after SIGTERM: got %d, want 0", code)
	}
	if status := <-answer; status != 200 {
		t.Errorf("request in flight during SIGTERM: got %d, want 200", status)
	}
}

// linkedStop makes the program wait one second for requests in flight, instead
// of 30.
const linkedStop = "wxproxy/cmd/wxproxy/internal/server.stopTimeout=1s"

// After SIGTERM requests that take longer than the program waits are cut off:
// three of one account, for which WeChat does not answer, and one that needs a
// renewal which WeChat does not answer. The exit code is 0, the log says how
// many requests there were, and the program starts again with its store.
func TestStopCutsOffSlowRequests(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{})
	w.linked, w.extra = linkedStop, `timeout = "10m"`
	w.start().authorized(accountA, accountB)
	hold := make(chan struct{})
	defer close(hold)
	w.fault(sandbox.Fault{Path: "/cgi-bin/user/info", Appid: accountA, Hold: hold})
	w.wx.Expire(accountB)
	w.fault(sandbox.Fault{Path: refreshPath, Hold: hold})
	before := w.wx.Count("/cgi-bin/user/info")
	answers := make(chan int, 4)
	for _, account := range []string{accountA, accountA, accountA, accountB} {
		go func() { status, _, _ := w.try("GET", "/"+account+userInfo, ""); answers <- status }()
	}
	proctest.Eventually(t, func() bool {
		return w.wx.Count("/cgi-bin/user/info") == before+4 && w.wx.Count(refreshPath) == 1
	})
	if code := w.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code after SIGTERM: got %d, want 0", code)
	}
	for range 4 {
		if status := <-answers; status == 200 {
			t.Errorf("request that was cut off: got %d, want none or an error", status)
		}
	}
	line := regexp.MustCompile(`requests were cut off.* requests=[34] timeout=1s`)
	if !line.MatchString(w.out.String()) {
		t.Error("log: got no line that says how many requests were cut off, want one")
	}
	w.wx.ClearFaults()
	w.start()
	w.call("/"+accountA+userInfo, "miss")
	w.call("/"+accountB+userInfo, "")
}

// SIGHUP rejects an invalid configuration without changes, and applies a valid
// one.
func TestReload(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{}).start().authorized(accountA)
	path := filepath.Join(w.dir, "config.toml")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	w.file("config.toml", string(good)+"\n[proxyy]\nlisten = 1\n")
	w.signal(syscall.SIGHUP)
	proctest.Eventually(t, func() bool { return strings.Contains(w.out.String(), "configuration rejected") })
	w.call("/"+accountA+userInfo, "hit")
	if status, _, _ := w.try("GET", userInfo, ""); status != 400 {
		t.Errorf("request without an account: got %d, want 400", status)
	}
	w.file("config.toml", strings.Replace(string(good), "[proxy]", "[proxy]\ndefault_appid = \""+accountA+"\"", 1))
	w.signal(syscall.SIGHUP)
	proctest.Eventually(t, func() bool { status, _, _ := w.try("GET", userInfo, ""); return status == 200 })
}

// A store file can be used by one process. A second one reports that in one
// line.
func TestStoreInUse(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{}).start()
	out, err := proctest.Command(t, "check", "--config", filepath.Join(w.dir, "config.toml")).CombinedOutput()
	if err == nil || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), "in use") {
		t.Errorf("check of a store in use: got %v\n%s\nwant one line that says so", err, out)
	}
}

// A damaged store is reported and not changed.
func TestDamagedStore(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"empty":     func([]byte) []byte { return nil },
		"garbage":   func(b []byte) []byte { return bytes.Repeat([]byte("garbage "), len(b)/8) },
		"truncated": func(b []byte) []byte { return b[:3*os.Getpagesize()] },
		"zeroed":    func(b []byte) []byte { return make([]byte, len(b)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newTestEnv(t, sandbox.Config{}).start().authorized(accountA)
			w.end(syscall.SIGTERM)
			path := filepath.Join(w.dir, "wxproxy.db")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b = damage(b)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, command := range []string{"check", "serve"} {
				cmd := proctest.Command(t, command, "--config", w.config())
				end := time.AfterFunc(proctest.Patience, func() { cmd.Process.Kill() }) // it serves, which is wrong
				out, err := cmd.CombinedOutput()
				end.Stop()
				if err == nil || !strings.HasPrefix(string(out), "wxproxy: ") ||
					!strings.Contains(string(out), path) || strings.Contains(string(out), "goroutine") {
					t.Errorf("%s with a damaged store: got %v\n%s\nwant an error that names %s", command, err,
						out, path)
				}
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, b) {
				t.Errorf("damaged store: got other content after check and serve (%v), want no change", err)
			}
		})
	}
}
