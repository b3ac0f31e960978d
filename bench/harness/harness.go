// Package harness puts up what a measurement needs: a WeChat that answers at once or after a while, wxproxy, and the barest proxy
// that fasthttp allows (bench/bare), each a process on one processor of its own.
package harness

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"wxproxy/sandbox"
)

const (
	account = "wx1234567890abcdef"
	key     = "stage-stage-stage-stage"
	reply   = `{"errcode":0,"errmsg":"ok","msgid":1234567890123456789}`
	message = `{"touser":"OPENID","msgtype":"text","text":{"content":"hello world"}}`
	path    = "/cgi-bin/message/custom/send"
)

// WeChat is what is behind the proxies, as far as it is needed.
type WeChat struct {
	Target               // to be called without a proxy
	Delay  time.Duration // of answers; to be set while nobody calls
	Open   atomic.Int64  // connections now
	Most   atomic.Int64  // at the same time, until now
	ca     []byte
	secure bool
}

// NewWeChat serves on a port of its own, with TLS if secure.
func NewWeChat(secure bool) (*WeChat, error) {
	certificate, ca, err := sandbox.NewCertificate()
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &WeChat{Target: Target{Name: "direct", address: ln.Addr().String(), path: path}, ca: ca, secure: secure}
	if secure {
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{certificate}})
	}
	server := &fasthttp.Server{
		Handler: func(c *fasthttp.RequestCtx) {
			if w.Delay > 0 {
				time.Sleep(w.Delay)
			}
			c.SetContentType("application/json; encoding=utf-8")
			c.SetBodyString(reply)
			if string(c.Path()) == "/cgi-bin/stable_token" {
				c.SetBodyString(`{"access_token":"` + strings.Repeat("78_AbCdEfGh", 12) + `","expires_in":7200}`)
			}
		},
		ConnState: func(_ net.Conn, s fasthttp.ConnState) {
			switch s {
			case fasthttp.StateNew:
				n := w.Open.Add(1)
				for most := w.Most.Load(); n > most && !w.Most.CompareAndSwap(most, n); most = w.Most.Load() {
				}
			case fasthttp.StateClosed:
				w.Open.Add(-1)
			}
		},
	}
	go server.Serve(ln)
	return w, nil
}

// Target is a proxy that runs, or WeChat itself.
type Target struct {
	Name, address, path string
	Pid                 int
	Costs               []time.Duration // processor time for one call, by round
}

// Bare starts the barest proxy.
func (s *Harness) Bare(w *WeChat) (*Target, error) {
	address, err := free()
	if err != nil {
		return nil, err
	}
	args := []string{address, w.address}
	if w.secure {
		args = append(args, "tls")
	}
	return s.start(&Target{Name: "bare", address: address, path: path}, "./bench/bare", args...)
}

// Wxproxy starts wxproxy, with one own account, one caller, and a store: "memory:", or "file:" and a name.
func (s *Harness) Wxproxy(w *WeChat, store string) (*Target, error) {
	var at [3]string
	for i := range at {
		var err error
		if at[i], err = free(); err != nil {
			return nil, err
		}
	}
	upstream := fmt.Sprintf("upstream = \"http://%s\"", w.address)
	if w.secure {
		upstream = fmt.Sprintf("upstream = \"https://%s\"\nupstream_ca_file = \"%s/ca.pem\"", w.address, s.dir)
	}
	config := fmt.Sprintf(`
[proxy]
listen = %q
%s
[callback]
listen = %q
[admin]
listen = %q
[store]
url = %q
[[app]]
appid = %q
appsecret = "stage"
[[caller]]
name = "stage"
key_sha256 = "%x"
`, at[0], upstream, at[1], at[2], strings.Replace(store, "file:", "file:"+s.dir+"/", 1), account, sha256.Sum256([]byte(key)))
	for name, text := range map[string][]byte{"ca.pem": w.ca, "config.toml": []byte(config)} {
		if err := os.WriteFile(filepath.Join(s.dir, name), text, 0o600); err != nil {
			return nil, err
		}
	}
	c := &Target{Name: "wxproxy", address: at[0], path: "/" + account + path}
	return s.start(c, "./cmd/wxproxy", "serve", "--config", filepath.Join(s.dir, "config.toml"))
}

