// Command scale measures a wxproxy that knows very many accounts: how long it takes to read them from WeChat's list, to
// start, to answer; what memory it holds. WeChat is a stand-in that has every account there is.
//
//	go run ./bench/scale                                  a file store
//	go run ./bench/scale -store redis://127.0.0.1:6379    an empty Redis
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	component    = "wxcccccccccccccccc"
	messageToken = "scale"
	messageKey   = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	call         = "/cgi-bin/user/info?openid=o1"
)

func name(i int) string { return fmt.Sprintf("wx%016d", i) }

type scale struct {
	accounts, inUse int
	dir, config     string
	proxy, callback string
	admin           string
	prime, binary   string
	cmd             *exec.Cmd
	renewals        atomic.Int64
	client          *fasthttp.Client
}

func main() {
	log.SetFlags(0)
	s := &scale{client: &fasthttp.Client{MaxConnsPerHost: 256, ReadTimeout: time.Minute}}
	flag.IntVar(&s.accounts, "accounts", 1_000_000, "accounts at WeChat")
	flag.IntVar(&s.inUse, "in-use", 100_000, "of which calls are made for so many")
	store := flag.String("store", "", "[store] url; \"\": a file in a temporary folder")
	flag.Parse()
	err := s.run(*store)
	if s.cmd != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
	}
	os.RemoveAll(s.dir)
	if err != nil {
		log.Fatal(err)
	}
}

func (s *scale) run(store string) (err error) {
	if s.dir, err = os.MkdirTemp("", "scale"); err != nil {
		return err
	}
	if store == "" {
		store = "file:" + s.dir + "/wxproxy.db"
	}
	upstream, err := s.wechat()
	if err != nil {
		return err
	}
	if err := s.prepare(store, upstream); err != nil {
		return err
	}
	if _, err := s.start(); err != nil {
		return err
	}
	s.report("empty")

	began := time.Now()
	if out, err := exec.Command(s.prime, "-callback", "http://"+s.callback, "-component", component, "-token", messageToken, "-key", messageKey, "-account", name(0)).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	for !s.complete() {
		if time.Since(began) > time.Hour {
			return fmt.Errorf("after an hour it does not know all accounts")
		}
		time.Sleep(time.Second)
	}
	s.report(fmt.Sprintf("%d accounts read from WeChat's list after %v", s.accounts, time.Since(began).Round(time.Second)))

	took, err := s.calls(s.inUse)
	if err != nil {
		return err
	}
	s.report(fmt.Sprintf("first calls for %d accounts, %d renewals, in %v", s.inUse, s.renewals.Load(), took.Round(time.Second)))

	if err := s.stop(); err != nil {
		return err
	}
	if path, ok := strings.CutPrefix(store, "file:"); ok {
		if i, err := os.Stat(path); err == nil {
			fmt.Printf("the file has %d MiB\n", i.Size()>>20)
		}
	}
	before := s.renewals.Load()
	first, err := s.start()
	if err != nil {
		return err
	}
	s.report(fmt.Sprintf("started again: first call answered after %v", first.Round(time.Millisecond)))
	if took, err = s.calls(s.inUse); err != nil {
		return err
	}
	s.report(fmt.Sprintf("calls for %d accounts, from the store, %d renewals, in %v", s.inUse, s.renewals.Load()-before, took.Round(time.Millisecond)))
	if took, err = s.calls(s.inUse); err != nil {
		return err
	}
	s.report(fmt.Sprintf("calls for %d accounts, from memory, in %v", s.inUse, took.Round(time.Millisecond)))

	for _, offset := range []int{0, s.accounts / 2, s.accounts - 100} {
		began := time.Now()
		body, err := s.get(fmt.Sprintf("/api/accounts?limit=100&offset=%d", offset))
		if err != nil {
			return err
		}
		fmt.Printf("accounts list, 100 from %d on: %v, %d bytes\n", offset, time.Since(began).Round(time.Millisecond), len(body))
	}
	began = time.Now()
	if _, err := s.get("/metrics"); err != nil {
		return err
	}
	fmt.Printf("metrics, with all accounts counted: %v\n", time.Since(began).Round(time.Millisecond))
	return s.reconcile()
}

// reconcile compares all accounts with WeChat's list while calls go on, and tells the slowest of those.
func (s *scale) reconcile() error {
	stop := make(chan struct{})
	var slowest atomic.Int64
	var calls, failed atomic.Int64
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			for n := i; ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				began := time.Now()
				if s.call(name(n%s.inUse)) != nil {
					failed.Add(1)
				}
				calls.Add(1)
				for took := int64(time.Since(began)); ; {
					old := slowest.Load()
					if took <= old || slowest.CompareAndSwap(old, took) {
						break
					}
				}
			}
		})
	}
	began := time.Now()
	resp, err := http.Post("http://"+s.admin+"/api/sync", "application/json", nil)
	took := time.Since(began)
	close(stop)
	callers.Wait()
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(resp.Body)
	s.report(fmt.Sprintf("compared with WeChat's list in %v (%s); meanwhile %d calls, %d failed, the slowest took %v",
		took.Round(time.Millisecond), bytes.TrimSpace(said), calls.Load(), failed.Load(), time.Duration(slowest.Load()).Round(time.Millisecond)))
	return nil
}

