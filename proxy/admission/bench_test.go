package admission

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"
)

// BenchmarkTryAcquire measures a request that finds a free slot, which nearly
// all do.
func BenchmarkTryAcquire(b *testing.B) {
	l := NewLimiter(1000, QueueTimeout)
	keys := make([][]byte, 1000)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "wx%016d", i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		slot, ok := l.TryAcquire(keys[i%len(keys)])
		if !ok {
			b.Fatal("got no slot, want one")
		}
		l.Release(slot)
	}
}

// BenchmarkAcquire measures requests that all wait in the queue, of many keys,
// and of one.
func BenchmarkAcquire(b *testing.B) {
	for _, keys := range []int{1, 1000} {
		b.Run(fmt.Sprintf("%dkeys", keys), func(b *testing.B) {
			l := NewLimiter(64, time.Hour)
			b.ReportAllocs()
			var requests sync.WaitGroup
			const clients = 1000
			for c := range clients {
				requests.Go(func() {
					key := fmt.Appendf(nil, "wx%016d", c%keys)
					for range b.N / clients {
						slot, err := l.Acquire(key, time.Now())
						if err != nil {
							b.Error(err)
							return
						}
						runtime.Gosched() // so that others wait
						l.Release(slot)
					}
				})
			}
			requests.Wait()
		})
	}
}
