package proxy

import (
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
