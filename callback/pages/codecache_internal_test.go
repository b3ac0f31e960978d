package pages

import (
	"strconv"
	"testing"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

// A full cache forgets the code that was exchanged first, and no other.
func TestCodeCacheIsBounded(t *testing.T) {
	var c codeCache
	exchanges := 0
	exchange := func(n int) {
		_, err := c.do(t.Context(), codeKeyOf(wechat.NewSecret(strconv.Itoa(n)), ""),
			func() (tokens.Authorization, error) { exchanges++; return tokens.Authorization{}, nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	const first, second = 0, 1
	for n := range maxCodes + 1 {
		exchange(n)
	}
	if len(c.entries) != maxCodes || len(c.order) != maxCodes {
		t.Errorf("got %d entries in an order of %d, want %d", len(c.entries), len(c.order), maxCodes)
	}
	exchange(second)
	if exchanges != maxCodes+1 {
		t.Errorf("the second code again: got %d exchanges, want %d", exchanges, maxCodes+1)
	}
	exchange(first)
	if exchanges != maxCodes+2 {
		t.Errorf("the first code again: got %d exchanges, want %d", exchanges, maxCodes+2)
	}
}
