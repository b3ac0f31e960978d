package queue

import (
	"time"

	"wxproxy/tokens/store"
)

const (
	// downLanes is how many accounts must have failed one after the other, with
	// errors that concern the service as a whole, until it counts as down.
	downLanes = 3
	// maxProbePause is the longest pause between two tries of a service that is
	// down. It is shorter than that of a lane, because it is one try for all.
	maxProbePause = 10 * time.Second
	// wakePause is the least time between two Wakes of a service. It doubles up
	// to maxWakePause while the service often fails again: it may be
	// unavailable for some accounts only, whose pauses must stay.
	wakePause    = 10 * time.Second
	maxWakePause = 10 * time.Minute
	// batchPause is the least time between two batches of tries of a service
	// that is down.
	batchPause = 100 * time.Millisecond
	// logPause is the least time between two lines that a service fails, and
	// how long none of its tries may have failed until it counts as recovered,
	// if it never failed as a whole.
	logPause = time.Minute
)

// health is how the tries of a service have ended lately, in this process. It
// decides when a service is down, and when lanes are to be tried before their
// pause ends. The mutex of the Queue guards it. The zero value is healthy.
//
// A service that is down gets one try at a time, of whatever lane is due. The
// first that it answers, if only with an error of that event, is the end of
// that. But when it begins to be down, and after each new event, all lanes that
// are due get one try: it may be unavailable for some accounts only.
type health struct {
	// lanes are accounts whose tries have found the service unavailable since
	// it last answered; downLanes at most.
	lanes  map[string]struct{}
	isDown bool
	// While isDown, no try begins before probeAt. lastProbe is when the last
	// one failed, and probePause the pause that it got.
	probeAt, lastProbe time.Time
	probePause         time.Duration
	// triesAll: while isDown, all lanes that are due get a try.
	triesAll bool

	mustWake   bool // lanes of the service wait although it has answered
	wokenAt    time.Time
	wakePause  time.Duration // since wokenAt; 0: none
	answeredAt time.Time     // last

	isFailing          bool // and was logged as such
	failedAt, loggedAt time.Time
	failures           int // since isFailing
	isUnavailable      bool
	failingSince       time.Time
}

// change of the health of a service that is to be logged.
type healthChange int

const (
	unchanged healthChange = iota
	beganToFail
	recovered
)

// failed notes that a try of an account failed, which began at began. If the
// service has answered others since, it is not unavailable as a whole.
func (h *health) failed(now, began time.Time, appid string, unavailable bool) healthChange {
	switch {
	case !unavailable:
		h.answered(now)
	case h.isDown || !began.Before(h.answeredAt):
		h.unavailable(now, appid)
	}
	h.failedAt = now
	h.failures++
	h.isUnavailable = h.isUnavailable || unavailable
	if h.isFailing || !h.loggedAt.IsZero() && now.Sub(h.loggedAt) < logPause {
		return unchanged
	}
	h.isFailing, h.isUnavailable = true, unavailable
	h.failures, h.failingSince, h.loggedAt = 1, now, now
	return beganToFail
}

// unavailable notes a failure that concerns the service as a whole.
func (h *health) unavailable(now time.Time, appid string) {
	if h.lanes == nil {
		h.lanes = map[string]struct{}{}
	}
	if len(h.lanes) < downLanes {
		h.lanes[appid] = struct{}{}
	}
	switch {
	case !h.isDown && len(h.lanes) < downLanes:
		return
	case !h.isDown:
		h.isDown, h.probePause = true, store.MinQueuePause
	case !now.Before(h.probeAt): // others began before it was down
		h.probePause = min(2*h.probePause, maxProbePause)
	}
	h.lastProbe, h.probeAt = now, now.Add(h.probePause)
}

// answered notes that the service can be reached.
func (h *health) answered(now time.Time) {
	if len(h.lanes) > 0 {
		h.mustWake = true
	}
	h.isDown, h.answeredAt = false, now
	clear(h.lanes)
}

// succeeded notes that the service has accepted an event.
func (h *health) succeeded(now time.Time) healthChange {
	h.answered(now)
	if !h.isFailing || !h.isUnavailable && now.Sub(h.failedAt) < logPause {
		return unchanged
	}
	h.isFailing = false
	return recovered
}

// nextTry returns when a service that is down is tried next, at the earliest.
func (h *health) nextTry() time.Time {
	if h.triesAll {
		return h.lastProbe.Add(batchPause)
	}
	return h.probeAt
}

// takeWake reports whether the lanes of the service are to be woken now.
func (h *health) takeWake(now time.Time) bool {
	since := now.Sub(h.wokenAt)
	if !h.mustWake || since < h.wakePause {
		return false
	}
	next := wakePause
	if since < 4*h.wakePause {
		next = min(2*h.wakePause, maxWakePause)
	}
	h.mustWake, h.wokenAt, h.wakePause = false, now, next
	return true
}
