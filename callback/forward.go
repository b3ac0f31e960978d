package callback

import (
	"slices"
	"strings"
)

// Forward is an operator's rule: whose messages and events, and which, go to what service.
type Forward struct {
	AppIDs []string // of the accounts; "*": all. None: nothing is forwarded
	// Events are MsgTypes ("text"), for MsgType "event" the Events ("subscribe") too, and InfoTypes ("authorized"),
	// without regard to case; "*": all. None: nothing is forwarded
	Events []string
	URL    string // http or https; never logged, as its query may hold a key
}

const all = "*"

// match reports whether the rule is for an account's push, of which words are the names.
func (f Forward) match(account string, words ...string) bool {
	if !slices.Contains(f.AppIDs, all) && !slices.Contains(f.AppIDs, account) {
		return false
	}
	return slices.ContainsFunc(f.Events, func(event string) bool {
		return event == all || slices.ContainsFunc(words, func(w string) bool { return w != "" && strings.EqualFold(event, w) })
	})
}

// firstMatch gives the number of the first rule that fits, counted from 1, as the configuration does; 0: none.
func firstMatch(rules []Forward, account string, words ...string) int {
	return 1 + slices.IndexFunc(rules, func(f Forward) bool { return f.match(account, words...) })
}

func cloneRules(rules []Forward) []Forward {
	out := slices.Clone(rules)
	for i, f := range out {
		out[i].AppIDs, out[i].Events = slices.Clone(f.AppIDs), slices.Clone(f.Events)
	}
	return out
}
