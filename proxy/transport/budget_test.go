package transport

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestBudget(t *testing.T) {
	b := new(Budget)
	first, second := b.Reserve(), b.Reserve()
	step := func(what string, got, want bool, used int64) {
		t.Helper()
		if got != want || b.Used() != used {
			t.Errorf("%s: got %t with %d bytes in use, want %t with %d", what, got, b.Used(), want, used)
		}
	}
	step("zero value", first.Resize(1), false, 0)
	b.SetLimit(100)
	step("within the limit", first.Resize(60), true, 60)
	step("together above the limit", second.Resize(41), false, 60)
	step("together at the limit", second.Resize(40), true, 100)
	step("more", first.Resize(61), false, 100)
	b.SetLimit(50)
	step("less, while the limit is exceeded", first.Resize(30), true, 70)
	step("more, while the limit is exceeded", first.Resize(31), false, 70)
	first.Release()
	first.Release() // does nothing
	step("after a release", first.Resize(10), true, 50)
	first.Release()
	second.Release()
	step("at the end", true, true, 0)
	new(Reservation).Release()
}

func TestBudgetIsNotExceededConcurrently(t *testing.T) {
	const limit, holders, size = 1000, 16, 100 // 10 of 16 fit
	b := new(Budget)
	b.SetLimit(limit)
	for range 500 {
		var all sync.WaitGroup
		var got atomic.Int32
		reservations := make([]Reservation, holders)
		for i := range reservations {
			reservations[i] = b.Reserve()
			all.Go(func() {
				if reservations[i].Resize(size) {
					got.Add(1)
				}
			})
		}
		all.Wait()
		if n := got.Load(); n > limit/size || b.Used() != int64(n)*size {
			t.Fatalf("%d holders have %d bytes each, and %d are in use: want %d at most", n, size, b.Used(), limit)
		}
		for i := range reservations {
			reservations[i].Release()
		}
		if n := b.Used(); n != 0 {
			t.Fatalf("got %d bytes in use at the end, want 0", n)
		}
	}
}
