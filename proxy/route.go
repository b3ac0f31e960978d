package proxy

import (
	"bytes"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

// route says where a request goes and with which credential.
type route struct {
	endpoint   *wechat.Endpoint
	account    []byte        // appid that the request is for; nil if it is for none
	tokenOwner []byte        // appid whose token is injected; nil if none is
	kind       tokens.Kind   // of the account whose token or secret is injected
	secret     wechat.Secret // app secret that is injected; empty if none is
	path       string        // forwarded in place of the caller's path; "" to keep it
	strip      param         // parameters of the caller that are not forwarded

	addAppID          bool // the parameter appid is injected
	addComponentAppID bool // the parameter component_appid is injected
}

// undecided is the endpoint of a path for which several rows are possible.
var undecided = new(wechat.Endpoint)

// resolveRoute finds the endpoint of a request and the credential it needs.
// presented can name the account. The endpoint is set even if there is an error.
// For requests for stand-ins nothing else is: see decideStandIn.
func (s *settings) resolveRoute(h *requestHead, presented *queryTokens) (r route, err *apiError) {
	if r.endpoint = ownEndpoint(h.target.decodedPath); r.endpoint != nil {
		err = s.resolveOwn(&r, h, presented)
		return r, err
	}
	var action []byte
	if s.table.ByAction(unsafeString(h.target.decodedPath)) {
		if !isUnambiguous(h.target.query, paramAction) {
			r.endpoint = undecided
			return r, errAmbiguousAction
		}
		action, _, _ = lookup(h.target.query, paramAction)
	}
	r.endpoint = s.table.Find(unsafeString(h.target.decodedPath), unsafeString(action))
	switch r.endpoint.Need {
	case wechat.NeedStandIn:
		return r, nil
	case wechat.NeedRefusal:
		return r, pathRefused(r.endpoint)
	}
	if r.account, err = s.resolveAccount(h, presented, r.endpoint); err != nil {
		return r, err
	}
	err = s.resolveCredential(&r, h.target.query)
	return r, err
}

// resolveCredential completes r, whose endpoint and account are known.
func (s *settings) resolveCredential(r *route, query []byte) *apiError {
	isComponent := equalNonNil(r.account, s.component)
	need := r.endpoint.Need
	if need == wechat.NeedEither {
		need = wechat.NeedAccount
		if isComponent {
			need = wechat.NeedComponent
		}
	}
	// A caller's secret is a wxproxy key, or an account's real one. Neither is
	// forwarded.
	r.strip = paramTokens | paramSecret
	switch need {
	case wechat.NeedUser:
		// Here access_token is an end user's, which only the caller has.
		r.strip = paramStandIn | paramSecret
	case wechat.NeedNothing:
	case wechat.NeedComponent:
		if s.component == nil {
			return errNoComponent
		}
		r.tokenOwner, r.kind = s.component, tokens.Component
		if isLogin(r.endpoint) {
			r.addAppID = r.inject(query, paramAppID)
			r.addComponentAppID = r.inject(query, paramComponentAppID)
		}
	case wechat.NeedSecret:
		return s.resolveLogin(r, query)
	case wechat.NeedAccount:
		switch {
		case r.account == nil:
			return errNoAccount
		case isComponent:
			return errComponentAccount
		}
		r.tokenOwner, r.kind = r.account, s.kindOf(r.account)
	}
	return nil
}

// resolveLogin completes the route of a request that needs the account's own
// secret. The secret of an own account is injected. For an authorizer the
// request goes to its twin under /component/, which takes the component's token
// instead.
func (s *settings) resolveLogin(r *route, query []byte) *apiError {
	if secret, ok := s.apps[unsafeString(r.account)]; ok {
		r.kind, r.secret = tokens.App, secret
		r.strip |= paramAppID // appid is injected along with the secret
		return nil
	}
	if s.component == nil {
		return errNoComponent
	}
	// WeChat receives the twin's path, which a [[route]] can refuse.
	if twin := s.table.Find(r.endpoint.Twin, ""); twin.Need == wechat.NeedRefusal {
		return pathRefused(twin)
	}
	r.path, r.tokenOwner, r.kind = r.endpoint.Twin, s.component, tokens.Component
	r.strip |= paramComponentAppID
	r.addComponentAppID = true
	r.addAppID = r.inject(query, paramAppID)
	return nil
}

// inject reports whether the query does not name a parameter, so that it has to
// be injected. A parameter with an empty value counts as missing and is
// stripped.
func (r *route) inject(query []byte, name param) bool {
	value, found, _ := lookup(query, name)
	if found && len(value) == 0 {
		r.strip |= name
	}
	return len(value) == 0
}

// resolveAccount finds the account that a request is for. These can name it, in
// this order: the path's prefix and X-WX-APPID, a stand-in, the query's own
// appid on login endpoints, the default. Two that disagree are an error.
//
// There are two exceptions. A prefix, header or stand-in that names the
// component says nothing about the account of a login. A prefix or header that
// names the component yields to an account's stand-in: SDKs in third-party mode
// send the requests of many accounts through one base URL.
func (s *settings) resolveAccount(
	h *requestHead, presented *queryTokens, e *wechat.Endpoint,
) ([]byte, *apiError) {
	appid, err := explicitAccount(h)
	if err != nil {
		return nil, err
	}
	login := isLogin(e)
	// SDKs use the component's stand-in to log in the users of any account.
	ofComponent := presented.account.AppID == nil
	if st := presented.names(); st != nil && !(login && appid != nil && ofComponent) {
		if appid != nil && !bytes.Equal(appid, st) && !bytes.Equal(appid, s.component) {
			return nil, accountConflict("the prefix or header", "the stand-in")
		}
		appid = st
	}
	if login {
		return s.loginAccount(h.target.query, appid, e)
	}
	if appid == nil && e.Need != wechat.NeedUser && e.Need != wechat.NeedNothing {
		appid = s.defaultAppID
	}
	return appid, nil
}

// loginAccount returns the account of a login: the query's own appid, or else
// named, which prefix, header or stand-in name, or else the default. The two must
// agree, unless named is the component. WeChat finds the account in the query,
// so there must be one way only to read that.
func (s *settings) loginAccount(query, named []byte, e *wechat.Endpoint) ([]byte, *apiError) {
	if !isUnambiguous(query, paramAppID|paramComponentAppID) {
		return nil, errLoginQuery
	}
	appid, _, _ := lookup(query, paramAppID)
	platform, _, _ := lookup(query, paramComponentAppID)
	switch {
	case e.ComponentAppID && len(platform) > 0 && !bytes.Equal(platform, s.component):
		return nil, errLoginComponent
	case len(appid) > 0 && !wechat.IsAppID(appid):
		return nil, errLoginAppID
	case len(appid) > 0 && named != nil && !bytes.Equal(named, appid) &&
		!bytes.Equal(named, s.component):
		return nil, accountConflict("the prefix, header or stand-in", "the query's appid")
	case len(appid) == 0 && named != nil:
		appid = named
	case len(appid) == 0:
		appid = s.defaultAppID
	}
	switch {
	case appid == nil:
		return nil, errNoAccount
	case bytes.Equal(appid, s.component):
		return nil, errComponentAccount
	}
	return appid, nil
}

// explicitAccount returns the account that the path's prefix or X-WX-APPID
// names, or nil.
func explicitAccount(h *requestHead) ([]byte, *apiError) {
	if h.account == nil {
		return h.target.prefix, nil
	}
	if !wechat.IsAppID(h.account) {
		return nil, errAccountHeader
	}
	if h.accountConflict {
		return nil, accountConflict("X-WX-APPID", "X-WX-APPID")
	}
	if prefix := h.target.prefix; prefix != nil && !bytes.Equal(prefix, h.account) {
		return nil, accountConflict("the path's prefix", "X-WX-APPID")
	}
	return h.account, nil
}

// isLogin reports whether an endpoint logs in end users of the account that its
// own appid parameter names.
func isLogin(e *wechat.Endpoint) bool {
	return e.ComponentAppID || e.Need == wechat.NeedSecret
}

// kindOf returns the kind of an account that is not the component.
func (s *settings) kindOf(appid []byte) tokens.Kind {
	if _, ok := s.apps[unsafeString(appid)]; ok {
		return tokens.App
	}
	return tokens.Authorizer
}

// credential names what is injected, for metrics and explanations.
func (r *route) credential() string {
	if r.tokenOwner == nil && r.secret.IsEmpty() {
		return "none"
	}
	return r.kind.String()
}

// parameter returns the name of the parameter in which the token is injected.
func (r *route) parameter() string {
	switch {
	case r.path != "": // twins take the component's token
		return wechat.ComponentAccessToken
	case r.endpoint.Parameter != "":
		return r.endpoint.Parameter
	}
	return wechat.AccessToken
}

// equalNonNil reports whether a and b are equal and not nil.
func equalNonNil(a, b []byte) bool { return a != nil && b != nil && bytes.Equal(a, b) }
