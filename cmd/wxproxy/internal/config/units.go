package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that the configuration writes as "10m". Most keys
// reject zero.
type Duration time.Duration

// String returns the shortest spelling, as people write it: "10m", not "10m0s".
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

// The problems of a duration or a size. They follow the key in a fault, and do
// not quote the value, because it may come from an environment variable.
var (
	errDurationUnit = errors.New(`has no unit; write a number with ms, s, m or h, such as "90s" or "10m"`)
	errDuration     = errors.New(`is not a duration; write a number with ms, s, m or h, such as "90s" or "10m"`)
	errSize         = errors.New(`is not a size; write whole bytes, or a number with KiB, MiB or GiB, such as "32MiB"`)
	errSizeTooLarge = errors.New(`is too large; write a size such as "32MiB"`)
)

// parseDuration parses s like time.ParseDuration. A number without a unit is an
// error, because readers would disagree about the unit. Only 0 needs none.
func parseDuration(s string) (Duration, error) {
	d, err := time.ParseDuration(s)
	if err == nil {
		return Duration(d), nil
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, errDurationUnit
	}
	return 0, errDuration
}

// Size is a number of bytes, which the configuration writes as "32MiB",
// "1048576" or 1048576.
type Size int64

// sizeUnits are the units of a Size, the largest first, so that String finds
// the shortest spelling. KB, MB and GB are missing, because they mean powers of
// 1000 to some and of 1024 to others.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"B", 1},
}

// String returns the spelling with the largest unit that needs no fraction.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return "0B"
}

// parseSize parses digits and, after optional spaces, a unit. Signs and
// fractions are errors.
func parseSize(s string) (Size, error) {
	// Everything that can be part of a unit is cut off. "KiM" is then no unit.
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
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > math.MaxInt64/bytes { // the product must fit, too
		return 0, errSizeTooLarge
	}
	return Size(n * bytes), nil
}
