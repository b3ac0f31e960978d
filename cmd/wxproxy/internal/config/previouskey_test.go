package config

import (
	"strings"
	"testing"
)

// previous_key needs key, differs from it, and has its form.
func TestPreviousKey(t *testing.T) {
	const a = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	const b = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	for _, c := range []struct{ key, previous, fault string }{
		{a, "", ""},
		{a, b, ""},
		{"", b, "store.previous_key: needs store.key"},
		{a, a, "store.previous_key: is the same as store.key"},
		{a, "short", "store.previous_key: is not the base64 of 32 bytes"},
	} {
		text := "[[app]]\nappid = \"wx0123456789abcdef\"\nappsecret = \"s\"\n" +
			"[store]\nkey = \"" + c.key + "\"\nprevious_key = \"" + c.previous + "\"\n"
		_, _, err := parse("config.toml", []byte(text), sources{})
		if c.fault == "" && err != nil || c.fault != "" &&
			(err == nil || !strings.Contains(err.Error(), c.fault)) {
			t.Errorf("key %q, previous_key %q: got error %v, want %q", c.key, c.previous, err, c.fault)
		}
	}
}
