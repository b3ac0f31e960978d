package config

import (
	"cmp"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"wxproxy/callback"
	"wxproxy/wechat"
)

// forwards checks the [[forward]] blocks, which are counted from 1. URLs are
// never quoted, because a query may contain a key. Any host is allowed: the
// services are often in a private network.
func (v *validator) forwards() {
	for i, f := range v.cfg.Forwards {
		forwardBlock{v, f, i, fmt.Sprintf("forward[%d]", i+1)}.check()
	}
}

// forwardBlock is a [[forward]] block that is being checked.
type forwardBlock struct {
	*validator
	Forward
	index int    // in the configuration, from 0
	key   string // "forward[1]"
}

// check checks the block by itself, and whether it fits the ones before it.
func (b forwardBlock) check() {
	const example = `write the address of your service, such as "http://orders.internal/wechat"`
	b.allowList("forward", b.key+".appids", b.AppIDs, appIDProblem)
	b.allowList("forward", b.key+".events", b.Events, eventProblem)
	b.oneOf(b.key+".mode", b.Mode, string(callback.ModeReply), string(callback.ModeQueue),
		string(callback.ModeRaw))
	b.checkKeep()
	b.noSpaces(b.key+".secret", b.Secret)
	b.checkToken()
	if b.URL == "" {
		b.empty(b.key+".url", example)
	} else if u, problem := parseURL(b.URL); problem != "" {
		b.fault(b.key+".url", `%s: %s`, problem, example)
	} else {
		b.checkQuery(u)
		b.checkURLIsItsOwn()
	}
	b.checkName()
	b.checkReachable()
}

// is reports whether the block has a mode.
func (b forwardBlock) is(mode callback.Mode) bool { return b.Mode == string(mode) }

// eventProblem returns why events of this name cannot be forwarded, or "".
func eventProblem(s string) string {
	switch {
	case strings.EqualFold(s, "component_verify_ticket"):
		return "is a ticket, which is never forwarded: with it and the AppSecret a service could act as your platform"
	case !nameForm.MatchString(s):
		return `is not the name of an event; write a MsgType such as "text", an Event such as "subscribe", ` +
			`or an InfoType such as "authorized"`
	}
	return ""
}

var (
	// nameForm matches names of events and of services.
	nameForm = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)
	// tokenForm matches a message token as WeChat accepts it.
	tokenForm = regexp.MustCompile(`^[A-Za-z0-9]{3,32}$`)
)

// checkKeep checks how long events are tried.
func (b forwardBlock) checkKeep() {
	const longest = 30 * 24 * time.Hour
	if keep := time.Duration(b.Keep); keep <= 0 || keep > longest {
		b.fault(b.key+".keep", `is out of range; write more than 0 and at most 720h, such as "72h"`)
	}
}

// checkToken checks the token, which encrypted pushes do not need.
func (b forwardBlock) checkToken() {
	key := b.key + ".token"
	switch {
	case b.Token.IsEmpty():
	case b.is(callback.ModeRaw):
		b.fault(key, `is not used with mode = "raw", which passes WeChat's own signature on; remove it`)
	case !tokenForm.MatchString(b.Token.Reveal()):
		b.fault(key, "is not a token; write 3 to 32 letters and digits, the same as in the service")
	default:
		b.checkTokenIsItsOwn(key)
	}
}

// checkTokenIsItsOwn warns if WeChat signs pushes with the token of the block.
// The service, which has the token, could then sign pushes. In plain mode that
// is all it takes to make one. With a key, the responses to signed pushes tell
// which ciphertexts are padded correctly.
func (b forwardBlock) checkTokenIsItsOwn(key string) {
	same := func(s wechat.Secret) bool { return s.Reveal() == b.Token.Reveal() }
	owner := ""
	if same(b.cfg.Component.MessageToken) {
		owner = "component.message_token"
	}
	for i, a := range b.cfg.Apps {
		if same(a.MessageToken) {
			owner = fmt.Sprintf("app[%d].message_token", i+1)
		}
	}
	if owner != "" {
		b.warn(key, "is the same as %s, so the service can sign pushes as WeChat does; "+
			"write another token, here and in the service", owner)
	}
}

