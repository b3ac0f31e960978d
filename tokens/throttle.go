package tokens

import (
	"slices"
	"time"
)

// renewalThrottle remembers renewals that followed the rejection of a token
// that should have been valid. Requests of the wrong kind or a competing
// refresher cause such rejections without end. A renewal for each of them would
// exhaust the daily quota of the token endpoint.
//
// The zero value has seen no renewals. It is part of the account's record, so
// that all replicas share it.
type renewalThrottle struct {
	At        []int64 `json:"at,omitempty"` // newest renewals, Unix milliseconds
	Throttled bool    `json:"raging,omitempty"`
}

const (
	throttleWindow = time.Minute
	// throttleLimit is how many renewals one window may see. A deployment that
	// moves from another token refresher causes one or two.
	throttleLimit = 3
)

// allows reports whether a rejection may cause another renewal now. It allows
// throttleLimit renewals within one window, then one per window, until two
// windows pass without any.
func (t *renewalThrottle) allows(now time.Time) bool {
	return !t.Throttled || t.sinceLast(now) >= throttleWindow
}

// record notes a renewal that succeeded. A failed one yields no new token that
// could be rejected, and is not counted.
func (t *renewalThrottle) record(now time.Time) {
	if len(t.At) > 0 && t.sinceLast(now) >= 2*throttleWindow {
		*t = renewalThrottle{}
	}
	t.At = append(t.At, millis(now))
	t.At = slices.DeleteFunc(t.At, func(at int64) bool {
		return elapsed(now, at) >= throttleWindow
	})
	if len(t.At) >= throttleLimit {
		t.Throttled = true
		t.At = t.At[len(t.At)-throttleLimit:]
	}
}

// sinceLast returns the time since the newest renewal, longAgo if there was
// none or a wrong clock noted it.
func (t *renewalThrottle) sinceLast(now time.Time) time.Duration {
	if len(t.At) == 0 {
		return longAgo
	}
	return elapsed(now, t.At[len(t.At)-1])
}
