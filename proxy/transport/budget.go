package transport

import "sync/atomic"

// Budget bounds the memory that many requests take together. The zero value has no room at all; see [Budget.SetLimit].
// All its methods can be called concurrently.
type Budget struct{ limit, used atomic.Int64 }

// SetLimit sets the number of bytes that may be reserved at the same time. What is reserved already stays.
func (b *Budget) SetLimit(n int) { b.limit.Store(int64(n)) }

// Used returns the number of bytes that are reserved.
func (b *Budget) Used() int64 { return b.used.Load() }

// Reservation is one request's part of a [Budget]. The zero value is an empty one of no budget; it can be released. It
// must not be used concurrently.
type Reservation struct {
	budget *Budget
	size   int64
}

// Reserve returns an empty reservation of b.
func (b *Budget) Reserve() Reservation { return Reservation{budget: b} }

// Resize makes the reservation n bytes large, or reports that the budget does not allow that, and leaves it as it is.
func (r *Reservation) Resize(n int) bool {
	more := int64(n) - r.size
	if r.budget.used.Add(more) > r.budget.limit.Load() && more > 0 {
		r.budget.used.Add(-more)
		return false
	}
	r.size = int64(n)
	return true
}

// Release gives everything back.
func (r *Reservation) Release() {
	if r.size != 0 {
		r.budget.used.Add(-r.size)
		r.size = 0
	}
}
