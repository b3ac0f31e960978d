package wechat

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
)

// redacted is what every printing of a non-empty Secret gives.
const redacted = "***"

// Secret holds a value that must not be printed: an app secret, a ticket, a token.
// Under fmt, slog, encoding/json and encoding.TextMarshaler it shows as "***" (the
// empty one as ""), wherever it is nested: the value lies behind a pointer because
// fmt prints the fields of unexported struct members without asking their methods.
// Showing it is a deliberate act, [Secret.Reveal].
//
// The zero value is the empty secret. Secrets cannot be compared with ==; that is
// meant: use [Secret.Equal].
type Secret struct {
	_     [0]func() // == would compare pointers
	value *string
}

// NewSecret wraps s. The empty string gives the zero Secret.
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	return Secret{value: &s}
}

// Reveal returns the value itself.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsEmpty reports whether there is nothing to hide.
func (s Secret) IsEmpty() bool { return s.value == nil }

// Equal compares in a time that depends on the lengths only.
func (s Secret) Equal(o Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(o.Reveal())) == 1
}

// Fingerprint names the value without telling it: the first 8 hexadecimal digits of
// its SHA-256, "" for the empty secret. It is for logs and for operators.
func (s Secret) Fingerprint() string {
	if s.IsEmpty() {
		return ""
	}
	sum := sha256.Sum256([]byte(*s.value))
	return hex.EncodeToString(sum[:4])
}

func (s Secret) shown() string {
	if s.IsEmpty() {
		return ""
	}
	return redacted
}

func (s Secret) String() string   { return s.shown() }
func (s Secret) GoString() string { return fmt.Sprintf("wechat.Secret(%q)", s.shown()) }

// Format covers every verb, so that not even %x or %q shows the value.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, s.shown()) }

func (s Secret) LogValue() slog.Value         { return slog.StringValue(s.shown()) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.shown()), nil }

// UnmarshalText lets configuration decoders fill a Secret.
func (s *Secret) UnmarshalText(b []byte) error { *s = NewSecret(string(b)); return nil }
