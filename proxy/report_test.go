package proxy

import (
	"strings"
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

// FuzzTraceID checks that whatever a header has, the id taken from it is part
// of its value and safe to log.
func FuzzTraceID(f *testing.F) {
	for _, seed := range []string{
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		"80f198ee56343ba8-e457b5a2e4d86bd1-1", "4bf92f3577b34da6a3ce929d0e0e4736",
		"Root=1-67891233-abcdef012345678912345678;Sampled=1", "0", "--", "Root=;",
	} {
		for role := range traceHeaders {
			f.Add(uint8(role), seed)
		}
	}
	f.Fuzz(func(t *testing.T, n uint8, value string) {
		var h requestHead
		h.traces[n%uint8(traceHeaders)] = []byte(value)
		id := h.traceID()
		if id == "" {
			return
		}
		if len(id) < 16 || len(id) > 35 || !strings.Contains(value, id) ||
			strings.Trim(id, "0123456789abcdefABCDEF-") != "" {
			t.Errorf("trace id of header %d with the value %q: got %q, want 16 to 35 digits of it", n, value, id)
		}
	})
}
