package proxy

import (
	"bytes"
	"time"

	"wxproxy/tokens"
)

// authorize checks the limits of c, except for its rate. A nil caller is
// allowed everything: authentication is disabled.
func (s *settings) authorize(c *caller, h *requestHead, r *route) *apiError {
	if err := c.authorizeEndpoint(h.method, h.target.decodedPath); err != nil {
		return err
	}
	return s.authorizeCredential(c, r)
}

// authorizeEndpoint checks the method and the path, which is decoded and has no
// appid prefix.
func (c *caller) authorizeEndpoint(method, path []byte) *apiError {
	switch {
	case c == nil:
		return nil
	case !c.allowsMethod(method):
		return methodDenied(c, method)
	case !c.allowsPath(path):
		return pathDenied(c)
	}
	return nil
}

// authorizeCredential checks that c may use the credential of r. What counts is
// the account whose credential is injected. That is the component for its
// token, whatever account is named besides. Logins are the exception: they are
// for the users of the account that they name.
func (s *settings) authorizeCredential(c *caller, r *route) *apiError {
	appid := r.account
	if r.tokenOwner != nil && r.kind == tokens.Component && !isLogin(r.endpoint) {
		appid = s.component
	}
	if appid == nil {
		return nil // no credential is injected
	}
	return c.authorizeAccount(appid)
}

// grants is what the stand-ins of a request are bound to. The zero value is that
// of a request without any, for which the caller's key is the right.
type grants struct {
	account   []byte // appid of the account's stand-in, or nil
	component bool   // there is a stand-in of the component
}

// allow reports whether g is the right to use a credential: the component's, or
// the token or secret of the account appid, which has this kind. With login the
// credential is the component's, for logins of the users of the authorizer
// appid.
//
// A stand-in is the right to what it is bound to and to nothing else, as the
// token is that it stands for. That holds beside a key, too: WeChat would go by
// the token. An account's stand-in opens none of the component's endpoints,
// except for the logins of that account. Forwarding, requests for stand-ins,
// stand-ins in responses, Explain and Permission all use this function.
func (g *grants) allow(kind tokens.Kind, appid []byte, login bool) bool {
	switch {
	case g.account == nil && !g.component:
		return true
	case kind != tokens.Component:
		return bytes.Equal(g.account, appid)
	case g.component:
		return true
	}
	return login && bytes.Equal(g.account, appid)
}

// authorizeStandIn checks that the stand-ins of a request are the right to what
// r injects.
func (s *settings) authorizeStandIn(g *grants, r *route) *apiError {
	login := isLogin(r.endpoint) && s.kindOf(r.account) == tokens.Authorizer
	switch {
	case r.tokenOwner == nil && r.secret.IsEmpty(): // nothing is injected
	case g.allow(r.kind, r.account, login):
	case r.kind == tokens.Component:
		return errStandInKind
	default:
		return accountConflict("the stand-in", "the request")
	}
	return nil
}

// allowIssue reports whether g is the right to a new stand-in of appid. The
// component's token yields those of authorizers, but not of own accounts. That
// is as with WeChat's tokens.
func (s *settings) allowIssue(g *grants, appid []byte) bool {
	kind := s.kindOf(appid)
	return g.allow(kind, appid, false) ||
		kind == tokens.Authorizer && g.allow(tokens.Component, nil, false)
}

// authorizeAccount checks that c may call for appid. The result does not depend
// on whether there is such an account.
func (c *caller) authorizeAccount(appid []byte) *apiError {
	if c.allowsAccount(appid) {
		return nil
	}
	return accountDenied(c, appid)
}

// checkRate counts a request of c and returns an error if c has made too many.
func (c *caller) checkRate(now time.Time) *apiError {
	if c == nil || c.rate == nil {
		return nil
	}
	if wait := takeRate(c.rate, now); wait > 0 {
		return rateLimited(c, wait)
	}
	return nil
}

func (c *caller) allowsMethod(method []byte) bool {
	return c.methods == nil || c.methods[unsafeString(method)]
}

func (c *caller) allowsPath(path []byte) bool {
	if c.paths == nil || c.paths[unsafeString(path)] {
		return true
	}
	for _, p := range c.pathPrefixes {
		// "/a/" can be the same to WeChat as "/a", which "/a/*" does not allow.
		isFolder := len(path) == len(p) && path[len(p)-1] == '/'
		if len(path) >= len(p) && unsafeString(path[:len(p)]) == p && !isFolder {
			return true
		}
	}
	return false
}

// allowsAccount reports whether a caller, which may be nil, may call for appid.
func (c *caller) allowsAccount(appid []byte) bool {
	return c == nil || c.appids == nil || c.appids[unsafeString(appid)]
}
