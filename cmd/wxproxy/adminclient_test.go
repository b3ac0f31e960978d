package main

import "testing"

func TestPlainJSON(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		if got := plainJSON([]byte(in)); got != want {
			t.Errorf("plainJSON(%q): got %s, want %s", in, got, want)
		}
	}
	f("{\"a\":\n\t\"北京\"}\n", `{"a":  "北京"}`)
	f("\"\u009b\u202e\U000e0041\xff\"", `"\u009b\u202e\udb40\udc41`+"\ufffd"+`"`)
}
