package metrics

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Sources are asked at each scrape, for what somebody else knows better than a counter could.
// Each may be nil, and each may be slow: a scrape waits three seconds for all of them together
// and then goes without. What is not known is NaN for a gauge, and left out for a counter.
type Sources struct {
	// TicketAge is how long ago the newest component_verify_ticket came; false for none.
	TicketAge func() (time.Duration, bool)
	// ComponentExpiry is how long the component's token lives on, negative where it is over;
	// false where there is none.
	ComponentExpiry func() (time.Duration, bool)
	// Accounts counts the authorizers by state; false where they cannot be counted.
	Accounts func() (active, revoked, failing int, known bool)
	// Evictions and SetsDropped are the token cache's, since the start of the process.
	Evictions   func() uint64
	SetsDropped func() uint64
	// Panicked is told of a panic in one of those above, which is named. A scrape is no
	// reason to end the process; nil: nobody is told.
	Panicked func(what string, cause any)
}

// Pull sets what is asked at scrapes from now on, in place of what was set before.
func (m *Metrics) SetSources(g Sources) { m.gauges.sources.Store(&g) }

// collectTimeout is short of Prometheus's usual 10 s for a whole scrape: while the store hangs, the
// counters of calls and errors are wanted most.
const collectTimeout = 3 * time.Second

// pulled is the collector of all series that are read at scrape.
type gaugeCollector struct {
	sources  atomic.Pointer[Sources]
	readings []*reading
}

// A reading is one question, whose answer has one value for each series.
type reading struct {
	name   string
	kind   prometheus.ValueType
	desc   *prometheus.Desc
	labels []string // of the series; none: there is one, without label
	// read gives the values, nil where they are not known.
	read func(*Sources) []float64
	// under is set while read runs: one that hangs is not asked a second time.
	running atomic.Bool
}

func newGaugeCollector() *gaugeCollector {
	p := &gaugeCollector{}
	p.sources.Store(&Sources{})
	add := func(r *reading, help string, label ...string) {
		r.desc = prometheus.NewDesc(r.name, help, label, nil)
		p.readings = append(p.readings, r)
	}
	add(&reading{
		name: "wxproxy_verify_ticket_age_seconds", kind: prometheus.GaugeValue,
		read: func(g *Sources) []float64 { return duration(g.TicketAge) },
	}, "Seconds since WeChat pushed the newest component_verify_ticket; it comes every ten minutes. NaN: there is none.")
	add(&reading{
		name: "wxproxy_component_token_expiry_seconds", kind: prometheus.GaugeValue,
		read: func(g *Sources) []float64 { return duration(g.ComponentExpiry) },
	}, "Seconds from now until the component's token expires, negative where it has. NaN: there is none.")
	add(&reading{
		name: "wxproxy_accounts", kind: prometheus.GaugeValue,
		labels: []string{"active", "revoked", "failing"},
		read: func(g *Sources) []float64 {
			if g.Accounts == nil {
				return nil
			}
			active, revoked, failing, known := g.Accounts()
			if !known {
				return nil
			}
			return []float64{float64(active), float64(revoked), float64(failing)}
		},
	}, "Accounts that have authorized the component, by state. NaN: the store does not answer.", "state")
	add(&reading{
		name: "wxproxy_cache_evictions_total", kind: prometheus.CounterValue,
		read: func(g *Sources) []float64 { return count(g.Evictions) },
	}, "Tokens pushed out of the cache for want of room.")
	add(&reading{
		name: "wxproxy_cache_sets_dropped_total", kind: prometheus.CounterValue,
		read: func(g *Sources) []float64 { return count(g.SetsDropped) },
	}, "Tokens that the cache did not take in under load; the store answers for them.")
	return p
}

func duration(ask func() (time.Duration, bool)) []float64 {
	if ask == nil {
		return nil
	}
	d, ok := ask()
	if !ok {
		return nil
	}
	return []float64{d.Seconds()}
}

// count takes nil for "nothing to count", which is 0.
func count(ask func() uint64) []float64 {
	if ask == nil {
		return []float64{0}
	}
	return []float64{float64(ask())}
}

// Describe implements [prometheus.Collector].
func (p *gaugeCollector) Describe(to chan<- *prometheus.Desc) {
	for _, r := range p.readings {
		to <- r.desc
	}
}

// Collect implements [prometheus.Collector]. All are asked at the same time.
func (p *gaugeCollector) Collect(to chan<- prometheus.Metric) {
	g := p.sources.Load()
	answers := make([]<-chan []float64, len(p.readings))
	for i, r := range p.readings {
		answers[i] = r.start(g)
	}
	late := make(chan struct{})
	timer := time.AfterFunc(collectTimeout, func() { close(late) })
	defer timer.Stop()
	for i, r := range p.readings {
		var values []float64
		select {
		case values = <-answers[i]:
		case <-late:
			select { // both may be true: what is there is shown
			case values = <-answers[i]:
			default:
			}
		}
		r.show(values, to)
	}
}

// start asks, unless the last asking has not come back. The channel has room for the answer,
// so that a late one goes away by itself.
func (r *reading) start(g *Sources) <-chan []float64 {
	answer := make(chan []float64, 1)
	if !r.running.CompareAndSwap(false, true) {
		answer <- nil
		return answer
	}
	go func() {
		var values []float64
		// The flag goes down before the answer is out, so that the scrape after this one
		// finds it down.
		defer func() {
			cause := recover()
			r.running.Store(false)
			answer <- values
			if cause != nil && g.Panicked != nil {
				g.Panicked(r.name, cause)
			}
		}()
		values = r.read(g)
	}()
	return answer
}

func (r *reading) show(values []float64, to chan<- prometheus.Metric) {
	if values == nil && r.kind == prometheus.CounterValue {
		return // a counter that falls to nothing and comes back would look like a restart
	}
	value := func(i int) float64 {
		if i < len(values) {
			return values[i]
		}
		return math.NaN()
	}
	if r.labels == nil {
		to <- prometheus.MustNewConstMetric(r.desc, r.kind, value(0))
		return
	}
	for i, label := range r.labels {
		to <- prometheus.MustNewConstMetric(r.desc, r.kind, value(i), label)
	}
}
