// Package metrics counts. It is the only package that knows Prometheus; all others say what
// happened in words and numbers, through interfaces of their own.
//
// No label is unbounded. Every label value comes from a list in words.go, from the numbers
// that HTTP and WeChat define, or from the configuration (the callers' names, capped). A word
// that is not on its list is counted as "other": a slip in a far corner of the program must
// neither end a call nor fill the memory of the program and of every Prometheus behind it.
//
// What has a small and known set of labels exists from the start, at zero: rate() and
// increase() see the step from 0 to 1 only if the 0 was scraped.
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

// Metrics holds every number that wxproxy shows. All methods are safe for concurrent use;
// [Metrics.CallStarted], [Metrics.CallDone], [Metrics.TokenUsed] and [Metrics.WeChatError] are on
// the path of every call and allocate nothing once the series they count in exists.
//
// Its zero value is not usable: see [New].
type Metrics struct {
	registry *prometheus.Registry
	handler  http.Handler

	inflight  atomic.Int64
	requests  *prometheus.CounterVec
	callersMu sync.Mutex                         // held to add a caller, never to count
	callers   atomic.Pointer[map[string]*caller] // replaced whole, so that counting takes no lock
	durations byCredential[prometheus.Observer]
	upstreams byCredential[prometheus.Observer]

	hits, misses byCredential[prometheus.Counter]
	renewals     byCredential[prometheus.Observer]
	refreshes    *prometheus.CounterVec
	retries      *prometheus.CounterVec

	errcodes     map[int]prometheus.Counter // read only after New
	otherErrcode prometheus.Counter
	redactions   prometheus.Counter
	events       *prometheus.CounterVec

	gauges *gaugeCollector
}

// New makes a registry of its own, with nothing global about it: several may live in one
// process. version and goversion are shown as labels of wxproxy_build_info.
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
		Help: "Always 1; the labels say what is running.",
	}, []string{"version", "goversion"})
	m.registry.MustRegister(build)
	build.WithLabelValues(label(version), label(goversion)).Set(1)

	m.registerCalls()
	m.registerTokens()
	m.registerEvents()
	m.handler = handler(m.registry, m.registry)
	return m
}

// scrapes is how many may be answered at the same time; more get 503. Two Prometheus servers
// and a curious operator need three.
const maxScrapes = 16

// handler answers scrapes of what from gathers, and counts its own errors in own.
func handler(from prometheus.Gatherer, own prometheus.Registerer) http.Handler {
	return promhttp.HandlerFor(redactingGatherer{from}, promhttp.HandlerOpts{
		// The reading that fails must not hide all the others.
		ErrorHandling:     promhttp.ContinueOnError,
		Registry:          own,
		EnableOpenMetrics: true,
		// Scrapes that come while one is under way share its numbers, so that a slow
		// store is not asked once for each.
		CoalesceGather:      true,
		MaxRequestsInFlight: maxScrapes,
	})
}

// Handler answers scrapes: in Prometheus's text format, in OpenMetrics, or in protobuf, which
// is the one that carries native histograms, as the scraper asks. What cannot be read is left
// out and counted in promhttp_metric_handler_errors_total; the scraper is not told why.
func (m *Metrics) Handler() http.Handler { return m.handler }

// redactingGatherer keeps what went wrong from the scraper: where nothing at all could be gathered,
// promhttp puts the error's text, with a stack, into its answer.
type redactingGatherer struct{ prometheus.Gatherer }

var errNotGathered = errors.New("some metrics could not be read")

func (d redactingGatherer) Gather() ([]*dto.MetricFamily, error) {
	families, err := d.Gatherer.Gather()
	if err != nil {
		err = errNotGathered
	}
	return families, err
}

// histogram gives the options that all durations share: native and classic in one.
func histogram(name, help string) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: name,
		Help: help,
		// A cached answer takes a millisecond, a call to WeChat tens to hundreds of them, an
		// upload seconds, and the default timeout is 60 s.
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		// At most 10 % between two bounds: 8 buckets for each doubling. What takes less than
		// 61 µs is one bucket, and 200 reach from there to half an hour; so the reset,
		// which would take the classic buckets along, is for clocks that went mad.
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramZeroThreshold:    1.0 / (1 << 14),
		NativeHistogramMaxBucketNumber:  200,
		NativeHistogramMinResetDuration: time.Hour,
	}
}
