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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wxproxy/sandbox"
)

const refreshPath = "/cgi-bin/component/api_authorizer_token"

// The main job: calls without credentials are answered, and what was done is said.
func TestServe(t *testing.T) {
	w := newWorld(t, sandbox.Config{}).start()
	if status, body := w.get(w.admin, "/readyz"); status != 503 || !strings.Contains(body, "component_verify_ticket") {
		t.Errorf("ready without a ticket: %d %s", status, body)
	}
	w.authorized(accountA, accountB)
	if status, body := w.get(w.admin, "/readyz"); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	w.call("/"+accountA+userInfo, "hit")
	w.call("/"+accountB+userInfo, "hit")
	w.call("/wxa/gettemplatelist", "")
	w.call("/wxa/gettemplatelist", "hit")

	// an expiry: renewed and sent again, once for all that come after
	w.wx.Expire(accountA)
	w.call("/"+accountA+userInfo, "retried")
	w.call("/"+accountA+userInfo, "hit")
	if n := w.wx.Count(refreshPath); n != 1 {
		t.Errorf("%d renewals", n)
	}
	w.wx.Expire(sandbox.DefaultComponentAppID)
	w.call("/wxa/gettemplatelist", "retried")

	// a message with its bytes as they are, an upload, and the picture back
	if status, answer, _ := w.try("POST", "/"+accountA+"/cgi-bin/message/custom/send", `{"touser":"oSandboxUser0000000000000001","msgtype":"text","text":{"content":"你好 <b>&"}}`); status != 200 || !strings.Contains(answer, `"errcode":0`) {
		t.Errorf("%d %s", status, answer)
	}
	picture := bytes.Repeat([]byte("\xff\xd8picture"), 10_000)
	var form bytes.Buffer
	fmt.Fprintf(&form, "--x\r\nContent-Disposition: form-data; name=\"media\"; filename=\"a.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n%s\r\n--x--\r\n", picture)
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
		t.Fatalf("%s", answer)
	}
	status, back, header := w.try("GET", "/"+accountA+"/cgi-bin/media/get?media_id="+string(media[1]), "")
	if status != 200 || sha256.Sum256([]byte(back)) != sha256.Sum256(picture) || header.Get("Content-Disposition") == "" {
		t.Errorf("%d, %d bytes, %s", status, len(back), header)
	}

	// logins need the component's token for an authorizer, whatever the caller sends
	if status, answer, _ := w.try("GET", "/sns/jscode2session?appid="+accountA+"&secret=whatever&js_code=sandbox&grant_type=authorization_code", ""); status != 200 || strings.Contains(answer, "-40") {
		t.Errorf("%d %s", status, answer)
	}
	if _, metrics := w.get(w.admin, "/metrics"); !strings.Contains(metrics, `wxproxy_retries_total{credential="authorizer",errcode="42001",result="ok"} 1`) ||
		!strings.Contains(metrics, `wxproxy_accounts{state="active"} 2`) || !strings.Contains(metrics, "wxproxy_verify_ticket_age_seconds") {
		t.Errorf("%s", metrics)
	}
	if v := w.wx.Violations(); len(v) > 0 {
		t.Errorf("WeChat saw what it must not see: %q", v)
	}
	for path, want := range map[string]int{"/cgi-bin/user/get": 400, "/wxeeeeeeeeeeeeeeee/cgi-bin/user/get": 404, "/" + accountA + "/cgi-bin/clear_quota/v2": 403, "/" + accountA + "/a/../b": 400} {
		if status, answer, _ := w.try("GET", path, ""); status != want || !strings.HasPrefix(answer, fmt.Sprintf(`{"errcode":-%d,"errmsg":"wxproxy: `, want)) {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
	// withdrawn: told at once, without a call
	if err := w.wx.Unauthorize(context.Background(), accountB); err != nil {
		t.Fatal(err)
	}
	if status, answer, _ := w.try("GET", "/"+accountB+userInfo, ""); status != 410 {
		t.Errorf("%d %s", status, answer)
	}
	if code := w.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// 500 calls are refused at the same moment: one renewal, and every call succeeds.
func TestManyRefusedAtOnce(t *testing.T) {
	w := newWorld(t, sandbox.Config{Grace: -1}).start().authorized(accountA)
	for round := range 3 { // a fourth within a minute would be throttled
		before := w.wx.Count(refreshPath)
		w.wx.Expire(accountA)
		var wg sync.WaitGroup
		var failed atomic.Int32
		for range 500 {
			wg.Go(func() {
				if status, answer, _ := w.try("GET", "/"+accountA+userInfo, ""); status != 200 || strings.Contains(answer, `"errcode":4`) {
					failed.Add(1)
				}
			})
		}
		wg.Wait()
		if n := w.wx.Count(refreshPath) - before; n != 1 || failed.Load() != 0 {
			t.Errorf("round %d: %d renewals, %d calls failed", round, n, failed.Load())
		}
	}
}

// kill -9 at any moment, between a renewal and its saving too: afterwards every account works, without a
// person, and what was saved and good is not fetched again.
func TestKillNine(t *testing.T) {
	const rounds = 50
	var midRenewal atomic.Pointer[func()] // called once, when WeChat has a renewal in hand
	w := newWorld(t, sandbox.Config{RotateRefreshTokens: true, Observe: func(c sandbox.Call) {
		if c.Path == refreshPath {
			if f := midRenewal.Swap(nil); f != nil {
				(*f)()
			}
		}
	}})
	// Each round has an account of its own: one that is refused again and again would be throttled.
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
				go func() {
					time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
					w.signal(syscall.SIGKILL)
					close(killed)
				}()
			})
		}
		if round%3 == 0 { // at any moment
			time.AfterFunc(time.Duration(rand.IntN(20))*time.Millisecond, kill)
		} else { // around the answer to a renewal, before it is saved or after
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
	// What works now works after the next kill, and nothing is fetched for it.
	w.end(syscall.SIGKILL)
	before := w.wx.Count(refreshPath) + w.wx.Count("/cgi-bin/component/api_component_token")
	w.start()
	for _, a := range accounts {
		w.call("/"+a+userInfo, "miss")
	}
	if n := w.wx.Count(refreshPath) + w.wx.Count("/cgi-bin/component/api_component_token") - before; n != 0 {
		t.Errorf("%d good tokens were fetched again", n)
	}
}

