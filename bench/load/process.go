package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
)

// peakMemory returns the largest resident size that a process has had, in MiB.
func peakMemory(pid int) (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		return 0, errors.New("no VmHWM in /proc")
	}
	kib, err := strconv.Atoi(string(m[1]))
	return kib >> 10, err
}

// limitCPU limits a process to a share of one CPU (control groups, version 1).
// Call undo after the process has ended.
func limitCPU(pid int, share float64) (undo func(), err error) {
	const period = 5000 // µs, short, so that the limit does not show as latency
	group := fmt.Sprintf("/sys/fs/cgroup/cpu/bench%d", pid)
	if err := os.Mkdir(group, 0o755); err != nil {
		return nil, err
	}
	undo = func() { os.Remove(group) }
	for _, set := range [][2]string{
		{"cpu.cfs_period_us", strconv.Itoa(period)},
		{"cpu.cfs_quota_us", strconv.Itoa(int(period * share))},
		{"cgroup.procs", strconv.Itoa(pid)},
	} {
		if err := os.WriteFile(filepath.Join(group, set[0]), []byte(set[1]), 0o644); err != nil {
			undo()
			return nil, err
		}
	}
	return undo, nil
}
