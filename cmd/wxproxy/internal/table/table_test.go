package table

import (
	"strings"
	"testing"
	"time"
)

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"北京 plain é":                  "北京 plain é",
		"a\x1b[2J\r\n\t\x00\x7f":      "a?[2J   ??",
		"\u202e\u200b\ufeff\u009b31m": "????31m",
		"\xff\xc3":                    "??",
	} {
		if got := Printable(in); got != want {
			t.Errorf("Printable(%q): got %q, want %q", in, got, want)
		}
	}
}

func TestWidth(t *testing.T) {
	f := func(s string, want int) {
		t.Helper()
		if got := terminal.StringWidth(s); got != want {
			t.Errorf("StringWidth(%q): got %d, want %d", s, got, want)
		}
	}
	f("", 0)
	f("abc", 3)
	f("北京小面馆", 10)
	f("ａ！～（）", 10)
	f("e\u0301", 1)
	f("한국어 カナ", 11)
	f("😀", 2)
	f("“…”", 3) // ambiguous width: narrow
	const name = "北京小面馆"
	if got := Truncate(name, 10); got != name {
		t.Errorf("Truncate to 10 columns: got %q, want %q", got, name)
	}
	for limit := 1; limit < 10; limit++ {
		got := Truncate(name, limit)
		if terminal.StringWidth(got) > limit || !strings.HasSuffix(got, "…") {
			t.Errorf("Truncate to %d columns: got %q", limit, got)
		}
	}
}

func TestLaterRowsLineUpWithEarlierOnes(t *testing.T) {
	var b strings.Builder
	tab := Table{Out: &b}
	tab.Print([][]string{{"A", "北京", "x"}, {"long one", "b", ""}})
	tab.Print([][]string{{"c", "d", "y"}})
	if want := "A         北京  x\nlong one  b\nc         d     y\n"; b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestSpan(t *testing.T) {
	f := func(d time.Duration, want string) {
		t.Helper()
		if got := Span(d); got != want {
			t.Errorf("Span(%v): got %s, want %s", d, got, want)
		}
	}
	f(0, "0s")
	f(-59*time.Second, "59s")
	f(time.Minute, "1m")
	f(59*time.Minute+59*time.Second, "59m")
	f(2*time.Hour, "2h")
	f(112*time.Minute, "1h52m")
	f(47*time.Hour+59*time.Minute, "47h59m")
	f(48*time.Hour, "2d")
	f(400*24*time.Hour, "400d")
	seconds := func(n int64) *int64 { return &n }
	for want, in := range map[string]*int64{"-": nil, "in 1m": seconds(60), "expired 0s ago": seconds(0),
		"expired 2h ago": seconds(-7200)} {
		if got := Until(in); got != want {
			t.Errorf("Until: got %s, want %s", got, want)
		}
	}
}
