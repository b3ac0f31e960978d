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
	// wakePause is the least time between two Wakes of a service that was not
	// down.
	wakePause = 10 * time.Second
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
// that.
type health struct {
	// lanes are accounts whose tries have found the service unavailable since
	// it last answered; downLanes at most.
	lanes  map[string]struct{}
	isDown bool
	// While isDown, no try begins before probeAt. lastProbe is when the last
	// one failed, and probePause the pause that it got.
	probeAt, lastProbe time.Time
	probePause         time.Duration

	mustWake bool // lanes of the service wait although it has answered
	wasDown  bool // wake without regard to wokenAt
	wokenAt  time.Time

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

// failed notes that a try of an account failed.
func (h *health) failed(now time.Time, appid string, unavailable bool) healthChange {
	if unavailable {
		h.unavailable(now, appid)
	} else {
		h.answered()
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
func (h *health) answered() {
	if len(h.lanes) > 0 {
		h.mustWake = true
	}
	h.wasDown = h.wasDown || h.isDown
	h.isDown = false
	clear(h.lanes)
}

// succeeded notes that the service has accepted an event.
func (h *health) succeeded(now time.Time) healthChange {
	h.answered()
	if !h.isFailing || !h.isUnavailable && now.Sub(h.failedAt) < logPause {
		return unchanged
	}
	h.isFailing = false
	return recovered
}

// hasten notes a new event, which a service that is down is to be tried with at
// once: it may be back.
func (h *health) hasten(now time.Time) {
	if soon := h.lastProbe.Add(store.MinQueuePause); h.isDown && h.probeAt.After(soon) {
		h.probeAt = later(now, soon)
	}
}

// takeWake reports whether the lanes of the service are to be woken now.
func (h *health) takeWake(now time.Time) bool {
	if !h.mustWake || !h.wasDown && now.Sub(h.wokenAt) < wakePause {
		return false
	}
	h.mustWake, h.wasDown, h.wokenAt = false, false, now
	return true
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
