package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

// diskFaults makes the disk of a running wxproxy fail: strace injects errors
// into its system calls. Where that is not permitted, a program with a fault
// file is used instead, in which the store itself fails its commits.
type diskFaults struct {
	w      *testEnv
	strace *exec.Cmd
	file   string // "" if strace is used
}

// newDiskFaults must be called before wxproxy is started.
func newDiskFaults(w *testEnv) *diskFaults {
	w.t.Helper()
	d := &diskFaults{w: w}
	if err := straceWorks(); err != nil {
		w.t.Logf("strace cannot be used (%v): errors are injected into the store, "+
			"not into system calls", err)
		d.file = filepath.Join(w.dir, "fault")
		w.linked = "wxproxy/tokens/store/bolt.faultFile=" + d.file
	}
	return d
}

// straceWorks returns nil if strace can inject errors into another process.
func straceWorks() error {
	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		return err
	}
	defer func() { sleep.Process.Kill(); sleep.Wait() }()
	cmd, err := attach(sleep.Process.Pid, syscall.ENOSPC)
	if err != nil {
		return err
	}
	return detach(cmd)
}

// attach makes the writing system calls of a process fail.
func attach(pid int, errno syscall.Errno) (*exec.Cmd, error) {
	calls := "pwrite64,ftruncate,fdatasync,fsync"
	cmd := exec.Command("strace", "-f", "-p", strconv.Itoa(pid), "-o", os.DevNull,
		"-e", "trace="+calls, "-e", "inject="+calls+":error="+errnoNames[errno])
	var out proctest.Output
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	for !strings.Contains(out.String(), " attached") {
		if strings.Contains(out.String(), "not permitted") {
			return nil, errors.Join(errors.New(out.String()), cmd.Wait())
		}
		<-time.After(time.Millisecond)
	}
	return cmd, nil
}

// detach ends strace, and leaves the process running.
func detach(cmd *exec.Cmd) error {
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	_ = cmd.Wait() // it reports its signal as an error
	return nil
}

var errnoNames = map[syscall.Errno]string{
	syscall.ENOSPC: "ENOSPC", syscall.EROFS: "EROFS", syscall.EIO: "EIO",
}

// fail makes all writes to the disk fail from now on.
func (d *diskFaults) fail(errno syscall.Errno) {
	d.w.t.Helper()
	var err error
	if d.file != "" {
		err = os.WriteFile(d.file, []byte(strconv.Itoa(int(errno))), 0o600)
	} else {
		d.strace, err = attach(d.w.cmd.Process.Pid, errno)
	}
	if err != nil {
		d.w.t.Fatal(err)
	}
}

// repair ends the fault.
func (d *diskFaults) repair() {
	d.w.t.Helper()
	if d.file != "" {
		os.Remove(d.file)
	} else if err := detach(d.strace); err != nil {
		d.w.t.Fatal(err)
	}
}

// metric returns the value of a metric without labels, or -1.
func (w *testEnv) metric(name string) int {
	w.t.Helper()
	_, text := w.get(w.admin, "/metrics")
	n := -1
	for line := range strings.Lines(text) {
		fmt.Sscanf(line, name+" %d", &n)
	}
	return n
}

// A disk on which every write fails with ENOSPC, EROFS or EIO, while WeChat
// issues a new refresh token with each renewal. One token is rejected, and 100
// requests follow; then the new token is rejected, and 100 more follow. It
// costs one renewal. The first token serves, an account with a cached token is not
// affected, and /readyz names the fault. When the disk works again, so does
// everything, without a restart, within 15 s. After a kill the token is in the
// store, and its refresh token is the valid one.
func TestDiskFaults(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EROFS, syscall.EIO} {
		t.Run(errnoNames[errno], func(t *testing.T) {
			w := newTestEnv(t, sandbox.Config{RotateRefreshTokens: true})
			disk := newDiskFaults(w)
			w.start().authorized(accountA, accountB)
			w.call("/"+accountA+userInfo, "hit")
			w.call("/"+accountB+userInfo, "hit")
			w.wx.ResetHistory()
			disk.fail(errno)

			w.wx.Expire(accountA)
			w.call("/"+accountA+userInfo, "retried")
			for range 100 { // the cache may drop a token, which is then in memory still
				w.call("/"+accountA+userInfo, "")
				w.call("/"+accountB+userInfo, "hit")
			}
			w.wx.Expire(accountA)
			for range 100 {
				status, answer, header := w.try("GET", "/"+accountA+userInfo, "")
				if status != 503 || header.Get("Retry-After") == "" ||
					!strings.Contains(answer, errno.Error()) {
					t.Fatalf("rejected again: got %d %s, Retry-After %q, want 503 with %q",
						status, answer, header.Get("Retry-After"), errno.Error())
				}
				w.call("/"+accountB+userInfo, "hit")
			}
			calls := w.wx.Count(refreshPath)
			t.Logf("renewals for 202 requests: %d", calls)
			if calls != 1 {
				t.Errorf("renewals: got %d, want 1", calls)
			}
			if status, body := w.get(w.admin, "/readyz"); status != 503 ||
				!strings.Contains(body, errno.Error()) {
				t.Errorf("/readyz: got %d %s, want 503 with %q", status, body, errno.Error())
			}
			if n := w.metric("wxproxy_unsaved_grants"); n != 1 {
				t.Errorf("unsaved grants: got %d, want 1", n)
			}

			began := time.Now()
			disk.repair()
			proctest.Eventually(t, func() bool {
				status, _ := w.get(w.admin, "/readyz")
				answer, _, _ := w.try("GET", "/"+accountA+userInfo, "")
				return status == 200 && answer == 200 && w.metric("wxproxy_unsaved_grants") == 0
			})
			took := time.Since(began)
			t.Logf("recovered within %v", took.Round(10*time.Millisecond))
			proctest.Promise(t, "recovery", took, 15*time.Second)
			if n := w.wx.Count(refreshPath); n != 2 {
				t.Errorf("renewals after the repair: got %d, want 1", n-1)
			}

			w.savedBeforeKill()
		})
	}
}

