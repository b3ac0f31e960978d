package tokens

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"wxproxy/internal/clock"
	"wxproxy/tokens/store"
)

// clocks compares this machine's clock with WeChat's, by the Date of the
// responses to wxproxy's own requests, and with the store's, if it has one. It
// is safe for concurrent use.
//
// A wrong clock is reported and never a reason to reject requests: a box in
// front of WeChat may send any Date.
type clocks struct {
	weChat  clock.Meter
	store   clock.Meter
	askTime store.Clock // nil if the store has no clock
	tasks   *taskGroup
	now     func() time.Time
	log     *slog.Logger
}

const (
	// maxReadySkew is the largest difference of two clocks with which wxproxy
	// is ready.
	maxReadySkew = time.Minute
	// clockInterval is the time between two questions to the store. A measured
	// difference is logged within that time.
	clockInterval = 10 * time.Second
	// clockTimeout bounds one question.
	clockTimeout = 5 * time.Second
	// dateResolution is that of the header Date.
	dateResolution = time.Second
)

// Clock names a clock that wxproxy compares its own with, as metrics do.
type Clock string

const (
	WeChatClock Clock = "wechat"
	StoreClock  Clock = "store"
)

// ahead returns how far a clock is ahead of this machine's, and false if that
// is not known.
func (c *clocks) ahead(of Clock) (time.Duration, bool) {
	if of == StoreClock {
		return c.store.Ahead(c.now())
	}
	return c.weChat.Ahead(c.now())
}

// differs returns what is wrong with a clock, nil if it agrees or is not known.
func (c *clocks) differs(of Clock) error {
	ahead, known := c.ahead(of)
	if !known || ahead.Abs() <= maxReadySkew {
		return nil
	}
	direction, name := "behind", "WeChat's"
	if ahead < 0 {
		direction = "ahead of"
	}
	if of == StoreClock {
		name = "the store's"
	}
	return fmt.Errorf("the clock of this machine is %v %s %s, limit %v: synchronize it (NTP)",
		ahead.Abs().Round(time.Second), direction, name, maxReadySkew)
}

// farOff reports whether this machine's clock differs from the store's by so
// much that other replicas see that the times which it writes are wrong; see
// [account.hasWrongTimes]. Only the store's clock counts: a file store has no
// other replicas.
func (c *clocks) farOff() bool {
	ahead, known := c.ahead(StoreClock)
	return known && ahead.Abs() > maxTokenLife/2
}

// check returns why the clocks do not agree, or nil.
func (c *clocks) check() error {
	return errors.Join(c.differs(WeChatClock), c.differs(StoreClock))
}

// run measures the store's clock and logs when a difference begins and ends,
// until the Broker is closed.
func (c *clocks) run(interval time.Duration) {
	reported := map[Clock]bool{}
	t := time.NewTicker(interval)
	defer t.Stop()
	for first := true; ; first = false {
		c.measureStore()
		if first {
			c.measureStore() // a single measurement does not count
		}
		for _, of := range []Clock{WeChatClock, StoreClock} {
			err := c.differs(of)
			_, known := c.ahead(of)
			switch {
			case err != nil && !reported[of]:
				c.log.Warn("clock differs", "of", string(of), "problem", err)
				reported[of] = true
			case err == nil && known && reported[of]:
				c.log.Info("clock agrees again", "of", string(of))
				reported[of] = false
			}
		}
		select {
		case <-t.C:
		case <-c.tasks.background.Done():
			return
		}
	}
}

// measureStore asks the store for its time. A failure only means that nothing
// is measured.
func (c *clocks) measureStore() {
	if c.askTime == nil {
		return
	}
	ctx, cancel := context.WithTimeout(c.tasks.background, clockTimeout)
	defer cancel()
	sent := c.now()
	if at, err := c.askTime.Time(ctx); err == nil {
		c.store.Observe(sent, c.now(), at, time.Microsecond)
	}
}
