package proxy

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"wxproxy/proxy/standin"
	"wxproxy/wechat"
)

// keyHeaders are the values of the headers in which a caller can send its key.
// They are never forwarded, whatever they hold.
type keyHeaders struct {
	authorization      []byte
	proxyAuthorization []byte
	key                []byte // X-Wxproxy-Key
	conflict           bool   // one of them occurs with different values
}

// add records a header. An empty value counts as missing.
func (k *keyHeaders) add(role headerRole, value []byte) {
	field := &k.key
	switch role {
	case headerAuthorization:
		field = &k.authorization
	case headerProxyAuthorization:
		field = &k.proxyAuthorization
	}
	if len(value) == 0 {
		return
	}
	k.conflict = k.conflict || *field != nil && !bytes.Equal(*field, value)
	*field = value
}

// maxKeyLength bounds what is taken for a key, in bytes.
const maxKeyLength = 512

// authenticate returns the caller that sends a request to e. All credentials
// that the request presents must belong to the same caller. Of two that differ
// one is a mistake, or an attack on the client that added the other.
//
// If authentication is disabled it returns no caller. A stand-in must be valid
// all the same, since it names the account of the request.
func (s *settings) authenticate(
	h *requestHead, presented *queryTokens, e *wechat.Endpoint,
) (identity, *apiError) {
	id, err := s.authenticateKey(h)
	switch {
	case err != nil:
		return identity{}, err
	case presented.err != nil:
		return identity{}, presented.err
	case presented.hasStandIn():
		if id.caller != nil && id.caller != presented.caller {
			return identity{}, errStandInInvalid // it was issued to another caller
		}
		id.add(presented.identity)
	}
	if e.Need == wechat.NeedSecret {
		if err := s.addLoginSecret(&id, h); err != nil {
			return identity{}, err
		}
	}
	switch {
	case id.caller != nil || s.callers.disabled() || h.assumed:
		return id, nil
	case presented.foreign && e.Need != wechat.NeedUser:
		return identity{}, errStandInInvalid
	}
	return identity{}, errNoKey
}

// addLoginSecret completes id on the paths where SDKs log users in, with the app
// secret and no token. In place of the secret they have the key. Beside another
// credential it can be an account's real secret, but not another caller's key.
func (s *settings) addLoginSecret(id *identity, h *requestHead) *apiError {
	secret, _, unique := lookup(h.target.query, paramSecret)
	if !unique || len(secret) == 0 {
		return nil
	}
	found := s.callers.byKey(secret)
	switch {
	case found.caller == nil && id.caller == nil && !h.assumed && !s.callers.disabled():
		return errUnknownKey
	case found.caller == nil:
	case id.caller != nil && id.caller != found.caller:
		return errKeyConflict
	default:
		id.add(found)
	}
	return nil
}

// add completes id with another credential of the same caller. The key of id
// stays, so that stand-ins are issued under the key that the caller sends now,
// and not under one that it has replaced.
func (id *identity) add(other identity) {
	id.caller = other.caller
	if id.key == (standin.KeyID{}) {
		id.key = other.key
	}
}

// authenticateKey returns the caller whose key is in the headers, or whose
// certificate the client has presented. It returns none if there is neither, or
// if authentication is disabled.
func (s *settings) authenticateKey(h *requestHead) (found identity, _ *apiError) {
	switch {
	case h.assumed:
		return identity{caller: h.assumedCaller}, nil
	case s.callers.disabled():
		return identity{}, nil
	case h.keys.conflict:
		return identity{}, errKeyConflict
	}
	for i, value := range [...][]byte{h.keys.authorization, h.keys.proxyAuthorization, h.keys.key} {
		if value == nil {
			continue
		}
		if i < 2 {
			value, h.scratch = parseAuthorization(value, h.scratch)
		}
		id := s.callers.byKey(value)
		switch {
		case id.caller == nil:
			return identity{}, errUnknownKey
		case found.caller != nil && id.caller != found.caller: // no two callers have the same key
			return identity{}, errKeyConflict
		}
		found.add(id)
	}
	// A certificate of an unknown name is no credential, and no error: the CA
	// can have issued it for other purposes.
	if c := s.callers.byName[h.certificate]; c != nil {
		if found.caller != nil && c != found.caller {
			return identity{}, errKeyConflict
		}
		found.caller = c
	}
	return found, nil
}

// countWrongKey returns err. If err says that the request presents a wrong
// key, that is counted for its address, and too many get another error.
// Stand-ins are no keys: those that were valid once must get the error on
// which SDKs fetch new ones. A right key is never delayed, whatever its
// address has sent before, because clients can share an address.
func (c *call) countWrongKey(err *apiError) *apiError {
	if err != errUnknownKey && err != errInvalidSecret {
		return err
	}
	c.proxy.observer.KeyRejected("proxy")
	c.wrongKey = c.proxy.wrongKeys.Fail(c.peer().Addr(), time.Now())
	if c.wrongKey.Wait > 0 {
		return tooManyWrongKeys(c.wrongKey.Wait)
	}
	return err
}

