// Package proctest helps tests that run wxproxy as a process of its own: it
// builds the program, finds addresses for it, collects its output, and waits
// without depending on the speed of the machine.
package proctest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// programs are the programs that were built, by the variables they were linked
// with. buildDir is their folder, "" while there is none.
var (
	programs = map[string]string{}
	buildDir string
	building sync.Mutex
)

// Binary builds the program once and returns its path. With WXPROXY_RACE=1 it
// contains the race detector, and exits when that finds a race.
func Binary() (string, error) { return build("") }

// build is Binary with ldflags for the linker.
func build(ldflags string) (string, error) {
	building.Lock()
	defer building.Unlock()
	if path, ok := programs[ldflags]; ok {
		return path, nil
	}
	if buildDir == "" {
		dir, err := os.MkdirTemp("", "wxproxy-test")
		if err != nil {
			return "", err
		}
		buildDir = dir
	}
	path := filepath.Join(buildDir, fmt.Sprint("wxproxy", len(programs)))
	args := []string{"build", "-o", path}
	if ldflags != "" {
		args = append(args, "-ldflags", ldflags)
	}
	if os.Getenv("WXPROXY_RACE") != "" {
		args = append(args, "-race")
		os.Setenv("GORACE", "halt_on_error=1")
	}
	out, err := exec.Command("go", append(args, "wxproxy/cmd/wxproxy")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	programs[ldflags] = path
	return path, nil
}

// Main runs the tests and then removes what [Binary] and [Linked] have built.
// It is for TestMain.
func Main(m *testing.M) {
	code := m.Run()
	if buildDir != "" {
		os.RemoveAll(buildDir)
	}
	os.Exit(code)
}

// Command returns a command that runs the program.
func Command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	return Linked(t, "", args...)
}

// Linked is [Command] for a program with another value of a string variable,
// such as "wxproxy/internal/clock.offset=-6h". It takes some seconds for each
// value.
func Linked(t testing.TB, variable string, args ...string) *exec.Cmd {
	t.Helper()
	ldflags := ""
	if variable != "" {
		ldflags = "-X " + variable
	}
	path, err := build(ldflags)
	if err != nil {
		t.Fatal(err)
	}
	return exec.Command(path, args...)
}

// Output collects the output of a process, and can be read while the process
// runs. The zero value is empty.
type Output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write appends p.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

// String returns everything that was written so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// given contains the addresses that FreeAddr has returned: the kernel may offer
// one again.
var given sync.Map

// FreeAddr returns a loopback address, HOST:PORT, on which no process listens.
// It never returns the same address twice.
func FreeAddr(t testing.TB) string {
	t.Helper()
	for {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := ln.Addr().String()
		ln.Close()
		if _, again := given.LoadOrStore(addr, true); !again {
			return addr
		}
	}
}

// Patience is how long a test waits for what takes milliseconds on an idle
// machine. It is long enough for a machine with many other processes.
const Patience = 2 * time.Minute

// Eventually waits until condition returns true. It fails the test after
// [Patience].
func Eventually(t testing.TB, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the condition did not become true within %v", Patience)
		}
	}
}

// Repeat calls f again and again, with short pauses, for at least d. It is for
// tests that something keeps working for a while.
func Repeat(d time.Duration, f func()) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
		f()
	}
}

// Promise fails the test if took is longer than limit, which is what the
// documents promise for a machine with a free CPU. While other processes wait
// for a CPU it allows ten times as much.
func Promise(t testing.TB, what string, took, limit time.Duration) {
	t.Helper()
	const busyFactor = 10
	if took <= limit {
		return
	}
	if isBusy() && took <= busyFactor*limit {
		t.Logf("%s: took %v instead of %v on a busy machine", what, took, limit)
		return
	}
	t.Errorf("%s: got %v, want at most %v", what, took, limit)
}

// isBusy reports whether processes have waited for a CPU in the last seconds.
// It is false on systems other than Linux.
func isBusy() bool {
	const busyPercent = 25 // of the last 10 seconds, in which at least one process waited
	var percent, load float64
	if b, err := os.ReadFile("/proc/pressure/cpu"); err == nil {
		_, rest, _ := strings.Cut(string(b), "avg10=")
		fmt.Sscanf(rest, "%f", &percent)
		return percent > busyPercent
	}
	b, _ := os.ReadFile("/proc/loadavg")
	fmt.Sscanf(string(b), "%f", &load)
	return load > float64(runtime.NumCPU())
}
