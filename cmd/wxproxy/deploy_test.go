package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

const deployFolder = "../../deploy"

// deployed returns a file of deploy/ with pairs of texts replaced, which must
// occur: paths and addresses that a container would have.
func deployed(t *testing.T, name string, replace ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(deployFolder, name))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			t.Fatalf("%s: got no %q, want one to replace", name, replace[i])
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	return text
}

// write writes a file and returns its path.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// composed runs the programs of deploy/compose with their configuration,
// without containers.
type composed struct {
	*fleet
	secrets           string // the folder
	key               string // of a caller
	callers, callback string // addresses of the balancer
	log               *proctest.Output
	client            *http.Client // trusts the certificate of the balancer
	startRedis        func() *exec.Cmd
}

// run starts a program that ends with the test.
func run(t *testing.T, out io.Writer, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// newComposed starts HAProxy. The test has to start Redis and the replicas.
func newComposed(t *testing.T) *composed {
	t.Helper()
	if testing.Short() {
		t.Skip("starts HAProxy, Redis and three wxproxies")
	}
	dir, err := os.MkdirTemp("", "deploy")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	wx, err := sandbox.New(sandbox.Config{PushTimeout: proctest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(wx)
	t.Cleanup(srv.Close)
	c := &composed{fleet: &fleet{t: t, wx: wx, wxURL: srv.URL, dir: dir},
		secrets: filepath.Join(dir, "secrets") + "/", key: "wxk_theKeyOfOneCaller",
		callers: proctest.FreeAddr(t), callback: proctest.FreeAddr(t), log: &proctest.Output{}}
	c.fleet.client = &http.Client{Timeout: time.Minute}
	c.client = &http.Client{Timeout: time.Minute,
		Transport:     &http.Transport{TLSClientConfig: c.makeSecrets(), MaxIdleConnsPerHost: 100},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(c.client.CloseIdleConnections)

	redis := proctest.FreeAddr(t)
	_, port, _ := strings.Cut(redis, ":")
	conf := write(t, dir, "redis.conf", deployed(t, "compose/redis.conf", "/run/secrets/", c.secrets,
		"dir /data", "dir "+dir))
	c.startRedis = func() *exec.Cmd {
		return run(t, io.Discard, toolPath(t, "redis-server"), conf, "--bind", "127.0.0.1", "--port", port)
	}

	sum := sha256.Sum256([]byte(c.key))
	balance := []string{"bind :8080", "bind " + c.callers, "bind :8443", "bind " + c.callback,
		"/run/secrets/", c.secrets}
	for i := range 3 {
		r := &replica{f: c.fleet, proxy: proctest.FreeAddr(t), callback: proctest.FreeAddr(t),
			admin: proctest.FreeAddr(t), out: &proctest.Output{}}
		r.config = write(t, dir, fmt.Sprintf("config%d.toml", i), deployed(t, "compose/config.toml",
			"wx0000000000000000", sandbox.DefaultComponentAppID, "/run/secrets/", c.secrets, "redis:6379",
			redis, strings.Repeat("0", 64), hex.EncodeToString(sum[:]),
			"0.0.0.0:8080", r.proxy, "0.0.0.0:8081", r.callback, "0.0.0.0:8082", r.admin, "[proxy]",
			fmt.Sprintf("[proxy]\nupstream = %q", srv.URL)))
		c.replicas = append(c.replicas, r)
		name := fmt.Sprintf("wxproxy-%d:", i+1)
		_, admin, _ := strings.Cut(r.admin, ":")
		balance = append(balance, name+"8080 check port 8082", r.proxy+" check port "+admin, name+"8081", r.callback)
	}
	t.Cleanup(func() {
		for _, r := range c.replicas {
			r.kill()
			if t.Failed() {
				t.Logf("output of %s:\n%s", r.proxy, tail(r.out.String(), 3000))
			}
		}
		if t.Failed() {
			t.Logf("output of the balancer:\n%s", tail(c.log.String(), 3000))
		}
	})
	haproxy := write(t, dir, "haproxy.cfg", deployed(t, "compose/haproxy.cfg", balance...))
	run(t, c.log, toolPath(t, "haproxy"), "-db", "-f", haproxy)
	return c
}

// makeSecrets runs secrets.sh and creates the files that it asks for. It
// returns a TLS configuration that trusts the certificate.
func (c *composed) makeSecrets() *tls.Config {
	t := c.t
	t.Helper()
	script := write(t, c.dir, "secrets.sh", deployed(t, "compose/secrets.sh"))
	out, err := exec.Command("sh", script).CombinedOutput()
	if err == nil || strings.Count(string(out), "MISSING") != 4 || strings.Count(string(out), "created") != 5 {
		t.Fatalf("first run of secrets.sh: got %v\n%s\nwant 5 created and 4 missing files", err, out)
	}
	certificate := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
		"ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=wx.example.com",
		"-addext", "subjectAltName=IP:127.0.0.1", "-keyout", c.secrets+"key.pem", "-out", c.secrets+"tls.pem")
	if out, err := certificate.CombinedOutput(); err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	chain, err := os.ReadFile(c.secrets + "tls.pem")
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(c.secrets + "key.pem")
	if err != nil {
		t.Fatal(err)
	}
	write(t, c.secrets, "tls.pem", string(chain)+string(key))
	write(t, c.secrets, "appsecret", sandbox.DefaultComponentSecret)
	write(t, c.secrets, "message_token", sandbox.DefaultMessageToken)
	write(t, c.secrets, "message_key", sandbox.DefaultEncodingAESKey+"\n")
	before, err := os.ReadFile(c.secrets + "store_key")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", script).CombinedOutput(); err != nil || strings.Contains(string(out), "created") {
		t.Fatalf("second run of secrets.sh: got %v\n%s\nwant success without created files", err, out)
	}
	if after, _ := os.ReadFile(c.secrets + "store_key"); !bytes.Equal(before, after) {
		t.Fatal("secrets.sh: the second run has changed store_key")
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(chain)
	return &tls.Config{RootCAs: roots}
}

// call sends a request through the balancer, once.
func (c *composed) call(account string) (a answer) {
	body := `{"touser":"oSandboxUser0000000000000001","msgtype":"text","text":{"content":"hello"}}`
	req, err := http.NewRequest("POST", "http://"+c.callers+"/"+account+
		"/cgi-bin/message/custom/send?access_token="+c.key, io.NopCloser(strings.NewReader(body)))
	if err != nil {
		return answer{err: err}
	}
	req.ContentLength = int64(len(body))
	req.Header.Set("Authorization", "Bearer "+c.key)
	began := time.Now()
	resp, err := c.client.Do(req)
	if err != nil {
		return answer{err: err, took: time.Since(began)}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, token: resp.Header.Get("X-Wxproxy-Token"), text: string(b),
		err: err, took: time.Since(began)}
}

// status returns the status of a GET request, or 0.
func (c *composed) status(address string) int {
	resp, err := c.client.Get(address)
	if err != nil {
		return 0
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp.StatusCode
}

// The programs of deploy/compose work together, and no request fails while one
// of them is restarted.
func TestDeployCompose(t *testing.T) {
	c := newComposed(t)
	redis := c.startRedis()
	if out, err := proctest.Command(t, "check", "--config", c.replicas[0].config).CombinedOutput(); err != nil {
		proctest.Eventually(t, func() bool { // until Redis has started
			out, err = proctest.Command(t, "check", "--config", c.replicas[0].config).CombinedOutput()
			return err == nil
		})
	} else if strings.Contains(string(out), "warn") {
		t.Errorf("check: got the warning %s, want none", out)
	}
	for _, r := range c.replicas {
		r.start()
	}
	// WeChat uses TLS.
	internet := &url.URL{Scheme: "https", Host: c.callback}
	public := httptest.NewServer(&httputil.ReverseProxy{ErrorLog: log.New(io.Discard, "", 0),
		Transport: c.client.Transport, Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(internet) }})
	t.Cleanup(public.Close)
	if err := c.wx.SetPushURL(public.URL); err != nil {
		t.Fatal(err)
	}
	proctest.Eventually(t, func() bool { return c.wx.PushTicket(t.Context()) == nil })
	if _, err := c.wx.Authorize(t.Context(), accountA); err != nil {
		t.Fatal(err)
	}
	proctest.Eventually(t, func() bool { return c.call(accountA).ok() })
	for path, want := range map[string]int{"/component/events": 405, "/wx0123456789abcdef/events": 405,
		"/authorize": 503, "/healthz": 404, "/metrics": 404, "/api/accounts": 404, "/": 404,
		"/wx0123456789abcdef/events/x": 404} {
		if got := c.status(internet.String() + path); got != want {
			t.Errorf("GET %s from the internet: got %d, want %d", path, got, want)
		}
	}
	if got := c.status("http://" + c.callers + "/" + accountA + "/cgi-bin/user/info"); got != 401 {
		t.Errorf("request without a key: got %d, want 401", got)
	}
	c.scraped()

	// While one after the other is restarted, no client has to retry.
	calls, stop := c.load()
	moreCalls := func() { // the balancer and the replicas serve for a while
		before := calls.Load()
		proctest.Eventually(t, func() bool { return calls.Load() >= before+100 })
	}
	for _, r := range c.replicas {
		moreCalls()
		r.stop()
		moreCalls()
		r.start()
		// The balancer has to notice that the replica is back before the next
		// one stops.
		proctest.Eventually(t, func() bool { return c.hasServed(r) })
	}
	// A replica that dies takes its requests with it.
	n := calls.Load()
	stop()
	t.Logf("%d requests while each replica was restarted, none failed", n)
	c.replicas[0].kill()
	dead := time.Now()
	failed, lastFailure := 0, time.Duration(0)
	for range 200 {
		a := c.call(accountA)
		if a.ok() {
			continue
		}
		// The balancer also fails a request on a connection whose end it has
		// not noticed yet: WeChat may have received that request.
		lastFailure = time.Since(dead)
		if failed++; failed > 8 {
			t.Fatalf("requests beside a dead replica: got %d failures, want at most 8, the last was %v", failed, a)
		}
	}
	proctest.Promise(t, "the last failure after a replica died", lastFailure, time.Second)
	t.Logf("200 requests beside a dead replica, %d failed", failed)
	c.replicas[0].start()

	// Without Redis no replica is ready, and all of them use their cached
	// tokens.
	time.Sleep(2 * time.Second) // a new replica compares its cache with Redis, and drops what may be outdated
	for _, r := range c.replicas {
		proctest.Eventually(t, func() bool { return r.callWith(c.key, accountA) })
	}
	redis.Process.Kill()
	redis.Wait()
	for _, r := range c.replicas {
		proctest.Eventually(t, func() bool { status, _ := r.get("/readyz"); return status == 503 })
	}
	proctest.Repeat(4*time.Second, func() {
		if a := c.call(accountA); !a.ok() {
			t.Fatalf("request without Redis: got %v", a)
		}
	})
	// The alert about the store uses this series.
	for _, r := range c.replicas {
		proctest.Eventually(t, func() bool {
			return strings.Contains(c.metrics(r),
				`wxproxy_accounts{state="active"} NaN`)
		})
	}
	c.startRedis() // with its data
	for _, r := range c.replicas {
		proctest.Eventually(t, func() bool { status, _ := r.get("/readyz"); return status == 200 })
	}
	if a := c.call(accountA); !a.ok() {
		t.Errorf("request after Redis has returned: got %v, want success", a)
	}
	proctest.Eventually(t, func() bool {
		return strings.Contains(c.metrics(c.replicas[0]),
			`wxproxy_accounts{state="active"} 1`)
	})
	if log := c.log.String(); !strings.Contains(log, "/cgi-bin/message/custom/send") ||
		strings.Contains(log, "access_token") || strings.Contains(log, c.key) {
		t.Errorf("log of the balancer: got no path, a token or the key in\n%s", tail(log, 2000))
	}
}

// hasServed reports whether the replica has answered a request since its start.
func (c *composed) hasServed(r *replica) bool {
	return regexp.MustCompile(`(?m)^wxproxy_requests_total\{.*code="200".*\} [1-9]`).MatchString(c.metrics(r))
}

// metrics returns the metrics of a replica.
func (c *composed) metrics(r *replica) string {
	key, err := os.ReadFile(c.secrets + "admin_key")
	if err != nil {
		c.t.Fatal(err)
	}
	req, err := http.NewRequest("GET", "http://"+r.admin+"/metrics", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(key)))
	resp, err := c.client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

// callWith reports whether a request to this replica succeeds with a cached
// token.
func (r *replica) callWith(key, account string) bool {
	req, err := http.NewRequest("GET", "http://"+r.proxy+"/"+account+
		"/cgi-bin/user/info?openid=oSandboxUser0000000000000001", nil)
	if err != nil {
		return false
	}
	req.Header.Set("X-Wxproxy-Key", key)
	resp, err := r.f.client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode == 200 && strings.Contains(string(b), "openid") &&
		resp.Header.Get("X-Wxproxy-Token") == "hit"
}

// load sends requests until stop is called. Each failure is an error.
func (c *composed) load() (calls *atomic.Int64, stop func()) {
	calls = &atomic.Int64{}
	end := make(chan struct{})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for {
				select {
				case <-end:
					return
				case <-time.After(10 * time.Millisecond):
				}
				calls.Add(1)
				if a := c.call(accountA); !a.ok() {
					c.t.Errorf("request during a restart: got %v, want success", a)
				}
			}
		})
	}
	return calls, func() { close(end); all.Wait() }
}