// checkQuery checks that the query of the URL has no parameter that wxproxy
// adds: a service could read either of the two.
func (b forwardBlock) checkQuery(u *url.URL) {
	var added []string
	if !b.Token.IsEmpty() || b.is(callback.ModeRaw) {
		added = []string{"signature", "timestamp", "nonce"}
	}
	if b.is(callback.ModeRaw) {
		added = append(added, "encrypt_type", "msg_signature", "openid")
	}
	query := u.Query()
	for _, name := range added {
		if query.Has(name) {
			b.fault(b.key+".url", "has the parameter %s, which wxproxy adds; rename it", name)
		}
	}
}

// checkName checks the name, which is unique.
func (b forwardBlock) checkName() {
	if b.Name == "" {
		return
	}
	if !nameForm.MatchString(b.Name) {
		b.fault(b.key+".name", "is not a valid name; write up to 64 letters, digits and . _ -")
		return
	}
	for i, earlier := range b.cfg.Forwards[:b.index] {
		if earlier.serviceName() == b.Name {
			b.fault(b.key+".name", "is the same as in forward[%d]; "+
				"give each service a different name", i+1)
			return
		}
	}
}

// checkURLIsItsOwn checks a block without a name. Those with the same URL are
// one service, and must agree about it.
func (b forwardBlock) checkURLIsItsOwn() {
	if b.Name != "" {
		return
	}
	for i, earlier := range b.cfg.Forwards[:b.index] {
		switch {
		case earlier.serviceName() != b.serviceName():
			continue
		case earlier.Name != "":
			b.fault(b.key+".name", "is the same as in forward[%d]; "+
				"give each service a different name", i+1)
		case !b.agreesWith(earlier):
			b.fault(b.key, "has the url of forward[%d] and another keep, secret or token; "+
				"give both a name", i+1)
		}
		return
	}
}

// serviceName returns the name, or the one that the URL gives.
func (f Forward) serviceName() string { return cmp.Or(f.Name, callback.DefaultName(f.URL)) }

// agreesWith reports whether two blocks say the same about how their service
// gets events from the queue.
func (f Forward) agreesWith(other Forward) bool {
	same := func(a, b wechat.Secret) bool { return a.Reveal() == b.Reveal() }
	return f.Keep == other.Keep && same(f.Secret, other.Secret) && same(f.Token, other.Token)
}

// checkReachable warns if the block gets nothing, or no messages. Blocks in
// mode queue get a copy of all that they match, and authorization events go to
// all blocks but those in mode raw.
func (b forwardBlock) checkReachable() {
	if len(b.AppIDs) == 0 || len(b.Events) == 0 || b.is(callback.ModeQueue) {
		return // an empty list is a fault
	}
	isInfoType := func(s string) bool { return infoTypes[strings.ToLower(s)] }
	isMessage := func(s string) bool { return !isInfoType(s) }
	getsMessages := slices.ContainsFunc(b.Events, isMessage)
	getsEvents := !b.is(callback.ModeRaw) &&
		(slices.Contains(b.Events, "*") || slices.ContainsFunc(b.Events, isInfoType))
	first := b.covering()
	switch {
	case !getsMessages && !getsEvents:
		b.warn(b.key, "is never used: authorization events are not sent in mode raw; "+
			`write mode = "queue", or remove the block`)
	case !getsMessages, first == 0:
	case getsEvents:
		b.warn(b.key, "gets authorization events only: forward[%d] comes first and replies to "+
			`the same messages; write mode = "queue" for copies of them`, first)
	default:
		b.warn(b.key, "is never used: forward[%d] comes first and replies to the same messages; "+
			`move this block before it, write mode = "queue" for copies, or remove it`, first)
	}
}

// infoTypes are the known types of authorization events, in lower case.
var infoTypes = func() map[string]bool {
	types := make(map[string]bool)
	for _, e := range callback.InfoTypes() {
		types[strings.ToLower(e)] = true
	}
	return types
}()

// covering returns the number of the first block before b that replies to all
// messages that b matches, or 0.
func (b forwardBlock) covering() int {
	covers := func(earlier, later []string) bool {
		return slices.Contains(earlier, "*") || !slices.ContainsFunc(later, func(s string) bool {
			return !slices.ContainsFunc(earlier, func(e string) bool { return strings.EqualFold(e, s) })
		})
	}
	return 1 + slices.IndexFunc(b.cfg.Forwards[:b.index], func(earlier Forward) bool {
		return earlier.Mode != string(callback.ModeQueue) &&
			covers(earlier.AppIDs, b.AppIDs) && covers(earlier.Events, b.Events)
	})
}
