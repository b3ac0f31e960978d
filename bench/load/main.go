// Command load measures wxproxy under load, beside bench/bare and beside a
// WeChat without a proxy: what it adds to a request at low and at high load,
// ten thousand connections, overload, and the time from start to first
// response.
//
//	go run ./bench/load
package main

import (
	"flag"
	"fmt"
	"log"
	"slices"
	"time"

	"wxproxy/bench/harness"
)

func main() {
	length := flag.Duration("length", 5*time.Second, "length of one measurement")
	only := flag.String("only", "", "one of latency, crowd, overload, startup; empty runs all")
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
			log.Fatalf("%s: %v", m.name, err)
		}
	}
}

// setup is WeChat with both proxies in front of it.
type setup struct {
	*harness.Harness
	wechat        *harness.WeChat
	bare, wxproxy *harness.Target
}

// newSetup starts everything without TLS. Here, the behavior under load is
// measured; bench/peers.sh measures the cost of TLS.
func newSetup() (s setup, err error) {
	if s.Harness, err = harness.New(); err != nil {
		return
	}
	if s.wechat, err = harness.NewWeChat(false); err != nil {
		return
	}
	if s.bare, err = s.Bare(s.wechat); err != nil {
		return
	}
	s.wxproxy, err = s.Wxproxy(s.wechat, "file:wxproxy.db")
	return
}

// us formats a duration in microseconds, below which results are noise.
func us(d time.Duration) string { return d.Round(time.Microsecond).String() }

// latency measures how long a request takes: over one connection, and at 70 %
// of the peak. The speed of the machine changes within seconds, so each target
// has many short turns.
func latency(length time.Duration) error {
	s, err := newSetup()
	if err != nil {
		return err
	}
	defer s.Close()
	const turns = 15 // their median is stable on a shared machine
	targets := []*harness.Target{&s.wechat.Target, s.bare, s.wxproxy}
	fmt.Println("One connection, one request after another:")
	var medians, tails [3][]time.Duration
	for range turns {
		for i, t := range targets {
			times, err := t.Times(2_000)
			if err != nil {
				return fmt.Errorf("%s: %w", t.Name, err)
			}
			medians[i] = append(medians[i], harness.Percentile(times, .5))
			tails[i] = append(tails[i], harness.Percentile(times, .99))
		}
	}
	report(targets, medians, tails)
	peak, err := s.wxproxy.Peak(length, 64)
	if err != nil {
		return err
	}
	rate := peak * 7 / 10
	fmt.Printf("64 connections, %d requests per second, 70 %% of wxproxy's peak:\n", rate)
	medians, tails = [3][]time.Duration{}, [3][]time.Duration{}
	for range turns {
		for i, t := range targets {
			r, err := t.Load(rate, 64, length/5)
			if err != nil || r.Failed+r.Rejected > 0 {
				return fmt.Errorf("%s: %d rejected, %d failed: %v %v", t.Name, r.Rejected, r.Failed,
					r.LastError, err)
			}
			medians[i] = append(medians[i], harness.Percentile(r.Times, .5))
			tails[i] = append(tails[i], harness.Percentile(r.Times, .99))
		}
	}
	report(targets, medians, tails)
	return nil
}

// report prints the medians over all turns.
func report(targets []*harness.Target, medians, tails [3][]time.Duration) {
	for i, t := range targets {
		slices.Sort(medians[i])
		slices.Sort(tails[i])
		fmt.Printf("  %-8s median %s, 99th percentile %s\n", t.Name,
			us(harness.Percentile(medians[i], .5)), us(harness.Percentile(tails[i], .5)))
	}
}

// crowd opens ten thousand connections and lets WeChat take 100 ms for each
// response. It measures the cost of a request far below the peak, beside
// bench/bare.
func crowd(length time.Duration) error {
	const conns, rate = 10_000, 5_000
	fmt.Printf("%d connections, %d requests per second, WeChat takes 100 ms:\n", conns, rate)
	for _, wxproxy := range []bool{false, true} {
		if err := crowdOn(wxproxy, conns, rate, 2*length); err != nil {
			return err
		}
	}
	return nil
}

