package harness

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// Result is what became of a load.
type Result struct {
	Done     int             // calls that succeeded
	InTime   int             // those of them that did so while the load lasted
	Refused  int             // calls that got 503
	Unmade   int             // calls that were due while the load lasted, and for which no connection was free until it ended
	Failed   int             // all others
	Last     error           // one of the failures
	Times    []time.Duration // of those that succeeded, sorted; from when a call was due, not from when it could be made
	Answers  []time.Duration // likewise, from when a call was made
	Refusals []time.Duration // of those that got 503, likewise
	Drained  time.Duration   // from the end of the load to the last answer
	Cost     time.Duration   // of the process, in processor time for each call that was made; connections were there before
}

// At gives the time that a part of the calls stayed below: At(0.99) is the 99th percentile. 0 where there are none.
func At(times []time.Duration, part float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	return times[min(int(part*float64(len(times))), len(times)-1)]
}

// callerPatience is how long a caller waits for an answer.
const callerPatience = 10 * time.Second

// Load makes so many calls a second, whatever becomes of them (an open loop: a call that is due is late if no connection is free
// for it, and that counts), over so many connections that are opened beforehand and kept.
func (c *Target) Load(rate, conns int, length time.Duration) (Result, error) {
	due := make(chan time.Time, rate*int(callerPatience/time.Second))
	results := make([]Result, conns)
	var opened, clients sync.WaitGroup
	opened.Add(conns)
	sem := make(chan struct{}, 64)
	var failed error
	var mu sync.Mutex
	var end time.Time // known when it begins
	begin := make(chan struct{})
	for i := range conns {
		clients.Go(func() {
			sem <- struct{}{}
			w := worker{c: c}
			err := w.open()
			<-sem
			if err != nil {
				mu.Lock()
				failed = err
				mu.Unlock()
			}
			opened.Done()
			<-begin
			if err == nil {
				results[i] = w.run(due, &end)
			}
		})
	}
	opened.Wait()
	var all Result
	before, _ := ProcessorTime(c.Pid)
	start := time.Now()
	end = start.Add(length)
	close(begin)
	for n := 0; ; {
		passed := time.Since(start)
		if passed >= length {
			break
		}
		for ; n < int(passed.Seconds()*float64(rate)); n++ {
			select {
			case due <- start.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second))):
			default:
				all.Unmade++ // nobody has taken a call for ten seconds
			}
		}
		time.Sleep(500 * time.Microsecond)
	}
	close(due)
	clients.Wait()
	for _, r := range results {
		all.Done += r.Done
		all.InTime += r.InTime
		all.Refused += r.Refused
		all.Unmade += r.Unmade
		all.Failed += r.Failed
		if r.Last != nil {
			all.Last = r.Last
		}
		all.Times, all.Answers, all.Refusals = append(all.Times, r.Times...), append(all.Answers, r.Answers...), append(all.Refusals, r.Refusals...)
	}
	all.Drained = max(time.Since(end), 0)
	if after, err := ProcessorTime(c.Pid); err == nil { // WeChat is no process of its own, and has no costs
		all.Cost = (after - before) / time.Duration(max(all.Done+all.Refused+all.Failed, 1))
	}
	slices.Sort(all.Times)
	slices.Sort(all.Answers)
	slices.Sort(all.Refusals)
	return all, failed
}

// Recovery makes one call after another until so many in a row were answered within bound, and gives how long that took to
// begin.
func (c *Target) Recovery(bound time.Duration, calls int) (time.Duration, error) {
	w := worker{c: c}
	if err := w.open(); err != nil {
		return 0, err
	}
	defer w.conn.Close()
	began := time.Now()
	well := began // since when all is well
	for good := 0; good < calls; {
		called := time.Now()
		status, err := w.call()
		if err != nil {
			return 0, err
		}
		good++
		if status != 200 || time.Since(called) > bound {
			good, well = 0, time.Now()
		}
	}
	return well.Sub(began), nil
}

// Times makes so many calls, one after another over one connection, and gives what each took, sorted.
func (c *Target) Times(calls int) ([]time.Duration, error) {
	w := worker{c: c}
	if err := w.open(); err != nil {
		return nil, err
	}
	defer w.conn.Close()
	times := make([]time.Duration, calls)
	for i := range times {
		began := time.Now()
		if status, err := w.call(); err != nil || status != 200 {
			return nil, fmt.Errorf("%d %w", status, err)
		}
		times[i] = time.Since(began)
	}
	slices.Sort(times)
	return times, nil
}

// worker is one caller, with one connection.
type worker struct {
	c       *Target
	conn    net.Conn
	r       *bufio.Reader
	request []byte
	resp    fasthttp.Response
}

func (w *worker) open() (err error) {
	if w.conn, err = net.Dial("tcp", w.c.address); err != nil {
		return err
	}
	w.r = bufio.NewReader(w.conn)
	w.request = w.c.request()
	return nil
}

func (c *Target) request() []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: api.weixin.qq.com\r\nX-Wxproxy-Key: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", c.path, key, len(message), message)
}

// call makes one call and gives the status.
func (w *worker) call() (int, error) {
	w.conn.SetDeadline(time.Now().Add(callerPatience))
	if _, err := w.conn.Write(w.request); err != nil {
		return 0, err
	}
	if err := w.resp.Read(w.r); err != nil {
		return 0, err
	}
	status := w.resp.StatusCode()
	if status != 200 && status != 503 || status == 200 && string(w.resp.Body()) != reply {
		return status, fmt.Errorf("%d %s", status, w.resp.Body())
	}
	return status, nil
}

func (w *worker) run(due <-chan time.Time, end *time.Time) (r Result) {
	defer func() { w.conn.Close() }()
	for at := range due {
		called := time.Now()
		if called.After(*end) {
			r.Unmade++
			continue
		}
		status, err := w.call()
		now := time.Now()
		switch {
		case err != nil:
			r.Failed, r.Last = r.Failed+1, err
			w.conn.Close()
			for w.open() != nil {
				time.Sleep(10 * time.Millisecond)
			}
		case status == 503:
			r.Refused++
			r.Refusals = append(r.Refusals, now.Sub(called))
		default:
			r.Done++
			if now.Before(*end) {
				r.InTime++
			}
			r.Times, r.Answers = append(r.Times, now.Sub(at)), append(r.Answers, now.Sub(called))
		}
	}
	return r
}
