// Package standin issues and verifies stand-in tokens, which SDKs receive in
// place of WeChat's access tokens.
//
// A stand-in is worthless at WeChat. To wxproxy it says which caller sends a
// request and for which account. It holds everything needed to verify it, so
// every replica accepts it, also after a restart, and nothing is stored. The
// format is
//
//	"wxp_" + base64url(version 1 | kind 1 | expiry 4 (Unix seconds, big endian) |
//	                   appid 18 | key id 8 | caller name 0–64 |
//	                   HMAC-SHA-256 of all that 32)
//
// where the numbers are lengths in bytes. The version is 2. Version 1 had no
// key id. It is still read, because SDKs keep their stand-ins while wxproxy is
// upgraded, but no longer issued. Replicas and later versions read each other's
// stand-ins, so the format of a version must not change.
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
	"sync/atomic"
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
	version        = 2
	versionNoKeyID = 1
	headerLength   = 1 + 1 + 4 // version, kind, expiry
	appIDLength    = 18
	keyIDLength    = 8
	fixedLength    = headerLength + appIDLength // without the key id
	minLength      = fixedLength + sha256.Size
	maxLength      = minLength + keyIDLength + MaxCallerName
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

// KeyID says under which key of its caller a stand-in was issued. The zero
// value is none: the caller had a client certificate, or authentication was
// disabled.
type KeyID [keyIDLength]byte

// Token is the content of a stand-in. The zero value is none; its AppID is nil.
type Token struct {
	Kind    Kind
	AppID   []byte
	Caller  []byte // name; empty if it was issued while authentication was disabled
	Key     KeyID  // zero also if NoKeyID is set
	NoKeyID bool   // of version 1, which does not say under which key it was issued
	Expires time.Time
}

// encoding is strict, so that a stand-in has exactly one spelling.
var encoding = base64.RawURLEncoding.Strict()

// Signer issues and verifies stand-ins. It is safe for concurrent use.
type Signer struct {
	ids  *macPool                   // for the ids of callers' keys
	keys atomic.Pointer[[]*macPool] // those that are accepted; the first one signs
}

// macPool computes HMACs with one key. The pool saves deriving the HMAC's inner
// state from the key each time.
type macPool struct{ sync.Pool }

func newMACPool(key []byte) (*macPool, error) {
	if n := len(key); n < KeySize {
		return nil, fmt.Errorf("stand-in key has %d bytes, need at least %d", n, KeySize)
	}
	key = bytes.Clone(key)
	return &macPool{sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}, nil
}

// append appends the HMAC of msg to dst.
func (p *macPool) append(dst, msg []byte) []byte {
	h := p.Get().(hash.Hash)
	h.Reset()
	h.Write(msg)
	dst = h.Sum(dst)
	p.Put(h)
	return dst
}

// NewSigner returns a signer with one key; see [Signer.SetKeys] for more. All
// replicas need the same key, of KeySize bytes
// or more. An empty key is replaced by a random one, and then stand-ins are
// valid in this process only.
func NewSigner(key []byte) (*Signer, error) {
	if len(key) == 0 {
		key = make([]byte, KeySize)
		rand.Read(key)
	}
	ids, err := newMACPool(key)
	if err != nil {
		return nil, err
	}
	s := &Signer{ids: ids}
	return s, s.SetKeys(key)
}

// SetKeys replaces the keys: stand-ins are signed with current, and those that
// were signed with it or with one of the others are accepted. [Signer.KeyID]
// stays what it is. After an error the keys are as before.
func (s *Signer) SetKeys(current []byte, others ...[]byte) error {
	keys := make([]*macPool, 0, 1+len(others))
	for _, key := range append([][]byte{current}, others...) {
		macs, err := newMACPool(key)
		if err != nil {
			return err
		}
		keys = append(keys, macs)
	}
	s.keys.Store(&keys)
	return nil
}

// appendMAC appends the HMAC of msg with the signing key to dst.
func (s *Signer) appendMAC(dst, msg []byte) []byte { return (*s.keys.Load())[0].append(dst, msg) }

// isSigned reports whether mac is the HMAC of msg with an accepted key. It uses
// the room behind buf.
func (s *Signer) isSigned(buf, msg, mac []byte) bool {
	for _, key := range *s.keys.Load() {
		if hmac.Equal(key.append(buf, msg), mac) {
			return true
		}
	}
	return false
}

// keyIDContext separates the MACs of key ids from those of stand-ins, which
// begin with their version.
const keyIDContext = "key id:"

// KeyID returns the id of the key with this SHA-256. It is derived with the
// signer's first key, so that it outlives a change of keys: a stand-in must not
// help to guess the key under which it was issued. All replicas derive the same.
func (s *Signer) KeyID(keySHA256 [sha256.Size]byte) (id KeyID) {
	copy(id[:], s.ids.append(nil, append([]byte(keyIDContext), keySHA256[:]...)))
	return id
}

// Issue returns a stand-in that is bound to kind, appid, caller and the key
// with the id key, and expires after Lifetime. The appid must have 18 bytes,
// the caller MaxCallerName at most.
func (s *Signer) Issue(kind Kind, appid, caller string, key KeyID, now time.Time) string {
	b := make([]byte, 0, maxLength)
	b = append(b, version, byte(kind))
	b = binary.BigEndian.AppendUint32(b, uint32(now.Add(Lifetime).Unix()))
	b = append(append(append(b, appid...), key[:]...), caller...)
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
	if err != nil || n < minLength || n > maxLength {
		return Token{}, buf[:start], ErrInvalid
	}
	b := buf[start : start+n]
	msg, mac := b[:n-sha256.Size], b[n-sha256.Size:]
	// The HMAC computed here goes behind the decoded bytes, where there is
	// room.
	if !s.isSigned(buf[start+n:start+n], msg, mac) {
		return Token{}, buf[:start], ErrInvalid
	}
	t, ok := parse(msg)
	if !ok {
		return Token{}, buf[:start], ErrInvalid
	}
	if now.After(t.Expires.Add(Grace)) {
		return t, buf[:start+n], ErrExpired
	}
	return t, buf[:start+n], nil
}

// parse returns the content of the signed bytes, which have fixedLength or
// more. Its slices point into msg. ok is false if the format is unknown.
func parse(msg []byte) (t Token, ok bool) {
	t = Token{
		Kind:    Kind(msg[1]),
		AppID:   msg[headerLength:fixedLength],
		NoKeyID: msg[0] == versionNoKeyID,
		Expires: time.Unix(int64(binary.BigEndian.Uint32(msg[2:])), 0),
	}
	rest := msg[fixedLength:]
	if !t.NoKeyID {
		if msg[0] != version || len(rest) < keyIDLength {
			return Token{}, false
		}
		t.Key, rest = KeyID(rest), rest[keyIDLength:]
	}
	t.Caller = rest
	return t, (t.Kind == Account || t.Kind == Component) && len(rest) <= MaxCallerName
}