// While the token endpoint fails, calls with good tokens go on; dead ones are not sent; then
// everything comes back.
func TestTokenEndpointDown(t *testing.T) {
	for name, fault := range map[string]sandbox.Fault{
		"5xx":       {Path: refreshPath, Status: 503},
		"empty 200": {Path: refreshPath, Empty: true},
		"html 200":  {Path: refreshPath, Body: "<html>maintenance</html>", BodyType: "text/html"},
		"broken":    {Path: refreshPath, Break: sandbox.BreakBefore},
		"busy":      {Path: refreshPath, ErrCode: -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, sandbox.Config{}).start().authorized(accountA, accountB)
			id := w.fault(fault)
			w.call("/"+accountB+userInfo, "hit")
			w.wx.Expire(accountA)
			status, answer, header := w.try("GET", "/"+accountA+userInfo, "")
			if status != 503 || header.Get("Retry-After") == "" {
				t.Errorf("%d %s", status, answer)
			}
			w.call("/"+accountB+userInfo, "hit")
			w.wx.RemoveFault(id)
			eventually(t, func() bool { status, _, _ := w.try("GET", "/"+accountA+userInfo, ""); return status == 200 })
			w.call("/"+accountA+userInfo, "hit")
		})
	}
}

// Large answers are streamed: three downloads of 200 MiB at the same time need little memory.
func TestDownloadsInLittleMemory(t *testing.T) {
	w := newWorld(t, sandbox.Config{}).start().authorized(accountA)
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
				t.Errorf("%d bytes, %v", n, err)
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
		t.Errorf("peak memory %d KiB", kib)
	} else {
		t.Logf("peak memory %d MiB", kib>>10)
	}
}

// SIGTERM: calls under way are finished, then the program ends with 0.
func TestStopFinishesCalls(t *testing.T) {
	w := newWorld(t, sandbox.Config{}).start().authorized(accountA)
	hold := make(chan struct{})
	w.fault(sandbox.Fault{Path: "/cgi-bin/user/info", Hold: hold})
	answer := make(chan int, 1)
	before := w.wx.Count("/cgi-bin/user/info")
	go func() { status, _, _ := w.try("GET", "/"+accountA+userInfo, ""); answer <- status }()
	eventually(t, func() bool { return w.wx.Count("/cgi-bin/user/info") > before })
	w.signal(syscall.SIGTERM)
	eventually(t, func() bool { return strings.Contains(w.out.String(), "stopping") })
	close(hold)
	if code := w.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if status := <-answer; status != 200 {
		t.Errorf("the call under way was answered %d", status)
	}
}

// A wrong configuration is refused on SIGHUP and changes nothing; a good one is taken over.
func TestReload(t *testing.T) {
	w := newWorld(t, sandbox.Config{}).start().authorized(accountA)
	path := filepath.Join(w.dir, "config.toml")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	w.file("config.toml", string(good)+"\n[proxyy]\nlisten = 1\n")
	w.signal(syscall.SIGHUP)
	eventually(t, func() bool { return strings.Contains(w.out.String(), "configuration rejected") })
	w.call("/"+accountA+userInfo, "hit")
	if status, _, _ := w.try("GET", userInfo, ""); status != 400 {
		t.Errorf("%d without a target", status)
	}
	w.file("config.toml", strings.Replace(string(good), "[proxy]", "[proxy]\ndefault_appid = \""+accountA+"\"", 1))
	w.signal(syscall.SIGHUP)
	eventually(t, func() bool { status, _, _ := w.try("GET", userInfo, ""); return status == 200 })
}

// One process opens a store; a second says so in one line.
func TestStoreInUse(t *testing.T) {
	w := newWorld(t, sandbox.Config{}).start()
	out, err := wxproxy(t, "check", "--config", filepath.Join(w.dir, "config.toml")).CombinedOutput()
	if err == nil || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), "in use") {
		t.Errorf("%v\n%s", err, out)
	}
}

// A store that cannot be read is told in a sentence, and left as it is.
func TestStoreDamaged(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"empty":     func([]byte) []byte { return nil },
		"garbage":   func(b []byte) []byte { return bytes.Repeat([]byte("garbage "), len(b)/8) },
		"truncated": func(b []byte) []byte { return b[:3*os.Getpagesize()] },
		"zeroed":    func(b []byte) []byte { return make([]byte, len(b)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sandbox.Config{}).start().authorized(accountA)
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
				cmd := wxproxy(t, command, "--config", w.config())
				end := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() }) // it serves, which is wrong
				out, err := cmd.CombinedOutput()
				end.Stop()
				if err == nil || !strings.HasPrefix(string(out), "wxproxy: ") || !strings.Contains(string(out), path) || strings.Contains(string(out), "goroutine") {
					t.Errorf("%s: %v\n%s", command, err, out)
				}
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, b) {
				t.Error("the file was changed")
			}
		})
	}
}
