// Package clock is the clock of the program. All that wxproxy stores and
// compares with stored times reads this clock, so that a test can run the
// program as on a machine whose clock is wrong:
//
//	go build -ldflags "-X wxproxy/internal/clock.offset=-6h" ./cmd/wxproxy
//
// (a duration with a sign or without, see [time.ParseDuration]; tests use
// proctest.Linked). Built without the flag, it is the machine's clock.
package clock

import "time"

// offset is added to the machine's clock. Only the linker sets it.
var offset string

var shift = parse(offset)

// parse returns the offset. The program does not start with an invalid one.
func parse(s string) time.Duration {
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		panic("clock: invalid offset: " + err.Error())
	}
	return d
}

// Now returns the time of the clock. It has a monotonic reading, as [time.Now].
func Now() time.Time { return time.Now().Add(shift) }
