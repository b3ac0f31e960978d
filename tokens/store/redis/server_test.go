//go:build unix

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

// patience bounds everything that has to happen sooner or later. It is far more
// than a busy machine needs, because no test may depend on being fast.
const patience = 2 * time.Minute

// server is a redis-server process of a single test.
type server struct {
	t    testing.TB
	args []string
	port string // of the loopback address

	mu    sync.Mutex
	cmd   *exec.Cmd
	ended chan struct{}
	out   bytes.Buffer
}

// tool returns the path of an executable: the one that .ci/tools.sh installed,
// or that of the system.
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

// start starts a Redis on a loopback port. args override its settings.
func start(t testing.TB, args ...string) *server {
	t.Helper()
	s := &server{t: t}
	for range 5 { // another process may take the port
		s.port = freePort(t)
		s.args = append([]string{
			"--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no",
			"--databases", "100", "--dir", t.TempDir(),
		}, args...)
		if s.run() {
			return s
		}
	}
	t.Fatalf("redis-server does not start:\n%s", s.out.String())
	return nil
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

// run starts the process and waits until it accepts connections. It returns
// false if the process ended, for example because its port is in use.
func (s *server) run() bool {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	args := s.args
	if !strings.Contains(strings.Join(args, " "), "--port") {
		args = append([]string{"--port", s.port}, args...)
	}
	cmd := exec.Command(tool(s.t, "redis-server"), args...)
	// A sentinel expects its file as the first argument.
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
	running := true
	eventually(s.t, "redis-server accepts connections", func() bool {
		select {
		case <-ended:
			running = false
			return true
		default:
		}
		conn, err := net.DialTimeout("tcp", s.addr(), patience)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return running
}

func (s *server) addr() string { return "127.0.0.1:" + s.port }
func (s *server) url() string  { return "redis://" + s.addr() }

func (s *server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// stop kills the process; run starts it again.
func (s *server) stop() {
	s.signal(syscall.SIGKILL)
	<-s.ended
}

// do sends commands as a user would type them, over one connection, and returns
// the last reply. An error reply fails the test.
func (s *server) do(commands ...string) string {
	s.t.Helper()
	reply, err := s.try(commands...)
	if err != nil || strings.HasPrefix(reply, "-") {
		s.t.Fatalf("%s: got reply %s, error %v", commands, reply, err)
	}
	return reply
}

func (s *server) try(commands ...string) (reply string, err error) {
	conn, err := net.DialTimeout("tcp", s.addr(), patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	in := bufio.NewReader(conn)
	for _, c := range commands {
		words := strings.Fields(c)
		fmt.Fprintf(conn, "*%d\r\n", len(words))
		for _, w := range words {
			fmt.Fprintf(conn, "$%d\r\n%s\r\n", len(w), w)
		}
		if reply, err = readReply(in); err != nil {
			return "", err
		}
	}
	return reply, nil
}

// readReply reads one reply: a line with its type byte, or the text of a bulk
// string. The elements of an array are joined with spaces.
func readReply(in *bufio.Reader) (string, error) {
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
			one, err := readReply(in)
			if err != nil {
				return "", err
			}
			all = append(all, one)
		}
		return strings.Join(all, " "), nil
	}
	return line, nil
}

var (
	// patient is for most tests. A busy machine may neither miss a timeout nor
	// lose a lock.
	patient = withLease(time.Minute)
	// shortLease is for tests that wait until a lease expires.
	shortLease = withLease(time.Second)
)

func withLease(lease time.Duration) redis.Options {
	return redis.Options{Lease: lease}.WithTimeout(patience)
}

// tryLeases calls f with longer and longer leases until it returns nil. On a
// busy machine a process may not run for longer than a short lease, which is no
// fault of the store. A store that does not extend its leases loses a long one
// as well.
func tryLeases(t *testing.T, f func(lease time.Duration) error) {
	t.Helper()
	var err error
	for _, lease := range []time.Duration{time.Second, 4 * time.Second, 20 * time.Second} {
		if err = f(lease); err == nil {
			return
		}
		t.Logf("with a lease of %v: %v", lease, err)
	}
	t.Errorf("with every lease: %v", err)
}

func open(t testing.TB, url string, o redis.Options) *redis.Store {
	t.Helper()
	s, err := redis.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func replaceWith(record string) store.UpdateFunc {
	return func(context.Context, []byte) ([]byte, error) { return []byte(record), nil }
}

func deleteRecord(context.Context, []byte) ([]byte, error) { return nil, nil }

func put(t testing.TB, s store.Store, key, record string) {
	t.Helper()
	if err := s.Update(t.Context(), key, replaceWith(record)); err != nil {
		t.Fatalf("update of %q: %v", key, err)
	}
}

func want(t testing.TB, s store.Store, key, record string) {
	t.Helper()
	if got, err := s.Load(t.Context(), key); err != nil || string(got) != record {
		t.Fatalf("load of %q: got %.80q, error %v, want %.80q", key, got, err, record)
	}
}

func wantNone(t testing.TB, s store.Store, key string) {
	t.Helper()
	if got, err := s.Load(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("load of %q: got %.80q, error %v, want ErrNotFound", key, got, err)
	}
}

// eventually waits until condition is true.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// mentions reports whether err is an error whose text contains all parts.
func mentions(err error, parts ...string) bool {
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			return false
		}
	}
	return err != nil
}