// scraped checks that a Prometheus with the configuration and the rules of
// deploy/ finds all three replicas.
func (c *composed) scraped() {
	t := c.t
	t.Helper()
	write(t, c.dir, "rules.yml", deployed(t, "prometheus/rules.yml"))
	replace := []string{"/run/secrets/", c.secrets, "scrape_interval: 15s", "scrape_interval: 1s",
		"evaluation_interval: 15s", "evaluation_interval: 1s"}
	for i, r := range c.replicas {
		replace = append(replace, fmt.Sprintf("wxproxy-%d:8082", i+1), r.admin)
	}
	config := write(t, c.dir, "prometheus.yml", deployed(t, "compose/prometheus.yml", replace...))
	address := proctest.FreeAddr(t)
	out := &proctest.Output{}
	prometheus := run(t, out, toolPath(t, "prometheus"), "--config.file="+config, "--storage.tsdb.path="+
		filepath.Join(c.dir, "tsdb"), "--web.listen-address="+address)
	ask := func(path string, into any) bool {
		resp, err := c.client.Get("http://" + address + path)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return json.NewDecoder(resp.Body).Decode(into) == nil
	}
	var got struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	proctest.Eventually(t, func() bool {
		return ask("/api/v1/query?query="+url.QueryEscape(`sum(up{job="wxproxy"}) * `+
			`(sum(wxproxy_build_info) > bool 0)`), &got) && len(got.Data.Result) == 1 &&
			got.Data.Result[0].Value[1] == "3"
	})
	var rules struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health string }
			}
		}
	}
	proctest.Eventually(t, func() bool {
		return ask("/api/v1/rules", &rules) && len(rules.Data.Groups) == 1 &&
			rules.Data.Groups[0].Rules[0].Health == "ok"
	})
	for _, r := range rules.Data.Groups[0].Rules {
		if r.Health != "ok" {
			t.Errorf("rule %s: got health %s, want ok", r.Name, r.Health)
		}
	}
	prometheus.Process.Signal(syscall.SIGTERM)
}

