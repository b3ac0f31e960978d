package main

import (
	"strings"
	"testing"
	"time"
)

func TestShown(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		if got := shown(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	f("北京 plain é", "北京 plain é")
	f("a\x1b[2J\r\n\t\x00\x7f", `a\u001b[2J\u000d\u000a\u0009\u0000\u007f`)
	f("\u009b31m\u202e\u2066\u200b\u2028\ufeff\U000e0041", `\u009b31m\u202e\u2066\u200b\u2028\ufeff\U000e0041`)
	f("\xff\xc3", `\xff\xc3`)
}

func TestPlainJSON(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		if got := plainJSON([]byte(in)); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	f("{\"a\":\n\t\"北京\"}\n", `{"a":  "北京"}`)
	f("\"\u009b\u202e\U000e0041\xff\"", `"\u009b\u202e\udb40\udc41`+"\ufffd"+`"`)
}

func TestWidth(t *testing.T) {
	f := func(s string, want int) {
		t.Helper()
		if got := width(s); got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
	f("", 0)
	f("abc", 3)
	f("北京小面馆", 10)
	f("ａ！～（）", 10)
	f("e\u0301", 1)
	f("한국어 カナ", 11)
	f("😀", 2)
	if got := fitted("北京小面馆", 10); got != "北京小面馆" {
		t.Error(got)
	}
	for most := 1; most < 10; most++ {
		if got := fitted("北京小面馆", most); width(got) > most || !strings.HasSuffix(got, "…") {
			t.Errorf("%d: %q", most, got)
		}
	}
}

// Rows that come later line up with those that stand there.
func TestTable(t *testing.T) {
	var b strings.Builder
	tab := table{out: &b}
	tab.print([][]string{{"A", "北京", "x"}, {"long one", "b", ""}})
	tab.print([][]string{{"c", "d", "y"}})
	if want := "A         北京  x\nlong one  b\nc         d     y\n"; b.String() != want {
		t.Errorf("\n%s", b.String())
	}
}

func TestSpan(t *testing.T) {
	f := func(d time.Duration, want string) {
		t.Helper()
		if got := span(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
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
	for want, in := range map[string]*int64{"-": nil, "in 1m": seconds(60), "over for 0s": seconds(0), "over for 2h": seconds(-7200)} {
		if got := until(in); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