// peer returns the address from which the request was received, or zero if that
// is not known. It can be a sidecar, or a server that terminates TLS.
func (c *call) peer() netip.AddrPort {
	if addr, ok := c.ctx.RemoteAddr().(*net.TCPAddr); ok {
		return addr.AddrPort()
	}
	return netip.AddrPort{}
}

// byKey returns the caller with this key, or none.
func (cs *callerSet) byKey(key []byte) identity {
	if len(key) == 0 || len(key) > maxKeyLength {
		return identity{}
	}
	return cs.byDigest[sha256.Sum256(key)]
}

// parseAuthorization returns the key in the value of an Authorization header:
// the Bearer token (RFC 6750), or the password of Basic credentials with any
// user name (RFC 7617). The key is empty if there is none. A decoded one is
// appended to buf, which is returned.
func parseAuthorization(value, buf []byte) (key, _ []byte) {
	scheme, rest, _ := bytes.Cut(value, []byte(" "))
	rest = bytes.Trim(rest, " \t")
	switch {
	case len(rest) > 2*maxKeyLength: // too long for a key, also in base64
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

// queryTokens is what the query presents in the parameters access_token and
// component_access_token.
type queryTokens struct {
	// account and component are the stand-ins of these kinds. The zero value is
	// none. SDKs send both if a request is for an account and made with the
	// component's token.
	account, component standin.Token

	identity           // for which the stand-ins were issued
	foreign  bool      // there is a token that is no stand-in
	err      *apiError // a stand-in is not valid
}

// hasStandIn reports whether there is a valid stand-in.
func (t *queryTokens) hasStandIn() bool {
	return t.account.AppID != nil || t.component.AppID != nil
}

// names returns the account that the stand-ins name, or nil: the component only
// if no account is named.
func (t *queryTokens) names() []byte {
	if t.account.AppID != nil {
		return t.account.AppID
	}
	return t.component.AppID
}

// readQueryTokens verifies the tokens of the query. Their names do not matter:
// component stand-ins are sent as access_token too.
func (s *settings) readQueryTokens(h *requestHead) (t queryTokens) {
	for q := h.target.query; len(q) > 0; {
		name, value, n := nextParam(q)
		q = q[n:]
		if len(value) == 0 || paramOf(name)&paramTokens == 0 {
			continue
		}
		if hasEscape(value) {
			start := len(h.scratch)
			h.scratch = unescape(h.scratch, value)
			value = h.scratch[start:]
		}
		if !standin.HasPrefix(value) {
			t.foreign = true
			continue
		}
		st, scratch, err := s.signer.Verify(value, h.scratch, h.received)
		h.scratch = scratch
		t.record(s, st, err)
	}
	return t
}

// record adds a stand-in that Verify returned with err.
func (t *queryTokens) record(s *settings, st standin.Token, err error) {
	id, known := s.standInCaller(st)
	switch {
	case t.err != nil:
	case errors.Is(err, standin.ErrExpired) && known:
		t.err = errStandInExpired
	case err != nil || !known, t.hasStandIn() && t.caller != id.caller:
		t.err = errStandInInvalid
	case st.Kind == standin.Component:
		t.component = st
		t.add(id)
	case t.account.AppID == nil:
		t.account = st
		t.add(id)
	case !bytes.Equal(t.account.AppID, st.AppID):
		t.err = accountConflict("one stand-in", "another")
	}
}

// standInCaller returns the caller for which a stand-in was issued, and its
// key. known is false if that caller has been removed or no longer has the
// key, or if the configuration has changed so that the stand-in names nothing
// any more.
func (s *settings) standInCaller(st standin.Token) (id identity, known bool) {
	if st.AppID == nil || (st.Kind == standin.Component) != equalNonNil(st.AppID, s.component) {
		return identity{}, false
	}
	if s.callers.disabled() {
		return identity{}, len(st.Caller) == 0
	}
	c := s.callers.byName[unsafeString(st.Caller)]
	switch {
	case c == nil:
		return identity{}, false
	case st.NoKeyID && len(c.keys) > 0:
		// A version without key ids issued it, probably under this key, since
		// callers had only one. Stand-ins that are issued by means of it end
		// with that key.
		return identity{c, c.keys[0]}, true
	case st.Key == standin.KeyID{}:
		return identity{caller: c}, true
	}
	return identity{c, st.Key}, slices.Contains(c.keys, st.Key)
}