// Each alert fires when it should, and only then.
func TestDeployRules(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", "rules.yml"}, {"test", "rules", "rules_test.yml"}} {
		cmd := exec.Command(toolPath(t, "promtool"), args...)
		cmd.Dir = filepath.Join(deployFolder, "prometheus")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	// Every series in a rule exists.
	rules := deployed(t, "prometheus/rules.yml")
	metrics, err := filepath.Glob("../../metrics/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, name := range metrics {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(b)
	}
	for _, name := range regexp.MustCompile(`wxproxy_[a-z_]+`).FindAllString(rules, -1) {
		if !strings.Contains(source.String(), `"`+name+`"`) {
			t.Errorf("rules.yml: got the series %s, which no metric has", name)
		}
	}
}

// The configuration of the ConfigMap is valid with the secrets where the
// Deployment mounts them.
func TestDeployKubernetesConfig(t *testing.T) {
	_, text, found := strings.Cut(deployed(t, "kubernetes/config.yaml"), "config.toml: |\n")
	if !found {
		t.Fatal("config.yaml: got no config.toml")
	}
	checked(t, regexp.MustCompile(`(?m)^    `).ReplaceAllString(text, ""), "file:"+filepath.Join(t.TempDir(), "db"))
}

// checked runs `wxproxy check` with a configuration, test secrets, and this
// store instead of a Redis.
func checked(t *testing.T, text, store string) {
	t.Helper()
	dir := t.TempDir()
	for name, secret := range map[string]string{
		"appsecret": sandbox.DefaultComponentSecret, "message_token": sandbox.DefaultMessageToken,
		"message_key": sandbox.DefaultEncodingAESKey,
		"admin_key":   "anAdminsKeyOf24Characters",
		"store_key":   "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=", "store_url": store,
	} {
		write(t, dir, name, secret)
	}
	mounted := regexp.MustCompile(`/run/(secrets|credentials/wxproxy\.service)/`)
	path := write(t, dir, "config.toml", mounted.ReplaceAllString(text, dir+"/"))
	if out, err := proctest.Command(t, "check", "--config", path).CombinedOutput(); err != nil {
		t.Errorf("wxproxy check: got %v\n%s", err, out)
	}
}

// systemd accepts the unit, and the unit gives wxproxy few permissions.
func TestDeploySystemd(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatal("no systemd-analyze: run make test (or .ci/tools.sh) first")
	}
	path, err := proctest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	unit := write(t, t.TempDir(), "wxproxy.service",
		deployed(t, "systemd/wxproxy.service", "/usr/local/bin/wxproxy", path))
	if out, err := exec.Command(analyze, "verify", "--man=no", unit).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: got %v\n%s\nwant no output", err, out)
	}
	// 0 is no exposure and 100 is full exposure. A unit without settings has
	// 96.
	if out, err := exec.Command(analyze, "security", "--offline=yes", "--no-pager", "--threshold=15",
		unit).CombinedOutput(); err != nil {
		t.Errorf("systemd-analyze security: got %v\n%s", err, out)
	}
	checked(t, deployed(t, "systemd/config.toml"), "")
}
