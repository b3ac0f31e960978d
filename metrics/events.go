package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// registerEvents registers the metrics of errors, wrong keys, masked responses,
// pushes and merchants' pages.
func (m *Metrics) registerEvents() {
	errcodes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wxproxy_wechat_errors_total",
		Help: "Responses of WeChat with an errcode, by errcode; business codes are other.",
	}, []string{"errcode"})
	m.rejectedKeys = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wxproxy_rejected_keys_total",
		Help: "Requests with a wrong key, by listener.",
	}, []string{"listener"})
	m.redactions = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "wxproxy_redactions_total",
		Help: "Responses of WeChat in which a credential was masked.",
	})
	m.events = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wxproxy_callback_events_total",
		Help: "Pushes received on the callback listener, by event and result.",
	}, []string{"event", "result"})
	m.pages = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wxproxy_page_requests_total",
		Help: "Requests of the pages on which merchants authorize, by page and result.",
	}, []string{"page", "result"})
	m.registry.MustRegister(errcodes, m.rejectedKeys, m.redactions, m.events, m.pages)

	m.errcodes = make(map[int]prometheus.Counter, len(knownErrcodes))
	for _, errcode := range knownErrcodes {
		m.errcodes[errcode] = errcodes.WithLabelValues(strconv.Itoa(errcode))
	}
	m.otherErrcode = errcodes.WithLabelValues(other)
	for _, event := range commonEvents {
		m.events.WithLabelValues(event, "ok")
	}
	// Alerts use increase(), which needs the zero: a queue can be full, users
	// wait for the reply to an undelivered message, and rejected pushes can be
	// an attack. A push is rejected before its event is known, so its event is
	// "other".
	m.events.WithLabelValues("message", "undelivered")
	for _, event := range knownEvents {
		m.events.WithLabelValues(event, "queue_full")
	}
	for _, result := range eventResults {
		m.events.WithLabelValues(other, result)
	}
	for _, listener := range listeners {
		m.rejectedKeys.WithLabelValues(listener)
	}
	for _, page := range pageNames {
		for _, result := range pageResults {
			m.pages.WithLabelValues(page, result)
		}
	}
}

// WeChatError counts a response of WeChat with an errcode. 0 is not counted.
func (m *Metrics) WeChatError(errcode int) {
	if errcode == 0 {
		return
	}
	if counter, ok := m.errcodes[errcode]; ok {
		counter.Inc()
		return
	}
	m.otherErrcode.Inc()
}

// Redacted counts a response in which a credential was masked.
func (m *Metrics) Redacted() { m.redactions.Inc() }

// KeyRejected counts a request with a wrong key. listener is proxy or admin.
func (m *Metrics) KeyRejected(listener string) {
	m.rejectedKeys.WithLabelValues(oneOf(listeners, listener)).Inc()
}

// Event counts a push from WeChat. event is its InfoType, message for a push on
// an account's own address, or other. result is ok, stale, ignored, replayed,
// unclaimed, wrong_time, wrong_account, bad_signature, undecryptable,
// wrong_appid, bad_message, too_large, wrong_address, store, queue_full,
// undelivered or bad_reply.
func (m *Metrics) Event(event, result string) {
	m.events.WithLabelValues(oneOf(knownEvents, event), oneOf(eventResults, result)).Inc()
}

// Page counts a request of a merchant's browser. page is authorize or
// authorized. result is ok, robot, invalid, limited, rejected or failed.
func (m *Metrics) Page(page, result string) {
	m.pages.WithLabelValues(oneOf(pageNames, page), oneOf(pageResults, result)).Inc()
}
