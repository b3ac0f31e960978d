// Command load measures how wxproxy behaves under load, beside bench/bare and beside a WeChat that is called without any proxy: what
// it adds to a call when little is to be done, and when much is; ten thousand callers; more than can be done; the time to the first answer.
//
//	go run ./bench/load
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"wxproxy/bench/stage"
)

func main() {
	length := flag.Duration("length", 5*time.Second, "how long one measurement takes")
	only := flag.String("only", "", "one of latency, crowd, overload, startup; empty: all")
	flag.Parse()
	log.SetFlags(0)
	for _, m := range []struct {
		name    string
		measure func(time.Duration) error
	}{{"latency", latency}, {"crowd", crowd}, {"overload", overload}, {"startup", startup}} {
		if *only != "" && *only != m.name {
			continue
		}
		if err := m.measure(*length); err != nil {
			log.Fatal(err)
		}
	}
}

// all puts up WeChat and both proxies.
func all(secure bool) (s *stage.Stage, w *stage.WeChat, bare, ours *stage.Contender, err error) {
	if s, err = stage.New(); err != nil {
		return
	}
	if w, err = stage.NewWeChat(secure); err != nil {
		return
	}
	if bare, err = s.Bare(w); err != nil {
		return
	}
	ours, err = s.Wxproxy(w, "file:wxproxy.db")
	return
}

func us(d time.Duration) string { return d.Round(time.Microsecond).String() }

// latency is what a call takes: one connection, and at 70 % of what can be done at most.
func latency(length time.Duration) error {
	s, w, bare, ours, err := all(false)
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Println("One caller, one call after another:")
	for _, c := range []*stage.Contender{&w.Contender, bare, ours, &w.Contender, bare, ours} {
		times, err := c.Times(20_000)
		if err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		fmt.Printf("  %-8s median %s, 99th percentile %s\n", c.Name, us(stage.At(times, .5)), us(stage.At(times, .99)))
	}
	fmt.Println("64 callers, at 70 % of the rate that wxproxy can do:")
	peak, err := ours.Peak(length, 64)
	if err != nil {
		return err
	}
	rate := peak * 7 / 10
	for _, c := range []*stage.Contender{&w.Contender, bare, ours, bare, ours} {
		r, err := c.Load(rate, 64, length)
		if err != nil || r.Failed+r.Refused > 0 {
			return fmt.Errorf("%s: %d refused, %d failed: %v %v", c.Name, r.Refused, r.Failed, r.Last, err)
		}
		fmt.Printf("  %-8s %d a second: median %s, 99th percentile %s\n", c.Name, rate, us(stage.At(r.Times, .5)), us(stage.At(r.Times, .99)))
	}
	return nil
}

// crowd is ten thousand callers who keep their connections, before a WeChat that takes 100 ms.
func crowd(length time.Duration) error {
	const callers, rate = 9_000, 4_000
	s, w, _, ours, err := all(false)
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := ours.Load(100, 1, time.Second); err != nil { // the token
		return err
	}
	w.Delay = 100 * time.Millisecond
	w.Most.Store(0)
	r, err := ours.Load(rate, callers, 2*length)
	if err != nil {
		return err
	}
	memory, err := resident(ours.Pid)
	if err != nil {
		return err
	}
	fmt.Printf("%d callers, %d calls a second, WeChat takes 100 ms:\n  %d calls, %d refused, %d failed; median %s, 99th percentile %s; %d MiB at most, %d connections to WeChat at most\n",
		callers, rate, r.Done, r.Refused, r.Failed, us(stage.At(r.Times, .5)), us(stage.At(r.Times, .99)), memory, w.Most.Load())
	if r.Last != nil {
		fmt.Printf("  such as: %v\n", r.Last)
	}
	return nil
}

// resident is the most memory that a process has had, in MiB.
func resident(pid int) (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		return 0, fmt.Errorf("no VmHWM in /proc")
	}
	kib, err := strconv.Atoi(string(m[1]))
	return kib >> 10, err
}

// overload is twice of what can be done. To have something left for the callers, wxproxy gets a fifth of a processor.
func overload(length time.Duration) error {
	s, _, _, ours, err := all(false)
	if err != nil {
		return err
	}
	defer s.Close()
	undo, err := throttle(ours.Pid, .2)
	if err != nil {
		fmt.Printf("Overload: not measured, %v\n", err)
		return nil
	}
	defer undo()
	peak, err := ours.Peak(length, 64)
	if err != nil {
		return err
	}
	fmt.Printf("Overload: a fifth of a processor does %d calls a second\n", peak)
	for _, load := range []struct {
		name  string
		rate  int
		conns int
	}{{"half of it", peak / 2, 64}, {"twice of it, 64 callers", peak * 2, 64}, {"twice of it, 2,000 callers", peak * 2, 2000}, {"half of it again", peak / 2, 64}} {
		r, err := ours.Load(load.rate, load.conns, length)
		if err != nil {
			return err
		}
		fmt.Printf("  %-26s %d a second: %.0f succeed, %.0f refused, %.0f fail; median %s, 99th percentile %s\n", load.name, load.rate,
			float64(r.InTime)/length.Seconds(), float64(r.Refused)/length.Seconds(), float64(r.Failed)/length.Seconds(), us(stage.At(r.Times, .5)), us(stage.At(r.Times, .99)))
	}
	return nil
}

// throttle lets a process have this much of a processor (control groups, version 1).
func throttle(pid int, share float64) (undo func(), err error) {
	group := fmt.Sprintf("/sys/fs/cgroup/cpu/bench%d", pid)
	if err := os.Mkdir(group, 0o755); err != nil {
		return nil, err
	}
	undo = func() { os.Remove(group) } // when the process has ended
	for _, set := range [][2]string{{"cpu.cfs_period_us", "5000"}, {"cpu.cfs_quota_us", strconv.Itoa(int(5000 * share))}, {"cgroup.procs", strconv.Itoa(pid)}} {
		if err := os.WriteFile(filepath.Join(group, set[0]), []byte(set[1]), 0o644); err != nil {
			undo()
			return nil, err
		}
	}
	return undo, nil
}

// startup is the time from the start of the process to the first answered call, with a file store that has the token.
func startup(time.Duration) error {
	s, _, _, ours, err := all(false)
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := ours.Peak(200*time.Millisecond, 1); err != nil {
		return err
	}
	var times []time.Duration
	for range 11 {
		took, err := s.Restart(ours)
		if err != nil {
			return err
		}
		times = append(times, took)
	}
	slices.Sort(times)
	fmt.Printf("From the start to the first answered call, file store: median %s of %d, slowest %s\n", us(stage.At(times, .5)), len(times), us(times[len(times)-1]))
	return nil
}
