package proxy

import "wxproxy/wechat"

// Permission says whether the limits of the caller of that name allow it to send method to path, and why. Its rate is left
// out, and so is whether there is such an account. Path may have a query, a prefix, or scheme and host; appid
// stands for the header X-WX-APPID, "" for none.
func (p *Proxy) Permission(name, appid, method, path string) (allowed bool, reason string) {
	s := p.settings.Load()
	id := s.roster.byName[name]
	switch {
	case s.roster.open():
		return true, "no caller is configured: calls need no key, and everybody who reaches the proxy listener may make them"
	case id == nil:
		return false, "there is no caller of that name"
	}
	// From here on as in call.run.
	var c caller
	if appid != "" {
		c.target = []byte(appid)
	}
	t, problem := readTarget([]byte(path))
	if problem == nil {
		var plan plan
		action, _, _ := lookup(t.query, paramAction)
		if plan, problem = s.decide(t, c, action); problem == nil && plan.endpoint.Need == wechat.NeedStandIn {
			problem = s.permitsStandIn(id, method, t, c, plan.endpoint.Path)
		} else if problem == nil {
			problem = s.permits(id, []byte(method), t.plain, &plan)
		}
	}
	if problem != nil {
		return false, problem.msg
	}
	return true, "its limits allow it"
}

// permitsStandIn is permits for the paths on which SDKs fetch tokens. The account stands in the body there; what is
// known without it is the component, and what the path's prefix, a header or the query name.
func (s *settings) permitsStandIn(id *identity, method string, t target, c caller, path string) *problem {
	switch path {
	case wechat.PathQueryAuth:
		if p := id.mayCall([]byte(method), t.plain); p != nil {
			return p
		}
		return id.mayActFor(s.component)
	case wechat.PathComponentToken:
		return id.mayActFor(s.component)
	}
	appid, p := s.named(t, c)
	if p != nil {
		return p
	}
	if named, found, _ := lookup(t.query, paramAppID); found {
		appid = named
	}
	if appid == nil {
		return nil
	}
	return id.mayActFor(appid)
}
