package pages

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"
)

// authRequest is what a link to /authorize asks the merchant to authorize.
type authRequest struct {
	kind    string // auth_type; "" if account is set
	account string // biz_appid, the one account that can be chosen; "": any
	// categories are ids of permission sets, joined by "|"; "": all that the
	// component has published.
	categories string
}

// authState is what must return with the merchant, like OAuth's state
// parameter. WeChat has no such parameter. It passes on the redirect_uri with
// its query and nothing else
// (doc/oplatform/…/Before_Develop/Authorization_Process_Technical_Description),
// so the state travels there, signed: otherwise anyone could send a merchant to
// another address than the link was made for.
type authState struct {
	authRequest
	state    string // the link's own state, for return_to; not interpreted
	returnTo string // "": the merchant is not redirected
}

const (
	// stateLife is how long a merchant can take from /authorize to the consent.
	// The pre-auth code expires much earlier, but WeChat's page, once open, can
	// be completed later.
	stateLife = 4 * time.Hour
	// stateMACSize is the length of the signature in bytes: 128 bits are
	// enough, and they keep the QR code readable.
	stateMACSize = 16
	// maxSealedState is the maximum length of a sealed state in characters.
	maxSealedState = 4096
)

// stateEncoding is strict: it rejects other spellings of the same bytes.
var stateEncoding = base64.RawURLEncoding.Strict()

// sealState returns a signed form of s for a query: signature, time of expiry,
// and each field with its length in front.
func sealState(key []byte, component string, s authState, now time.Time) string {
	text := make([]byte, stateMACSize, stateMACSize+64+len(s.state)+len(s.returnTo))
	text = binary.BigEndian.AppendUint64(text, uint64(now.Add(stateLife).Unix()))
	for _, f := range []string{s.kind, s.account, s.categories, s.state, s.returnTo} {
		text = append(binary.AppendUvarint(text, uint64(len(f))), f...)
	}
	copy(text, stateMAC(key, component, text[stateMACSize:]))
	return stateEncoding.EncodeToString(text)
}

// openState returns what sealState sealed with the same key for the same
// component. ok is false if the signature is wrong or the state has expired.
func openState(key []byte, component, sealed string, now time.Time) (s authState, ok bool) {
	// The decoder ignores line breaks wherever they are.
	if len(sealed) > maxSealedState || strings.ContainsAny(sealed, "\r\n") {
		return s, false
	}
	text, err := stateEncoding.DecodeString(sealed)
	if err != nil || len(text) < stateMACSize+8 {
		return s, false
	}
	if !hmac.Equal(text[:stateMACSize], stateMAC(key, component, text[stateMACSize:])) {
		return s, false
	}
	expires := int64(binary.BigEndian.Uint64(text[stateMACSize:]))
	text = text[stateMACSize+8:]
	if now.Unix() >= expires {
		return s, false
	}
	for _, f := range []*string{&s.kind, &s.account, &s.categories, &s.state, &s.returnTo} {
		n, used := binary.Uvarint(text)
		if used <= 0 || n > uint64(len(text)-used) {
			return authState{}, false // signed by another version of wxproxy
		}
		*f, text = string(text[used:used+int(n)]), text[used+int(n):]
	}
	if len(text) > 0 {
		return authState{}, false
	}
	return s, true
}

// stateMAC returns the signature of a state. The component is part of it, so
// that a state is of no use on the pages of another component with the same
// key.
func stateMAC(key []byte, component string, text []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("wxproxy authorization page 1\x00" + component + "\x00"))
	mac.Write(text)
	return mac.Sum(nil)[:stateMACSize]
}
