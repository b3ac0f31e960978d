// Package metrics counts what wxproxy does, for Prometheus. It is the only
// package that imports Prometheus. Other packages report events through
// interfaces of their own, with plain strings and numbers.
//
// No label is unbounded. Every label value comes from a list in labels.go, from
// the numbers that HTTP and WeChat define, or from the configuration (the names
// of callers, limited in number). Any other value is counted as "other": a
// mistake elsewhere must not fail a request, or fill the memory of wxproxy and
// Prometheus.
//
// Series with a small and known set of labels exist from the start, at zero.
// rate() and increase() see a step from 0 to 1 only if the 0 was scraped.
package metrics

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

// Metrics holds all metrics of wxproxy. All methods are safe for concurrent
// use. [Metrics.CallStarted], [Metrics.CallDone], [Metrics.TokenUsed] and
// [Metrics.WeChatError] run for every request. They do not allocate once their
// series exists.
//
// The zero value is not usable; call [New].
type Metrics struct {
	registry *prometheus.Registry
	handler  http.Handler

	inflight  atomic.Int64
	requests  *prometheus.CounterVec
	callersMu sync.Mutex                         // held to add a caller, not to count
	callers   atomic.Pointer[map[string]*caller] // copied on write, so that counting takes no lock
	durations byCredential[prometheus.Observer]
	upstreams byCredential[prometheus.Observer]

	hits, misses byCredential[prometheus.Counter]
	renewals     byCredential[prometheus.Observer]
	refreshes    *prometheus.CounterVec
	retries      *prometheus.CounterVec
	ownCalls     *prometheus.CounterVec

	errcodes     map[int]prometheus.Counter // read-only after New
	otherErrcode prometheus.Counter
	rejectedKeys *prometheus.CounterVec
	redactions   prometheus.Counter
	events       *prometheus.CounterVec
	pages        *prometheus.CounterVec
	deliveries   *prometheus.CounterVec

	storeOperations *prometheus.CounterVec
	storeDurations  *prometheus.HistogramVec

	gauges *gaugeCollector
}

// New returns metrics with a registry of their own, so that several can exist
// in one process. version and goversion become labels of wxproxy_build_info.
func New(version, goversion string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), gauges: newGaugeCollector()}
	m.callers.Store(&map[string]*caller{})
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.gauges,
	)
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "wxproxy_build_info",
		Help: "Always 1; the labels describe the running program.",
	}, []string{"version", "goversion"})
	m.registry.MustRegister(build)
	build.WithLabelValues(label(version), label(goversion)).Set(1)

	m.registerCalls()
	m.registerTokens()
	m.registerOwnCalls()
	m.registerEvents()
	m.registerForward()
	m.registerStore()
	m.handler = handler(m.registry, m.registry)
	return m
}

// maxScrapes limits concurrent scrapes; more get 503. Two Prometheus servers
// and an operator need three.
const maxScrapes = 16

// handler returns a handler for scrapes of from. It counts its own errors in
// own.
func handler(from prometheus.Gatherer, own prometheus.Registerer) http.Handler {
	return promhttp.HandlerFor(redactingGatherer{from}, promhttp.HandlerOpts{
		// A source that fails must not hide the others.
		ErrorHandling:     promhttp.ContinueOnError,
		Registry:          own,
		EnableOpenMetrics: true,
		// Concurrent scrapes share one collection, so that a slow store is not
		// queried for each.
		CoalesceGather:      true,
		MaxRequestsInFlight: maxScrapes,
	})
}

// Handler returns the handler for scrapes. It responds in the format that the
// scraper accepts: Prometheus's text format, OpenMetrics, or protobuf, the one
// with native histograms. Metrics that cannot be read are omitted and counted
// in promhttp_metric_handler_errors_total. The scraper does not learn why.
func (m *Metrics) Handler() http.Handler { return m.handler }

// redactingGatherer hides the text of errors from the scraper. If nothing could
// be gathered, promhttp responds with the error's text and a stack trace, which
// can contain addresses and passwords of the store.
type redactingGatherer struct{ prometheus.Gatherer }

var errNotGathered = errors.New("gathering metrics failed")

// Gather implements [prometheus.Gatherer].
func (d redactingGatherer) Gather() ([]*dto.MetricFamily, error) {
	families, err := d.Gatherer.Gather()
	if err != nil {
		err = errNotGathered
	}
	return families, err
}

// histogram returns the options of all durations: a native and a classic
// histogram in one.
func histogram(name, help string) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: name,
		Help: help,
		// A response from the cache takes 1 ms, a request to WeChat 10 to 1000
		// ms, an upload seconds, and the default timeout is 60 s.
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		// Bounds are at most 10 % apart, which takes 8 buckets per doubling.
		// All below 61 µs is one bucket. 200 buckets reach from there to half
		// an hour, so the reset, which also clears the classic buckets, happens
		// only if the clock is wrong.
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramZeroThreshold:    1.0 / (1 << 14),
		NativeHistogramMaxBucketNumber:  200,
		NativeHistogramMinResetDuration: time.Hour,
	}
}
