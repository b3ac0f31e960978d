package metrics

import (
	"maps"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// anonymous labels requests without a caller: authentication is disabled. If it
// is enabled, the proxy labels unauthenticated requests "unknown".
const anonymous = "anonymous"

// maxCallers limits the callers with series of their own; later ones share
// "other". Names come from the configuration. Each reload can add some and
// removes none, so only a configuration that keeps changing reaches the limit.
const maxCallers = 4096

// minCode and maxCode bound the HTTP statuses with series of their own. All
// others are "other", such as 0 for a client that disconnected before the
// response.
const (
	minCode = 100
	maxCode = 599
)

// caller holds the requests_total series of one caller. The tables, 4 KB each,
// are made at the first request with their credential.
type caller struct {
	name   string
	tables [numCredentials]atomic.Pointer[codes]
}

// codes holds a counter for each status, and the one for "other" at its end. A
// counter is resolved when it is first needed. Goroutines that do so
// concurrently get the same counter.
type codes [maxCode - minCode + 2]atomic.Pointer[prometheus.Counter]

// registerCalls registers the metrics of requests to the proxy.
func (m *Metrics) registerCalls() {
	m.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wxproxy_requests_total",
		Help: "Requests answered, by caller, injected credential, and HTTP status of the response.",
	}, []string{"caller", "credential", "code"})
	durations := prometheus.NewHistogramVec(histogram("wxproxy_request_duration_seconds",
		"Time from the arrival of a request to the end of its response, in seconds."), []string{"credential"})
	upstreams := prometheus.NewHistogramVec(histogram("wxproxy_upstream_duration_seconds",
		"Part of it that WeChat took, both attempts of a repeated request together, in seconds."),
		[]string{"credential"})
	m.registry.MustRegister(m.requests, durations, upstreams,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "wxproxy_inflight_requests",
			Help: "Requests in flight.",
		}, func() float64 { return float64(m.inflight.Load()) }))
	m.durations.resolve = func(word string) prometheus.Observer {
		return durations.WithLabelValues(word)
	}
	m.upstreams.resolve = func(word string) prometheus.Observer {
		return upstreams.WithLabelValues(word)
	}
	first := m.caller(anonymous)
	for _, c := range callCredentials {
		m.durations.of(c)
		m.upstreams.of(c)
		m.request(first, c, 200)
	}
}

// CallStarted counts a request that has arrived. Each needs one
// [Metrics.CallDone].
func (m *Metrics) CallStarted() { m.inflight.Add(1) }

// CallDone counts a request that has ended. caller is the name in the
// configuration, "" for none. credential is component, authorizer, app or none.
// code is the HTTP status of the response. took is the whole time, and upstream
// the part of WeChat, 0 or less if WeChat was not called.
func (m *Metrics) CallDone(caller, credential string, code int, took, upstream time.Duration) {
	c := credentialLabel(credential)
	m.inflight.Add(-1)
	m.request(m.caller(caller), c, code).Inc()
	// A clock that was set back must not decrease a sum, which is a counter.
	m.durations.of(c).Observe(max(took, 0).Seconds())
	if upstream > 0 {
		m.upstreams.of(c).Observe(upstream.Seconds())
	}
}

// caller returns the series of a name, and makes them at its first request.
func (m *Metrics) caller(name string) *caller {
	if name == "" {
		name = anonymous
	}
	if c, ok := (*m.callers.Load())[name]; ok {
		return c
	}
	m.callersMu.Lock()
	defer m.callersMu.Unlock()
	known := *m.callers.Load()
	if c, ok := known[name]; ok {
		return c
	}
	if len(known) >= maxCallers && name != other {
		name = other
		if c, ok := known[name]; ok {
			return c
		}
	}
	// Clone the name: it can alias the buffer of a request, which is reused.
	name = strings.Clone(name)
	c := &caller{name: label(name)}
	more := maps.Clone(known)
	more[name] = c
	m.callers.Store(&more)
	return c
}

// request returns the counter of a caller, a credential and a status.
func (m *Metrics) request(of *caller, c credential, code int) prometheus.Counter {
	table := of.tables[c].Load()
	if table == nil {
		of.tables[c].CompareAndSwap(nil, new(codes)) // the first one wins
		table = of.tables[c].Load()
	}
	slot := len(table) - 1
	if code >= minCode && code <= maxCode {
		slot = code - minCode
	}
	if counter := table[slot].Load(); counter != nil {
		return *counter
	}
	word := other
	if slot < len(table)-1 {
		word = strconv.Itoa(code)
	}
	counter := m.requests.WithLabelValues(of.name, c.String(), word)
	table[slot].Store(&counter)
	return counter
}
