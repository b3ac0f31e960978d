package transport

import (
	"testing"
	"time"
)

// The clock of a body lets honest clients finish and cuts off those that hold
// memory. No time passes in this test.
func TestPace(t *testing.T) {
	type piece struct {
		after time.Duration
		n     int
	}
	steady := func(every time.Duration, n, size int) (all []piece) {
		for ; size > 0; size -= n {
			all = append(all, piece{every, min(n, size)})
		}
		return all
	}
	first := func(n int, then ...piece) []piece { return append([]piece{{0, n}}, then...) }
	const forever = 64 << 20
	const second, minute, much = time.Second, time.Minute, 8<<20 + 1
	trickle := func(every time.Duration) []piece { return steady(every, 1, 1000) }
	for name, c := range map[string]struct {
		pieces []piece
		cut    time.Duration // when the body is cut off, at the latest; 0: never
	}{
		"at once":                     {steady(0, 1<<20, 32<<20), 0},
		"10 MiB, 20 KB/s":             {steady(time.Second, 20_000, 10<<20), 0},
		"64 KiB, 1.1 KiB/s":           {steady(time.Second, 1127, 64<<10), 0},
		"a piece every 10 s":          {steady(10*time.Second, 11<<10, 200<<10), 0},
		"begins late":                 {steady(14*second, 14<<10, 200<<10), 0},
		"pauses of 25 s":              {first(1<<20, steady(25*time.Second, 1<<20, 4<<20)...), 0},
		"nothing":                     {[]piece{{15*time.Second + 1, 1}}, 15 * time.Second},
		"a byte a second":             {steady(time.Second, 1, forever>>10), 16 * time.Second},
		"a byte every 10 s":           {steady(10*time.Second, 1, forever>>10), 16 * time.Second},
		"900 bytes a second":          {steady(time.Second, 900, forever), 130 * time.Second},
		"much, then nothing":          {first(much, piece{30*second + 1, 1}), 30 * second},
		"much, then a byte a second":  {first(much, trickle(second)...), 31 * second},
		"much, then a byte every 29s": {first(much, trickle(29*second)...), 31 * second},
		"much, then 2 KiB/s":          {first(much, steady(second, 2<<10, forever)...), 10 * minute},
		"pauses between much":         {steady(29*time.Second, 1<<20, forever), 10 * time.Minute},
	} {
		pace := DefaultPace
		begin := time.Unix(1_800_000_000, 0)
		now, deadline := begin, pace.first(begin)
		cut := time.Duration(0)
		for _, p := range c.pieces {
			if now = now.Add(p.after); now.After(deadline) {
				cut = deadline.Sub(begin)
				break
			}
			deadline = pace.next(begin, deadline, now, p.n)
		}
		if (cut == 0) != (c.cut == 0) || cut > c.cut {
			t.Errorf("%s: got cut off after %v, want %v", name, cut, c.cut)
		}
	}
}

// FuzzPace checks that no pieces of a body, however large or late, keep it
// longer than allowed.
func FuzzPace(f *testing.F) {
	f.Add(int64(time.Second), 1, int64(29*time.Second), 1<<40)
	f.Fuzz(func(t *testing.T, after1 int64, n1 int, after2 int64, n2 int) {
		if after1 < 0 || after2 < 0 || n1 < 0 || n2 < 0 || after1 > 1e15 || after2 > 1e15 {
			return
		}
		pace := DefaultPace
		begin := time.Unix(1_800_000_000, 0)
		now, deadline := begin, pace.first(begin)
		for i := range 40 {
			after, n := after1, n1
			if i%2 == 1 {
				after, n = after2, n2
			}
			if now = now.Add(time.Duration(after)); now.After(deadline) {
				return
			}
			next := pace.next(begin, deadline, now, n)
			if next.Before(deadline) && next.Before(now) || next.After(now.Add(pace.MaxPause)) ||
				next.After(begin.Add(pace.Total)) {
				t.Fatalf("%d bytes after %v: got a deadline of %v",
					n, now.Sub(begin), next.Sub(begin))
			}
			deadline = next
		}
	})
}
