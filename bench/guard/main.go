// Command guard measures what a call through wxproxy costs, with a caller's key, metrics and all, beside the same call
// through the barest proxy that fasthttp allows (bench/bare), in turn, and fails where the ratio is over a limit. Times
// differ from machine to machine, and from minute to minute; the ratio hardly does.
//
//	go run ./bench/guard -limit 1.35
package main

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log"
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
	key     = "guard-guard-guard-guard"
	reply   = `{"errcode":0,"errmsg":"ok","msgid":1234567890123456789}`
	message = `{"touser":"OPENID","msgtype":"text","text":{"content":"hello world"}}`
)

// contender is a proxy that runs.
type contender struct {
	name, address, path string
	pid                 int
	costs               []time.Duration // processor time for one call, by round
}

func main() {
	rounds := flag.Int("rounds", 5, "how often each is measured")
	length := flag.Duration("length", 2*time.Second, "how long one measurement takes")
	conns := flag.Int("connections", 32, "connections at once")
	limit := flag.Float64("limit", 0, "ratio above which the exit code is 1; 0: none")
	flag.Parse()
	log.SetFlags(0)
	ratio, err := run(*rounds, *length, *conns)
	if err != nil {
		log.Fatal(err)
	}
	if *limit > 0 && ratio > *limit {
		log.Fatalf("more than %.2f times the bare proxy", *limit)
	}
}

func run(rounds int, length time.Duration, conns int) (float64, error) {
	dir, err := os.MkdirTemp("", "guard")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	started := &processes{dir: dir}
	defer started.stop()
	upstream, ca, err := serve()
	if err != nil {
		return 0, err
	}
	bare, err := startBare(started, upstream)
	if err != nil {
		return 0, err
	}
	ours, err := startOurs(started, upstream, ca)
	if err != nil {
		return 0, err
	}
	for round := range rounds + 1 {
		for _, c := range []*contender{bare, ours} {
			cost, err := c.measure(length, conns)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", c.name, err)
			}
			if round > 0 { // the first is for warming up
				c.costs = append(c.costs, cost)
				fmt.Printf("%-8s %v\n", c.name, cost.Round(100*time.Nanosecond))
			}
		}
	}
	slices.Sort(bare.costs)
	slices.Sort(ours.costs)
	ratio := float64(ours.costs[rounds/2]) / float64(bare.costs[rounds/2])
	fmt.Printf("processor time for one call, median of %d: %v, bare %v: ratio %.2f\n", rounds, ours.costs[rounds/2].Round(100*time.Nanosecond), bare.costs[rounds/2].Round(100*time.Nanosecond), ratio)
	return ratio, nil
}

// serve is WeChat, as far as it is needed, with TLS.
func serve() (address string, ca []byte, err error) {
	certificate, ca, err := sandbox.NewCertificate()
	if err != nil {
		return "", nil, err
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		return "", nil, err
	}
	server := &fasthttp.Server{Handler: func(c *fasthttp.RequestCtx) {
		c.SetContentType("application/json; encoding=utf-8")
		c.SetBodyString(reply)
		if string(c.Path()) == "/cgi-bin/stable_token" {
			c.SetBodyString(`{"access_token":"` + strings.Repeat("78_AbCdEfGh", 12) + `","expires_in":7200}`)
		}
	}}
	go server.Serve(ln)
	return ln.Addr().String(), ca, nil
}

func startBare(p *processes, upstream string) (*contender, error) {
	address, err := free()
	if err != nil {
		return nil, err
	}
	return p.start(&contender{name: "bare", address: address, path: "/cgi-bin/message/custom/send"}, "./bench/bare", address, upstream, "tls")
}

func startOurs(p *processes, upstream string, ca []byte) (*contender, error) {
	var at [3]string
	for i := range at {
		var err error
		if at[i], err = free(); err != nil {
			return nil, err
		}
	}
	config := fmt.Sprintf(`
[proxy]
listen = %q
upstream = "https://%s"
upstream_ca_file = "%s/ca.pem"
[callback]
listen = %q
[admin]
listen = %q
[store]
url = "memory:"
[[app]]
appid = %q
appsecret = "guard"
[[caller]]
name = "guard"
key_sha256 = "%x"
`, at[0], upstream, p.dir, at[1], at[2], account, sha256.Sum256([]byte(key)))
	for name, text := range map[string][]byte{"ca.pem": ca, "config.toml": []byte(config)} {
		if err := os.WriteFile(filepath.Join(p.dir, name), text, 0o600); err != nil {
			return nil, err
		}
	}
	c := &contender{name: "wxproxy", address: at[0], path: "/" + account + "/cgi-bin/message/custom/send"}
	return p.start(c, "./cmd/wxproxy", "serve", "--config", filepath.Join(p.dir, "config.toml"))
}

// processes are those that were started.
type processes struct {
	dir     string
	running []*exec.Cmd
}

func (p *processes) stop() {
	for _, cmd := range p.running {
		cmd.Process.Kill()
		cmd.Wait()
	}
}

// start builds and runs a program, on one processor, and waits until it accepts.
func (p *processes) start(c *contender, source string, args ...string) (*contender, error) {
	binary := filepath.Join(p.dir, c.name)
	if out, err := exec.Command("go", "build", "-o", binary, source).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.running = append(p.running, cmd)
	c.pid = cmd.Process.Pid
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", c.address)
		if err == nil {
			conn.Close()
			return c, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("%s does not serve: %w", c.name, err)
		}
	}
}

func free() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// measure gives the processor time that the process spent on one call.
func (c *contender) measure(length time.Duration, conns int) (time.Duration, error) {
	before, err := processorTime(c.pid)
	if err != nil {
		return 0, err
	}
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
	after, err := processorTime(c.pid)
	return (after - before) / time.Duration(max(calls.Load(), 1)), err
}

// client makes one call after another over one connection.
func (c *contender) client(end time.Time, calls *atomic.Int64) error {
	conn, err := net.Dial("tcp", c.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	request := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: api.weixin.qq.com\r\nX-Wxproxy-Key: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", c.path, key, len(message), message)
	r := bufio.NewReader(conn)
	var resp fasthttp.Response
	for time.Now().Before(end) {
		if _, err := conn.Write(request); err != nil {
			return err
		}
		if err := resp.Read(r); err != nil {
			return err
		}
		if resp.StatusCode() != 200 || string(resp.Body()) != reply {
			return fmt.Errorf("%d %s", resp.StatusCode(), resp.Body())
		}
		calls.Add(1)
	}
	return nil
}

// processorTime is what a process has used, in user and in kernel mode (proc(5)), by ticks of 10 ms.
func processorTime(pid int) (time.Duration, error) {
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
