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

	"wxproxy/sandbox"
)

// crowd is how many connections rest at the same time, and crowdMemory what the process may need for them all, itself
// included, in MiB.
const (
	crowd       = 10_000
	crowdMemory = 320
)

// memory is the resident memory of the program, in KiB.
func (w *world) memory() int {
	w.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.cmd.Process.Pid))
	if err != nil {
		w.t.Skip("no /proc here")
	}
	kib, _ := strconv.Atoi(string(regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)[1]))
	return kib
}

// room gives how many connections this process may hold, of those wanted. The program's process has the same limit.
func room(t *testing.T, wanted int) int {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur < limit.Max { // Go does so by itself when it starts, as a rule
		limit.Cur = limit.Max
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Logf("the limit of open files stays: %v", err)
			syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
		}
	}
	const others = 500
	if have := int(min(limit.Cur, 1<<20)); have < wanted+others {
		t.Logf("%d files may be open: %d connections instead of %d", have, have-others, wanted)
		return have - others
	}
	return wanted
}

// Ten thousand callers that keep their connections cost little memory, and another one is answered as ever.
func TestManyIdleConnections(t *testing.T) {
	n := room(t, crowd)
	w := newWorld(t, sandbox.Config{}).start().authorized(accountA)
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
		c.SetDeadline(time.Now().Add(60 * time.Second))
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err == nil && resp.StatusCode != want {
			err = fmt.Errorf("answered %s", resp.Status)
		}
		return err
	}
	// Each makes one call (which is refused, so that the sandbox need not answer them all): whatever is kept for a
	// connection is there then. And then it rests.
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
	if after := w.memory(); after > crowdMemory<<10 {
		t.Errorf("%d KiB with %d connections at rest, %d before", after, n, before)
	} else {
		t.Logf("%d MiB with %d connections at rest, %d before", after>>10, n, before>>10)
	}
	// They are not cut off: some of them call again.
	for i := 0; i < n; i += 97 {
		if err := call(conns[i], "/"+accountA+userInfo, http.StatusOK); err != nil {
			t.Errorf("connection %d, again: %v", i, err)
		}
	}
}

// Bodies that are announced and do not come take no memory: thousands could be announced by a few bytes each.
func TestAnnouncedBodies(t *testing.T) {
	w := newWorld(t, sandbox.Config{}).start().authorized(accountA)
	const each, most = 200, 150 // announced, 12 GiB in all; MiB for all of the program
	head := fmt.Sprintf("POST /%s/cgi-bin/media/upload HTTP/1.1\r\nHost: x\r\n", accountA)
	some := strings.Repeat("a", 10_000)
	for range each {
		for _, raw := range []string{"Content-Length: 33554432\r\n\r\n" + some, "Transfer-Encoding: chunked\r\n\r\n1fffff0\r\n" + some} {
			c, err := net.Dial("tcp", w.proxy)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, head+raw)
		}
	}
	// Others are served meanwhile, and by then all of it has been read.
	for range 200 {
		w.call("/"+accountA+userInfo, "hit")
	}
	if now := w.memory(); now > most<<10 {
		t.Errorf("%d MiB with %d bodies announced", now>>10, 2*each)
	} else {
		t.Logf("%d MiB with %d bodies announced", now>>10, 2*each)
	}
}
