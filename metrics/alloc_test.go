//go:build !race

package metrics_test

import (
	"testing"
	"time"

	"wxproxy/metrics"
)

// The race detector makes these functions allocate, hence the build tag.

func TestHotPathDoesNotAllocate(t *testing.T) {
	m := metrics.New("v1", "go1")
	// Durations of all magnitudes, because Go may have to box the number of a
	// native bucket.
	took := []time.Duration{0, 20 * time.Microsecond, time.Millisecond, 37 * time.Millisecond,
		3 * time.Second, 70 * time.Second}
	i := 0
	calls := map[string]func(){
		"CallDone": func() {
			i++
			d := took[i%len(took)]
			m.CallStarted()
			m.CallDone("orders", "authorizer", 200, d, d)
			m.CallStarted()
			m.CallDone("", "none", 0, d, 0)
		},
		"TokenUsed":   func() { m.TokenUsed("authorizer", true); m.TokenUsed("component", false) },
		"WeChatError": func() { m.WeChatError(42001); m.WeChatError(85001); m.WeChatError(9402202) },
		"Redacted":    m.Redacted,
	}
	for name, call := range calls {
		for range took {
			call() // creates the series
		}
		if n := testing.AllocsPerRun(600, call); n != 0 {
			t.Errorf("%s: got %v allocations, want 0", name, n)
		}
	}
}

func BenchmarkCallDone(b *testing.B) {
	m := metrics.New("v1", "go1")
	b.ReportAllocs()
	for b.Loop() {
		m.CallStarted()
		m.CallDone("orders", "authorizer", 200, 37*time.Millisecond, 35*time.Millisecond)
	}
}

func BenchmarkCallDoneParallel(b *testing.B) {
	m := metrics.New("v1", "go1")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.CallStarted()
			m.CallDone("orders", "authorizer", 200, 37*time.Millisecond, 35*time.Millisecond)
		}
	})
}

func BenchmarkTokenUsed(b *testing.B) {
	m := metrics.New("v1", "go1")
	b.ReportAllocs()
	for b.Loop() {
		m.TokenUsed("authorizer", true)
	}
}

func BenchmarkWeChatError(b *testing.B) {
	m := metrics.New("v1", "go1")
	b.ReportAllocs()
	for b.Loop() {
		m.WeChatError(42001)
	}
}
