package proxy

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"wxproxy/wechat"
)

// Explanation describes what would happen to a request. It is the decision
// about the request itself, reported instead of carried out.
type Explanation struct {
	AppID  string // the account that the request is for, or ""
	Method string
	Path   string // without prefix and query; "" if the target is invalid
	// Forwarded is the path as WeChat receives it. It differs from Path if a
	// login goes to its twin. It is "" if the request is not forwarded.
	Forwarded string

	Credential string   // component, authorizer, app, none, or refused
	Parameter  string   // in which the credential is injected, or ""
	Holder     string   // the account whose token is injected, or ""
	Adds       []string // further parameters that are injected
	Removes    []string // parameters of the caller that are not forwarded
	Masked     bool     // credentials in WeChat's response are masked
	Answered   bool     // wxproxy answers with a stand-in
	Own        bool     // wxproxy answers on an endpoint of its own

	Rule      string // path of the row that decided, "*" for the default, or ""
	RuleOwn   bool   // the row is a [[route]] of the configuration
	RuleGuess bool   // no source confirms the row

	// Status is that of the error with which wxproxy would answer. 0 means that
	// there is none.
	Status      int
	ErrCode     int // WeChat's code if the error is worded as WeChat would
	Error, Hint string
}

// ErrQuestion means that no such request can exist.
var ErrQuestion = errors.New("not a request")

// Explain describes what would happen to a request with this method and path.
// The path may have a query and an appid prefix, or scheme and host as through
// a forward proxy. appid stands for the header X-WX-APPID, "" for none.
//
// The caller is taken to be allowed everything, unless the query has a
// stand-in, which belongs to one. The state of the account is not part of the
// answer. The error is ErrQuestion.
func (p *Proxy) Explain(appid, method, path string) (Explanation, error) {
	if !isToken([]byte(method)) {
		return Explanation{}, fmt.Errorf("%w: the method is not a word such as GET", ErrQuestion)
	}
	if !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "http://") &&
		!strings.HasPrefix(path, "https://") {
		return Explanation{}, fmt.Errorf("%w: the path does not begin with a slash", ErrQuestion)
	}
	e := Explanation{Method: method, Credential: "refused"}
	h, err := hypotheticalHead(appid, method, path, nil)
	if err != nil {
		return e.refused(err), nil
	}
	s := p.settings.Load()
	d, err := s.decide(&h)
	e.Path = string(h.target.path)
	e.Rule, e.RuleOwn = d.endpoint.Path, s.table.IsOwn(d.endpoint)
	e.RuleGuess = d.endpoint.Guess
	e.AppID = string(d.account)
	switch {
	case err != nil:
		// The path alone can decide. Then the account has not been resolved.
		if e.AppID == "" && (h.target.prefix == nil || appid == "") {
			e.AppID = appid + string(h.target.prefix)
		}
		return e.refused(err), nil
	case d.endpoint.Need == wechat.NeedStandIn:
		e.Credential, e.Answered = "none", true
		return e, nil
	case d.isOwn():
		e.Credential, e.Own = "none", true
		return e, nil
	}
	e.describe(&d.route)
	e.Masked = d.mayRevealCredentials(h.target.decodedPath)
	return e, nil
}

// Permission reports whether the limits of the caller with this name allow it
// to send method to path, and why. The arguments are those of Explain. Its rate
// is not considered, and neither is the state of the account.
func (p *Proxy) Permission(name, appid, method, path string) (allowed bool, reason string) {
	s := p.settings.Load()
	c := s.callers.byName[name]
	switch {
	case s.callers.disabled():
		return true, "authentication is disabled: no caller is configured"
	case c == nil:
		return false, "no caller has this name"
	}
	h, err := hypotheticalHead(appid, method, path, c)
	if err == nil {
		_, err = s.decide(&h)
	}
	if err != nil {
		return false, err.msg
	}
	return true, "allowed by its [[caller]] block"
}

// hypotheticalHead returns the head of a request that was not sent. It is the
// request of c, or if c is nil of a caller that is allowed everything.
func hypotheticalHead(appid, method, path string, c *caller) (h requestHead, err *apiError) {
	h = requestHead{received: time.Now(), method: []byte(method), assumed: true, assumedCaller: c}
	if method == "CONNECT" {
		return h, errConnect
	}
	if appid != "" {
		h.account = []byte(appid)
	}
	h.target, err = parseTarget([]byte(path))
	h.form = queryForm(h.target.query)
	return h, err
}

func (e Explanation) refused(err *apiError) Explanation {
	e.Status, e.ErrCode, e.Error, e.Hint = err.status, err.errcode, err.msg, err.hint
	return e
}

// describe reports the route of a request that is forwarded.
func (e *Explanation) describe(r *route) {
	e.Credential = r.credential()
	e.Holder = string(r.tokenOwner)
	if e.Forwarded = e.Path; r.path != "" {
		e.Forwarded = r.path
	}
	switch {
	case r.tokenOwner != nil:
		e.Parameter = r.parameter()
	case !r.secret.IsEmpty():
		e.Parameter = "secret"
		e.Adds = append(e.Adds, "appid")
	}
	if r.addAppID {
		e.Adds = append(e.Adds, "appid")
	}
	if r.addComponentAppID {
		e.Adds = append(e.Adds, "component_appid")
	}
	for _, p := range []struct {
		bit  param
		name string
	}{
		{paramAccessToken, "access_token"}, {paramComponentAccessToken, "component_access_token"},
		{paramAppID, "appid"}, {paramComponentAppID, "component_appid"}, {paramSecret, "secret"},
	} {
		if r.strip&p.bit != 0 {
			e.Removes = append(e.Removes, p.name)
		}
	}
}
