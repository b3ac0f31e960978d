// Package returnticket issues and redeems the one-time tickets with which a
// merchant returns to a service after an authorization.
//
// The address of a service is public: a merchant can open it with any appid and
// state. A ticket proves that wxproxy sent the merchant there, and says for
// which account and with which state. The service redeems it, and learns both
// from wxproxy instead of from the browser.
//
// A ticket is stateless and signed, so that every replica can redeem it. The
// store makes sure that it is redeemed once.
package returnticket

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"time"
)

// Lifetime is how long a service can take to redeem a ticket.
const Lifetime = 10 * time.Minute

const (
	// skew is how much longer the store remembers a redeemed ticket, so that
	// replicas whose clocks differ by less do not redeem it twice.
	skew = 5 * time.Minute
	// maxAhead is how much later than Lifetime from now a ticket may expire.
	// Beyond that, the clock was set back since it was issued, and the store may
	// have forgotten that it was redeemed.
	maxAhead = time.Hour
	// maxLength bounds a ticket, in characters. The state has 512 bytes.
	maxLength = 1024

	version = 1
	idSize  = 16
	// The fields before the appid and the state, which has the rest: version,
	// time of expiry, id, time of the authorization, length of the appid.
	headSize = 1 + 8 + idSize + 8 + 1
)

// encoding is strict: it rejects other spellings of the same bytes.
var encoding = base64.RawURLEncoding.Strict()

// Errors of [Redeemer.Redeem].
var (
	// ErrInvalid: wxproxy did not issue the ticket for this component.
	ErrInvalid = errors.New("not a ticket of this component")
	// ErrExpired: the ticket is older than Lifetime, or it is not known how old
	// it is, because the clock was set.
	ErrExpired = errors.New("ticket expired")
	// ErrUsed: the ticket was redeemed before.
	ErrUsed = errors.New("ticket was used")
)

// Authorization is what a ticket says.
type Authorization struct {
	AppID string // of the account
	State string // of the link with which the merchant began; any bytes
	At    time.Time
}

// Signer signs tickets. It is safe for concurrent use. The zero value signs
// with an empty key: use [NewSigner].
type Signer struct{ key []byte }

// NewSigner returns a Signer with a key of 32 random bytes, which all replicas
// share.
func NewSigner(key []byte) *Signer { return &Signer{key} }

// Issue returns a ticket for an account that authorized component:
//
//	base64url( version 1 | expiry 8 | id 16 | time 8 |
//	           length 1 | appid | state | HMAC-SHA-256 32 )
func (s *Signer) Issue(component string, a Authorization, now time.Time) string {
	text := make([]byte, 0, headSize+len(a.AppID)+len(a.State)+sha256.Size)
	text = append(text, version)
	text = binary.BigEndian.AppendUint64(text, uint64(now.Add(Lifetime).Unix()))
	id := len(text)
	text = append(text, make([]byte, idSize)...)
	rand.Read(text[id:]) // never fails
	text = binary.BigEndian.AppendUint64(text, uint64(a.At.Unix()))
	text = append(text, byte(len(a.AppID)))
	text = append(append(text, a.AppID...), a.State...)
	return encoding.EncodeToString(append(text, s.mac(component, text)...))
}

// open returns what a ticket says, its id, and when it expires, which may have
// passed. The error is ErrInvalid.
func (s *Signer) open(component, ticket string) (
	a Authorization, id string, expires time.Time, err error,
) {
	// The decoder ignores line breaks wherever they are.
	if len(ticket) > maxLength || strings.ContainsAny(ticket, "\r\n") {
		return a, "", expires, ErrInvalid
	}
	text, err := encoding.DecodeString(ticket)
	if err != nil || len(text) < headSize+sha256.Size {
		return a, "", expires, ErrInvalid
	}
	text, mac := text[:len(text)-sha256.Size], text[len(text)-sha256.Size:]
	if !hmac.Equal(mac, s.mac(component, text)) || text[0] != version {
		return a, "", expires, ErrInvalid
	}
	expires = time.Unix(int64(binary.BigEndian.Uint64(text[1:])), 0)
	id = hex.EncodeToString(text[9 : 9+idSize])
	a.At = time.Unix(int64(binary.BigEndian.Uint64(text[9+idSize:])), 0)
	n, rest := int(text[headSize-1]), text[headSize:]
	if n > len(rest) {
		return Authorization{}, "", expires, ErrInvalid
	}
	a.AppID, a.State = string(rest[:n]), string(rest[n:])
	return a, id, expires, nil
}

// mac returns the signature of a ticket. The component is part of it: another
// component with the same store does not accept the ticket.
func (s *Signer) mac(component string, text []byte) []byte {
	mac := hmac.New(sha256.New, s.key)
	mac.Write([]byte("wxproxy return ticket\x00" + component + "\x00"))
	mac.Write(text)
	return mac.Sum(nil)
}

// Redeemer redeems the tickets of a component. It is safe for concurrent use.
// All fields are required.
type Redeemer struct {
	Signer    *Signer
	Component string
	Now       func() time.Time
	// Claim reports whether key was free, and remembers it until the time
	// until. Of all calls in all replicas, one gets true ([store.Store]).
	Claim func(ctx context.Context, key string, until time.Time) (first bool, err error)
}

// Redeem returns what a ticket says, once. Before that it calls permit with the
// account, whose error it returns: then the ticket can still be redeemed. Its
// own errors are ErrInvalid, ErrExpired, ErrUsed, and those of Claim, after
// which the ticket may be used or not.
func (r *Redeemer) Redeem(
	ctx context.Context, ticket string, permit func(appid string) error,
) (Authorization, error) {
	a, id, expires, err := r.Signer.open(r.Component, ticket)
	if err == nil {
		err = permit(a.AppID)
	}
	switch {
	case err != nil:
		return Authorization{}, err
	case !r.Now().Before(expires), expires.Sub(r.Now()) > Lifetime+maxAhead:
		return Authorization{}, ErrExpired
	}
	switch first, err := r.Claim(ctx, "authorization/"+id, expires.Add(skew)); {
	case err != nil:
		return Authorization{}, err
	case !first:
		return Authorization{}, ErrUsed
	}
	return a, nil
}
