package metrics

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Sources are functions that a scrape reads, for values that other packages
// know. Each can be nil, and each can be slow: a scrape waits three seconds for
// all of them and then omits the missing values. An unknown value is NaN for a
// gauge, and omitted for a counter.
type Sources struct {
	// TicketAge returns the time since the newest component_verify_ticket,
	// false without one.
	TicketAge func() (time.Duration, bool)

	// ComponentExpiry returns the time until the component's token expires,
	// negative if it has expired, and false without a token.
	ComponentExpiry func() (time.Duration, bool)

	// Accounts returns the number of authorizers by state; see accountStates.
	// known is false if they cannot be counted.
	Accounts func() (byState map[string]int, known bool)

	// SyncAge returns the time since the accounts were last compared with
	// WeChat's list completely, false if they never were.
	SyncAge func() (time.Duration, bool)

	// DamagedRecords returns how many damaged records were moved away in the
	// store, false if it does not respond.
	DamagedRecords func() (n int, known bool)

	// ForwardQueue returns the size of the queue of events, false if the store
	// does not respond.
	ForwardQueue func() (q ForwardQueue, known bool)

	// Evictions and SetsDropped are counters of the token cache since the start
	// of the process.
	Evictions   func() uint64
	SetsDropped func() uint64

	// UnsavedGrants is the number of accounts whose tokens could not be saved.
	UnsavedGrants func() int

	// OwnCallsWaiting and RenewalsWaiting are the queues in front of WeChat.
	OwnCallsWaiting func() int
	RenewalsWaiting func() int

	// BreakersOpen reports for each of breakerReasons whether requests to
	// WeChat are paused.
	BreakersOpen func() map[string]bool

	// ClockSkew returns how far a clock of clockNames is ahead of this
	// machine's, negative if it is behind, and false if that is not known.
	ClockSkew func(of string) (time.Duration, bool)

	// Panicked receives the cause of a panic in one of the functions above, and
	// the name of its metric. A scrape must not end the process. nil discards
	// it.
	Panicked func(metric string, cause any)
}

// SetSources replaces the sources, for the scrapes from now on.
func (m *Metrics) SetSources(s Sources) { m.gauges.sources.Store(&s) }

// collectTimeout is below Prometheus's usual 10 s for a whole scrape. While the
// store hangs, the counters of requests and errors are needed most.
const collectTimeout = 3 * time.Second

// gaugeCollector is the collector of all series that a scrape reads from
// sources.
type gaugeCollector struct {
	sources  atomic.Pointer[Sources]
	readings []*reading
}

// reading is one source, with a value for each of its series.
type reading struct {
	name   string
	kind   prometheus.ValueType
	desc   *prometheus.Desc
	labels []string // of the series; nil for one series without a label

	// read returns the values, nil if they are unknown.
	read func(*Sources) []float64

	// running is set while read runs. A source that hangs is not read again.
	running atomic.Bool
}

// newGaugeCollector returns a collector for all sources.
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
	}, "Seconds since the newest component_verify_ticket; WeChat pushes one every ten minutes. NaN without a ticket.")
	add(&reading{
		name: "wxproxy_component_token_expiry_seconds", kind: prometheus.GaugeValue,
		read: func(g *Sources) []float64 { return duration(g.ComponentExpiry) },
	}, "Seconds until the component's token expires, negative if it has expired. NaN without a token.")
	add(&reading{
		name: "wxproxy_accounts", kind: prometheus.GaugeValue,
		labels: accountStates,
		read: func(g *Sources) []float64 {
			if g.Accounts == nil {
				return nil
			}
			byState, known := g.Accounts()
			if !known {
				return nil
			}
			var values []float64
			for _, state := range accountStates {
				values = append(values, float64(byState[state]))
			}
			return values
		},
	}, "Accounts that have authorized the component, by state. NaN if the store does not respond.", "state")
	add(&reading{
		name: "wxproxy_sync_age_seconds", kind: prometheus.GaugeValue,
		read: func(g *Sources) []float64 { return duration(g.SyncAge) },
	}, "Seconds since the last complete comparison with WeChat's list of accounts. "+
		"NaN without one.")
	add(&reading{
		name: "wxproxy_store_damaged_records", kind: prometheus.GaugeValue,
		read: func(g *Sources) []float64 { return known(g.DamagedRecords) },
	}, "Records that could not be opened and were moved away. NaN if the store does not respond.")
	add(&reading{
		name: "wxproxy_cache_evictions_total", kind: prometheus.CounterValue,
		read: func(g *Sources) []float64 { return count(g.Evictions) },
	}, "Tokens evicted from the cache because it was full.")
	add(&reading{
		name: "wxproxy_cache_sets_dropped_total", kind: prometheus.CounterValue,
		read: func(g *Sources) []float64 { return count(g.SetsDropped) },
	}, "Tokens that the cache did not accept under load; they are read from the store.")
	addOwnCalls(add)
	addForward(add)
	add(&reading{
		name: "wxproxy_clock_skew_seconds", kind: prometheus.GaugeValue,
		labels: clockNames,
		read: func(g *Sources) []float64 {
			if g.ClockSkew == nil {
				return nil
			}
			var values []float64
			for _, name := range clockNames {
				skew, known := g.ClockSkew(name)
				values = append(values, skew.Seconds())
				if !known {
					values[len(values)-1] = math.NaN()
				}
			}
			return values
		},
	}, "Seconds that a clock is ahead of this machine's, negative if behind. NaN if unknown.", "of")
	return p
}

