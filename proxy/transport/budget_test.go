package transport

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestBudget(t *testing.T) {
	b := new(Budget)
	share := b.NewShare()
	first, second := share.Reserve(), share.Reserve()
	step := func(what string, got, want bool, used int64) {
		t.Helper()
		if got != want || b.Used() != used || share.used.Load() != used {
			t.Errorf("%s: got %t with %d bytes in use, %d by the share, want %t with %d",
				what, got, b.Used(), share.used.Load(), want, used)
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

// A nil share has no memory to give.
func TestNilShare(t *testing.T) {
	r := (*Share)(nil).Reserve()
	if r.Resize(1) || !r.Resize(0) {
		t.Error("got a reservation of 1 byte, or none of 0")
	}
	r.Release()
}

// Reservations over smallReservation leave an eighth of the budget to small
// ones.
func TestLargeReservationsLeaveRoom(t *testing.T) {
	const limit = 80 * smallReservation
	b := new(Budget)
	b.SetLimit(limit)
	large := b.NewShare().Reserve()
	if large.Resize(70*smallReservation+1) || !large.Resize(70*smallReservation) {
		t.Error("got another limit of a large reservation than seven eighths")
	}
	for range 10 {
		small := b.NewShare().Reserve()
		if !small.Resize(smallReservation) {
			t.Fatalf("small reservation with %d of %d bytes in use: got false", b.Used(), limit)
		}
	}
	last := b.NewShare().Reserve()
	if last.Resize(1) {
		t.Error("got more than the limit")
	}
}

// In a divided budget no holder keeps out another one, in whatever order they
// come, and with however many reservations. Undivided, one can take all. The
// parameters are how many greedy holders there are × the size of a reservation
// × whether they take turns.
func TestDividedBudgetIsFair(t *testing.T) {
	const limit = 64 << 20
	for _, greedy := range []int{1, 2, 3, 5} {
		for _, size := range []int{16 << 10, 64 << 10, 1 << 20} {
			for _, turns := range []bool{false, true} {
				b := new(Budget)
				b.SetLimit(limit)
				b.SetDivided(true)
				take := func(s *Share) bool { r := s.Reserve(); return r.Resize(size) }
				shares := make([]*Share, greedy)
				for i := range shares {
					shares[i] = b.NewShare()
				}
				for more := true; more; {
					more = false
					for _, s := range shares {
						for take(s) {
							if more = true; turns {
								break
							}
						}
					}
				}
				// Each of n greedy holders has a part of n+1 if they take
				// turns. Otherwise each has half of what it found.
				free := limit - b.Used()
				least := int64(limit / (greedy + 1))
				if !turns {
					least = int64(limit >> greedy)
				}
				if free < least-int64(size) {
					t.Errorf("%d greedy holders, %d bytes, turns %v: got %d bytes free, want %d",
						greedy, size, turns, free, least)
				}
				late := b.NewShare()
				for take(late) {
				}
				want := free / 2
				if size > smallReservation {
					want = min(want, free-limit/largeMargin)
				}
				if got := late.used.Load(); got < want-int64(size) {
					t.Errorf("%d greedy, %d bytes, turns %v: a late one got %d of %d free, want %d",
						greedy, size, turns, got, free, want)
				}
				b.SetDivided(false)
				for take(shares[0]) {
				}
				if n := b.Used(); n < limit-limit/largeMargin-int64(size) {
					t.Errorf("undivided: got %d bytes in use, want nearly %d", n, limit)
				}
			}
		}
	}
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
			reservations[i] = b.NewShare().Reserve()
			all.Go(func() {
				if reservations[i].Resize(size) {
					got.Add(1)
				}
			})
		}
		all.Wait()
		if n := got.Load(); n > limit/size || b.Used() != int64(n)*size {
			t.Fatalf("%d holders have %d bytes each, and %d are in use: want %d at most",
				n, size, b.Used(), limit)
		}
		for i := range reservations {
			reservations[i].Release()
		}
		if n := b.Used(); n != 0 {
			t.Fatalf("got %d bytes in use at the end, want 0", n)
		}
	}
}
