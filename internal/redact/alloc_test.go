//go:build !race

package redact_test

import (
	"strings"
	"testing"

	"wxproxy/internal/redact"
)

// TestInAlloc checks that a response without escapes costs no memory.
func TestInAlloc(t *testing.T) {
	var v redact.Values
	v.Add(token)
	for _, text := range []string{
		`{"errcode":0,"errmsg":"ok"}`, strings.Repeat("a", 10_000),
		strings.Repeat(withEscapes, 100),
	} {
		b := []byte(text)
		if n := testing.AllocsPerRun(100, func() { v.In(b) }); n != 0 {
			t.Errorf("%.40s: got %v allocations, want 0", text, n)
		}
	}
}
