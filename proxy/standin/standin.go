package standin

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash"
	"sync"
	"time"
)

// A stand-in is what SDKs get in place of a token. It is worth nothing at WeChat; here it says who calls and for
// which account. It holds all that is needed to judge it, so that every replica takes it, also after a restart: nothing
// is stored. In the text, behind "wxp_", in base64 of the URL-safe kind:
//
//	version 1 | kind 1 | end 4 (Unix seconds) | appid 18 | name of the caller, 0 to 64 | HMAC-SHA-256 of all that, 32
//
// No name: of everybody, where no callers are configured.
type Token struct {
	Kind    Kind
	AppID   []byte // nil: no stand-in
	Caller  []byte
	Expires time.Time
}

// Kind says for what one stands. The values are in stand-ins that are on their way: they must not change.
type Kind byte

const (
	Account   Kind = 1
	Component Kind = 2
)

const (
	Prefix     = "wxp_"
	version    = 1
	headLength = 1 + 1 + 4
	minLength  = headLength + 18 + sha256.Size
	// MaxCallerName bounds the name of a caller, which is in each of its stand-ins.
	MaxCallerName = 64
	// MaxLength bounds what is looked into, in characters. WeChat asks its callers to have room for 512.
	MaxLength = 512

	// Lifetime is announced to SDKs. It must be well over 1500 s, which some of them subtract, and is WeChat's own
	// (doc/oplatform/openApi/ticket-token): some SDKs have it built in.
	Lifetime = 7200 * time.Second
	// grace is how long one goes on working: SDKs that subtract nothing send it up to the last moment.
	grace = 5 * time.Minute
)

var (
	ErrInvalid = errors.New("nobody here made this stand-in")
	ErrExpired = errors.New("this stand-in is over")
)

// encoding is strict: a stand-in has one spelling.
var encoding = base64.RawURLEncoding.Strict()

// Signer makes and judges stand-ins.
type Signer struct{ macs sync.Pool }

// NewSigner takes the key that all replicas have; without one it makes a key for this process alone.
func NewSigner(key []byte) *Signer {
	if len(key) == 0 {
		key = make([]byte, sha256.Size)
		rand.Read(key)
	}
	key = bytes.Clone(key)
	return &Signer{macs: sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}
}

func (s *Signer) appendMAC(dst, msg []byte) []byte {
	h := s.macs.Get().(hash.Hash)
	h.Reset()
	h.Write(msg)
	dst = h.Sum(dst)
	s.macs.Put(h)
	return dst
}

// issue makes the stand-in of appid for caller.
func (s *Signer) Issue(kind Kind, appid, caller string, now time.Time) string {
	b := make([]byte, 0, minLength+MaxCallerName)
	b = append(b, version, byte(kind))
	b = binary.BigEndian.AppendUint32(b, uint32(now.Add(Lifetime).Unix()))
	b = append(append(b, appid...), caller...)
	b = s.appendMAC(b, b)
	return Prefix + encoding.EncodeToString(b)
}

// HasPrefix reports whether a token is meant to be one of ours: WeChat's begin with a number.
func HasPrefix(token []byte) bool {
	return len(token) >= len(Prefix) && string(token[:len(Prefix)]) == Prefix
}

// read judges a stand-in. What it gives lies in buf, which is returned as it was extended.
func (s *Signer) Verify(token, buf []byte, now time.Time) (_ Token, _ []byte, err error) {
	// The decoder passes over line breaks.
	if len(token) > MaxLength || bytes.ContainsAny(token, "\r\n") {
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
	if !hmac.Equal(s.appendMAC(buf[start+n:start+n], msg), mac) ||
		msg[0] != version || Kind(msg[1]) != Account && Kind(msg[1]) != Component {
		return Token{}, buf[:start], ErrInvalid
	}
	st := Token{
		Kind: Kind(msg[1]), AppID: msg[headLength : headLength+18], Caller: msg[headLength+18:],
		Expires: time.Unix(int64(binary.BigEndian.Uint32(msg[2:])), 0),
	}
	if now.After(st.Expires.Add(grace)) {
		return st, buf[:start+n], ErrExpired
	}
	return st, buf[:start+n], nil
}
