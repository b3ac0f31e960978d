package server

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"wxproxy/console"
	"wxproxy/proxy"
	"wxproxy/wechat"
)

// about returns what the console shows about the program. It names only the
// kind of the store, because the URL can contain a password.
func (s *Server) about() console.About {
	kind, _, _ := strings.Cut(s.cfg.Store.URL, ":")
	return console.About{Version: s.version, GoVersion: runtime.Version(), Store: kind}
}

// explain returns what the proxy would do with a request, and whether caller,
// unless it is "", is allowed to send it.
func (s *Server) explain(appid, method, path, caller string) (console.Explanation, error) {
	e, err := s.proxy.Explain(appid, method, path)
	if errors.Is(err, proxy.ErrQuestion) {
		return console.Explanation{}, fmt.Errorf("%w: %w", console.ErrQuestion, err)
	}
	if err != nil {
		return console.Explanation{}, err
	}
	out := console.Explanation{
		AppID:      e.AppID,
		Method:     e.Method,
		Path:       e.Path,
		Forwarded:  e.Forwarded,
		Credential: e.Credential,
		Parameter:  e.Parameter,
		Holder:     e.Holder,
		Adds:       e.Adds,
		Removes:    e.Removes,
		Masked:     e.Masked,
		Rule:       console.Rule{Path: e.Rule, Source: ruleSource(e), Guess: e.RuleGuess},
	}
	if e.Status != 0 {
		out.Refusal = &console.Refusal{Status: e.Status, Error: e.Error, Hint: e.Hint}
		if e.ErrCode == 0 { // the text is not WeChat's
			out.Refusal.Error = "wxproxy: " + e.Error
		}
	}
	switch {
	// Notes are for what the other fields cannot say.
	case e.Answered:
		out.Note = "wxproxy responds itself: SDKs fetch their tokens here"
	case e.Own:
		out.Note = "wxproxy responds itself: it redeems the ticket that return_to has received"
	case e.Credential == "none" && !slices.Contains(e.Removes, wechat.AccessToken):
		out.Note = "a token in the request belongs to an end user, and is forwarded as it is"
	}
	if caller != "" {
		allowed, reason := s.proxy.Permission(caller, appid, method, path)
		out.Caller = &console.Verdict{Name: caller, Allowed: allowed, Reason: reason}
	}
	return out, nil
}

// ruleSource returns where the rule that decided is written: "route" for the
// configuration, "table" for the table of package wechat, "default" if no rule
// matched, and "" if none was reached.
func ruleSource(e proxy.Explanation) string {
	switch {
	case e.RuleOwn:
		return "route"
	case e.Rule == "*":
		return "default"
	case e.Rule == "":
		return ""
	}
	return "table"
}
