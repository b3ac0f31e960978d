package bolt_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/tokens/store"
)

// record has about the length of an account record, in bytes.
var record = make([]byte, 600)

// filled returns a store with n account records.
func filled(b *testing.B, n int) store.Store {
	s := openFile(b, filepath.Join(b.TempDir(), "a.db"), nil)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { put(b, s, account(i), string(record)) })
	}
	all.Wait()
	return s
}

func account(i int) string { return fmt.Sprintf("account/wx%016d", i) }

func BenchmarkLoad(b *testing.B) {
	s := filled(b, 10_000)
	b.ReportAllocs()
	var i atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Load(b.Context(), account(int(i.Add(7919)%10_000))); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func replace(context.Context, []byte) ([]byte, error) { return record, nil }

func BenchmarkUpdate(b *testing.B) {
	s := filled(b, 10_000)
	for _, callers := range []int{1, 16, 500} {
		b.Run(fmt.Sprint("callers=", callers), func(b *testing.B) {
			var i atomic.Int64
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					for n := int(i.Add(1)); n <= b.N; n = int(i.Add(1)) {
						if err := s.Update(b.Context(), account(n%10_000), replace); err != nil {
							b.Error(err)
						}
					}
				})
			}
			all.Wait()
		})
	}
}

func BenchmarkList(b *testing.B) {
	s := filled(b, 10_000)
	for b.Loop() {
		n := 0
		err := s.List(b.Context(), "account/", "", func(string, []byte) bool { n++; return true })
		if err != nil || n != 10_000 {
			b.Fatalf("got %d records, error %v, want 10000", n, err)
		}
	}
}

// BenchmarkClaim claims keys for a minute of a clock that runs a millisecond
// with each claim, so that as many expire as are added.
func BenchmarkClaim(b *testing.B) {
	for _, callers := range []int{1, 16, 500} {
		b.Run(fmt.Sprint("callers=", callers), func(b *testing.B) {
			s := open(b, filepath.Join(b.TempDir(), "a.db"))
			var ms atomic.Int64
			s.SetClock(func() time.Time { return time.UnixMilli(ms.Load()) })
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					for n := ms.Add(1); n <= int64(b.N); n = ms.Add(1) {
						until := time.UnixMilli(n).Add(time.Minute)
						if first, err := s.Claim(b.Context(), fmt.Sprintf("push/%040d", n*7919), until); err != nil || !first {
							b.Errorf("got %v, error %v, want true", first, err)
						}
					}
				})
			}
			all.Wait()
		})
	}
}

// benchEvent returns an event of one of 1,000 accounts with a payload of 700
// bytes.
func benchEvent(n int64) store.QueueEntry {
	e := event(fmt.Sprintf("wx%016d", n%1000), fmt.Sprintf("%064x", n*7919))
	e.Payload = make([]byte, 700)
	return e
}

// BenchmarkQueueAdd adds events that are known for 20 minutes. B/event is how
// much the file grows for each of them.
func BenchmarkQueueAdd(b *testing.B) {
	for _, callers := range []int{1, 16, 500} {
		b.Run(fmt.Sprint("callers=", callers), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "a.db")
			s := open(b, path)
			var i atomic.Int64
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					for n := i.Add(1); n <= int64(b.N); n = i.Add(1) {
						added, err := s.Queue().Add(b.Context(), 20*time.Minute, benchEvent(n))
						if err != nil || added != 1 {
							b.Errorf("got %d, error %v, want 1", added, err)
						}
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			if info, err := os.Stat(path); err == nil {
				b.ReportMetric(float64(info.Size())/float64(b.N), "B/event")
			}
		})
	}
}

// BenchmarkQueueDeliver takes and settles events of 1,000 accounts, in parts of
// 100.
func BenchmarkQueueDeliver(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "a.db"))
	for n := 0; n < b.N; n += 1000 {
		var entries []store.QueueEntry
		for k := n; k < min(n+1000, b.N); k++ {
			entries = append(entries, benchEvent(int64(k)))
		}
		if err := s.Queue().Restore(b.Context(), entries...); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	want, o := map[string]int{"orders": 100}, store.QueueOutcome{Result: store.QueueDelivered}
	for left := b.N; left > 0; {
		taken, err := s.Queue().Take(b.Context(), want, store.MaxQueuePause)
		if err != nil || len(taken) == 0 {
			b.Fatalf("got %d, error %v, want events", len(taken), err)
		}
		var all sync.WaitGroup
		for _, e := range taken {
			all.Go(func() {
				if err := s.Queue().Settle(b.Context(), e, o); err != nil {
					b.Error(err)
				}
			})
		}
		all.Wait()
		left -= len(taken)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
