package harness

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Cost returns the CPU time that the process spends on one request, while conns
// connections send requests without a pause.
func (t *Target) Cost(length time.Duration, conns int) (time.Duration, error) {
	before, err := CPUTime(t.Pid)
	if err != nil {
		return 0, err
	}
	peak, err := t.Peak(length, conns)
	if err != nil {
		return 0, err
	}
	after, err := CPUTime(t.Pid)
	return time.Duration(float64(after-before) / max(float64(peak)*length.Seconds(), 1)), err
}

// Peak returns the requests per second of conns connections that send requests
// without a pause. Any response but success is an error.
func (t *Target) Peak(length time.Duration, conns int) (int, error) {
	var requests atomic.Int64
	var failed atomic.Pointer[error]
	var clients sync.WaitGroup
	end := time.Now().Add(length)
	for range conns {
		clients.Go(func() {
			if err := t.requestUntil(end, &requests); err != nil {
				failed.Store(&err)
			}
		})
	}
	clients.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return int(float64(requests.Load()) / length.Seconds()), nil
}

// requestUntil sends one request after another over one connection.
func (t *Target) requestUntil(end time.Time, requests *atomic.Int64) error {
	c := client{target: t}
	if err := c.open(); err != nil {
		return err
	}
	defer c.conn.Close()
	for time.Now().Before(end) {
		if err := c.succeed(); err != nil {
			return err
		}
		requests.Add(1)
	}
	return nil
}

// CPUTime returns the user and kernel time that a process has used, in steps of
// 10 ms (fields 14 and 15 of /proc/PID/stat, proc(5)).
func CPUTime(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	text := string(raw)
	// The name in parentheses can contain anything; the fields after it cannot.
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const tick = 10 * time.Millisecond
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}
