package admission

import (
	"log/slog"
	"os"
	"runtime"
	"sync/atomic"
	"time"
)

// Files bound the calls under way when WeChat is slow. When wxproxy itself is, because more is asked than its processors can
// do, the same calls only stand in each other's way, long before files are short. What tells the two apart is how long
// something that has arrived waits until it is looked at. While that is long there are fewer places, and who has none waits
// in a queue, which costs little.

const (
	pressureTick = 100 * time.Millisecond
	// Places are taken away for a delay of tooMuch, at so many ticks in a row, which no burst lasts for, while there are more
	// than many calls under way for each processor. With fewer all are served in good time, and none has to be refused.
	tooMuch      = 10 * time.Millisecond
	tooMuchTicks = 5
	many         = 512
	// wanted is the delay that the number of places is steered to then, and fewest how many there are at least, for each
	// processor: enough that it never rests, even if only one account calls, which may have half of them.
	wanted = time.Millisecond
	fewest = 128
)

// pressure steers the places of shares.
type pressure struct {
	s    *Limiter
	log  *slog.Logger
	over int  // ticks in a row at which the delay was tooMuch
	on   bool // there are fewer places than files
}

// tick is told how long what arrives waits now.
func (p *pressure) tick(delay time.Duration) {
	processors := int64(runtime.GOMAXPROCS(0))
	room, total, least := p.s.room.Load(), p.s.total.Load(), fewest*processors
	if p.over++; delay < tooMuch || total <= many*processors {
		p.over = 0
	}
	switch {
	case !p.on && p.over >= tooMuchTicks:
		p.on = true
		p.s.resize(max(total/2, least))
		p.log.Warn("more is asked than the processors can do: calls wait for their turn, and some are refused", "delay", delay)
	case p.on && p.s.queue.length.Load() == 0 && delay < tooMuch:
		p.on = false
		p.s.resize(p.s.most)
		p.log.Info("no more is asked than the processors can do")
	case p.on:
		change := min(max(float64(wanted)/float64(max(delay, 1)), .5), 1.25)
		p.s.resize(max(int64(float64(room)*change), least))
	}
}

// Run steers the places, and refuses those who have waited for too long, until stop is closed and no call is under way any more.
func (s *Limiter) Run(stop <-chan struct{}, log *slog.Logger) {
	p := &pressure{s: s, log: log}
	pr, err := newProbe()
	if err != nil {
		p.log.Warn("nothing tells when more is asked than the processors can do", "error", err)
	}
	defer pr.close()
	ticker := time.NewTicker(pressureTick)
	defer ticker.Stop()
	for over := false; !over || p.s.total.Load() > 0 || p.s.queue.length.Load() > 0; {
		pr.send()
		select {
		case <-stop:
			over, stop = true, nil
		case now := <-ticker.C:
			p.tick(pr.delay())
			p.s.queue.sweep(now, p.on)
		}
	}
}

// probe measures how long a byte that arrives waits until it is read. It goes the way of everything else that arrives: into
// the kernel's list of what is ready, behind what is there, and from it, by the runtime, to whoever reads. Go's own measure
// of waiting (/sched/latencies) begins only when it has taken something from that list, 128 at a time, and sees no queue.
// nil measures nothing.
type probe struct {
	began time.Time
	sent  time.Duration // when the byte was, since began
	r, w  *os.File
	back  atomic.Int64 // when it was read, likewise; 0: not yet
}

func newProbe() (*probe, error) {
	p := &probe{began: time.Now()}
	var err error
	if p.r, p.w, err = os.Pipe(); err != nil {
		return nil, err
	}
	go func() {
		for b := make([]byte, 1); ; {
			if _, err := p.r.Read(b); err != nil {
				return
			}
			p.back.Store(int64(time.Since(p.began)))
		}
	}()
	p.back.Store(1)
	return p, nil
}

// send sends a byte, unless the last one is still on its way.
func (p *probe) send() {
	if p == nil || p.back.Load() == 0 {
		return
	}
	p.back.Store(0)
	p.sent = time.Since(p.began)
	p.w.Write([]byte{0})
}

// delay is how long the last byte took, or has taken until now.
func (p *probe) delay() time.Duration {
	if p == nil {
		return 0
	}
	if back := p.back.Load(); back != 0 {
		return max(time.Duration(back)-p.sent, 0)
	}
	return time.Since(p.began) - p.sent
}

func (p *probe) close() {
	if p != nil {
		p.w.Close()
		p.r.Close()
	}
}
