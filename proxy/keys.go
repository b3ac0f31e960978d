package proxy

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"time"

	"github.com/valyala/fasthttp"

	"wxproxy/proxy/transport"
	"wxproxy/wechat"
)

// credentials are the headers in which a caller may show its key, as they came. They are never forwarded, whatever
// they hold.
type credentials struct {
	authorization, proxyAuthorization, key []byte
	twice                                  bool // one of them came twice, with different values
}

// note keeps the value of a header; an empty one is none.
func (c *credentials) note(role headerRole, value []byte) {
	into := &c.key
	switch role {
	case headerAuthorization:
		into = &c.authorization
	case headerProxyAuthorization:
		into = &c.proxyAuthorization
	}
	if len(value) == 0 {
		return
	}
	c.twice = c.twice || *into != nil && !bytes.Equal(*into, value)
	*into = value
}

// longestKey bounds what is taken for a key, in bytes.
const longestKey = 512

var (
	errNoKey = &problem{status: http.StatusUnauthorized, msg: "this call shows no key",
		hint: "send the caller's key: Authorization: Bearer KEY, X-Wxproxy-Key: KEY, or as the password of a proxy; SDKs: in place of the app secret"}
	errWrongKey = &problem{status: http.StatusUnauthorized, msg: "this key is nobody's",
		hint: "compare it with the [[caller]] blocks: key_sha256 is the SHA-256 of a key; an Authorization header that is meant for somebody else must not be sent here"}
	errTwoKeys = &problem{status: http.StatusUnauthorized, msg: "this call shows two different keys", hint: "send one"}
	// What WeChat says, so that SDKs fetch a new token.
	errStandInExpired = &problem{status: http.StatusOK, errcode: wechat.CodeTokenExpired, msg: "access_token expired hint: [wxproxy: this stand-in is over, fetch a new one]"}
	errStandInUnknown = &problem{status: http.StatusOK, errcode: wechat.CodeInvalidCredential,
		msg: "invalid credential, access_token is invalid or not latest hint: [wxproxy: this is no stand-in that it gave to a caller of now, fetch a new one]"}
)

// identify finds out who calls, in c.who. Everything that the call shows has to name the same caller: of two
// that disagree one is a mistake, or an attack on whoever put the other in.
//
// Where no callers are configured nobody is asked, but a stand-in has to be good all the same: it says for
// which account the call is.
func (c *call) identify() *problem {
	who, p := c.shownKey()
	if p != nil {
		return p
	}
	switch {
	case c.shown.problem != nil:
		return c.shown.problem
	case c.caller.standIn.AppID != nil:
		if who != nil && who != c.shown.who {
			return errStandInUnknown // one that was given to another caller
		}
		who = c.shown.who
	case who == nil && c.plan.endpoint.Need == wechat.NeedSecret:
		// SDKs log users in with the app secret and no token; in place of the secret they have the key.
		if secret, _, unique := lookup(c.target.query, paramSecret); unique {
			who = c.s.roster.find(secret)
		}
	}
	if c.who = who; who != nil || c.s.roster.open() {
		return nil
	}
	if c.shown.foreign && c.plan.endpoint.Need != wechat.NeedUser {
		return errStandInUnknown
	}
	return errNoKey
}

// stranger says what there is against a request before its body is read: that nothing in its header shows who sends
// it, so that it will be refused whatever the body is. Certificates are not looked at: where there are any, nobody is a
// stranger yet.
func (p *Proxy) stranger(s *settings, h *fasthttp.RequestHeader) *problem {
	if s.roster.open() || p.certificates.Load() {
		return nil
	}
	c := call{p: p, s: s, began: time.Now()}
	var ok bool
	if _, c.caller, ok = readHeaders(nil, h); !ok {
		return errHeader
	}
	var problem *problem
	if c.target, problem = readTarget(h.RequestURI()); problem != nil {
		return problem
	}
	c.readTokens()
	if c.plan, _ = s.decide(c.target, c.caller, nil); c.plan.endpoint.Need == wechat.NeedStandIn {
		return nil // the key is in the body
	}
	return c.identify()
}

// shownKey gives the caller whose key is in the headers, or whose certificate the connection has; nil where
// there is neither.
func (c *call) shownKey() (*identity, *problem) {
	r := &c.s.roster
	if r.open() {
		return nil, nil
	}
	h := &c.caller.credentials
	if h.twice {
		return nil, errTwoKeys
	}
	var (
		who  *identity
		seen bool
	)
	for i, value := range [...][]byte{h.authorization, h.proxyAuthorization, h.key} {
		if value == nil {
			continue
		}
		if i < 2 {
			value, c.scratch = keyOf(value, c.scratch)
		}
		id := r.find(value)
		switch {
		case id == nil:
			return nil, errWrongKey
		case seen && id != who: // as no two callers have one key
			return nil, errTwoKeys
		}
		who, seen = id, true
	}
	if c.cx == nil { // only the header is there
		return who, nil
	}
	if name := transport.ConnOf(c.cx.Conn()).CertificateName(); name != "" {
		if id := r.byName[name]; id != nil {
			if seen && id != who {
				return nil, errTwoKeys
			}
			who = id
		}
	}
	return who, nil
}

// find gives the caller whose key it is, nil where it is nobody's.
func (r *roster) find(key []byte) *identity {
	if len(key) == 0 || len(key) > longestKey {
		return nil
	}
	return r.byKey[sha256.Sum256(key)]
}

// keyOf takes the key out of a value of Authorization (RFC 6750, RFC 7617), in which any user name goes. It is
// empty where there is none. A decoded one lies behind what buf has, which is returned as it was extended.
func keyOf(value, buf []byte) (key, _ []byte) {
	scheme, rest, _ := bytes.Cut(value, []byte(" "))
	rest = bytes.Trim(rest, " \t")
	switch {
	case len(rest) > 2*longestKey:
	case equalFold(scheme, "bearer"):
		return rest, buf
	case equalFold(scheme, "basic"):
		start := len(buf)
		buf = append(buf, make([]byte, base64.StdEncoding.DecodedLen(len(rest)))...)
		n, err := base64.StdEncoding.Decode(buf[start:], rest)
		if err != nil {
			break
		}
		if _, password, ok := bytes.Cut(buf[start:start+n], []byte(":")); ok {
			return password, buf
		}
	}
	return nil, buf
}
