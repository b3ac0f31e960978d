package wechat

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
)

// redacted is printed in the place of every Secret that is not empty.
const redacted = "***"

// Secret holds a value that must not be printed: an app secret, a ticket, a
// token. fmt, slog, encoding/json and encoding.TextMarshaler print it as "***",
// and as "" if it is empty, however deep it is nested. To get the value, call
// [Secret.Reveal].
//
// The value is behind a pointer, because fmt prints unexported struct fields
// without calling their methods.
//
// The zero value is the empty secret. Secrets cannot be compared with ==, on
// purpose: use [Secret.Equal]. A Secret is safe for concurrent use.
type Secret struct {
	_     [0]func() // forbids ==, which would compare pointers
	value *string
}

// NewSecret returns s as a Secret, the zero Secret for "".
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	return Secret{value: &s}
}

// Reveal returns the value. Its uses are the places to review for leaks.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsEmpty reports whether s is the empty secret.
func (s Secret) IsEmpty() bool { return s.value == nil }

// Equal reports whether s and o hold the same value. It takes a time that
// depends only on their lengths.
func (s Secret) Equal(o Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(o.Reveal())) == 1
}

// Fingerprint returns the first 8 hexadecimal digits of the SHA-256 of the
// value, "" for the empty secret. Logs and operators use it to see whether two
// places hold the same secret. It is too short to guess from, and collisions do
// no harm.
func (s Secret) Fingerprint() string {
	if s.IsEmpty() {
		return ""
	}
	sum := sha256.Sum256([]byte(*s.value))
	return hex.EncodeToString(sum[:4])
}

// masked returns what is printed instead of the value.
func (s Secret) masked() string {
	if s.IsEmpty() {
		return ""
	}
	return redacted
}

// String implements [fmt.Stringer] without the value.
func (s Secret) String() string { return s.masked() }

// GoString implements [fmt.GoStringer] without the value.
func (s Secret) GoString() string { return fmt.Sprintf("wechat.Secret(%q)", s.masked()) }

// Format implements [fmt.Formatter] for every verb, so that %x and %q do not
// print the value either.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, s.masked()) }

// LogValue implements [slog.LogValuer] without the value.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.masked()) }

// MarshalText implements [encoding.TextMarshaler] without the value, so that
// encoding a Secret loses it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.masked()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler], for decoders of
// configuration.
func (s *Secret) UnmarshalText(b []byte) error { *s = NewSecret(string(b)); return nil }
