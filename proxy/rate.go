package proxy

import (
	"time"

	"golang.org/x/time/rate"
)

// newRateLimiter allows perSecond requests per second, and burst at once. A
// burst of 0 is perSecond, but at least 1. The result is nil if perSecond is 0:
// there is no limit.
func newRateLimiter(perSecond, burst int) *rate.Limiter {
	if perSecond <= 0 {
		return nil
	}
	if burst <= 0 {
		burst = perSecond
	}
	return rate.NewLimiter(rate.Limit(perSecond), burst)
}

// sameRate reports whether two limiters, which may be nil, allow the same.
func sameRate(a, b *rate.Limiter) bool {
	return a != nil && b != nil && a.Limit() == b.Limit() && a.Burst() == b.Burst()
}

// takeRate counts a request, or returns after how long there will be room for
// one. It does not use Reserve, which allocates, also for requests that are
// allowed.
func takeRate(l *rate.Limiter, now time.Time) (wait time.Duration) {
	if l.AllowN(now, 1) {
		return 0
	}
	missing := 1 - l.TokensAt(now)
	// Never 0: another request can have been counted meanwhile.
	return max(time.Duration(missing/float64(l.Limit())*float64(time.Second)), 1)
}
