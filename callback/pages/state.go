package pages

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"
)

// passage is what has to come back with the merchant: WeChat hands on the redirect_uri with its query and nothing else
// (doc/oplatform/…/Before_Develop/Authorization_Process_Technical_Description knows no state parameter). It
// travels in that query, signed, so that nobody can send a merchant elsewhere than the page was opened for.
type passage struct {
	asked
	state    string // the opener's, opaque
	returnTo string // "": nowhere
}

// asked is what the merchant is asked to authorize.
type asked struct {
	kind       string // auth_type; "" where account is set
	account    string // biz_appid: the one account that can be authorized; "": any
	categories string // ids of permission sets, joined by "|"; "": all that the component has published
}

// passageLife is how long a merchant may take from the page to the consent. The pre-auth code is dead long before, but
// WeChat's page, once open, can be finished later.
const passageLife = 4 * time.Hour

// passageMAC is the length of the signature, in bytes: 128 bits, so that the QR code stays readable.
const passageMAC = 16

// maxPassage is the longest that seal makes, in characters.
const maxPassage = 4096

var passageForm = base64.RawURLEncoding.Strict()

// sealPassage makes the value of s: signature, end, fields, each of them with its length in front.
func sealPassage(key []byte, component string, p passage, now time.Time) string {
	text := make([]byte, passageMAC, passageMAC+64+len(p.state)+len(p.returnTo))
	text = binary.BigEndian.AppendUint64(text, uint64(now.Add(passageLife).Unix()))
	for _, f := range []string{p.kind, p.account, p.categories, p.state, p.returnTo} {
		text = append(binary.AppendUvarint(text, uint64(len(f))), f...)
	}
	copy(text, passageSum(key, component, text[passageMAC:]))
	return passageForm.EncodeToString(text)
}

// openPassage reads what sealPassage has made, with the same key and for the same component, if its time is not over.
func openPassage(key []byte, component, s string, now time.Time) (p passage, ok bool) {
	// The decoder skips line breaks wherever they stand.
	if len(s) > maxPassage || strings.ContainsAny(s, "\r\n") {
		return p, false
	}
	text, err := passageForm.DecodeString(s)
	if err != nil || len(text) < passageMAC+8 || !hmac.Equal(text[:passageMAC], passageSum(key, component, text[passageMAC:])) {
		return passage{}, false
	}
	end, text := int64(binary.BigEndian.Uint64(text[passageMAC:])), text[passageMAC+8:]
	if now.Unix() >= end {
		return passage{}, false
	}
	for _, f := range []*string{&p.kind, &p.account, &p.categories, &p.state, &p.returnTo} {
		n, used := binary.Uvarint(text)
		if used <= 0 || n > uint64(len(text)-used) {
			return passage{}, false // signed, and of another version
		}
		*f, text = string(text[used:used+int(n)]), text[used+int(n):]
	}
	if len(text) > 0 {
		return passage{}, false
	}
	return p, true
}

func passageSum(key []byte, component string, text []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("wxproxy authorization page 1\x00" + component + "\x00"))
	mac.Write(text)
	return mac.Sum(nil)[:passageMAC]
}
