package config

import (
	"math"
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	f := func(in string, want time.Duration, printed string) {
		t.Helper()
		got, err := parseDuration(in)
		if err != nil || got != Duration(want) || got.String() != printed {
			t.Errorf("parsing %q: got %d, %v, printed as %v, want %d, "+
				"printed as %s", in, got, err, got, want, printed)
		}
	}
	f("10m", 10*time.Minute, "10m")
	f("60s", time.Minute, "1m")
	f("90s", 90*time.Second, "1m30s")
	f("2h", 2*time.Hour, "2h")
	f("1h30m", 90*time.Minute, "1h30m")
	f("1h0m10s", time.Hour+10*time.Second, "1h0m10s")
	f("0.5s", 500*time.Millisecond, "500ms")
	f("0", 0, "0s")
	f("-1s", -time.Second, "-1s")
	for in, want := range map[string]error{"60": errDurationUnit, "1.5": errDurationUnit, "": errDuration,
		"m": errDuration, "1d": errDuration, "1 m": errDuration, "9999999h": errDuration} {
		if _, err := parseDuration(in); err != want {
			t.Errorf("parsing %q: got %v, want %v", in, err, want)
		}
	}
}

func TestSize(t *testing.T) {
	f := func(in string, want Size, printed string) {
		t.Helper()
		got, err := parseSize(in)
		if err != nil || got != want || got.String() != printed {
			t.Errorf("parsing %q: got %d, %v, printed as %v, want %d, "+
				"printed as %s", in, got, err, got, want, printed)
		}
	}
	f("32MiB", 32<<20, "32MiB")
	f("32 MiB", 32<<20, "32MiB")
	f("1024", 1024, "1KiB")
	f("1025B", 1025, "1025B")
	f("1536KiB", 1536<<10, "1536KiB")
	f("2048MiB", 2<<30, "2GiB")
	f("0", 0, "0B")
	f("9223372036854775807", math.MaxInt64, "9223372036854775807B")
	f("8589934591GiB", 8589934591<<30, "8589934591GiB")
	for in, want := range map[string]error{
		"": errSize, "MiB": errSize, "-1": errSize, "+1": errSize, "1.5MiB": errSize, "1e3": errSize,
		"0x10": errSize, "1_000": errSize, "32MB": errSize,
		"32mib": errSize, "32M": errSize, "1BB": errSize, " 1": errSize, "1KiB ": errSize, "١": errSize, // an Arabic digit
		"8589934592GiB": errSizeTooLarge, "9223372036854775808": errSizeTooLarge,
		"99999999999999999999999": errSizeTooLarge,
	} {
		if _, err := parseSize(in); err != want {
			t.Errorf("parsing %q: got %v, want %v", in, err, want)
		}
	}
}

// FuzzUnits checks that the printed form of a value parses to the same value.
func FuzzUnits(f *testing.F) {
	for _, s := range []string{"10m", "1h0m1s", "-3us", "32MiB", "1023B", "9223372036854775807", "0", "1.5h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := parseDuration(s); err == nil {
			if again, err := parseDuration(d.String()); err != nil || again != d {
				t.Errorf("%q is printed as %v, which parses to %v, %v", s, d, again, err)
			}
		}
		if n, err := parseSize(s); err == nil {
			if again, err := parseSize(n.String()); err != nil || again != n || n < 0 {
				t.Errorf("%q is printed as %v, which parses to %v, %v", s, n, again, err)
			}
		}
	})
}
