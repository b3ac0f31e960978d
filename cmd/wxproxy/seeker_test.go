package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// pieceLength is the length of a part of a secret that counts as a leak.
// Shorter secrets are searched for as a whole. It is longer than the common
// prefix of a kind of secret, such as "refreshtoken@@@".
const pieceLength = 24

// seeker finds secrets, or pieces of them, in all usual encodings.
type seeker struct {
	pieces map[[pieceLength]byte]string // description of the secret
	short  map[string]string            // description of the secret
}

// newSeeker returns a seeker that knows no secrets.
func newSeeker() *seeker {
	return &seeker{pieces: map[[pieceLength]byte]string{}, short: map[string]string{}}
}

// add makes the seeker search for a secret.
func (s *seeker) add(kind, secret string) {
	if len(secret) < 8 {
		panic("secret is too short to search for: " + kind)
	}
	quoted, _ := json.Marshal(secret)
	plain := strings.Trim(string(quoted), `"`)
	forms := []string{secret, plain, strings.ReplaceAll(plain, "@", `\u0040`), url.QueryEscape(secret),
		url.PathEscape(secret), strings.ToLower(url.QueryEscape(secret)),
		url.QueryEscape(url.QueryEscape(secret)), hex.EncodeToString([]byte(secret)),
		strings.ToUpper(hex.EncodeToString([]byte(secret)))}
	// In base64 a text has three forms, for 0, 1 and 2 bytes before it. Its
	// ends depend on the neighbors.
	for before := range 3 {
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := enc.EncodeToString([]byte("\x00\x00"[:before] + secret))
			forms = append(forms, text[(before*4+2)/3:len(text)-1])
		}
	}
	for _, form := range forms {
		what := fmt.Sprintf("%s %.14q…", kind, secret)
		if len(form) < pieceLength {
			s.short[form] = what
			continue
		}
		for i := range len(form) - pieceLength + 1 {
			s.pieces[[pieceLength]byte([]byte(form[i:i+pieceLength]))] = what
		}
	}
}

// in returns which secrets text contains, and where, once for each.
func (s *seeker) in(text []byte) (found []string) {
	seen := map[string]bool{}
	note := func(what string, at int) {
		if !seen[what] {
			seen[what] = true
			found = append(found, fmt.Sprintf("%s: …%q", what, text[max(0, at-150):min(len(text), at+60)]))
		}
	}
	for i := range max(0, len(text)-pieceLength+1) {
		if what, ok := s.pieces[[pieceLength]byte(text[i:i+pieceLength])]; ok {
			note(what, i)
		}
	}
	for form, what := range s.short {
		if at := bytes.Index(text, []byte(form)); at >= 0 {
			note(what, at)
		}
	}
	return found
}

// The seeker finds secrets: otherwise the tests that use it would check
// nothing.
func TestSeekerFindsSecrets(t *testing.T) {
	s := newSeeker()
	const secret = "refreshtoken@@@Abc-def_0123456789+/=&x"
	s.add("token", secret)
	s.add("key", "short-key-17")
	for _, text := range []string{secret, secret[5:30], "x" + url.QueryEscape(secret),
		strings.ToLower(url.QueryEscape(secret)), base64.StdEncoding.EncodeToString([]byte(secret)),
		base64.URLEncoding.EncodeToString([]byte("user:" + secret + "!")),
		base64.StdEncoding.EncodeToString([]byte("a" + secret)), fmt.Sprintf("%x", secret),
		`"refreshtoken\u0040\u0040\u0040Abc-def_0123456789+\/"`, "a short-key-17 b",
		base64.StdEncoding.EncodeToString([]byte("x:short-key-17"))} {
		if len(s.in([]byte("before "+text+" behind"))) == 0 {
			t.Errorf("in(%s): got no secret", text)
		}
	}
	for _, text := range []string{"", "refreshtoken@@@wxproxy-keeps-it", secret[:20], strings.Repeat("nothing ", 100)} {
		if found := s.in([]byte(text)); len(found) > 0 {
			t.Errorf("in(%s): got %q, want none", text, found)
		}
	}
}
