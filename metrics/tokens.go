package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// registerTokens registers the metrics of the token cache and of renewals.
func (m *Metrics) registerTokens() {
	hits := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wxproxy_token_cache_hits_total",
		Help: "Tokens that were cached when a request needed them.",
	}, []string{"credential"})
	misses := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wxproxy_token_cache_misses_total",
		Help: "Tokens that had to be read from the store or fetched when a request needed them.",
	}, []string{"credential"})
	m.refreshes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wxproxy_token_refreshes_total",
		Help: "Token renewals, by result: ok, refused by WeChat, WeChat unreachable, or the store failed.",
	}, []string{"credential", "result"})
	took := prometheus.NewHistogramVec(histogram("wxproxy_token_refresh_duration_seconds",
		"Time of a token renewal, whatever its result, in seconds."), []string{"credential"})
	m.retries = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wxproxy_retries_total",
		Help: "Requests whose token WeChat rejected with errcode, by result: ok with a new token, " +
			"refused_again, no_token if there was no new token, or unreachable at the second attempt.",
	}, []string{"credential", "errcode", "result"})
	m.registry.MustRegister(hits, misses, m.refreshes, took, m.retries)
	m.hits.resolve = func(word string) prometheus.Counter { return hits.WithLabelValues(word) }
	m.misses.resolve = func(word string) prometheus.Counter { return misses.WithLabelValues(word) }
	m.renewals.resolve = func(word string) prometheus.Observer { return took.WithLabelValues(word) }

	for _, c := range tokenCredentials {
		m.hits.of(c)
		m.misses.of(c)
		m.renewals.of(c)
		for _, result := range refreshResults {
			m.refreshes.WithLabelValues(c.String(), result)
		}
		for _, errcode := range retryErrcodes {
			if errcode == componentOnly && c != component {
				continue
			}
			for _, result := range retryResults {
				m.retries.WithLabelValues(c.String(), strconv.Itoa(errcode), result)
			}
		}
	}
}

// registerOwnCalls registers the metric of the requests that wxproxy makes for
// itself.
func (m *Metrics) registerOwnCalls() {
	m.ownCalls = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wxproxy_own_calls_total",
		Help: "Requests of wxproxy's own to WeChat, by result: ok, refused, unreachable, " +
			"paused by a breaker, or busy if too many waited.",
	}, []string{"endpoint", "result"})
	m.registry.MustRegister(m.ownCalls)
	for _, endpoint := range ownEndpoints {
		for _, result := range ownCallResults {
			m.ownCalls.WithLabelValues(endpoint, result)
		}
	}
}

// OwnCall counts a request that wxproxy made for itself. endpoint is the last
// segment of its path. result is ok, refused, unreachable, paused or busy.
func (m *Metrics) OwnCall(endpoint, result string) {
	m.ownCalls.WithLabelValues(oneOf(ownEndpoints, endpoint), oneOf(ownCallResults, result)).Inc()
}

// TokenUsed counts a token that was injected into a request. A hit came from
// the cache; others had to be read or fetched. credential is component,
// authorizer or app.
func (m *Metrics) TokenUsed(credential string, hit bool) {
	if c := credentialLabel(credential); hit {
		m.hits.of(c).Inc()
	} else {
		m.misses.of(c).Inc()
	}
}

// Refreshed counts a renewal. result is ok, refused, unreachable or store. took
// is 0 or less if the renewal ended before it called WeChat; it is not recorded
// then.
func (m *Metrics) Refreshed(credential, result string, took time.Duration) {
	c := credentialLabel(credential)
	m.refreshes.WithLabelValues(c.String(), oneOf(refreshResults, result)).Inc()
	if took > 0 {
		m.renewals.of(c).Observe(took.Seconds())
	}
}

// Retried counts a request whose token WeChat rejected. errcode is WeChat's
// first response. result is ok, refused_again, no_token or unreachable.
func (m *Metrics) Retried(credential string, errcode int, result string) {
	m.retries.WithLabelValues(credentialLabel(credential).String(),
		errcodeLabel(retryErrcodes, errcode), oneOf(retryResults, result)).Inc()
}
