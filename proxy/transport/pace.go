package transport

import "time"

// Pace is how fast the body of a request has to arrive. Bodies take memory that
// others need, so a client must not be able to hold it by sending a byte now
// and then. What honest clients send, over slow links too, arrives much faster
// than [DefaultPace].
type Pace struct {
	// Grace is the time that a body has in any case.
	Grace time.Duration
	// MinRate is the least number of bytes per second, after Grace. Time that a
	// client saved by sending faster it can use later, for pauses up to
	// MaxPause.
	MinRate int
	// MaxPause is the longest time in which nothing arrives. The idle timeout
	// of the connection counts, too, if it is shorter.
	MaxPause time.Duration
	// Total is the longest that a body takes.
	Total time.Duration
}

// DefaultPace lets a body of 10 MiB arrive over a link of 18 KB/s.
var DefaultPace = Pace{
	Grace: 15 * time.Second, MinRate: 1 << 10, MaxPause: 30 * time.Second, Total: 10 * time.Minute,
}

// first returns the deadline of a body that begins at now.
func (p *Pace) first(now time.Time) time.Time {
	return now.Add(min(p.Grace, p.MaxPause, p.Total))
}

// next returns the deadline of a body that began at begin, of which n bytes
// have arrived at now. deadline is the one before.
func (p *Pace) next(begin, deadline, now time.Time, n int) time.Time {
	// In seconds first: so many bytes that a Duration overflows fit in memory.
	earned := min(float64(n)/float64(p.MinRate), p.MaxPause.Seconds())
	next := deadline.Add(time.Duration(earned * float64(time.Second)))
	for _, limit := range [...]time.Time{now.Add(p.MaxPause), begin.Add(p.Total)} {
		if next.After(limit) {
			next = limit
		}
	}
	return next
}

// bodyClock sets the deadlines of a connection while a body arrives.
type bodyClock struct {
	conn            *CallerConn // nil: there are no deadlines
	begin, deadline time.Time   // zero: the connection's own deadline holds
}

// start begins at now.
func (k *bodyClock) start(now time.Time) {
	if k.conn == nil {
		return
	}
	k.begin, k.deadline = now, k.conn.pace.first(now)
	k.conn.setDeadline(k.deadline)
}

// received notes that n bytes have arrived and more are to come.
func (k *bodyClock) received(n int) {
	if k.conn == nil {
		return
	}
	now := time.Now()
	if k.begin.IsZero() {
		k.start(now)
	}
	k.deadline = k.conn.pace.next(k.begin, k.deadline, now, n)
	k.conn.setDeadline(k.deadline)
}
