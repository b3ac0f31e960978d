package metrics

import (
	"maps"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// anonymous is how a call without a caller is shown: none is configured. Where some are, the proxy has a
// name of its own for calls of which nobody knows whose they are.
const anonymous = "anonymous"

// maxCallers bounds the number of caller names that get series of their own; those that come
// later share the one of "other". They come from the configuration, so only a program that
// rewrites it all the time gets there: each reload may bring new ones and takes none away.
const maxCallers = 4096

// HTTP statuses with a series of their own; everything else, such as 0 where the caller left
// before there was an answer, is "other".
const (
	minCode = 100
	maxCode = 599
)

// caller holds the requests_total series of one caller. The tables, 4 KB each, are made at the
// first call with that credential.
type caller struct {
	name   string
	tables [numCredentials]atomic.Pointer[codes]
}

// codes holds one counter for each status, and at its end the one for all others. A counter is
// resolved when it is first needed; two that resolve it at once get the same one.
type codes [maxCode - minCode + 2]atomic.Pointer[prometheus.Counter]

func (m *Metrics) registerCalls() {
	m.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wxproxy_requests_total",
		Help: "Calls answered, by caller, credential that went in, and HTTP status to the caller.",
	}, []string{"caller", "credential", "code"})
	durations := prometheus.NewHistogramVec(histogram("wxproxy_request_duration_seconds",
		"Time from the arrival of a call to the end of its answer, in seconds."), []string{"credential"})
	upstreams := prometheus.NewHistogramVec(histogram("wxproxy_upstream_duration_seconds",
		"Time that WeChat took of it, both tries of a repeated call together, in seconds."), []string{"credential"})
	m.registry.MustRegister(m.requests, durations, upstreams,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "wxproxy_inflight_requests",
			Help: "Calls that are being answered now.",
		}, func() float64 { return float64(m.inflight.Load()) }))
	m.durations.resolve = func(word string) prometheus.Observer { return durations.WithLabelValues(word) }
	m.upstreams.resolve = func(word string) prometheus.Observer { return upstreams.WithLabelValues(word) }
	first := m.caller(anonymous)
	for _, c := range callCredentials {
		m.durations.of(c)
		m.upstreams.of(c)
		m.request(first, c, 200)
	}
}

// CallStarted counts a call in; each needs one [Metrics.CallDone].
func (m *Metrics) CallStarted() { m.inflight.Add(1) }

// CallDone counts a call out. caller is its name in the configuration, "" for none; credential is
// component, authorizer, app or none; code is the HTTP status that the caller got; took is the
// whole of it and upstream WeChat's part, 0 or less where WeChat was not asked.
func (m *Metrics) CallDone(caller, credential string, code int, took, upstream time.Duration) {
	c := credentialLabel(credential)
	m.inflight.Add(-1)
	m.request(m.caller(caller), c, code).Inc()
	// A clock that was set back must not take anything off a sum that may only grow.
	m.durations.of(c).Observe(max(took, 0).Seconds())
	if upstream > 0 {
		m.upstreams.of(c).Observe(upstream.Seconds())
	}
}

// caller finds the series of a name, and makes them at its first call.
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
	// Cloned: the name may be a piece of a request's buffer, which is used again.
	name = strings.Clone(name)
	c := &caller{name: label(name)}
	more := maps.Clone(known)
	more[name] = c
	m.callers.Store(&more)
	return c
}

// request finds the counter of a caller, a credential and a status.
func (m *Metrics) request(of *caller, c credential, code int) prometheus.Counter {
	table := of.tables[c].Load()
	if table == nil {
		of.tables[c].CompareAndSwap(nil, new(codes)) // whoever loses takes the winner's
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
