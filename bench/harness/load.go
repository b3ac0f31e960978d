package harness

import (
	"slices"
	"sync"
	"time"
)

// Result is the outcome of [Target.Load].
type Result struct {
	Done     int // requests that succeeded
	InTime   int // those of them that did so before the load ended
	Rejected int // requests answered with 503
	Unsent   int // requests that were due, but found no free connection
	Failed   int // all others

	LastError error // one of the failures

	// Times is sorted, for the requests that succeeded. It starts when a
	// request was due, not when it was sent, so that waiting for a free
	// connection counts (no coordinated omission).
	Times []time.Duration

	// ServiceTimes is like Times, from when a request was sent.
	ServiceTimes []time.Duration

	// RejectTimes is like ServiceTimes, for requests answered with 503.
	RejectTimes []time.Duration

	// Drained is the time from the end of the load to the last response.
	Drained time.Duration

	// Cost is the CPU time of the process per request that was sent. It does
	// not include opening the connections.
	Cost time.Duration
}

// Percentile returns the time below which a part of the sorted times lies:
// Percentile(t, 0.99) is the 99th percentile. It is 0 for no times.
func Percentile(times []time.Duration, part float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	return times[min(int(part*float64(len(times))), len(times)-1)]
}

// Load sends rate requests per second, whatever becomes of them, over conns
// connections that it opens first and keeps. This is an open loop: a request
// that finds no free connection is late, and that counts.
func (t *Target) Load(rate, conns int, length time.Duration) (Result, error) {
	due := make(chan time.Time, rate*int(clientTimeout/time.Second))
	results := make([]Result, conns)
	var opened, clients sync.WaitGroup
	opened.Add(conns)
	// Only some connections are opened at a time. More would overflow the queue
	// of the listener, and the kernel would repeat them after a second.
	sem := make(chan struct{}, 64)
	var failed error
	var mu sync.Mutex
	var end time.Time // set before begin is closed
	begin := make(chan struct{})
	for i := range conns {
		clients.Go(func() {
			sem <- struct{}{}
			c := client{target: t}
			err := c.open()
			<-sem
			if err != nil {
				mu.Lock()
				failed = err
				mu.Unlock()
			}
			opened.Done()
			<-begin
			if err == nil {
				results[i] = c.run(due, &end)
			}
		})
	}
	opened.Wait()
	before, _ := CPUTime(t.Pid)
	start := time.Now()
	end = start.Add(length)
	close(begin)
	unsent := schedule(due, rate, start, length)
	close(due)
	clients.Wait()
	all := merge(results)
	all.Unsent += unsent
	all.Drained = max(time.Since(end), 0)
	// WeChat is not a process of its own, so it has no cost.
	if after, err := CPUTime(t.Pid); err == nil {
		all.Cost = (after - before) / time.Duration(max(all.Done+all.Rejected+all.Failed, 1))
	}
	return all, failed
}

// schedule sends to due the times at which requests are due. It returns how
// many it dropped because the channel was full: no client had taken one for
// clientTimeout.
func schedule(due chan<- time.Time, rate int, start time.Time, length time.Duration) (dropped int) {
	for n := 0; ; {
		passed := time.Since(start)
		if passed >= length {
			return dropped
		}
		for ; n < int(passed.Seconds()*float64(rate)); n++ {
			select {
			case due <- start.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second))):
			default:
				dropped++
			}
		}
		time.Sleep(500 * time.Microsecond)
	}
}

// merge adds up the results of all clients. Each client has a result of its
// own, because a shared one would need a lock for each request.
func merge(results []Result) (all Result) {
	for _, r := range results {
		all.Done += r.Done
		all.InTime += r.InTime
		all.Rejected += r.Rejected
		all.Unsent += r.Unsent
		all.Failed += r.Failed
		if r.LastError != nil {
			all.LastError = r.LastError
		}
		all.Times = append(all.Times, r.Times...)
		all.ServiceTimes = append(all.ServiceTimes, r.ServiceTimes...)
		all.RejectTimes = append(all.RejectTimes, r.RejectTimes...)
	}
	slices.Sort(all.Times)
	slices.Sort(all.ServiceTimes)
	slices.Sort(all.RejectTimes)
	return all
}

// Recovery sends one request after another until count of them in a row
// succeeded within bound. It returns the time until that row began.
func (t *Target) Recovery(bound time.Duration, count int) (time.Duration, error) {
	c := client{target: t}
	if err := c.open(); err != nil {
		return 0, err
	}
	defer c.conn.Close()
	began := time.Now()
	recovered := began
	for good := 0; good < count; {
		sent := time.Now()
		status, err := c.send()
		if err != nil {
			return 0, err
		}
		good++
		if status != 200 || time.Since(sent) > bound {
			good, recovered = 0, time.Now()
		}
	}
	return recovered.Sub(began), nil
}

// Times sends count requests, one after another over one connection. It returns
// how long each took, sorted.
func (t *Target) Times(count int) ([]time.Duration, error) {
	c := client{target: t}
	if err := c.open(); err != nil {
		return nil, err
	}
	defer c.conn.Close()
	times := make([]time.Duration, count)
	for i := range times {
		began := time.Now()
		if err := c.succeed(); err != nil {
			return nil, err
		}
		times[i] = time.Since(began)
	}
	slices.Sort(times)
	return times, nil
}
