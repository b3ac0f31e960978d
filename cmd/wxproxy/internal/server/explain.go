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

// about is what the console says of the program. The store is named by its kind: its URL can hold a
// password.
func (s *Server) about() console.About {
	kind, _, _ := strings.Cut(s.cfg.Store.URL, ":")
	return console.About{Version: s.version, GoVersion: runtime.Version(), Store: kind}
}

// explain answers the console with what the proxy would decide, and for a caller with what it might do.
func (s *Server) explain(appid, method, path, caller string) (console.Explanation, error) {
	e, err := s.proxy.Explain(appid, method, path)
	if errors.Is(err, proxy.ErrQuestion) {
		return console.Explanation{}, fmt.Errorf("%w: %w", console.ErrQuestion, err)
	}
	if err != nil {
		return console.Explanation{}, err
	}
	out := console.Explanation{
		AppID: e.AppID, Method: e.Method, Path: e.Path, Forwarded: e.Forwarded, Credential: e.Credential, Parameter: e.Parameter, Holder: e.Holder,
		Adds: e.Adds, Removes: e.Removes, Masked: e.Masked,
		Rule: console.Rule{Path: e.Rule, Source: ruleSource(e), Guess: e.RuleGuess},
	}
	if e.Status != 0 {
		out.Refusal = &console.Refusal{Status: e.Status, Error: e.Error, Hint: e.Hint}
		if e.ErrCode == 0 { // the text is not WeChat's
			out.Refusal.Error = "wxproxy: " + e.Error
		}
	}
	switch {
	case e.Answered:
		out.Note = "wxproxy answers this by itself: SDKs fetch their tokens here"
	case e.Credential == "none" && !slices.Contains(e.Removes, wechat.AccessToken):
		out.Note = "what the caller sends as a token is an end user's, and passes as it is"
	}
	if caller != "" {
		allowed, reason := s.proxy.Permission(caller, appid, method, path)
		out.Caller = &console.Verdict{Name: caller, Allowed: allowed, Reason: reason}
	}
	return out, nil
}

// ruleSource says where the row stands that decided.
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
