package redis_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/redis"
)

// server is a real Redis of a test's own.
type server struct {
	t    testing.TB
	args []string
	port string // of the loopback address

	mu    sync.Mutex
	cmd   *exec.Cmd
	ended chan struct{}
	out   bytes.Buffer
}

// tool is where .ci/tools.sh has put name, or where the machine has it.
func tool(t testing.TB, name string) string {
	t.Helper()
	folder := os.Getenv("WXPROXY_TOOLS")
	if folder == "" {
		folder = filepath.Join("..", "..", "..", ".tools")
	}
	path, err := filepath.Abs(filepath.Join(folder, "usr", "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if path, err = exec.LookPath(name); err != nil {
		t.Fatalf("no %s: run make test (or .ci/tools.sh) first", name)
	}
	return path
}

// start starts a Redis on a loopback port; args may say otherwise.
func start(t testing.TB, args ...string) *server {
	t.Helper()
	s := &server{t: t}
	for try := range 5 {
		s.port = freePort(t)
		s.args = append([]string{"--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no", "--databases", "100", "--dir", t.TempDir()}, args...)
		if s.run() {
			return s
		}
		if try == 4 {
			t.Fatalf("redis-server has ended:\n%s", s.out.String())
		}
	}
	return s
}

func freePort(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

// run starts the process and waits until it answers; false: it has ended, as when the port was taken meanwhile.
func (s *server) run() bool {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	args := s.args
	if !strings.Contains(strings.Join(args, " "), "--port") {
		args = append([]string{"--port", s.port}, args...)
	}
	cmd := exec.Command(tool(s.t, "redis-server"), args...)
	// Sentinels want their file to be the first argument.
	if strings.HasSuffix(s.args[len(s.args)-1], ".conf") {
		cmd = exec.Command(tool(s.t, "redis-server"), s.args[len(s.args)-1], "--sentinel")
	}
	s.out.Reset()
	cmd.Stdout, cmd.Stderr = &s.out, &s.out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	s.cmd, s.ended = cmd, ended
	go func() { cmd.Wait(); close(ended) }()
	s.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGCONT)
		cmd.Process.Kill()
		<-ended
	})
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		select {
		case <-ended:
			return false
		default:
		}
		if conn, err := net.DialTimeout("tcp", s.addr(), time.Second); err == nil {
			conn.Close()
			return true
		}
	}
	s.t.Fatal("redis-server does not answer")
	return false
}

func (s *server) addr() string { return "127.0.0.1:" + s.port }
func (s *server) url() string  { return "redis://" + s.addr() }

func (s *server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// stop kills it, and run starts it again.
func (s *server) stop() {
	s.signal(syscall.SIGKILL)
	<-s.ended
}

// do sends commands as they would be typed, and gives the last answer in the form of the protocol.
func (s *server) do(commands ...string) string {
	s.t.Helper()
	answer, err := s.try(commands...)
	if err != nil || strings.HasPrefix(answer, "-") {
		s.t.Fatalf("%s: %s %v", commands, answer, err)
	}
	return answer
}

func (s *server) try(commands ...string) (answer string, err error) {
	conn, err := net.DialTimeout("tcp", s.addr(), 20*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	in := bufio.NewReader(conn)
	for _, c := range commands {
		words := strings.Fields(c)
		fmt.Fprintf(conn, "*%d\r\n", len(words))
		for _, w := range words {
			fmt.Fprintf(conn, "$%d\r\n%s\r\n", len(w), w)
		}
		if answer, err = reply(in); err != nil {
			return "", err
		}
	}
	return answer, nil
}

// reply reads one answer: a line, or the text of a bulk string; arrays are joined with blanks.
func reply(in *bufio.Reader) (string, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSuffix(line, "\r\n")
	n, _ := strconv.Atoi(line[1:])
	switch {
	case line[0] == '$' && n >= 0:
		text := make([]byte, n+2)
		_, err := io.ReadFull(in, text)
		return string(text[:n]), err
	case line[0] == '*':
		var all []string
		for range n {
			one, err := reply(in)
			if err != nil {
				return "", err
			}
			all = append(all, one)
		}
		return strings.Join(all, " "), nil
	}
	return line, nil
}

// quick has short leases, so that tests need not wait for long ones.
var quick = redis.Options{Lease: time.Second}

func open(t testing.TB, url string, o redis.Options) *redis.Store {
	t.Helper()
	s, err := redis.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func replaceWith(record string) func(context.Context, []byte) ([]byte, error) {
	return func(context.Context, []byte) ([]byte, error) { return []byte(record), nil }
}

func put(t testing.TB, s store.Store, key, record string) {
	t.Helper()
	if err := s.Update(t.Context(), key, replaceWith(record)); err != nil {
		t.Fatal(err)
	}
}

func want(t testing.TB, s store.Store, key, record string) {
	t.Helper()
	if got, err := s.Load(t.Context(), key); err != nil || string(got) != record {
		t.Fatalf("%q: %.80q, %v; want %.80q", key, got, err, record)
	}
}

func wantNone(t testing.TB, s store.Store, key string) {
	t.Helper()
	if got, err := s.Load(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("%q: %.80q, %v; want ErrNotFound", key, got, err)
	}
}

// eventually wants ok within half a minute.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
