package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Values of labels of the store's metrics.
var (
	storeOperations = []string{
		"load", "update", "list", "claim", "unclaim", "ping",
		"queue_add", "queue_take", "queue_settle", "queue",
	}
	storeResults = []string{"ok", "failed", "lost", "damaged", "canceled"}
)

// registerStore registers the metrics of the store.
func (m *Metrics) registerStore() {
	m.storeOperations = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wxproxy_store_operations_total",
		Help: "Operations of the store, by result: ok, failed if the database failed, " +
			"lost if an update lost its lock, damaged if a record cannot be read, or canceled.",
	}, []string{"operation", "result"})
	m.storeDurations = prometheus.NewHistogramVec(histogram("wxproxy_store_duration_seconds",
		"Time of an operation of the store, in seconds. Of an update it is the part in which "+
			"the record is saved: the rest is spent at WeChat, or waiting for a lock."),
		[]string{"operation"})
	m.registry.MustRegister(m.storeOperations, m.storeDurations)
	for _, operation := range storeOperations {
		m.storeDurations.WithLabelValues(operation)
		for _, result := range storeResults {
			m.storeOperations.WithLabelValues(operation, result)
		}
	}
}

// StoreOperation counts an operation of the store. operation is load, update,
// list, claim, unclaim, ping, queue_add, queue_take, queue_settle, or queue for
// the others of the queue. result is ok, failed, lost, damaged or
// canceled. took is negative if it is unknown; it is not recorded then.
func (m *Metrics) StoreOperation(operation, result string, took time.Duration) {
	operation = oneOf(storeOperations, operation)
	m.storeOperations.WithLabelValues(operation, oneOf(storeResults, result)).Inc()
	if took >= 0 {
		m.storeDurations.WithLabelValues(operation).Observe(took.Seconds())
	}
}
