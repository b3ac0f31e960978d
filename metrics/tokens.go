package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func (m *Metrics) registerTokens() {
	hits := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wxproxy_token_cache_hits_total",
		Help: "Tokens that were in the cache when a call needed them.",
	}, []string{"credential"})
	misses := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wxproxy_token_cache_misses_total",
		Help: "Tokens that had to be read from the store or fetched when a call needed them.",
	}, []string{"credential"})
	m.refreshes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wxproxy_token_refreshes_total",
		Help: "Renewals of tokens, by what came of them: ok, refused by WeChat, WeChat unreachable, or the store failed.",
	}, []string{"credential", "result"})
	took := prometheus.NewHistogramVec(histogram("wxproxy_token_refresh_duration_seconds",
		"Time that a renewal took, whatever came of it, in seconds."), []string{"credential"})
	m.retries = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wxproxy_retries_total",
		Help: "Calls whose token WeChat refused with errcode, by what became of them: ok after a new token, refused again, no new token to be had, or WeChat unreachable the second time.",
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

// TokenUsed counts a token that went into a call: a hit came from the cache, anything else
// had to be read or fetched. credential is component, authorizer or app.
func (m *Metrics) TokenUsed(credential string, hit bool) {
	if c := credentialLabel(credential); hit {
		m.hits.of(c).Inc()
	} else {
		m.misses.of(c).Inc()
	}
}

// Refreshed counts a renewal. result is ok, refused, unreachable or store; took is 0 or less
// where it ended before WeChat was asked, and then says nothing about WeChat.
func (m *Metrics) Refreshed(credential, result string, took time.Duration) {
	c := credentialLabel(credential)
	m.refreshes.WithLabelValues(c.String(), oneOf(refreshResults, result)).Inc()
	if took > 0 {
		m.renewals.of(c).Observe(took.Seconds())
	}
}

// Retried counts a call whose token was refused. errcode is what WeChat said the first time;
// result is ok, refused_again, no_token or unreachable.
func (m *Metrics) Retried(credential string, errcode int, result string) {
	m.retries.WithLabelValues(credentialLabel(credential).String(), errcodeLabel(retryErrcodes, errcode), oneOf(retryResults, result)).Inc()
}
