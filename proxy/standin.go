package proxy

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
type standIn struct {
	kind   standInKind
	appid  []byte // nil: no stand-in
	caller []byte
	end    time.Time
}

// standInKind says for what one stands. The values are in stand-ins that are on their way: they must not change.
type standInKind byte

const (
	accountStandIn   standInKind = 1
	componentStandIn standInKind = 2
)

const (
	standInPrefix  = "wxp_"
	standInVersion = 1
	standInHead    = 1 + 1 + 4
	standInLeast   = standInHead + 18 + sha256.Size
	// longestStandIn bounds what is looked into, in characters. WeChat asks its callers to have room for 512.
	longestStandIn = 512

	// standInLife is announced to SDKs. It must be well over 1500 s, which some of them subtract, and is WeChat's own
	// (doc/oplatform/openApi/ticket-token): some SDKs have it built in.
	standInLife = 7200 * time.Second
	// standInGrace is how long one goes on working: SDKs that subtract nothing send it up to the last moment.
	standInGrace = 5 * time.Minute
)

var (
	errForged  = errors.New("nobody here made this stand-in")
	errExpired = errors.New("this stand-in is over")
)

// standInBase64 is strict: a stand-in has one spelling.
var standInBase64 = base64.RawURLEncoding.Strict()

// signer makes and judges stand-ins.
type signer struct{ macs sync.Pool }

// newSigner takes the key that all replicas have; without one it makes a key for this process alone.
func newSigner(key []byte) *signer {
	if len(key) == 0 {
		key = make([]byte, sha256.Size)
		rand.Read(key)
	}
	key = bytes.Clone(key)
	return &signer{macs: sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}
}

func (s *signer) appendMAC(dst, msg []byte) []byte {
	h := s.macs.Get().(hash.Hash)
	h.Reset()
	h.Write(msg)
	dst = h.Sum(dst)
	s.macs.Put(h)
	return dst
}

// issue makes the stand-in of appid for caller.
func (s *signer) issue(kind standInKind, appid, caller string, now time.Time) string {
	b := make([]byte, 0, standInLeast+longestName)
	b = append(b, standInVersion, byte(kind))
	b = binary.BigEndian.AppendUint32(b, uint32(now.Add(standInLife).Unix()))
	b = append(append(b, appid...), caller...)
	b = s.appendMAC(b, b)
	return standInPrefix + standInBase64.EncodeToString(b)
}

// isStandIn reports whether a token is meant to be one of ours: WeChat's begin with a number.
func isStandIn(token []byte) bool {
	return len(token) >= len(standInPrefix) && string(token[:len(standInPrefix)]) == standInPrefix
}

// read judges a stand-in. What it gives lies in buf, which is returned as it was extended.
func (s *signer) read(token, buf []byte, now time.Time) (_ standIn, _ []byte, err error) {
	// The decoder passes over line breaks.
	if len(token) > longestStandIn || bytes.ContainsAny(token, "\r\n") {
		return standIn{}, buf, errForged
	}
	token = token[len(standInPrefix):]
	start := len(buf)
	buf = append(buf, make([]byte, standInBase64.DecodedLen(len(token))+sha256.Size)...)
	n, err := standInBase64.Decode(buf[start:], token)
	if err != nil || n < standInLeast || n > standInLeast+longestName {
		return standIn{}, buf[:start], errForged
	}
	b := buf[start : start+n]
	msg, mac := b[:n-sha256.Size], b[n-sha256.Size:]
	if !hmac.Equal(s.appendMAC(buf[start+n:start+n], msg), mac) ||
		msg[0] != standInVersion || standInKind(msg[1]) != accountStandIn && standInKind(msg[1]) != componentStandIn {
		return standIn{}, buf[:start], errForged
	}
	st := standIn{
		kind: standInKind(msg[1]), appid: msg[standInHead : standInHead+18], caller: msg[standInHead+18:],
		end: time.Unix(int64(binary.BigEndian.Uint32(msg[2:])), 0),
	}
	if now.After(st.end.Add(standInGrace)) {
		return st, buf[:start+n], errExpired
	}
	return st, buf[:start+n], nil
}

// shown is what a query shows in the place of tokens.
type shown struct {
	who     *identity // whose stand-in it is; nil: everybody's, or there is none
	foreign bool      // something that is no stand-in: a token of the caller's own, or an end user's
	problem *problem  // a stand-in that is not good
}

// readTokens looks at the tokens of the query, by their values: component stand-ins come as access_token as well. It
// fills c.shown and c.caller.standIn.
func (c *call) readTokens() {
	for q := c.target.query; len(q) > 0; {
		name, value, n := nextParam(q)
		q = q[n:]
		if name&paramTokens == 0 || len(value) == 0 {
			continue
		}
		if hasEscape(value) {
			start := len(c.scratch)
			c.scratch = unescape(c.scratch, value)
			value = c.scratch[start:]
		}
		if !isStandIn(value) {
			c.shown.foreign = true
			continue
		}
		c.addStandIn(value)
	}
}

// addStandIn takes one stand-in in. SDKs send two where a call is for an account and made with the component's
// token: then the account's says for whom it is.
func (c *call) addStandIn(token []byte) {
	var (
		st  standIn
		err error
	)
	st, c.scratch, err = c.s.signer.read(token, c.scratch, c.began)
	who, known := c.s.holder(st)
	first := &c.caller.standIn
	switch {
	case c.shown.problem != nil:
	case errors.Is(err, errExpired) && known:
		c.shown.problem = errStandInExpired
	case err != nil || !known, first.appid != nil && c.shown.who != who:
		c.shown.problem = errStandInUnknown
	case first.appid == nil, first.kind == componentStandIn:
		*first, c.shown.who = st, who
	case st.kind != componentStandIn && !bytes.Equal(first.appid, st.appid):
		c.shown.problem = contradiction("one stand-in", "another")
	}
}

// holder gives the caller that a stand-in was made for. known is false where it is gone, or where the
// configuration has changed so that the stand-in names nothing any more.
func (s *settings) holder(st standIn) (who *identity, known bool) {
	if st.appid == nil || (st.kind == componentStandIn) != sameBytes(st.appid, s.component) {
		return nil, false
	}
	if s.roster.open() {
		return nil, len(st.caller) == 0
	}
	who = s.roster.byName[text(st.caller)]
	return who, who != nil
}
