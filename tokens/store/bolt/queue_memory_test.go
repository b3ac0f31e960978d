package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/bolt"
)

// heapEnv makes the test binary a child of TestQueueMemoryIsFlat. Its value is
// the path of the store.
const heapEnv = "WXPROXY_TEST_QUEUE_HEAP"

// printHeap opens a store, uses its queue, and prints how many bytes of the
// heap are in use and how many the payloads have.
func printHeap(path string) {
	s, err := bolt.Open(context.Background(), path)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	q, ctx := s.Queue(), context.Background()
	sizes, err1 := q.Sizes(ctx)
	taken, err2 := q.Take(ctx, map[string]int{"orders": 100}, store.MaxQueuePause)
	_, _, err3 := q.List(ctx, store.QueueFilter{}, 5000, 100)
	delivered := store.QueueOutcome{Result: store.QueueDelivered}
	err4 := q.Settle(ctx, taken[0], delivered)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Println(m.HeapAlloc, sizes["orders"].Bytes)
	runtime.KeepAlive(s)
	_ = s.Close()
}

// TestQueueMemoryIsFlat: 100,000 waiting events of 700 bytes, in 1 lane × in
// 20,000 lanes. A process that has the file open and uses the queue needs less
// than a third of what the payloads need.
func TestQueueMemoryIsFlat(t *testing.T) {
	const n, part = 100_000, 5000
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, lanes := range []int{1, 20_000} {
		path := filepath.Join(t.TempDir(), "a.db")
		s := open(t, path)
		for i := 0; i < n; i += part {
			var entries []store.QueueEntry
			for k := i; k < i+part; k++ {
				e := event(fmt.Sprintf("wx%016d", k%lanes), fmt.Sprintf("%064d", k))
				e.Created = e.Created.AddDate(0, 0, k%1000)
				e.Payload = make([]byte, 700)
				entries = append(entries, e)
			}
			if err := s.Queue().Restore(t.Context(), entries...); err != nil {
				t.Fatal(err)
			}
		}
		mustClose(t, s)
		child := exec.Command(self)
		child.Env = append(os.Environ(), heapEnv+"="+path)
		out, err := child.CombinedOutput()
		var heap, payloads int64
		if _, scan := fmt.Sscan(string(out), &heap, &payloads); err != nil || scan != nil {
			t.Fatalf("child: %v: %s", err, out)
		}
		t.Logf("%d lanes: %d bytes of heap for %d bytes of payloads", lanes, heap, payloads)
		if payloads != n*700 || heap > payloads/3 {
			t.Errorf("%d lanes: got %d bytes of heap for %d bytes of payloads, want a third",
				lanes, heap, payloads)
		}
	}
}