// A Redis that rejects writes from the middle of a renewal on: its memory is
// full, it has too few replicas, or it is a read-only replica. The renewal that
// was in progress serves from memory, further rejections cost no request to
// WeChat, and /readyz says why. When Redis takes writes again, so does
// everything, within 15 s, and the token is stored. WeChat issues a new refresh
// token with each renewal.
func TestRedisRejectsWrites(t *testing.T) {
	for name, c := range map[string]struct {
		fail, repair []string
		reason       string
	}{
		"memory is full": {[]string{"CONFIG", "SET", "maxmemory", "1"},
			[]string{"CONFIG", "SET", "maxmemory", "0"}, "OOM"},
		"too few replicas": {[]string{"CONFIG", "SET", "min-replicas-to-write", "1"},
			[]string{"CONFIG", "SET", "min-replicas-to-write", "0"}, "NOREPLICAS"},
		"read-only replica": {[]string{"REPLICAOF", "127.0.0.1", "1"},
			[]string{"REPLICAOF", "NO", "ONE"}, "READONLY"},
	} {
		t.Run(name, func(t *testing.T) {
			r := startRedis(t)
			w := newTestEnv(t, sandbox.Config{RotateRefreshTokens: true})
			w.store = onRedis(r, "k")
			w.start().authorized(accountA, accountB)
			w.call("/"+accountA+userInfo, "hit")
			w.call("/"+accountB+userInfo, "hit")
			w.wx.ResetHistory()

			w.wx.Expire(accountA)
			slow := w.fault(sandbox.Fault{Path: refreshPath, Delay: sandbox.Span(time.Second)})
			done := make(chan struct{})
			go func() {
				w.call("/"+accountA+userInfo, "retried")
				close(done)
			}()
			proctest.Eventually(t, func() bool { return w.wx.Count(refreshPath) == 1 })
			r.do(t, c.fail...)
			<-done
			w.wx.RemoveFault(slow)
			for range 50 {
				w.call("/"+accountA+userInfo, "")
				w.call("/"+accountB+userInfo, "hit")
			}
			w.wx.Expire(accountA)
			for range 50 {
				status, answer, header := w.try("GET", "/"+accountA+userInfo, "")
				if status != 503 || header.Get("Retry-After") == "" {
					t.Fatalf("rejected again: got %d %s, Retry-After %q, want 503 with one",
						status, answer, header.Get("Retry-After"))
				}
			}
			if n := w.wx.Count(refreshPath); n != 1 {
				t.Errorf("renewals: got %d, want 1", n)
			}
			status, body := w.get(w.admin, "/readyz")
			if status != 503 || !strings.Contains(body, c.reason) {
				t.Errorf("/readyz: got %d %s, want 503 with %s", status, body, c.reason)
			}

			began := time.Now()
			r.do(t, c.repair...)
			proctest.Eventually(t, func() bool {
				ready, _ := w.get(w.admin, "/readyz")
				status, _, _ := w.try("GET", "/"+accountA+userInfo, "")
				return ready == 200 && status == 200 && w.metric("wxproxy_unsaved_grants") == 0
			})
			proctest.Promise(t, "recovery", time.Since(began), 15*time.Second)
			t.Logf("recovered within %v", time.Since(began).Round(10*time.Millisecond))

			w.savedBeforeKill()
		})
	}
}

// savedBeforeKill ends wxproxy with kill -9 and starts it again. The stored
// token of accountA serves, and its stored refresh token is the one that WeChat
// holds: one renewal without a lookup.
func (w *testEnv) savedBeforeKill() {
	w.t.Helper()
	w.end(syscall.SIGKILL)
	w.wx.ResetHistory()
	w.start()
	w.call("/"+accountA+userInfo, "miss")
	w.wx.Expire(accountA)
	w.call("/"+accountA+userInfo, "retried")
	if n, lookups := w.wx.Count(refreshPath), w.wx.Count(infoPath); n != 1 || lookups > 0 {
		w.t.Errorf("after a kill: got %d renewals and %d lookups of refresh tokens, "+
			"want 1 and none", n, lookups)
	}
}