// Harness has the processes that were started.
type Harness struct {
	dir     string
	running []*exec.Cmd
}

// New makes an empty stage; Close ends all that was started on it.
func New() (*Harness, error) {
	dir, err := os.MkdirTemp("", "stage")
	return &Harness{dir: dir}, err
}

// Close ends the processes and removes their files.
func (s *Harness) Close() {
	for _, cmd := range s.running {
		cmd.Process.Kill()
		cmd.Wait()
	}
	os.RemoveAll(s.dir)
}

// start builds and runs a program, on one processor, and waits until it accepts.
func (s *Harness) start(c *Target, source string, args ...string) (*Target, error) {
	binary := filepath.Join(s.dir, c.Name)
	if out, err := exec.Command("go", "build", "-o", binary, source).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.running = append(s.running, cmd)
	c.Pid = cmd.Process.Pid
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", c.address)
		if err == nil {
			conn.Close()
			return c, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("%s does not serve: %w", c.Name, err)
		}
	}
}

// Restart ends a process as an operator does, starts it again, and gives the time from there to its first answer to a call.
func (s *Harness) Restart(c *Target) (time.Duration, error) {
	i := slices.IndexFunc(s.running, func(cmd *exec.Cmd) bool { return cmd.Process.Pid == c.Pid })
	old := s.running[i]
	old.Process.Signal(os.Interrupt)
	old.Wait()
	cmd := exec.Command(old.Path, old.Args[1:]...)
	cmd.Env = old.Env
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	s.running[i], c.Pid = cmd, cmd.Process.Pid
	w := worker{c: c}
	for w.open() != nil {
		if time.Since(began) > 20*time.Second {
			return 0, fmt.Errorf("%s does not serve", c.Name)
		}
		time.Sleep(200 * time.Microsecond)
	}
	defer w.conn.Close()
	if status, err := w.call(); err != nil || status != 200 {
		return 0, fmt.Errorf("%d %w", status, err)
	}
	return time.Since(began), nil
}

func free() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// Cost gives the processor time that the process spends on one call, with so many connections that call without a pause.
func (c *Target) Cost(length time.Duration, conns int) (time.Duration, error) {
	before, err := ProcessorTime(c.Pid)
	if err != nil {
		return 0, err
	}
	peak, err := c.Peak(length, conns)
	if err != nil {
		return 0, err
	}
	after, err := ProcessorTime(c.Pid)
	return time.Duration(float64(after-before) / max(float64(peak)*length.Seconds(), 1)), err
}

// Peak gives how many calls a second can be made, with so many connections that call without a pause.
func (c *Target) Peak(length time.Duration, conns int) (int, error) {
	var calls atomic.Int64
	var failed atomic.Pointer[error]
	var clients sync.WaitGroup
	end := time.Now().Add(length)
	for range conns {
		clients.Go(func() {
			if err := c.client(end, &calls); err != nil {
				failed.Store(&err)
			}
		})
	}
	clients.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return int(float64(calls.Load()) / length.Seconds()), nil
}

// client makes one call after another over one connection.
func (c *Target) client(end time.Time, calls *atomic.Int64) error {
	w := worker{c: c}
	if err := w.open(); err != nil {
		return err
	}
	defer w.conn.Close()
	for time.Now().Before(end) {
		if status, err := w.call(); err != nil || status != 200 {
			return fmt.Errorf("%d %w", status, err)
		}
		calls.Add(1)
	}
	return nil
}

// ProcessorTime is what a process has used, in user and in kernel mode (proc(5)), by ticks of 10 ms.
func ProcessorTime(pid int) (time.Duration, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
