// Package harness starts what a measurement needs and puts load on it: a WeChat
// that answers at once or after a delay, wxproxy, and the simplest proxy that
// fasthttp allows (bench/bare). Each proxy is a process limited to one CPU.
package harness

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	account   = "wx1234567890abcdef"
	callerKey = "bench-bench-bench-bench"
	reply     = `{"errcode":0,"errmsg":"ok","msgid":1234567890123456789}`
	message   = `{"touser":"OPENID","msgtype":"text","text":{"content":"hello world"}}`
	path      = "/cgi-bin/message/custom/send"
)

// startTimeout is how long a program may take until it accepts connections.
const startTimeout = 20 * time.Second

// Target is what is measured: a running proxy, or WeChat without any.
type Target struct {
	Name, address, path string

	// Pid is 0 for WeChat, which runs inside the measuring process.
	Pid int

	// Costs is the CPU time per request, one value for each round.
	Costs []time.Duration
}

// Harness holds the processes of one measurement. It is not safe for concurrent
// use.
type Harness struct {
	dir     string
	running []*exec.Cmd
}

// New returns a harness without processes. Close ends those that it starts.
func New() (*Harness, error) {
	dir, err := os.MkdirTemp("", "harness")
	return &Harness{dir: dir}, err
}

// Close kills the processes and removes their files.
func (h *Harness) Close() {
	for _, cmd := range h.running {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	os.RemoveAll(h.dir)
}

// Bare starts bench/bare in front of w.
func (h *Harness) Bare(w *WeChat) (*Target, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	args := []string{address, w.address}
	if w.secure {
		args = append(args, "tls")
	}
	return h.start(&Target{Name: "bare", address: address, path: path}, "./bench/bare", args...)
}

// Wxproxy starts wxproxy in front of w, with one account of its own and one
// caller. store is "memory:", or "file:" and the name of a file.
func (h *Harness) Wxproxy(w *WeChat, store string) (*Target, error) {
	var listen [3]string
	for i := range listen {
		var err error
		if listen[i], err = freeAddress(); err != nil {
			return nil, err
		}
	}
	upstream := fmt.Sprintf("upstream = \"http://%s\"", w.address)
	if w.secure {
		upstream = fmt.Sprintf("upstream = \"https://%s\"\nupstream_ca_file = \"%s/ca.pem\"",
			w.address, h.dir)
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
appsecret = "bench"
[[caller]]
name = "bench"
key_sha256 = "%x"
`,
		listen[0], upstream, listen[1], listen[2],
		strings.Replace(store, "file:", "file:"+h.dir+"/", 1),
		account, sha256.Sum256([]byte(callerKey)))
	for name, text := range map[string][]byte{"ca.pem": w.ca, "config.toml": []byte(config)} {
		if err := os.WriteFile(filepath.Join(h.dir, name), text, 0o600); err != nil {
			return nil, err
		}
	}
	t := &Target{Name: "wxproxy", address: listen[0], path: "/" + account + path}
	return h.start(t, "./cmd/wxproxy", "serve", "--config", filepath.Join(h.dir, "config.toml"))
}

// start builds and runs a program on one CPU, and waits until it accepts
// connections.
func (h *Harness) start(t *Target, source string, args ...string) (*Target, error) {
	binary := filepath.Join(h.dir, t.Name)
	if out, err := exec.Command("go", "build", "-o", binary, source).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building %s: %w: %s", source, err, out)
	}
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	h.running = append(h.running, cmd)
	t.Pid = cmd.Process.Pid
	for end := time.Now().Add(startTimeout); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", t.address)
		if err == nil {
			conn.Close()
			return t, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("starting %s: %w", t.Name, err)
		}
	}
}

// Restart stops a process in the way of an operator, starts it again, and
// returns the time from that start to the first response to a request.
func (h *Harness) Restart(t *Target) (time.Duration, error) {
	i := slices.IndexFunc(h.running, func(cmd *exec.Cmd) bool { return cmd.Process.Pid == t.Pid })
	old := h.running[i]
	_ = old.Process.Signal(os.Interrupt)
	_ = old.Wait()
	cmd := exec.Command(old.Path, old.Args[1:]...)
	cmd.Env = old.Env
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	h.running[i], t.Pid = cmd, cmd.Process.Pid
	c := client{target: t}
	for c.open() != nil {
		if time.Since(began) > startTimeout {
			return 0, fmt.Errorf("starting %s: it does not accept connections", t.Name)
		}
		time.Sleep(200 * time.Microsecond)
	}
	defer c.conn.Close()
	if err := c.succeed(); err != nil {
		return 0, err
	}
	return time.Since(began), nil
}

// freeAddress returns a loopback address that was free a moment ago.
func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// errStatus reports a response other than the expected one.
var errStatus = errors.New("unexpected response")
