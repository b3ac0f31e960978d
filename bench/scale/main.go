// Command scale measures wxproxy with very many accounts: the time to read them
// from WeChat's list, to start and to respond, and its memory. WeChat is a fake
// that knows every account.
//
//	go run ./bench/scale                                  a file store
//	go run ./bench/scale -store redis://127.0.0.1:6379    an empty Redis
package main

import (
	"bytes"
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

// What the fake WeChat and wxproxy agree on.
const (
	component    = "wxcccccccccccccccc"
	messageToken = "scale"
	messageKey   = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	callPath     = "/cgi-bin/user/info?openid=o1"
)

// name returns the appid of account i.
func name(i int) string { return fmt.Sprintf("wx%016d", i) }

// scale is one run: a fake WeChat, and wxproxy as a process.
type scale struct {
	accounts int // known to WeChat
	inUse    int // accounts for which requests are made

	dir, config            string // files
	binary, prime          string // programs
	proxy, callback, admin string // addresses of the listeners

	cmd      *exec.Cmd // nil while wxproxy does not run
	renewals atomic.Int64
	client   *fasthttp.Client
}

func main() {
	log.SetFlags(0) // results are for people and for documents
	s := &scale{client: &fasthttp.Client{MaxConnsPerHost: 256, ReadTimeout: time.Minute}}
	flag.IntVar(&s.accounts, "accounts", 1_000_000, "accounts known to WeChat")
	flag.IntVar(&s.inUse, "in-use", 100_000, "accounts for which requests are made")
	store := flag.String("store", "", "[store] url; empty uses a temporary file")
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

// run measures everything, in an order in which each step prepares the next.
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

	// The ticket starts the first comparison with WeChat's list, which reads
	// all accounts.
	began := time.Now()
	prime := exec.Command(s.prime, "-callback", "http://"+s.callback, "-component", component,
		"-token", messageToken, "-key", messageKey, "-account", name(0))
	if out, err := prime.CombinedOutput(); err != nil {
		return fmt.Errorf("pushing the ticket: %w: %s", err, out)
	}
	for !s.complete() {
		if time.Since(began) > time.Hour {
			return fmt.Errorf("reading the accounts from WeChat's list: not complete after an hour")
		}
		time.Sleep(time.Second)
	}
	s.report("%d accounts read from WeChat's list after %v", s.accounts,
		time.Since(began).Round(time.Second))

	took, err := s.calls(s.inUse)
	if err != nil {
		return err
	}
	s.report("first requests for %d accounts, %d renewals, in %v", s.inUse, s.renewals.Load(),
		took.Round(time.Second))

	if err := s.stop(); err != nil {
		return err
	}
	if path, ok := strings.CutPrefix(store, "file:"); ok {
		if i, err := os.Stat(path); err == nil {
			fmt.Printf("size of the file: %d MiB\n", i.Size()>>20)
		}
	}
	// After the restart, tokens come from the store: there must be no renewals.
	before := s.renewals.Load()
	first, err := s.start()
	if err != nil {
		return err
	}
	s.report("restarted: first response after %v", first.Round(time.Millisecond))
	if took, err = s.calls(s.inUse); err != nil {
		return err
	}
	s.report("requests for %d accounts, tokens from the store, %d renewals, in %v",
		s.inUse, s.renewals.Load()-before, took.Round(time.Millisecond))
	if took, err = s.calls(s.inUse); err != nil {
		return err
	}
	s.report("requests for %d accounts, tokens from memory, in %v", s.inUse,
		took.Round(time.Millisecond))
	return s.readAPI()
}

// readAPI measures the listing of accounts and the metrics.
func (s *scale) readAPI() error {

	for _, offset := range []int{0, s.accounts / 2, s.accounts - 100} {
		began := time.Now()
		body, err := s.get(fmt.Sprintf("/api/accounts?limit=100&offset=%d", offset))
		if err != nil {
			return err
		}
		fmt.Printf("accounts list, 100 from %d on: %v, %d bytes\n",
			offset, time.Since(began).Round(time.Millisecond), len(body))
	}
	began := time.Now()
	if _, err := s.get("/metrics"); err != nil {
		return err
	}
	fmt.Printf("metrics, with all accounts counted: %v\n", time.Since(began).Round(time.Millisecond))
	return s.reconcile()
}

// reconcile has wxproxy compare all accounts with WeChat's list while requests
// are made, and reports the slowest of those.
func (s *scale) reconcile() error {
	stop := make(chan struct{})
	var slowest atomic.Int64
	var made, failed atomic.Int64
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
				made.Add(1)
				// Keep the maximum; other goroutines do so at the same time.
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
	answer, _ := io.ReadAll(resp.Body)
	s.report("compared with WeChat's list in %v (%s); meanwhile %d requests, %d failed, the slowest took %v",
		took.Round(time.Millisecond), bytes.TrimSpace(answer), made.Load(), failed.Load(),
		time.Duration(slowest.Load()).Round(time.Millisecond))
	return nil
}

// prepare chooses addresses, writes the configuration and builds the programs.
func (s *scale) prepare(store, upstream string) error {
	// wxproxy listens on the addresses a moment later. Another process could
	// take one in between, which then ends the run with an error.
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

// start starts wxproxy and returns the time to its first response.
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
	return 0, fmt.Errorf("starting wxproxy: no response within a minute")
}

// stop ends wxproxy in the way of an operator.
func (s *scale) stop() error {
	s.client.CloseIdleConnections()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	err := s.cmd.Wait()
	s.cmd = nil
	return err
}

// call makes one request for an account.
func (s *scale) call(account string) error {
	status, body, err := s.client.Get(nil, "http://"+s.proxy+"/"+account+callPath)
	if err == nil && (status != 200 || !bytes.Contains(body, []byte(`"errcode":0`))) {
		err = fmt.Errorf("%s: %d %s", account, status, body)
	}
	return err
}

// calls makes one request for each of n accounts, and returns the time it took.
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

// get reads from the admin listener.
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

// complete reports whether wxproxy knows the last account of the list.
func (s *scale) complete() bool {
	resp, err := http.Get("http://" + s.admin + "/api/accounts/" + name(s.accounts-1))
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// report prints a result with the resident memory of wxproxy, now and at most.
// Pages of mapped files are shown apart: the kernel can drop them at any time.
func (s *scale) report(format string, args ...any) {
	var now, peak, file int
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid)); err == nil {
		for line := range strings.Lines(string(text)) {
			fmt.Sscanf(line, "RssAnon: %d", &now)
			fmt.Sscanf(line, "RssFile: %d", &file)
			fmt.Sscanf(line, "VmHWM: %d", &peak)
		}
	}
	fmt.Printf("%s: %d MiB (and %d MiB of mapped files; both together at most %d MiB)\n",
		fmt.Sprintf(format, args...), now>>10, file>>10, peak>>10)
}
