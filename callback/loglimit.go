package callback

import (
	"sync"
	"time"
)

// A logLimit lets maxLogBurst lines of one kind pass in each logPeriod.
const (
	logPeriod   = time.Minute
	maxLogBurst = 10
)

// logLimit bounds how often lines of the same kind are logged. It is safe for
// concurrent use.
type logLimit struct {
	now func() time.Time

	mu    sync.Mutex
	kinds map[string]logCount // one of each result label at most
}

// logCount holds the lines of one kind in one period.
type logCount struct {
	since              time.Time
	logged, suppressed int
}

func newLogLimit(now func() time.Time) *logLimit {
	return &logLimit{now: now, kinds: map[string]logCount{}}
}

// allow reports whether a line of this kind may be logged now, and how many
// were suppressed since the last one.
func (l *logLimit) allow(kind string) (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, now := l.kinds[kind], l.now()
	if age := now.Sub(c.since); age >= logPeriod || age < 0 {
		c.since, c.logged = now, 0
	}
	if ok = c.logged < maxLogBurst; ok {
		suppressed, c.suppressed = c.suppressed, 0
		c.logged++
	} else {
		c.suppressed++
	}
	l.kinds[kind] = c
	return suppressed, ok
}
