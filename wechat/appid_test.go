package wechat_test

import (
	"strings"
	"testing"

	"wxproxy/wechat"
)

func TestIsAppID(t *testing.T) {
	for s, want := range map[string]bool{
		"wx0123456789abcdef":     true,
		"wxzzzzzzzzzzzzzzzz":     true, // the letters are not only hexadecimal
		"wx0000000000000000":     true,
		"":                       false,
		"wx":                     false,
		"wx0123456789abcde":      false,
		"wx0123456789abcdef0":    false,
		"wx0123456789abcdeF":     false,
		"WX0123456789abcdef":     false,
		"xw0123456789abcdef":     false,
		"gh0123456789abcdef":     false,
		"wx0123456789abcde\n":    false,
		"wx0123456789abcde/":     false,
		"wx0123456789abcde:":     false,
		"wx0123456789abcde`":     false,
		"wx0123456789abcde{":     false,
		"wx0123456789abcde\x00":  false,
		" wx0123456789abcde":     false,
		"wx0123456789abcé":       false,
		"wx" + "微微微微微" + "a":     false,
		strings.Repeat("wx", 9):  true,
		strings.Repeat("wx", 10): false,
	} {
		if got := wechat.IsAppID(s); got != want {
			t.Errorf("IsAppID(%q): got %v, want %v", s, got, want)
		}
		if got := wechat.IsAppID([]byte(s)); got != want {
			t.Errorf("IsAppID of the bytes of %q: got %v, want %v", s, got, want)
		}
	}
}

func TestIsAppIDDoesNotAllocate(t *testing.T) {
	raw, text := []byte("wx0123456789abcdef"), "wx0123456789abcdef"
	if n := testing.AllocsPerRun(100, func() { wechat.IsAppID(raw); wechat.IsAppID(text) }); n != 0 {
		t.Errorf("IsAppID: got %v allocations, want 0", n)
	}
}
