package governor

import (
	"context"
	"sync"
	"time"
)

// Class is the priority of a request. The zero value is that of requests that a
// caller waits for.
type Class uint8

const (
	ForCaller  Class = iota // a caller, a merchant or an operator waits for it
	Early                   // renews a token before it expires
	Background              // the comparison with WeChat's list, names of accounts
	numClasses
)

// classKey is the key of the Class in a context.
type classKey struct{}

// WithClass returns a context whose requests are of class c.
func WithClass(ctx context.Context, c Class) context.Context {
	return context.WithValue(ctx, classKey{}, c)
}

// classOf returns the class of the requests of ctx.
func classOf(ctx context.Context) Class {
	c, _ := ctx.Value(classKey{}).(Class)
	return c
}

// share returns how many of limit slots the requests of class c may take, at
// least one. A part is always left to the other classes: many slow renewals
// ahead of expiry do not stop callers, and the reverse.
func share(c Class, limit int) int {
	switch c {
	case Early:
		return max(limit/2, 1)
	case Background:
		return max(limit/4, 1)
	}
	return max(limit-limit/8, 1)
}

// maxWait is how long a request waits for a slot. The rest of a task's 20 s is
// for the request itself.
const maxWait = 10 * time.Second

// slots bounds how many requests are in flight. It serves classes in their
// order, and the requests of one class in the order in which they came. It is
// safe for concurrent use.
type slots struct {
	limit int

	mu     sync.Mutex
	used   [numClasses]int
	queues [numClasses][]*waiter
}

// waiter is a request that waits for a slot.
type waiter struct{ admitted chan struct{} }

// acquire takes a slot, and waits for one if necessary. It reports whether it
// got one before ctx ended and within maxWait. first lets the request pass all
// others of its class.
func (s *slots) acquire(ctx context.Context, c Class, first bool) bool {
	s.mu.Lock()
	if s.free(c) && (first || len(s.queues[c]) == 0) {
		s.used[c]++
		s.mu.Unlock()
		return true
	}
	w := &waiter{admitted: make(chan struct{})}
	if first {
		s.queues[c] = append([]*waiter{w}, s.queues[c]...)
	} else {
		s.queues[c] = append(s.queues[c], w)
	}
	s.mu.Unlock()
	timeout := time.NewTimer(maxWait)
	defer timeout.Stop()
	select {
	case <-w.admitted:
		return true
	case <-ctx.Done():
	case <-timeout.C:
	}
	return s.abandon(c, w)
}

// abandon removes w from its queue. It returns true if w was admitted at the
// same moment, and has a slot.
func (s *slots) abandon(c Class, w *waiter) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, other := range s.queues[c] {
		if other == w {
			s.queues[c] = append(s.queues[c][:i], s.queues[c][i+1:]...)
			return false
		}
	}
	return true
}

// release gives a slot back, and admits those that wait for it.
func (s *slots) release(c Class) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used[c]--
	for c := range numClasses {
		for len(s.queues[c]) > 0 && s.free(c) {
			close(s.queues[c][0].admitted)
			s.queues[c][0] = nil // for the garbage collector
			s.queues[c] = s.queues[c][1:]
			s.used[c]++
		}
	}
}

// free reports whether a request of class c may have a slot now. It requires
// s.mu.
func (s *slots) free(c Class) bool {
	total := 0
	for _, n := range s.used {
		total += n
	}
	return total < s.limit && s.used[c] < share(c, s.limit)
}

// waiting returns how many requests wait for a slot.
func (s *slots) waiting() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.queues {
		n += len(q)
	}
	return n
}
