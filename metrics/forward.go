package metrics

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Values of labels of the queue of events.
var (
	queueStates     = []string{"waiting", "dead"}
	deliveryResults = []string{"ok", "failed", "dead"}
)

// ForwardQueue is the size of the queue of events for services.
type ForwardQueue struct {
	Waiting, Dead int
	Oldest        time.Duration // age of the oldest waiting event; 0 without one
}

// registerForward registers the counter of deliveries.
func (m *Metrics) registerForward() {
	m.deliveries = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wxproxy_forward_deliveries_total",
		Help: "Tries to deliver an event of the queue to a service, by result: ok, failed if it " +
			"is tried again, dead if it is not.",
	}, []string{"result"})
	m.registry.MustRegister(m.deliveries)
	for _, result := range deliveryResults {
		m.deliveries.WithLabelValues(result)
	}
}

// Delivered counts a try to deliver an event. result is ok, failed or dead.
func (m *Metrics) Delivered(result string) {
	m.deliveries.WithLabelValues(oneOf(deliveryResults, result)).Inc()
}

// addForward adds the size of the queue.
func addForward(add func(r *reading, help string, label ...string)) {
	size := func(g *Sources, values func(ForwardQueue) []float64) []float64 {
		if g.ForwardQueue == nil {
			return nil
		}
		q, known := g.ForwardQueue()
		if !known {
			return nil
		}
		return values(q)
	}
	add(&reading{
		name: "wxproxy_forward_queue", kind: prometheus.GaugeValue, labels: queueStates,
		read: func(g *Sources) []float64 {
			return size(g, func(q ForwardQueue) []float64 {
				return []float64{float64(q.Waiting), float64(q.Dead)}
			})
		},
	}, "Events in the queue for services, by state. NaN if the store does not respond.", "state")
	add(&reading{
		name: "wxproxy_forward_oldest_seconds", kind: prometheus.GaugeValue,
		read: func(g *Sources) []float64 {
			return size(g, func(q ForwardQueue) []float64 {
				return []float64{math.Max(0, q.Oldest.Seconds())}
			})
		},
	}, "Age of the oldest event that waits for its delivery, in seconds; 0 without one. "+
		"NaN if the store does not respond.")
}
