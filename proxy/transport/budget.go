package transport

import "sync/atomic"

// Budget bounds the memory of what many requests hold at the same time. The zero
// value has a limit of 0. All its methods are safe for concurrent use.
type Budget struct{ limit, used atomic.Int64 }

// SetLimit changes the limit, bytes. What is reserved stays reserved, even if it
// is more.
func (b *Budget) SetLimit(n int) { b.limit.Store(int64(n)) }

// Used returns the number of bytes that are reserved.
func (b *Budget) Used() int64 { return b.used.Load() }

// Reserve returns an empty reservation.
func (b *Budget) Reserve() Reservation { return Reservation{budget: b} }

// Reservation is a part of a [Budget], for one holder. It must not be copied once
// it is resized, and is not safe for concurrent use. The zero value can only be
// released.
type Reservation struct {
	budget *Budget
	size   int64
}

// Resize changes the reservation to n bytes and reports whether that was
// possible. If the budget has no room, the reservation stays as it is. Less is
// always possible.
func (r *Reservation) Resize(n int) bool {
	more := int64(n) - r.size
	// Add first, then compare: two holders that add at the same time are both
	// refused at worst, but never exceed the limit together.
	if r.budget.used.Add(more) > r.budget.limit.Load() && more > 0 {
		r.budget.used.Add(-more)
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
		r.budget.used.Add(-r.size)
		r.size = 0
	}
}
