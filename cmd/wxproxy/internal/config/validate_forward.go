package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// forwards checks the [[forward]] blocks, which are counted from 1. URLs are
// never quoted, because a query may contain a key. Any host is allowed: the
// services are often in a private network.
func (v *validator) forwards() {
	const example = `write the address of your service, such as "http://orders.internal/wechat"`
	for i, f := range v.cfg.Forwards {
		block := fmt.Sprintf("forward[%d]", i+1)
		v.allowList("forward", block+".appids", f.AppIDs, appIDProblem)
		v.allowList("forward", block+".events", f.Events, eventProblem)
		if f.URL == "" {
			v.empty(block+".url", example)
		} else if _, problem := parseURL(f.URL); problem != "" {
			v.fault(block+".url", `%s: %s`, problem, example)
		}
		v.unreachableForward(i, block)
	}
}

// eventProblem returns why events of this name cannot be forwarded, or "".
func eventProblem(s string) string {
	switch {
	case strings.EqualFold(s, "component_verify_ticket"):
		return "is a ticket, which is never forwarded: with it and the AppSecret a service could act as your platform"
	case !eventForm.MatchString(s):
		return `is not the name of an event; write a MsgType such as "text", an Event such as "subscribe", ` +
			`or an InfoType such as "authorized"`
	}
	return ""
}

var eventForm = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// unreachableForward warns if an earlier block matches everything that the
// block with index i matches.
func (v *validator) unreachableForward(i int, block string) {
	covers := func(earlier, later []string) bool {
		return slices.Contains(earlier, "*") || !slices.ContainsFunc(later, func(s string) bool {
			return !slices.ContainsFunc(earlier, func(e string) bool { return strings.EqualFold(e, s) })
		})
	}
	f := v.cfg.Forwards[i]
	if len(f.AppIDs) == 0 || len(f.Events) == 0 {
		return // a fault, which is reported already
	}
	for j, earlier := range v.cfg.Forwards[:i] {
		if covers(earlier.AppIDs, f.AppIDs) && covers(earlier.Events, f.Events) {
			v.warn(block, "is never used: forward[%d] comes first and matches the same events; "+
				"move this block before it, or remove it", j+1)
			return
		}
	}
}
