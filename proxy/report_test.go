package proxy

import (
	"testing"
	"time"
)

// TestRejectionsAreLoggedOncePerSecond checks that rejections due to overload
// do not flood the log, and that other errors are always logged.
func TestRejectionsAreLoggedOncePerSecond(t *testing.T) {
	p := new(Proxy)
	now := time.Unix(1_800_000_000, 0)
	for i, c := range []struct {
		err  *apiError
		at   time.Duration
		want bool
	}{
		{errLimit, 0, false},
		{errLimit, 10 * time.Millisecond, true},
		{errAccountLimit, 20 * time.Millisecond, false}, // another kind
		{errAccountLimit, 20 * time.Millisecond, true},
		{errBodyBudget, 20 * time.Millisecond, false},
		{errBodyBudget, 20 * time.Millisecond, true},
		{errFormBudget, 20 * time.Millisecond, false},
		{errFormBudget, 20 * time.Millisecond, true},
		{errNoKey, 30 * time.Millisecond, false},
		{errNoKey, 30 * time.Millisecond, false},
		{nil, 40 * time.Millisecond, false},
		{errAccountLimit, time.Second, false},
		{errLimit, 1500 * time.Millisecond, false},
		{errLimit, 1600 * time.Millisecond, true},
	} {
		if got := p.suppressLog(c.err, now.Add(c.at)); got != c.want {
			t.Errorf("error %d, %v after %v: got suppressed %v, want %v", i, c.err, c.at, got, c.want)
		}
	}
}
