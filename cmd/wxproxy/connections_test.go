//go:build unix

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

const (
	idleConns      = 10_000
	idleConnMemory = 320 // MiB that the process may need in total
)

// memory returns the resident memory of wxproxy in KiB.
func (w *testEnv) memory() int {
	w.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.cmd.Process.Pid))
	if err != nil {
		w.t.Skip("no /proc here")
	}
	kib, _ := strconv.Atoi(string(regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)[1]))
	return kib
}

// connLimit returns how many connections this process can open, at most wanted.
// The process of wxproxy has the same limit.
func connLimit(t *testing.T, wanted int) int {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur < limit.Max { // Go usually does this at the start
		limit.Cur = limit.Max
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Logf("cannot raise the limit of open files: %v", err)
			syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
		}
	}
	const others = 500
	if have := int(min(limit.Cur, 1<<20)); have < wanted+others {
		t.Logf("%d files can be open: %d connections instead of %d", have, have-others, wanted)
		return have - others
	}
	return wanted
}

// Ten thousand idle connections need little memory and delay no other request.
func TestManyIdleConnections(t *testing.T) {
	n := connLimit(t, idleConns)
	w := newTestEnv(t, sandbox.Config{}).start().authorized(accountA)
	before := w.memory()
	conns := make([]net.Conn, n)
	t.Cleanup(func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	})
	call := func(c net.Conn, path string, want int) error {
		c.SetDeadline(time.Now().Add(proctest.Patience))
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err == nil && resp.StatusCode != want {
			err = fmt.Errorf("got %s, want %d", resp.Status, want)
		}
		return err
	}
	// Each connection sends one request, so that everything that wxproxy keeps
	// for a connection exists, and is then idle. The request is rejected, which
	// spares the sandbox.
	var wg sync.WaitGroup
	const dialers = 16
	for d := range dialers {
		wg.Go(func() {
			for i := d; i < n && !t.Failed(); i += dialers {
				c, err := net.Dial("tcp", w.proxy)
				if err == nil {
					conns[i], err = c, call(c, "/cgi-bin/nothing", http.StatusBadRequest)
				}
				if err != nil {
					t.Errorf("connection %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	w.call("/"+accountA+userInfo, "hit")
	w.get(w.admin, "/metrics")
	if after := w.memory(); after > idleConnMemory<<10 {
		t.Errorf("memory with %d idle connections: got %d KiB, want at most %d MiB; %d KiB without", n, after,
			idleConnMemory, before)
	} else {
		t.Logf("%d MiB with %d idle connections, %d without", after>>10, n, before>>10)
	}
	// The connections were not closed: some of them send another request.
	for i := 0; i < n; i += 97 {
		if err := call(conns[i], "/"+accountA+userInfo, http.StatusOK); err != nil {
			t.Errorf("second request of connection %d: %v", i, err)
		}
	}
}

// Bodies that are announced but not sent need no memory: announcing one takes
// only a few bytes.
func TestAnnouncedBodiesNeedNoMemory(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{}).start().authorized(accountA)
	const each = 200      // 12 GiB are announced in total
	const maxMemory = 150 // MiB of the process
	head := fmt.Sprintf("POST /%s/cgi-bin/media/upload HTTP/1.1\r\nHost: localhost\r\n", accountA)
	some := strings.Repeat("a", 10_000)
	for range each {
		for _, raw := range []string{"Content-Length: 33554432\r\n\r\n" + some,
			"Transfer-Encoding: chunked\r\n\r\n1fffff0\r\n" + some} {
			c, err := net.Dial("tcp", w.proxy)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, head+raw)
		}
	}
	// Other requests succeed. After them wxproxy has read everything.
	for range 200 {
		w.call("/"+accountA+userInfo, "hit")
	}
	if now := w.memory(); now > maxMemory<<10 {
		t.Errorf("memory with %d announced bodies: got %d MiB, want at most %d", 2*each, now>>10, maxMemory)
	} else {
		t.Logf("%d MiB with %d announced bodies", now>>10, 2*each)
	}
}