// addOwnCalls adds what is known of the requests that wxproxy makes for itself.
func addOwnCalls(add func(r *reading, help string, label ...string)) {
	add(&reading{
		name: "wxproxy_unsaved_grants", kind: prometheus.GaugeValue,
		read: func(g *Sources) []float64 { return number(g.UnsavedGrants) },
	}, "Accounts whose tokens the store could not save yet. They serve from memory.")
	add(&reading{
		name: "wxproxy_own_calls_waiting", kind: prometheus.GaugeValue,
		read: func(g *Sources) []float64 { return number(g.OwnCallsWaiting) },
	}, "Requests of wxproxy's own to WeChat that wait because [tokens] own_calls are in flight.")
	add(&reading{
		name: "wxproxy_renewals_waiting", kind: prometheus.GaugeValue,
		read: func(g *Sources) []float64 { return number(g.RenewalsWaiting) },
	}, "Renewals ahead of expiry that are due and have not begun.")
	add(&reading{
		name: "wxproxy_breaker_open", kind: prometheus.GaugeValue,
		labels: breakerReasons,
		read: func(g *Sources) []float64 {
			if g.BreakersOpen == nil {
				return make([]float64, len(breakerReasons))
			}
			open := g.BreakersOpen()
			var values []float64
			for _, reason := range breakerReasons {
				v := 0.0
				if open[reason] {
					v = 1
				}
				values = append(values, v)
			}
			return values
		},
	}, "1 while requests of wxproxy's own to WeChat are paused, by reason.", "reason")
}

// clockNames are the clocks that are compared with this machine's.
var clockNames = []string{"wechat", "store"}

// breakerReasons are the reasons for which requests to WeChat are paused.
var breakerReasons = []string{"quota", "component_refused", "unreachable"}

// accountStates are the states of accounts that are counted.
var accountStates = []string{"active", "revoked", "failing", "forgotten"}

// duration returns one value in seconds, nil if it is unknown.
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

// known returns one number, nil if it is unknown.
func known(ask func() (int, bool)) []float64 {
	if ask == nil {
		return nil
	}
	n, ok := ask()
	if !ok {
		return nil
	}
	return []float64{float64(n)}
}

// count returns one value, 0 if there is no source.
func count(ask func() uint64) []float64 {
	if ask == nil {
		return []float64{0}
	}
	return []float64{float64(ask())}
}

// number returns one value, 0 if there is no source.
func number(ask func() int) []float64 {
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

// Collect implements [prometheus.Collector]. It reads all sources concurrently.
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
			select { // both can be ready: prefer the value
			case values = <-answers[i]:
			default:
			}
		}
		r.show(values, to)
	}
}

// start reads the source, unless an earlier read still runs. The channel is
// buffered, so that a late read does not leave a goroutine behind.
func (r *reading) start(g *Sources) <-chan []float64 {
	answer := make(chan []float64, 1)
	if !r.running.CompareAndSwap(false, true) {
		answer <- nil
		return answer
	}
	go func() {
		var values []float64
		// Clear the flag before sending, so that the next scrape can read
		// again.
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

// show sends the values of a reading to Prometheus.
func (r *reading) show(values []float64, to chan<- prometheus.Metric) {
	if values == nil && r.kind == prometheus.CounterValue {
		return // a counter that drops to 0 and returns would look like a restart
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
