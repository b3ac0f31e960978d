package clock

import (
	"testing"
	"time"
)

// wall is a machine's clock that a test sets. Its times have no monotonic
// reading, so passed is noted for each of them.
type wall struct {
	now    time.Time
	passed time.Duration
	when   map[time.Time]time.Duration
}

func newWall() *wall {
	return &wall{now: time.Unix(1_800_000_000, 0), when: map[time.Time]time.Duration{}}
}

func (w *wall) pass(d time.Duration) { w.now, w.passed = w.now.Add(d), w.passed+d }
func (w *wall) set(d time.Duration)  { w.now = w.now.Add(d) }

// read returns the time of the clock.
func (w *wall) read() time.Time { w.when[w.now] = w.passed; return w.now }

func (w *wall) meter() *Meter {
	return &Meter{elapsed: func(from, to time.Time) (moved, passed time.Duration) {
		return to.Sub(from), w.when[to] - w.when[from]
	}}
}

// observe lets m measure a clock that is ahead, with a response that takes
// some time.
func (w *wall) observe(m *Meter, ahead, took, resolution time.Duration) {
	sent := w.read()
	w.pass(took)
	received := w.read()
	// The middle of a request is noted as the samples are.
	w.when[sent.Add(took/2)] = w.when[sent] + took/2
	m.Observe(sent, received, sent.Add(took/2).Add(ahead).Truncate(resolution), resolution)
}

// TestMeterMeasures measures clocks from six hours behind to a month ahead,
// with responses of 1 ms to 20 s and resolutions of a microsecond and a second.
// The result is right within half of the response and half of the resolution,
// and 0 if that explains the difference.
func TestMeterMeasures(t *testing.T) {
	for _, ahead := range []time.Duration{
		0, 300 * time.Millisecond, -2 * time.Second, 61 * time.Second,
		-6 * time.Hour, 720 * time.Hour,
	} {
		for _, took := range []time.Duration{time.Millisecond, 3 * time.Second, 20 * time.Second} {
			for _, resolution := range []time.Duration{time.Microsecond, time.Second} {
				w := newWall()
				m := w.meter()
				for range 7 {
					w.observe(m, ahead, took, resolution)
					w.pass(1234 * time.Millisecond)
				}
				bound := took/2 + resolution/2
				got, known := m.Ahead(w.read())
				if !known || (got-ahead).Abs() > bound || ahead.Abs() > 2*bound && got == 0 {
					t.Errorf("clock %v ahead, response of %v, resolution %v: got %v, %v, want it within %v",
						ahead, took, resolution, got, known, bound)
				}
				if ahead == 0 && got != 0 {
					t.Errorf("clocks agree, response of %v, resolution %v: got %v, want 0",
						took, resolution, got)
				}
			}
		}
	}
}

// TestMeterIgnoresWrongNode checks that nothing is known from one measurement,
// and that up to two wrong ones of the last five change nothing, in any order.
func TestMeterIgnoresWrongNode(t *testing.T) {
	w := newWall()
	m := w.meter()
	w.observe(m, 6*time.Hour, time.Millisecond, time.Second)
	if got, known := m.Ahead(w.read()); known {
		t.Errorf("after one measurement: got %v, true, want false", got)
	}
	for wrong := range 1 << 5 {
		m := w.meter()
		n := 0
		for i := range 5 {
			ahead := time.Duration(0)
			if wrong&(1<<i) != 0 {
				ahead = 6 * time.Hour
				n++
			}
			w.observe(m, ahead, time.Millisecond, time.Second)
		}
		got, _ := m.Ahead(w.read())
		if (got > time.Hour) != (n >= 3) {
			t.Errorf("wrong nodes %05b: got %v, want it wrong only if three are", wrong, got)
		}
	}
	w.observe(m, 6*time.Hour, maxRoundTrip+time.Millisecond, time.Second)
	m.Observe(w.read(), w.read(), time.Time{}, time.Second)
	if got, known := m.Ahead(w.read()); known {
		t.Errorf("after a slow response and one without a time: got %v, true, want false",
			got)
	}
}

// TestMeterSeesSteps sets the machine's clock after five measurements. Set
// back, from a minute to a month, it is off at once. Set ahead, which a machine
// that slept looks like, nothing is known until two more responses.
func TestMeterSeesSteps(t *testing.T) {
	for _, step := range []time.Duration{time.Minute, 6 * time.Hour, 720 * time.Hour} {
		w := newWall()
		m := w.meter()
		for range 5 {
			w.observe(m, 0, time.Millisecond, time.Second)
		}
		w.set(-step)
		w.pass(time.Minute)
		if got, known := m.Ahead(w.read()); !known || (got-step).Abs() > time.Second {
			t.Errorf("set back by %v: got %v, %v, want %v", step, got, known, step)
		}
		w.set(2 * step)
		if got, known := m.Ahead(w.read()); known {
			t.Errorf("set ahead by %v: got %v, true, want false", step, got)
		}
		for range 2 {
			w.observe(m, -step, time.Millisecond, time.Second)
		}
		if got, known := m.Ahead(w.read()); !known || (got+step).Abs() > time.Second {
			t.Errorf("set ahead by %v, after two responses: got %v, %v, want %v",
				step, got, known, -step)
		}
	}
}

// TestOffset checks what the linker may set.
func TestOffset(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"": 0, "6h": 6 * time.Hour, "-720h": -720 * time.Hour, "+1s": time.Second,
	} {
		if got := parse(in); got != want {
			t.Errorf("offset %q: got %v, want %v", in, got, want)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error(`offset "a month": got no panic, want one`)
		}
	}()
	parse("a month")
}
