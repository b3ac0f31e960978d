package callback

import (
	"slices"
	"strings"
)

// Forward is a rule of the operator: which pushes of which accounts are sent to
// which service. The zero value matches nothing.
type Forward struct {
	// AppIDs are those of the accounts; "*" matches all.
	AppIDs []string
	// Events are MsgTypes such as "text", for MsgType "event" also Events such
	// as "subscribe", and InfoTypes such as "authorized". Case does not matter;
	// "*" matches all.
	Events []string
	// URL is the service's address, http or https. It is never logged, because
	// its query can hold a key.
	URL string
}

// matchAll matches every account or every event.
const matchAll = "*"

// matches reports whether the rule applies to a push of the account that has
// one of the names. Empty names match nothing except "*".
func (f Forward) matches(account string, names ...string) bool {
	if !slices.Contains(f.AppIDs, matchAll) && !slices.Contains(f.AppIDs, account) {
		return false
	}
	return slices.ContainsFunc(f.Events, func(event string) bool {
		return event == matchAll || slices.ContainsFunc(names, func(name string) bool {
			return name != "" && strings.EqualFold(event, name)
		})
	})
}

// firstMatch returns the number of the first rule that matches, counted from 1
// as in the configuration, or 0 if none does.
func firstMatch(forwards []Forward, account string, names ...string) int {
	return 1 + slices.IndexFunc(forwards, func(f Forward) bool {
		return f.matches(account, names...)
	})
}

// cloneForwards returns a deep copy.
func cloneForwards(forwards []Forward) []Forward {
	out := slices.Clone(forwards)
	for i, f := range out {
		out[i].AppIDs, out[i].Events = slices.Clone(f.AppIDs), slices.Clone(f.Events)
	}
	return out
}
