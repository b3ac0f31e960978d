package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"wxproxy/wechat"
)

// forwards checks who gets messages and events. Blocks are counted from 1; the first that fits decides. Addresses are
// not shown: there may be a key in the query. Where they lead is the operator's choice.
func (c *checker) forwards() {
	for i, f := range c.cfg.Forwards {
		block := fmt.Sprintf("forward[%d]", i+1)
		c.allowed("forward", block+".appids", f.AppIDs, func(s string) string {
			if !wechat.IsAppID(s) {
				return badAppID
			}
			return ""
		})
		c.allowed("forward", block+".events", f.Events, badEvent)
		if f.URL == "" {
			c.empty(block+".url", `write the address of your service, such as "http://orders.internal/wechat"`)
		} else if _, problem := readURL(f.URL); problem != "" {
			c.fault(block+".url", `%s: write the address of your service, such as "http://orders.internal/wechat"`, problem)
		}
		c.unreached(i, block)
	}
}

// badEvent says why nothing of that name could be forwarded, "" where it could.
func badEvent(s string) string {
	switch {
	case strings.EqualFold(s, "component_verify_ticket"):
		return "is a ticket, which is never forwarded: whoever has it and the AppSecret is your platform"
	case !eventForm.MatchString(s):
		return `is no name of an event; write a MsgType such as "text", an Event such as "subscribe", or an InfoType such as "authorized"`
	}
	return ""
}

var eventForm = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// unreached looks for an earlier block that leaves nothing to the i-th.
func (c *checker) unreached(i int, block string) {
	covers := func(earlier, later []string) bool {
		return slices.Contains(earlier, "*") || !slices.ContainsFunc(later, func(s string) bool {
			return !slices.ContainsFunc(earlier, func(e string) bool { return strings.EqualFold(e, s) })
		})
	}
	f := c.cfg.Forwards[i]
	for j, earlier := range c.cfg.Forwards[:i] {
		if covers(earlier.AppIDs, f.AppIDs) && covers(earlier.Events, f.Events) && len(f.AppIDs) > 0 && len(f.Events) > 0 {
			c.warnings = append(c.warnings, Warning{block, fmt.Sprintf("forward[%d] covers it and comes first, and only the first that fits is asked; put this block in front, or remove it", j+1)})
			return
		}
	}
}
