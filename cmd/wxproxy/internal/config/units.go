package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that the configuration writes as "10m". The zero value is no time at
// all, which most keys refuse.
type Duration time.Duration

// String gives the shortest spelling, as somebody would write it: "10m", not "10m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// What can be wrong with the spelling of a duration or a size. The sentences follow "KEY: " and
// quote nothing, since the value may have come from an environment variable.
var (
	errDurationUnit = errors.New(`has no unit; write a number with ms, s, m or h, such as "90s" or "10m"`)
	errDuration     = errors.New(`is no duration; write a number with ms, s, m or h, such as "90s" or "10m"`)
	errSize         = errors.New(`is no size; write whole bytes, or a number with KiB, MiB or GiB, such as "32MiB"`)
	errSizeTooLarge = errors.New(`is more than can be counted; write a size such as "32MiB"`)
)

// parseDuration reads what time.ParseDuration does. A bare number is an error, because nobody could
// tell its unit; only 0 needs none.
func parseDuration(s string) (Duration, error) {
	d, err := time.ParseDuration(s)
	if err == nil {
		return Duration(d), nil
	}
	// The error of the standard library quotes the value: ours says what to write instead.
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, errDurationUnit
	}
	return 0, errDuration
}

// Size is a number of bytes, which the configuration writes as "32MiB", as "1048576" or as a plain
// number.
type Size int64

// The units of a size, the largest first, so that String finds the shortest spelling. KB, MB and GB are not
// among them: some read them as 1000, others as 1024.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"B", 1},
}

// String gives the spelling with the largest unit that needs no fraction.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return "0B"
}

// parseSize reads digits and, after blanks if any, a unit. Neither signs nor fractions: bytes are
// whole.
func parseSize(s string) (Size, error) {
	// Trimmed as a set, looked up as a word: "KiM" is cut off and is then no unit.
	digits := strings.TrimRight(s, "BGiKM")
	unit := s[len(digits):]
	digits = strings.TrimRight(digits, " ")
	bytes := int64(1)
	if unit != "" {
		bytes = 0
		for _, u := range sizeUnits {
			if unit == u.name {
				bytes = u.bytes
			}
		}
	}
	if bytes == 0 || digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, errSize
	}
	// The product has to fit too.
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > math.MaxInt64/bytes {
		return 0, errSizeTooLarge
	}
	return Size(n * bytes), nil
}
