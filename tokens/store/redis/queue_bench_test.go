//go:build unix

package redis_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/tokens/store"
)

// benchPayload has the size of a message, sealed.
var benchPayload = bytes.Repeat([]byte("m"), 700)

func benchEvent(lane, id int) store.QueueEntry {
	e := event(fmt.Sprintf("wx%016x", lane), fmt.Sprintf("%064x", id))
	e.Payload = benchPayload
	return e
}

// openBench starts a Redis with an append-only file and opens its queue.
func openBench(b *testing.B) (*server, store.Queue) {
	b.Helper()
	r := start(b, "--appendonly", "yes", "--appendfsync", "everysec")
	return r, open(b, r.url(), patient).Queue()
}

// BenchmarkQueueAdd adds events of 700 bytes for 10,000 accounts, 16
// concurrently.
func BenchmarkQueueAdd(b *testing.B) {
	_, q := openBench(b)
	var n atomic.Int64
	b.SetParallelism(8)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			i := int(n.Add(1))
			if _, err := q.Add(b.Context(), time.Hour, benchEvent(i%10_000, i)); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "adds/s")
}

// BenchmarkQueueTakeAndSettle takes events of 10,000 accounts, 64 at once, and
// settles 16 of them concurrently.
func BenchmarkQueueTakeAndSettle(b *testing.B) {
	_, q := openBench(b)
	fill(b, q, b.N, 10_000)
	b.ResetTimer()
	deliverBench(b, q, b.N)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// fill restores n entries of that many lanes.
func fill(b *testing.B, q store.Queue, n, lanes int) {
	b.Helper()
	var batch []store.QueueEntry
	for i := range n {
		batch = append(batch, benchEvent(i%lanes, i))
		if len(batch) == 1600 || i == n-1 {
			if err := q.Restore(b.Context(), batch...); err != nil {
				b.Fatal(err)
			}
			batch = batch[:0]
		}
	}
}

// deliverBench delivers n entries.
func deliverBench(b *testing.B, q store.Queue, n int) {
	b.Helper()
	settling := make(chan store.TakenEntry)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var settled atomic.Int64
	for range 16 {
		go func() {
			for t := range settling {
				o := store.QueueOutcome{Result: store.QueueDelivered}
				if err := q.Settle(b.Context(), t, o); err != nil {
					b.Error(err)
				}
				if settled.Add(1) == int64(n) {
					cancel()
				}
			}
		}()
	}
	defer close(settling)
	for ctx.Err() == nil {
		taken, err := q.Take(ctx, map[string]int{"orders": 64}, time.Minute)
		if err != nil && ctx.Err() == nil {
			b.Fatal(err)
		}
		for _, t := range taken {
			settling <- t
		}
	}
}

// BenchmarkFullQueue measures a queue with a million events in 100,000 lanes:
// the memory of Redis for each event, the time of operations, and how much the
// memory of this process grows while it takes, lists and counts. It takes a few
// minutes, most of them to fill the queue.
func BenchmarkFullQueue(b *testing.B) {
	const events, lanes = 1_000_000, 100_000
	r, q := openBench(b)
	before := redisMemory(b, r)
	fill(b, q, events, lanes)
	memory := float64(redisMemory(b, r)-before) / events
	resident := residentMemory(b)
	measure := func(unit string, do func() error) {
		began := time.Now()
		const n = 20
		for range n {
			if err := do(); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(time.Since(began).Microseconds())/n/1000, unit)
	}
	for b.Loop() {
		ctx := b.Context()
		measure("ms/sizes", func() error { _, err := q.Sizes(ctx); return err })
		measure("ms/take-64", func() error {
			taken, err := q.Take(ctx, map[string]int{"orders": 64}, time.Minute)
			if len(taken) != 64 {
				b.Errorf("take: got %d entries, want 64", len(taken))
			}
			return err
		})
		list := func(f store.QueueFilter, offset int) func() error {
			return func() error { _, _, err := q.List(ctx, f, offset, 100); return err }
		}
		measure("ms/list", list(store.QueueFilter{}, 0))
		measure("ms/list-10000", list(store.QueueFilter{}, 10_000))
		account := benchEvent(7, 0).AppID
		measure("ms/list-account", list(store.QueueFilter{AppID: account}, 0))
		measure("ms/find", func() error {
			_, err := q.Find(ctx, benchEvent(0, 999_999).ID)
			return err
		})
	}
	b.ReportMetric(memory, "redis-B/event")
	b.ReportMetric(float64(residentMemory(b)-resident)/(1<<20), "MB-grown")
}

// redisMemory returns the bytes that Redis has allocated.
func redisMemory(b *testing.B, r *server) int64 {
	b.Helper()
	_, after, _ := strings.Cut(r.do("INFO memory"), "used_memory:")
	n, err := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// residentMemory returns the resident memory of this process in bytes.
func residentMemory(b *testing.B) int64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Skip("no /proc: ", err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
