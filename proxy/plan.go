package proxy

import (
	"bytes"
	"net/http"

	"wxproxy/proxy/standin"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// plan is what is to be done with a call.
type plan struct {
	endpoint  *wechat.Endpoint
	appid     []byte // the account that the call is for; nil where it is for none
	holder    []byte // the account whose token goes in; nil: none does
	kind      tokens.Kind
	path      string        // another path than the caller's; "" for his
	secret    wechat.Secret // the account's own, for the calls that need it
	drop      param         // parameters of the caller's that are cut out
	component bool          // component_appid goes in
	withAppID bool          // appid goes in
}

// decide applies the rules. It looks at nothing but its arguments, so that the same
// question has the same answer everywhere.
func (s *settings) decide(t target, c caller, action []byte) (plan, *problem) {
	var p plan
	p.endpoint = s.table.Find(text(t.plain), text(action))
	if p.endpoint.Need == wechat.NeedStandIn {
		return p, nil // what it is for stands in its parameters
	}
	if p.endpoint.Need == wechat.NeedRefusal {
		return p, problemf(http.StatusForbidden, "callers have no need of it", "this path is not forwarded: %s", reasonOf(p.endpoint))
	}
	appid, problem := s.whom(t, c, p.endpoint)
	if problem != nil {
		return p, problem
	}
	// What comes as a secret is a key of ours, or an account's real one.
	p.appid, p.drop = appid, paramTokens|paramSecret
	component := []byte(nil)
	if s.component != nil {
		component = s.component
	}
	isComponent := component != nil && bytes.Equal(appid, component)
	need := p.endpoint.Need
	if need == wechat.NeedEither {
		need = wechat.NeedAccount
		if isComponent {
			need = wechat.NeedComponent
		}
	}
	switch need {
	case wechat.NeedUser:
		p.drop = paramStandIn | paramSecret
	case wechat.NeedNothing:
	case wechat.NeedComponent:
		if component == nil {
			return p, errNoComponent
		}
		p.holder, p.kind = component, tokens.Component
		p.component = p.endpoint.ComponentAppID && present(t.query)&paramComponentAppID == 0
	case wechat.NeedSecret:
		return s.login(p, t, isComponent)
	case wechat.NeedAccount:
		switch {
		case appid == nil:
			return p, errNoTarget
		case isComponent:
			return p, errComponentTarget
		}
		p.holder, p.kind = appid, s.kindOf(appid)
	}
	return p, nil
}

// login is for the calls that need an account's own secret. An own account's is filled in; an
// authorizer has a twin of the call under /component/, which takes the component's token instead.
func (s *settings) login(p plan, t target, isComponent bool) (plan, *problem) {
	switch {
	case p.appid == nil:
		return p, errNoTarget
	case isComponent:
		return p, errComponentTarget
	}
	if secret, ok := s.apps[text(p.appid)]; ok {
		p.kind, p.secret = tokens.App, secret
		p.drop |= paramAppID
		return p, nil
	}
	if s.component == nil {
		return p, errNoComponent
	}
	p.path, p.holder, p.kind = p.endpoint.Twin, s.component, tokens.Component
	p.drop |= paramComponentAppID
	p.component = true
	p.withAppID = present(t.query)&paramAppID == 0
	return p, nil
}

// whom finds the account that the call is for: the prefix, the header, a stand-in, on logins the query's own
// appid, the default. Two that disagree are an error, except that a base URL, header or stand-in which names the
// component says nothing about the account that a login is for, and the first two nothing
// about the account that an SDK has a stand-in of.
func (s *settings) whom(t target, c caller, e *wechat.Endpoint) ([]byte, *problem) {
	appid, p := s.named(t, c)
	if p != nil {
		return nil, p
	}
	login := e.ComponentAppID || e.Need == wechat.NeedSecret
	// With the component's stand-in SDKs log the users of any account in.
	if st := c.standIn.AppID; st != nil && !(login && appid != nil && c.standIn.Kind == standin.Component) {
		if appid != nil && !bytes.Equal(appid, st) && !bytes.Equal(appid, s.component) {
			return nil, contradiction("the prefix or header", "the stand-in")
		}
		appid = st
	}
	if login {
		named, found, unique := lookup(t.query, paramAppID)
		switch {
		case !unique:
			return nil, contradiction("one appid of the query", "another")
		case found && len(named) > 0 && appid != nil && !bytes.Equal(appid, named) && !bytes.Equal(appid, s.component):
			return nil, contradiction("the prefix, header or stand-in", "the query's appid")
		case found && len(named) > 0:
			appid = named
		}
	}
	if appid == nil && s.defaultAppID != nil && e.Need != wechat.NeedUser && e.Need != wechat.NeedNothing {
		appid = s.defaultAppID
	}
	return appid, nil
}

// named is the account that prefix or header name, nil where neither does.
func (s *settings) named(t target, c caller) ([]byte, *problem) {
	if c.target != nil && !isAppID(c.target) {
		return nil, problemf(http.StatusBadRequest, "an appid is wx and 16 lower-case letters or digits", "the header X-WX-APPID is no appid")
	}
	if c.conflict {
		return nil, contradiction("X-WX-APPID", "X-WX-APPID")
	}
	appid := t.prefix
	if c.target != nil {
		if appid != nil && !bytes.Equal(appid, c.target) {
			return nil, contradiction("the path's prefix", "X-WX-APPID")
		}
		appid = c.target
	}
	return appid, nil
}

func contradiction(a, b string) *problem {
	return problemf(http.StatusBadRequest, "name the account once", "%s and %s name different accounts", a, b)
}

func reasonOf(e *wechat.Endpoint) string {
	if e.Why != "" {
		return e.Why
	}
	return "the configuration refuses it"
}
