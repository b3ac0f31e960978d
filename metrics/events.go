package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

func (m *Metrics) registerEvents() {
	errcodes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wxproxy_wechat_errors_total",
		Help: "Answers of WeChat with an errcode, by errcode; business codes are other.",
	}, []string{"errcode"})
	m.redactions = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "wxproxy_redactions_total",
		Help: "Answers of WeChat in which a credential was replaced before the caller got them.",
	})
	m.events = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wxproxy_callback_events_total",
		Help: "Pushes on the callback listener, by what they tell and what became of them.",
	}, []string{"event", "result"})
	m.registry.MustRegister(errcodes, m.redactions, m.events)

	m.errcodes = make(map[int]prometheus.Counter, len(knownErrcodes))
	for _, errcode := range knownErrcodes {
		m.errcodes[errcode] = errcodes.WithLabelValues(strconv.Itoa(errcode))
	}
	m.otherErrcode = errcodes.WithLabelValues(other)
	for _, event := range commonEvents {
		m.events.WithLabelValues(event, "ok")
	}
	m.events.WithLabelValues("message", "undelivered") // users wait for an answer: worth an alarm
	// Refusals come before the push is read, so nobody knows what it would have been. These
	// are the ones to be alarmed by, and an alarm on increase() needs the zero.
	for _, result := range eventResults {
		m.events.WithLabelValues(other, result)
	}
}

// WeChatError counts an answer of WeChat's with an errcode. 0 is no error, and not counted.
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

// Redacted counts an answer that held a credential, which the caller did not get.
func (m *Metrics) Redacted() { m.redactions.Inc() }

// Event counts a push from WeChat: event is its InfoType, message for those on an account's
// own address, or other; result is ok, stale, ignored, replayed, bad_signature, undecryptable,
// wrong_appid, bad_message, too_large, store, undelivered or bad_reply.
func (m *Metrics) Event(event, result string) {
	m.events.WithLabelValues(oneOf(knownEvents, event), oneOf(eventResults, result)).Inc()
}
