package admission

import (
	"log/slog"
	"os"
	"runtime"
	"sync/atomic"
	"time"
)

// File descriptors bound the requests in flight while WeChat is slow. If
// wxproxy itself is the bottleneck, because more is asked than its CPUs can do,
// many requests in flight only slow each other down, long before file
// descriptors run out. The scheduling delay tells the two apart: how long data
// that has arrived waits until it is read. While it is long, the limit is
// lowered and further requests wait in the queue, which costs little.

const (
	// controlInterval is the time between two measurements of the delay, and
	// between two sweeps of the queue.
	controlInterval = 100 * time.Millisecond
	// overloadDelay is a scheduling delay that means overload if it is seen
	// overloadTicks times in a row, longer than a burst lasts.
	overloadDelay = 10 * time.Millisecond
	overloadTicks = 5
	// minInFlightPerCPU is how many requests must be in flight for each CPU
	// before the limit is lowered. Fewer are served in good time, and rejecting
	// any of them would be wrong.
	minInFlightPerCPU = 512
	// targetDelay is the scheduling delay that the controller aims for under
	// overload.
	targetDelay = time.Millisecond
	// minLimitPerCPU is the lowest limit for each CPU. It keeps the CPUs busy
	// even if one key alone is active, which may have half of the slots.
	minLimitPerCPU = 128
)

// overloadController adjusts the limit to keep the scheduling delay near its
// target. Only the goroutine of Run uses it.
type overloadController struct {
	limiter *Limiter
	log     *slog.Logger
	ticks   int  // measurements in a row that showed overload
	active  bool // the limit is lowered
}

// tick processes one measurement of the scheduling delay.
func (c *overloadController) tick(delay time.Duration) {
	cpus := int64(runtime.GOMAXPROCS(0))
	limit, total, minLimit := c.limiter.limit.Load(), c.limiter.total.Load(), minLimitPerCPU*cpus
	if c.ticks++; delay < overloadDelay || total <= minInFlightPerCPU*cpus {
		c.ticks = 0
	}
	switch {
	case !c.active && c.ticks >= overloadTicks:
		c.active = true
		c.limiter.setLimit(max(total/2, minLimit))
		c.log.Warn("overloaded, shedding load", "delay", delay, "in_flight", total)
	case c.active && c.limiter.queue.length.Load() == 0 && delay < overloadDelay:
		c.active = false
		c.limiter.setLimit(c.limiter.maxLimit)
		c.log.Info("overload ended")
	case c.active:
		change := min(max(float64(targetDelay)/float64(max(delay, 1)), .5), 1.25)
		c.limiter.setLimit(max(int64(float64(limit)*change), minLimit))
	}
}

// Run adjusts the limit and times out waiting requests. It returns once stop is
// closed and no request waits or is in flight, so that requests which wait
// while the process stops are answered too.
func (l *Limiter) Run(stop <-chan struct{}, log *slog.Logger) {
	c := &overloadController{limiter: l, log: log}
	probe, err := newDelayProbe()
	if err != nil {
		log.Warn("overload detection disabled", "error", err)
	}
	defer probe.close()
	ticker := time.NewTicker(controlInterval)
	defer ticker.Stop()
	for stopping := false; !stopping || l.total.Load() > 0 || l.queue.length.Load() > 0; {
		probe.send()
		select {
		case <-stop:
			stopping, stop = true, nil
		case now := <-ticker.C:
			c.tick(probe.delay())
			l.queue.sweep(now, c.active)
		}
	}
}

// delayProbe measures how long a byte that has arrived waits until it is read.
// It takes the path of all other input: through the kernel's list of ready
// files, behind what is there already, and from there, by the Go runtime, to
// the goroutine that reads. Go's own measure (/sched/latencies) starts only
// when the runtime has taken an item from that list, 128 at a time, and does
// not see the queue before it. A nil probe measures nothing.
type delayProbe struct {
	start    time.Time
	sent     time.Duration // time of the last send, since start
	r, w     *os.File
	received atomic.Int64 // time of its receipt, since start in ns; 0 while it is pending
}

func newDelayProbe() (*delayProbe, error) {
	p := &delayProbe{start: time.Now()}
	var err error
	if p.r, p.w, err = os.Pipe(); err != nil {
		return nil, err
	}
	go func() {
		for b := make([]byte, 1); ; {
			if _, err := p.r.Read(b); err != nil {
				return
			}
			p.received.Store(int64(time.Since(p.start)))
		}
	}()
	p.received.Store(1)
	return p, nil
}

// send sends a byte, unless the last one is still pending.
func (p *delayProbe) send() {
	if p == nil || p.received.Load() == 0 {
		return
	}
	p.received.Store(0)
	p.sent = time.Since(p.start)
	p.w.Write([]byte{0})
}

// delay returns how long the last byte took, or has taken so far. A nil probe
// returns 0.
func (p *delayProbe) delay() time.Duration {
	if p == nil {
		return 0
	}
	if received := p.received.Load(); received != 0 {
		return max(time.Duration(received)-p.sent, 0)
	}
	return time.Since(p.start) - p.sent
}

func (p *delayProbe) close() {
	if p != nil {
		p.w.Close()
		p.r.Close()
	}
}
