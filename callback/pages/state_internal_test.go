package pages

import (
	"encoding/binary"
	"testing"
	"time"
)

// Only what was sealed opens, and not if one bit of it differs.
func FuzzOpenState(f *testing.F) {
	const component = "wx0000000000000001"
	key, now := []byte("0123456789abcdef0123456789abcdef"), time.Unix(1_790_000_000, 0)
	want := authState{
		authRequest: authRequest{kind: "3", account: "wx0123456789abcdef", categories: "1|2"},
		state:       "a\x00b", returnTo: "https://shop.example.com/",
	}
	sealed := sealState(key, component, want, now)
	f.Add(sealed)
	f.Add(sealed + "A")
	f.Add(sealed + "\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := openState(key, component, s, now)
		if ok != (s == sealed) || ok && got != want || !ok && got != (authState{}) {
			t.Fatalf("openState(%q): got %+v, %v, want %+v for %q alone", s, got, ok, want, sealed)
		}
	})
}

// Another version of wxproxy can have signed more or fewer fields with the same
// key. Such a state is rejected whole.
func TestStateWithOtherFieldsIsRejected(t *testing.T) {
	const component = "wx0000000000000001"
	key, now := []byte("0123456789abcdef0123456789abcdef"), time.Unix(1_790_000_000, 0)
	seal := func(fields ...string) string {
		text := make([]byte, stateMACSize)
		text = binary.BigEndian.AppendUint64(text, uint64(now.Add(time.Hour).Unix()))
		for _, f := range fields {
			text = append(binary.AppendUvarint(text, uint64(len(f))), f...)
		}
		copy(text, stateMAC(key, component, text[stateMACSize:]))
		return stateEncoding.EncodeToString(text)
	}
	fields := []string{"3", "", "", "state", "https://shop.example.com/", "one more"}
	for n := range len(fields) + 1 {
		got, ok := openState(key, component, seal(fields[:n]...), now)
		if ok != (n == 5) || !ok && got != (authState{}) {
			t.Errorf("state with %d fields: got %+v, %v, want it accepted only with 5", n, got, ok)
		}
	}
}