// wechat has all accounts, and a token for each.
func (s *scale) wechat() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	long := strings.Repeat("0123456789abcdef", 9) // tokens have some 150 characters
	go (&fasthttp.Server{NoDefaultServerHeader: true, MaxRequestBodySize: 1 << 20, Handler: func(c *fasthttp.RequestCtx) {
		var body struct {
			AppID  string `json:"authorizer_appid"`
			Offset int    `json:"offset"`
			Count  int    `json:"count"`
		}
		c.SetContentType("application/json")
		if c.IsPost() {
			_ = json.Unmarshal(c.PostBody(), &body)
		}
		switch string(c.Path()) {
		case "/cgi-bin/component/api_component_token":
			fmt.Fprintf(c, `{"component_access_token":"%s","expires_in":7200}`, long)
		case "/cgi-bin/component/api_query_auth":
			fmt.Fprintf(c, `{"authorization_info":{"authorizer_appid":"%s","authorizer_access_token":"%s","expires_in":7200,"authorizer_refresh_token":"refreshtoken@@@%s","func_info":[]}}`, name(0), long, name(0))
		case "/cgi-bin/component/api_authorizer_token":
			s.renewals.Add(1)
			fmt.Fprintf(c, `{"authorizer_access_token":"%s%s","expires_in":7200,"authorizer_refresh_token":"refreshtoken@@@%s"}`, body.AppID, long[18:], body.AppID)
		case "/cgi-bin/component/api_get_authorizer_info":
			fmt.Fprintf(c, `{"authorizer_info":{"nick_name":"Account %s","service_type_info":{"id":2}},"authorization_info":{"authorizer_appid":"%s","func_info":[]}}`, body.AppID, body.AppID)
		case "/cgi-bin/component/api_get_authorizer_list":
			fmt.Fprintf(c, `{"total_count":%d,"list":[`, s.accounts)
			for i := body.Offset; i < min(body.Offset+body.Count, s.accounts); i++ {
				if i > body.Offset {
					c.WriteString(",")
				}
				fmt.Fprintf(c, `{"authorizer_appid":"%s","refresh_token":"refreshtoken@@@%s","auth_time":1700000000}`, name(i), name(i))
			}
			c.WriteString("]}")
		default:
			c.WriteString(`{"errcode":0,"errmsg":"ok"}`)
		}
	}}).Serve(ln)
	return "http://" + ln.Addr().String(), nil
}

func (s *scale) prepare(store, upstream string) error {
	for _, to := range []*string{&s.proxy, &s.callback, &s.admin} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		*to = ln.Addr().String()
		ln.Close()
	}
	s.config = filepath.Join(s.dir, "config.toml")
	text := fmt.Sprintf(`
[component]
appid = %q
appsecret = "scale"
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
url = %q
key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
`, component, messageToken, messageKey, s.proxy, upstream, s.callback, s.admin, store)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		return err
	}
	s.binary, s.prime = filepath.Join(s.dir, "wxproxy"), filepath.Join(s.dir, "prime")
	for binary, source := range map[string]string{s.binary: "./cmd/wxproxy", s.prime: "./bench/prime"} {
		if out, err := exec.Command("go", "build", "-o", binary, source).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	return nil
}

// start runs wxproxy, and says how long it took until a call was answered.
func (s *scale) start() (time.Duration, error) {
	began := time.Now()
	s.cmd = exec.Command(s.binary, "serve", "--config", s.config)
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		return 0, err
	}
	for time.Since(began) < time.Minute {
		if resp, err := http.Get("http://" + s.admin + "/healthz"); err == nil {
			resp.Body.Close()
			_ = s.call(name(0))
			return time.Since(began), nil
		}
		time.Sleep(time.Millisecond)
	}
	return 0, fmt.Errorf("it does not start")
}

func (s *scale) stop() error {
	s.client.CloseIdleConnections()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	err := s.cmd.Wait()
	s.cmd = nil
	return err
}

func (s *scale) call(account string) error {
	status, body, err := s.client.Get(nil, "http://"+s.proxy+"/"+account+call)
	if err == nil && (status != 200 || !bytes.Contains(body, []byte(`"errcode":0`))) {
		err = fmt.Errorf("%s: %d %s", account, status, body)
	}
	return err
}

// calls makes one call for each of n accounts.
func (s *scale) calls(n int) (time.Duration, error) {
	began := time.Now()
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var callers sync.WaitGroup
	for range 64 {
		callers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := s.call(name(i)); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	callers.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return time.Since(began), nil
}

func (s *scale) get(path string) ([]byte, error) {
	resp, err := http.Get("http://" + s.admin + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != 200 {
		err = fmt.Errorf("%s: %s %s", path, resp.Status, b)
	}
	return b, err
}

// complete reports whether the last account of the list is known.
func (s *scale) complete() bool {
	resp, err := http.Get("http://" + s.admin + "/api/accounts/" + name(s.accounts-1))
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// report tells the memory beside what happened: what is resident now, and the most that ever was. The pages of a mapped file
// are no memory of the process, and are not counted.
func (s *scale) report(what string) {
	var now, most, file int
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid)); err == nil {
		for line := range strings.Lines(string(text)) {
			fmt.Sscanf(line, "RssAnon: %d", &now)
			fmt.Sscanf(line, "RssFile: %d", &file)
			fmt.Sscanf(line, "VmHWM: %d", &most)
		}
	}
	fmt.Printf("%s: %d MiB (and %d MiB of mapped files; at most both together %d MiB)\n", what, now>>10, file>>10, most>>10)
}
