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

	"wxproxy/bench/harness"
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
func all(secure bool) (s *harness.Harness, w *harness.WeChat, bare, ours *harness.Target, err error) {
	if s, err = harness.New(); err != nil {
		return
	}
	if w, err = harness.NewWeChat(secure); err != nil {
		return
	}
	if bare, err = s.Bare(w); err != nil {
		return
	}
	ours, err = s.Wxproxy(w, "file:wxproxy.db")
	return
}

func us(d time.Duration) string { return d.Round(time.Microsecond).String() }

// latency is what a call takes: one connection, and at 70 % of what can be done at most. The machine is in one mood now and in
// another then, so each has many short turns.
func latency(length time.Duration) error {
	s, w, bare, ours, err := all(false)
	if err != nil {
		return err
	}
	defer s.Close()
	const turns = 15
	targets := []*harness.Target{&w.Target, bare, ours}
	fmt.Println("One caller, one call after another:")
	var medians, nineties [3][]time.Duration
	for range turns {
		for i, c := range targets {
			times, err := c.Times(2_000)
			if err != nil {
				return fmt.Errorf("%s: %w", c.Name, err)
			}
			medians[i], nineties[i] = append(medians[i], harness.At(times, .5)), append(nineties[i], harness.At(times, .99))
		}
	}
	report(targets, medians, nineties)
	peak, err := ours.Peak(length, 64)
	if err != nil {
		return err
	}
	rate := peak * 7 / 10
	fmt.Printf("64 callers, %d calls a second, 70 %% of what wxproxy can do:\n", rate)
	medians, nineties = [3][]time.Duration{}, [3][]time.Duration{}
	for range turns {
		for i, c := range targets {
			r, err := c.Load(rate, 64, length/5)
			if err != nil || r.Failed+r.Refused > 0 {
				return fmt.Errorf("%s: %d refused, %d failed: %v %v", c.Name, r.Refused, r.Failed, r.Last, err)
			}
			medians[i], nineties[i] = append(medians[i], harness.At(r.Times, .5)), append(nineties[i], harness.At(r.Times, .99))
		}
	}
	report(targets, medians, nineties)
	return nil
}

// report prints the medians of what the turns gave.
func report(targets []*harness.Target, medians, nineties [3][]time.Duration) {
	for i, c := range targets {
		slices.Sort(medians[i])
		slices.Sort(nineties[i])
		fmt.Printf("  %-8s median %s, 99th percentile %s\n", c.Name, us(harness.At(medians[i], .5)), us(harness.At(nineties[i], .5)))
	}
}

// crowd is ten thousand callers who keep their connections, before a WeChat that takes 100 ms. What a call costs then, when nobody
// is in a hurry, is told beside the barest proxy.
func crowd(length time.Duration) error {
	const callers, rate = 10_000, 5_000
	fmt.Printf("%d callers, %d calls a second, WeChat takes 100 ms:\n", callers, rate)
	for i := range 2 {
		if err := crowdBefore(i == 1, callers, rate, 2*length); err != nil {
			return err
		}
	}
	return nil
}

// crowdBefore measures one of the two, on a stage of its own: the connections to WeChat are to be its own, too.
func crowdBefore(wxproxy bool, callers, rate int, length time.Duration) error {
	s, w, c, ours, err := all(false)
	if err != nil {
		return err
	}
	defer s.Close()
	if wxproxy {
		c = ours
	}
	if _, err := c.Load(100, 1, time.Second); err != nil { // the token
		return err
	}
	w.Delay = 100 * time.Millisecond
	w.Most.Store(0)
	r, err := c.Load(rate, callers, length)
	if err != nil {
		return err
	}
	memory, err := resident(c.Pid)
	if err != nil {
		return err
	}
	fmt.Printf("  %-8s %d calls, %d refused, %d failed; median %s, 99th percentile %s; %s of a processor for a call; %d MiB at most, %d connections to WeChat at most\n",
		c.Name, r.Done, r.Refused, r.Failed, us(harness.At(r.Times, .5)), us(harness.At(r.Times, .99)), us(r.Cost), memory, w.Most.Load())
	if r.Last != nil {
		fmt.Printf("    such as: %v\n", r.Last)
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
	var usual time.Duration // 99th percentile at half of that
	for _, load := range []struct {
		name  string
		rate  int
		conns int
	}{{"half of it", peak / 2, 64}, {"twice of it, 64 callers", peak * 2, 64}, {"twice of it, 2,000 callers", peak * 2, 2000}, {"twice of it, 8,000 callers", peak * 2, 8000}} {
		r, err := ours.Load(load.rate, load.conns, 2*length)
		if err != nil {
			return err
		}
		if usual == 0 {
			usual = harness.At(r.Times, .99)
		}
		recovery, err := ours.Recovery(2*usual, 50)
		if err != nil {
			return err
		}
		seconds := (2 * length).Seconds()
		fmt.Printf("  %-26s %d a second: %.0f succeed (%.2f of the peak), %.0f refused, %.0f fail; median %s, 99th percentile %s", load.name, load.rate,
			float64(r.InTime)/seconds, float64(r.InTime)/seconds/float64(peak), float64(r.Refused)/seconds, float64(r.Failed)/seconds, us(harness.At(r.Answers, .5)), us(harness.At(r.Answers, .99)))
		if r.Refused > 0 {
			fmt.Printf("; refusals: median %s", us(harness.At(r.Refusals, .5)))
		}
		fmt.Printf("; as usual again after %s; %s of a processor for an answer\n", us(r.Drained+recovery), us(r.Cost))
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
	fmt.Printf("From the start to the first answered call, file store: median %s of %d, slowest %s\n", us(harness.At(times, .5)), len(times), us(times[len(times)-1]))
	return nil
}