// crowdOn measures one of the two proxies. Each has a setup of its own, so that
// connections to WeChat are those of one proxy.
func crowdOn(wxproxy bool, conns, rate int, length time.Duration) error {
	s, err := newSetup()
	if err != nil {
		return err
	}
	defer s.Close()
	t := s.bare
	if wxproxy {
		t = s.wxproxy
	}
	// The first requests fetch the token, which must not be part of the result.
	if _, err := t.Load(100, 1, time.Second); err != nil {
		return err
	}
	s.wechat.Delay = 100 * time.Millisecond
	s.wechat.MaxConns.Store(0)
	r, err := t.Load(rate, conns, length)
	if err != nil {
		return err
	}
	memory, err := peakMemory(t.Pid)
	if err != nil {
		return err
	}
	fmt.Printf("  %-8s %d requests, %d rejected, %d failed; median %s, 99th percentile %s; "+
		"%s of CPU time per request; at most %d MiB, at most %d connections to WeChat\n",
		t.Name, r.Done, r.Rejected, r.Failed, us(harness.Percentile(r.Times, .5)), us(
			harness.Percentile(r.Times, .99)),
		us(r.Cost), memory, s.wechat.MaxConns.Load())
	if r.LastError != nil {
		fmt.Printf("    such as: %v\n", r.LastError)
	}
	return nil
}

// overload sends twice as many requests as wxproxy can serve. wxproxy is
// limited to a fifth of a CPU, so that the clients have CPU time to send them.
func overload(length time.Duration) error {
	s, err := newSetup()
	if err != nil {
		return err
	}
	defer s.Close()
	undo, err := limitCPU(s.wxproxy.Pid, .2)
	if err != nil {
		fmt.Printf("Overload: not measured, %v\n", err)
		return nil
	}
	defer undo()
	peak, err := s.wxproxy.Peak(length, 64)
	if err != nil {
		return err
	}
	fmt.Printf("Overload: the peak of a fifth of a CPU is %d requests per second\n", peak)
	var usual time.Duration // 99th percentile at half of the peak
	for _, load := range []struct {
		name  string
		rate  int
		conns int
	}{
		{"half of it", peak / 2, 64},
		{"twice, 64 connections", peak * 2, 64},
		{"twice, 2,000 connections", peak * 2, 2000},
		{"twice, 8,000 connections", peak * 2, 8000},
	} {
		r, err := s.wxproxy.Load(load.rate, load.conns, 2*length)
		if err != nil {
			return err
		}
		if usual == 0 {
			usual = harness.Percentile(r.Times, .99)
		}
		recovery, err := s.wxproxy.Recovery(2*usual, 50)
		if err != nil {
			return err
		}
		seconds := (2 * length).Seconds()
		inTime := float64(r.InTime) / seconds
		fmt.Printf("  %-26s %d per second: %.0f succeed (%.2f of the peak), %.0f rejected, %.0f fail; "+
			"median %s, 99th percentile %s", load.name, load.rate,
			inTime, inTime/float64(peak), float64(r.Rejected)/seconds, float64(r.Failed)/seconds,
			us(harness.Percentile(r.ServiceTimes, .5)), us(harness.Percentile(r.ServiceTimes, .99)))
		if r.Rejected > 0 {
			fmt.Printf("; rejections: median %s", us(harness.Percentile(r.RejectTimes, .5)))
		}
		fmt.Printf("; recovered after %s; %s of CPU time per response\n", us(r.Drained+recovery),
			us(r.Cost))
	}
	return nil
}

// startup measures the time from the start of the process to the first
// response, with a file store that has the token.
func startup(time.Duration) error {
	s, err := newSetup()
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.wxproxy.Peak(200*time.Millisecond, 1); err != nil {
		return err
	}
	var times []time.Duration
	for range 11 {
		took, err := s.Restart(s.wxproxy)
		if err != nil {
			return err
		}
		times = append(times, took)
	}
	slices.Sort(times)
	fmt.Printf("From the start to the first response, file store: median %s of %d, slowest %s\n",
		us(harness.Percentile(times, .5)), len(times), us(times[len(times)-1]))
	return nil
}
