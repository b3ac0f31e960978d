package transport

import "sync/atomic"

// Budget bounds the memory that many requests hold at the same time. The zero
// value has a limit of 0 and is not divided. All its methods are safe for
// concurrent use.
//
// A divided budget is fair: a holder, such as a caller, can take more only
// while it has no more than what it leaves free. One holder alone can have half
// of the budget. A second one can have a quarter then, or a third if both of
// them take what they can. No holder can shut out another one, and what is not
// used by one is there for others. (Switches divide their buffers between ports
// in this way: Choudhury and Hahne, "Dynamic Queue Length Thresholds".)
type Budget struct {
	limit, used atomic.Int64
	divided     atomic.Bool
}

const (
	// smallReservation is the size up to which a reservation can use all of the
	// budget, bytes. Larger ones leave a part free, limit/largeMargin, so that
	// many large bodies do not keep out short ones.
	smallReservation = maxPooledBody
	largeMargin      = 8
)

// SetLimit changes the limit, bytes. What is reserved stays reserved, even if
// it is more.
func (b *Budget) SetLimit(n int) { b.limit.Store(int64(n)) }

// SetDivided makes the budget divided between its shares, or ends that.
// Undivided, each share can use all of it.
func (b *Budget) SetDivided(on bool) { b.divided.Store(on) }

// Used returns the number of bytes that are reserved.
func (b *Budget) Used() int64 { return b.used.Load() }

// NewShare returns the share of another holder.
func (b *Budget) NewShare() *Share { return &Share{budget: b} }

// Share is what one holder, such as a caller, has of a [Budget]. Its methods
// are safe for concurrent use. A nil Share has no memory to give.
type Share struct {
	budget *Budget
	used   atomic.Int64
}

// Reserve returns an empty reservation.
func (s *Share) Reserve() Reservation { return Reservation{share: s} }

// add changes what is used by n bytes, for a reservation that has size bytes
// then, and reports whether that was possible. Less is always possible.
func (s *Share) add(n, size int64) bool {
	if s == nil {
		return n <= 0
	}
	// Add first, then compare: two holders that add at the same time are both
	// refused at worst, but never exceed the limit together.
	own, all := s.used.Add(n), s.budget.used.Add(n)
	if n <= 0 {
		return true
	}
	limit := s.budget.limit.Load()
	most := limit
	if size > smallReservation {
		most -= limit / largeMargin
	}
	if all <= most && (own <= limit-all || !s.budget.divided.Load()) {
		return true
	}
	s.used.Add(-n)
	s.budget.used.Add(-n)
	return false
}

// Reservation is a part of a [Share], for one request. It must not be copied
// once it is resized, and is not safe for concurrent use. The zero value can
// only be released.
type Reservation struct {
	share *Share
	size  int64
}

// Resize changes the reservation to n bytes and reports whether that was
// possible. If it was not, the reservation stays as it is. Less is always
// possible.
func (r *Reservation) Resize(n int) bool {
	if !r.share.add(int64(n)-r.size, int64(n)) {
		return false
	}
	r.size = int64(n)
	return true
}

// Size returns the number of bytes that are reserved.
func (r *Reservation) Size() int { return int(r.size) }

// Release gives everything back. The reservation can be used again.
func (r *Reservation) Release() {
	if r.size != 0 {
		r.share.add(-r.size, 0)
		r.size = 0
	}
}
