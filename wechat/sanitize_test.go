package wechat_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"wxproxy/wechat"
)

func TestSanitize(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"", 8, ""},
		{"plain", 8, "plain"},
		{"exactly8", 8, "exactly8"},
		{"more than 8", 8, "more tha…"},
		{"anything", 0, "…"},
		{"anything", -1, "…"},
		{"", 0, ""},
		{"a\nb\tc\rd\u0085e\u2028f\u2029g", 20, "a b c d e f g"},
		{"\x1b[31mred\x07\x7f", 20, "?[31mred??"},
		{"\x00", 8, "?"},
		{"a\u202eb\u2066c\u200fd", 20, "a?b?c?d"}, // these change the direction
		{"soft\u00adhyphen\ufeff", 20, "soft?hyphen?"},
		{"bad \xff\xc3 bytes", 20, "bad ?? bytes"},
		{"real \ufffd", 20, "real \ufffd"},
		{"微信开放平台", 4, "微信开放…"},
		{"微信\u3000开放", 8, "微信\u3000开放"},
		{"👨\u200d👩\u200d👧", 8, "👨\u200d👩\u200d👧"},
		{"👨👩👧👦", 4, "👨👩👧👦"},
		{"微", 1, "微"},
	} {
		if got := wechat.Sanitize(c.in, c.limit); got != c.want {
			t.Errorf("Sanitize(%q, %d): got %q, want %q", c.in, c.limit, got, c.want)
		}
		if got := wechat.Sanitize([]byte(c.in), c.limit); got != c.want {
			t.Errorf("Sanitize of the bytes of %q, %d: got %q, want %q", c.in, c.limit, got, c.want)
		}
	}
}

func TestSanitizeOfShortASCIIDoesNotAllocate(t *testing.T) {
	text := "/cgi-bin/message/custom/send"
	if n := testing.AllocsPerRun(100, func() { wechat.Sanitize(text, 200) }); n != 0 {
		t.Errorf("Sanitize of a short string: got %v allocations, want 0", n)
	}
}

// A huge input must not cost in proportion to its size.
func TestSanitizeReadsOnlyTheBeginning(t *testing.T) {
	huge := []byte(strings.Repeat("\x00", 1<<20))
	var got string
	n := testing.AllocsPerRun(10, func() { got = wechat.Sanitize(huge, 200) })
	if want := strings.Repeat("?", 200) + "…"; got != want {
		t.Errorf("got %d characters, want %d", utf8.RuneCountInString(got), 201)
	}
	if n > 10 {
		t.Errorf("Sanitize of 1 MiB: got %v allocations, want 10 at most", n)
	}
}

func FuzzSanitize(f *testing.F) {
	f.Add("a\nb\x1b\xff\u202e微", 3)
	f.Fuzz(func(t *testing.T, in string, limit int) {
		limit &= 0xff
		got := wechat.Sanitize(in, limit)
		if !utf8.ValidString(got) {
			t.Errorf("Sanitize(%q, %d): got invalid UTF-8 %q", in, limit, got)
		}
		if n := utf8.RuneCountInString(got); n > limit+1 {
			t.Errorf("Sanitize(%q, %d): got %d characters", in, limit, n)
		}
		for _, r := range got {
			if r < ' ' || r == 0x7f || r >= '\u202a' && r <= '\u202e' {
				t.Errorf("Sanitize(%q, %d): got %q, which contains %U", in, limit, got, r)
			}
		}
		if again := wechat.Sanitize(got, limit+1); again != got {
			t.Errorf("Sanitize(%q): got %q, want it unchanged", got, again)
		}
	})
}
