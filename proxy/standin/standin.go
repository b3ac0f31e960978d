// Package standin issues and verifies stand-in tokens, which SDKs receive in
// place of WeChat's access tokens.
//
// A stand-in is worthless at WeChat. To wxproxy it says which caller sends a
// request and for which account. It holds everything needed to verify it, so
// every replica accepts it, also after a restart, and nothing is stored. The
// format is
//
//	"wxp_" + base64url(version 1 | kind 1 | expiry 4 (Unix seconds, big endian) |
//	                   appid 18 | caller name 0–64 | HMAC-SHA-256 of all that 32)
//
// where the numbers are lengths in bytes. Replicas and later versions read each
// other's stand-ins, so the format must not change.
package standin

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"sync"
	"time"
)

const (
	// Prefix is how every stand-in begins. WeChat's own tokens begin with a
	// number.
	Prefix = "wxp_"
	// MaxLength bounds the tokens that Verify decodes, in characters. WeChat
	// asks its callers to have room for 512.
	MaxLength = 512
	// MaxCallerName bounds the caller name, in bytes. With it a stand-in stays
	// far below MaxLength.
	MaxCallerName = 64
	// KeySize is the least length of a signing key, in bytes.
	KeySize = sha256.Size

	// Lifetime is what SDKs are told in expires_in. It must be well over the
	// 1500 s that some of them subtract. It is WeChat's own value
	// (doc/oplatform/openApi/ticket-token), which some SDKs have built in.
	Lifetime = 7200 * time.Second
	// Grace is how long an expired stand-in is still accepted. SDKs that
	// subtract nothing use theirs up to the last moment.
	Grace = 5 * time.Minute
)

// Layout of the signed bytes.
const (
	version      = 1
	headerLength = 1 + 1 + 4 // version, kind, expiry
	appIDLength  = 18
	minLength    = headerLength + appIDLength + sha256.Size
)

// Errors of [Signer.Verify].
var (
	// ErrInvalid means that the token was not issued with this key.
	ErrInvalid = errors.New("invalid stand-in")
	// ErrExpired means that the token expired more than Grace ago.
	ErrExpired = errors.New("expired stand-in")
)

// Kind says which of WeChat's tokens a stand-in replaces. The values are part
// of the format.
type Kind byte

const (
	// Account stands for the access token of one account.
	Account Kind = 1
	// Component stands for the component_access_token.
	Component Kind = 2
)

// Token is the content of a stand-in. The zero value is none; its AppID is nil.
type Token struct {
	Kind    Kind
	AppID   []byte
	Caller  []byte // name; empty if it was issued while authentication was disabled
	Expires time.Time
}

// encoding is strict, so that a stand-in has exactly one spelling.
var encoding = base64.RawURLEncoding.Strict()

// Signer issues and verifies stand-ins with one key. It is safe for concurrent
// use.
type Signer struct{ macs sync.Pool }

// NewSigner returns a signer. All replicas need the same key, of KeySize bytes
// or more. An empty key is replaced by a random one, and then stand-ins are
// valid in this process only.
func NewSigner(key []byte) (*Signer, error) {
	switch n := len(key); {
	case n == 0:
		key = make([]byte, KeySize)
		rand.Read(key)
	case n < KeySize:
		return nil, fmt.Errorf("stand-in key has %d bytes, need at least %d", n, KeySize)
	default:
		key = bytes.Clone(key)
	}
	return &Signer{macs: sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}, nil
}

// appendMAC appends the HMAC of msg to dst. The pool saves deriving the HMAC's
// inner state from the key each time.
func (s *Signer) appendMAC(dst, msg []byte) []byte {
	h := s.macs.Get().(hash.Hash)
	h.Reset()
	h.Write(msg)
	dst = h.Sum(dst)
	s.macs.Put(h)
	return dst
}

// Issue returns a stand-in that is bound to kind, appid and caller, and expires
// after Lifetime. The appid must have 18 bytes, the caller MaxCallerName at
// most.
func (s *Signer) Issue(kind Kind, appid, caller string, now time.Time) string {
	b := make([]byte, 0, minLength+MaxCallerName)
	b = append(b, version, byte(kind))
	b = binary.BigEndian.AppendUint32(b, uint32(now.Add(Lifetime).Unix()))
	b = append(append(b, appid...), caller...)
	b = s.appendMAC(b, b)
	return Prefix + encoding.EncodeToString(b)
}

// HasPrefix reports whether token claims to be a stand-in. Verify decides
// whether it is one.
func HasPrefix(token []byte) bool {
	return len(token) >= len(Prefix) && string(token[:len(Prefix)]) == Prefix
}

// Verify decodes token. The slices of the result point into buf, which Verify
// extends and returns, so that nothing is allocated if buf has room. The error
// is ErrInvalid, or ErrExpired together with the content of the token.
func (s *Signer) Verify(token, buf []byte, now time.Time) (Token, []byte, error) {
	// The decoder skips line breaks, which would allow other spellings.
	if !HasPrefix(token) || len(token) > MaxLength || bytes.ContainsAny(token, "\r\n") {
		return Token{}, buf, ErrInvalid
	}
	token = token[len(Prefix):]
	start := len(buf)
	buf = append(buf, make([]byte, encoding.DecodedLen(len(token))+sha256.Size)...)
	n, err := encoding.Decode(buf[start:], token)
	if err != nil || n < minLength || n > minLength+MaxCallerName {
		return Token{}, buf[:start], ErrInvalid
	}
	b := buf[start : start+n]
	msg, mac := b[:n-sha256.Size], b[n-sha256.Size:]
	// The HMAC computed here goes behind the decoded bytes, where there is
	// room.
	if !hmac.Equal(s.appendMAC(buf[start+n:start+n], msg), mac) {
		return Token{}, buf[:start], ErrInvalid
	}
	kind := Kind(msg[1])
	if msg[0] != version || kind != Account && kind != Component {
		return Token{}, buf[:start], ErrInvalid
	}
	t := Token{
		Kind:    kind,
		AppID:   msg[headerLength : headerLength+appIDLength],
		Caller:  msg[headerLength+appIDLength:],
		Expires: time.Unix(int64(binary.BigEndian.Uint32(msg[2:])), 0),
	}
	if now.After(t.Expires.Add(Grace)) {
		return t, buf[:start+n], ErrExpired
	}
	return t, buf[:start+n], nil
}
