package redact_test

import (
	"iter"
	"os"
	"strings"
	"testing"

	"wxproxy/internal/redact"
)

// cases yields the cases of a file: a line with the text, a line with what is
// wanted, and an empty line. Lines that begin with # are comments.
func cases(t *testing.T, file string) iter.Seq2[string, string] {
	t.Helper()
	b, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return func(yield func(in, want string) bool) {
		for block := range strings.SplitSeq(strings.TrimSpace(string(b)), "\n\n") {
			in, want, found := strings.Cut(block, "\n")
			if found && !yield(in, want) {
				return
			}
		}
	}
}

// TestMaskByName checks what is masked and what stays, byte for byte: each
// spelling of names, separators, quotes and values, JSON, queries and XML.
func TestMaskByName(t *testing.T) {
	o := redact.Options{Names: true}
	n := 0
	f := func(in, want string) {
		n++
		if got, _ := redact.Mask([]byte(in), &o); string(got) != want {
			t.Errorf("Mask(%s)\n got %s\nwant %s", in, got, want)
		}
		if redact.Contains([]byte(in), &o) != (in != want) {
			t.Errorf("Contains(%s): got %t", in, in == want)
		}
	}
	for in, want := range cases(t, "names.txt") {
		f(in, want)
	}
	f("{\"a\":\"a\x01b\",\"refresh_token\":\"r\"}", "{\"a\":\"a\x01b\",\"refresh_token\":\"***\"}")
	f("\xef\xbb\xbf{\"refresh_token\":\"x\"}", "\xef\xbb\xbf{\"refresh_token\":\"***\"}")
	f("{\"refresh_token\"\n:\r\n\t\"x\"}", "{\"refresh_token\"\n:\r\n\t\"***\"}")
	if n < 50 {
		t.Errorf("got %d cases, want 50 or more", n)
	}
}

// TestStandIns checks which tokens are replaced with a stand-in: those of the
// component, and those whose account is named in the same object.
func TestStandIns(t *testing.T) {
	o := redact.Options{Names: true, StandIn: func(component bool, appid []byte) []byte {
		switch {
		case component:
			return []byte("wxp_component")
		case string(appid) == "wxaaaaaaaaaaaaaaaa":
			return []byte("wxp_account")
		case string(appid) == "wxb":
			return []byte("wxp_b")
		}
		return nil // no permission
	}}
	for in, want := range cases(t, "standins.txt") {
		if got, _ := redact.Mask([]byte(in), &o); string(got) != want {
			t.Errorf("%s:\n got %s\nwant %s", in, got, want)
		}
	}
}
