package proxy

import (
	"errors"
	"fmt"
	"strings"

	"wxproxy/wechat"
)

// Explanation says what would become of a call: the decision of the call itself, told instead of
// carried out. Nobody is called for it, and no token is looked at.
type Explanation struct {
	AppID  string // the account that the call is for; "" where it is for none in particular
	Method string
	Path   string // the caller's, without prefix and query; "" where the target cannot be read
	// Forwarded is the path as WeChat gets it: another one than Path where a login goes to its twin.
	// "" where the call is not forwarded.
	Forwarded string

	Credential string   // component, authorizer, app, none, or refused
	Parameter  string   // the name under which the credential goes in; "" where none does
	Holder     string   // the account whose token goes in; "" where no token does
	Adds       []string // further parameters that are put in
	Removes    []string // parameters of the caller's that are never forwarded
	Masked     bool     // credentials in WeChat's answer are masked
	Answered   bool     // wxproxy answers by itself, and not with an error

	Rule      string // path of the row that decided, "*" for the default; "" where nothing got that far
	RuleOwn   bool   // it is a [[route]] of the configuration
	RuleGuess bool   // no source confirms it

	// What is answered instead of forwarding the call. Status 0: it is forwarded.
	Status      int
	Error, Hint string
}

// ErrQuestion: what was asked about is no call at all.
var ErrQuestion = errors.New("this is no call")

// Explain says what would become of a call with that method to path, which may have a query, a prefix
// or, as through a forward proxy, scheme and host. appid stands for the header X-WX-APPID; "" for
// none. What depends on who calls, or on the state of the account, is not part of the answer.
func (p *Proxy) Explain(appid, method, path string) (Explanation, error) {
	if !isToken([]byte(method)) {
		return Explanation{}, fmt.Errorf("%w: the method is no word such as GET", ErrQuestion)
	}
	if !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "http://") && !strings.HasPrefix(path, "https://") {
		return Explanation{}, fmt.Errorf("%w: the path does not begin with a slash", ErrQuestion)
	}
	s, e := p.settings.Load(), Explanation{Method: method, Credential: "refused"}
	if method == "CONNECT" {
		return e.refused(errConnect), nil
	}
	var c caller
	if appid != "" {
		c.target = []byte(appid)
	}
	t, problem := readTarget([]byte(path))
	if problem != nil {
		return e.refused(problem), nil
	}
	e.Path = string(t.path)
	// From here on as in call.run.
	var action []byte
	if s.table.ByAction(text(t.plain)) {
		var unique bool
		if action, _, unique = lookup(t.query, paramAction); !unique {
			return e.refused(errAction), nil
		}
	}
	plan, problem := s.decide(t, c, action)
	e.Rule, e.RuleOwn = s.table.Origin(plan.endpoint)
	e.RuleGuess = plan.endpoint.Guess
	e.AppID = string(plan.appid)
	if plan.endpoint.Need == wechat.NeedStandIn {
		e.Credential, e.Answered = "none", true
		return e, nil
	}
	if problem != nil {
		// What is refused by its path never comes to the question for whom it is.
		if e.AppID == "" && (t.prefix == nil || appid == "") {
			e.AppID = appid + string(t.prefix)
		}
		return e.refused(problem), nil
	}
	e.follow(call{s: s, target: t, plan: plan})
	return e, nil
}

func (e Explanation) refused(p *problem) Explanation {
	e.Status, e.Error, e.Hint = p.status, p.msg, p.hint
	return e
}

// follow tells the plan of c.
func (e *Explanation) follow(c call) {
	e.Credential = c.credential()
	e.Holder = string(c.plan.holder)
	e.Masked = reveals(c.target.plain)
	if e.Forwarded = e.Path; c.plan.path != "" {
		e.Forwarded = c.plan.path
	}
	switch {
	case c.plan.holder != nil:
		e.Parameter = c.parameter()
	case !c.plan.secret.IsEmpty():
		e.Parameter = "secret"
		e.Adds = append(e.Adds, "appid")
	}
	if c.plan.withAppID {
		e.Adds = append(e.Adds, "appid")
	}
	if c.plan.component {
		e.Adds = append(e.Adds, "component_appid")
	}
	for _, p := range []struct {
		bit  param
		name string
	}{
		{paramAccessToken, "access_token"}, {paramComponentAccessToken, "component_access_token"},
		{paramAppID, "appid"}, {paramComponentAppID, "component_appid"}, {paramSecret, "secret"},
	} {
		if c.plan.drop&p.bit != 0 {
			e.Removes = append(e.Removes, p.name)
		}
	}
}
