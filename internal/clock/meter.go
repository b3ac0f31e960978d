package clock

import (
	"slices"
	"sync"
	"time"
)

// Meter measures how far another clock is ahead of this machine's, from
// responses that say what time it is there. It is safe for concurrent use. The
// zero value has measured nothing.
type Meter struct {
	mu      sync.Mutex
	samples []sample // the newest at the end

	// elapsed returns how far this machine's clock has moved between two of its
	// times, and how much time has passed. Tests replace it.
	elapsed func(from, to time.Time) (moved, passed time.Duration)
}

// sample is one measurement.
type sample struct {
	at          time.Time     // by this machine's clock
	ahead       time.Duration // of the other clock
	uncertainty time.Duration // ahead may be wrong by that much
}

const (
	// maxSamples is how many measurements count. Their median is the result, so
	// that one node of many whose clock is wrong changes nothing.
	maxSamples = 5
	// minSamples is how many there must be before there is a result.
	minSamples = 2
	// maxRoundTrip is how long a response may take: a slower one says little.
	maxRoundTrip = 20 * time.Second
	// maxStep is how far this machine's clock may run ahead of the time that
	// has passed before a measurement is dropped. The machine may have slept,
	// or its clock was set.
	maxStep = 10 * time.Second
)

// Observe takes a measurement: a request was sent and its response received, by
// this machine's clock, and the other clock said theirs meanwhile, cut off to a
// multiple of resolution. A zero time does not count.
func (m *Meter) Observe(sent, received, theirs time.Time, resolution time.Duration) {
	moved, took := m.between(sent, received)
	if theirs.IsZero() || took < 0 || took > maxRoundTrip || (moved-took).Abs() > maxStep {
		return
	}
	middle := sent.Add(took / 2)
	s := sample{
		at:          middle,
		ahead:       theirs.Add(resolution / 2).Round(0).Sub(middle.Round(0)),
		uncertainty: resolution/2 + took/2,
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.samples) == maxSamples {
		m.samples = append(m.samples[:0], m.samples[1:]...)
	}
	m.samples = append(m.samples, s)
}

// Ahead returns how far the other clock is ahead of this machine's at the time
// now, negative if it is behind, and 0 if the difference is too small to be
// measured. It returns false if too little was measured. A clock that was set
// back since a measurement is noticed at once. If it was set ahead, the
// measurements before that no longer count.
func (m *Meter) Ahead(now time.Time) (time.Duration, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []time.Duration
	for _, s := range m.samples {
		moved, passed := m.between(s.at, now)
		step := moved - passed
		if step > maxStep {
			continue
		}
		ahead := s.ahead
		if step < -maxStep {
			ahead -= step
		}
		if ahead.Abs() <= s.uncertainty {
			ahead = 0
		}
		all = append(all, ahead)
	}
	if len(all) < minSamples {
		return 0, false
	}
	slices.Sort(all)
	middle := all[len(all)/2]
	if len(all)%2 == 0 { // of two in the middle, the one that blames the clocks less
		if other := all[len(all)/2-1]; other.Abs() < middle.Abs() {
			middle = other
		}
	}
	return middle, true
}

// between is elapsed.
func (m *Meter) between(from, to time.Time) (moved, passed time.Duration) {
	if m.elapsed != nil {
		return m.elapsed(from, to)
	}
	return to.Round(0).Sub(from.Round(0)), to.Sub(from) // Round removes the monotonic reading
}
