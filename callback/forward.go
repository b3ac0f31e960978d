package callback

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"wxproxy/wechat"
)

// Forward is a rule of the operator: which pushes of which accounts are sent to
// which service, and how. The zero value matches nothing.
type Forward struct {
	// Name names the service in the queue and in the log; default:
	// [DefaultName]. Rules of the same name are one service, which gets one
	// copy of a push, with URL, Keep, Secret and Token of the first.
	Name string
	// Mode is how messages are sent; "" is ModeReply. Authorization events are
	// always queued.
	Mode Mode
	// Keep is how long a queued event is tried; 0: [queue.DefaultKeep].
	Keep time.Duration
	// Secret, if not empty, signs each delivery (X-Wxproxy-Signature).
	Secret wechat.Secret
	// Token, if not empty, adds signature, timestamp and nonce to the query, as
	// WeChat does in plain mode. ModeRaw ignores it.
	Token wechat.Secret

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

// Mode is how a Forward sends messages.
type Mode string

// Modes.
const (
	ModeReply Mode = "reply" // the service is asked while WeChat waits
	ModeQueue Mode = "queue" // stored before success, delivered later
	ModeRaw   Mode = "raw"   // like ModeReply, with the push as WeChat sent it
)

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

// DefaultName returns the name of a rule without a name. Rules with the same
// URL share it, and it stays the same when other rules change.
func DefaultName(url string) string {
	sum := sha256.Sum256([]byte(url))
	return "forward-" + hex.EncodeToString(sum[:4])
}

// cloneForwards returns a deep copy, in which each rule has a name.
func cloneForwards(forwards []Forward) []Forward {
	out := slices.Clone(forwards)
	for i, f := range out {
		out[i].Name = cmp.Or(f.Name, DefaultName(f.URL))
		out[i].AppIDs, out[i].Events = slices.Clone(f.AppIDs), slices.Clone(f.Events)
	}
	return out
}
