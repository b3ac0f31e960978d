package governor

import (
	"errors"
	"fmt"
	"time"

	"wxproxy/wechat"
)

// Reason is why requests are not sent.
type Reason string

const (
	// Quota: WeChat has counted too many requests to an endpoint (errcodes
	// 45009, 45011, 9402202).
	Quota Reason = "quota"
	// ComponentRefused: WeChat rejects the component itself: the address of this
	// machine (61004), or each new token.
	ComponentRefused Reason = "component_refused"
	// Unreachable: WeChat does not answer this process.
	Unreachable Reason = "unreachable"
)

// Reasons lists all of them.
var Reasons = []Reason{Quota, ComponentRefused, Unreachable}

const (
	// quotaPause follows 45009: the quota of a day is used up, and each further
	// request would fail.
	quotaPause = 30 * time.Minute
	// minutePause follows 45011, "retry next minute".
	minutePause = time.Minute
	// concurrentPause follows 9402202, too many requests at one time.
	concurrentPause = 5 * time.Second
	// componentPause is for ComponentRefused.
	componentPause = time.Minute
	// firstPause and maxPause are for Unreachable. The pause doubles.
	firstPause = 500 * time.Millisecond
	maxPause   = 10 * time.Second
	// probePause is the least time between two requests that find out whether
	// the reason persists, if the first of them gets no answer.
	probePause = 10 * time.Second

	// unreachableAfter and refusedAfter are how many failures in a row open a
	// breaker, if no request succeeded meanwhile. One alone may be an accident,
	// or the fault of a single account.
	unreachableAfter = 2
	refusedAfter     = 2
)

// Errcodes (全局返回码) that stop more than the request they answer.
const (
	codeMinuteQuota = 45011   // "api minute-quota reach limit, must slower, retry next minute"
	codeConcurrency = 9402202 // "concurrent limit"
	codeComponentIP = 61004   // the address is not in the component's IP allowlist
)

// ConcernsAll reports whether an errcode concerns all requests to an endpoint
// and not the account that a request was about.
func ConcernsAll(code int) bool {
	switch code {
	case wechat.CodeQuota, codeMinuteQuota, codeConcurrency, codeComponentIP:
		return true
	}
	return false
}

// scope is what a breaker stops.
type scope struct {
	reason    Reason
	principal string // component or own account; "" for all
	endpoint  string // "" for all
	// tokens limits it to endpoints that need the component's token.
	tokens bool
}

// breaker counts failures of a scope, and rejects its requests while it is
// open. Times are counts of events: admissions and outcomes.
type breaker struct {
	failures  int    // in a row
	succeeded uint64 // when a request last succeeded

	open   bool
	opened uint64        // when
	until  time.Time     // no request before then; after it, one at a time
	pause  time.Duration // the last one
	text   string        // why
}

// admits reports whether a request may be sent now. Of an open breaker whose
// pause has ended, one request finds out whether the reason persists, and then
// another one after a while: the answer to the first may never come.
func (b *breaker) admits(now time.Time) bool {
	if !b.open {
		return true
	}
	if now.Before(b.until) {
		return false
	}
	b.until = now.Add(min(b.pause, probePause))
	return true
}

// failure is one that counts for a breaker.
type failure struct {
	after int           // how many in a row open the breaker
	pause time.Duration // that follows
	text  string        // why
}

// fail notes a failure of a request that was admitted at began. It reports
// whether that opened the breaker. Failures of requests that began before the
// last success, or before the breaker opened, say nothing new: many requests
// may have failed together.
func (b *breaker) fail(f failure, began, event uint64, now time.Time) bool {
	if began < b.succeeded || b.open && began < b.opened {
		return false
	}
	b.failures++
	if !b.open && b.failures < f.after {
		return false
	}
	wasOpen := b.open
	b.open, b.opened, b.pause, b.text = true, event, f.pause, f.text
	b.until = now.Add(f.pause)
	return !wasOpen
}

// succeed notes a success. It reports whether that closed the breaker. A
// request that was admitted before the breaker opened does not close it.
func (b *breaker) succeed(began, event uint64) bool {
	if b.open && began < b.opened {
		return false
	}
	wasOpen := b.open
	*b = breaker{succeeded: event}
	return wasOpen
}

// needsComponentToken reports whether an endpoint needs the component's token.
func needsComponentToken(endpoint string) bool {
	switch endpoint {
	case "api_authorizer_token", "api_query_auth", "api_create_preauthcode",
		"api_get_authorizer_info", "api_get_authorizer_list":
		return true
	}
	return false
}

// scopesOf returns the scopes that can reject a request.
func scopesOf(call wechat.Call) []scope {
	list := []scope{{reason: Unreachable, endpoint: call.Endpoint}}
	if call.AppID == "" {
		return list // an account's own quota is no reason to stop others
	}
	list = append(list,
		scope{reason: Quota, principal: call.AppID, endpoint: call.Endpoint},
		scope{reason: ComponentRefused, principal: call.AppID})
	if needsComponentToken(call.Endpoint) {
		list = append(list, rejectedTokenScope(call.AppID))
	}
	return list
}

// rejectedTokenScope is the scope of a component whose new tokens are rejected.
func rejectedTokenScope(component string) scope {
	return scope{reason: ComponentRefused, principal: component, tokens: true}
}

// verdict returns whether err is a failure in the sense of s. known is false if
// it says neither that nor the opposite. pause is the pause that follows, given
// the last one.
func (s scope) verdict(err error, last time.Duration) (failed, known bool, pause time.Duration) {
	code := wechat.Code(err)
	answered := err == nil || code != 0
	switch {
	case s.reason == Unreachable && !answered:
		unreachable := errors.Is(err, wechat.ErrUnreachable)
		return unreachable, unreachable, min(max(2*last, firstPause), maxPause)
	case s.reason == Unreachable:
		return false, true, 0
	case s.reason == Quota:
		switch code {
		case wechat.CodeQuota:
			return true, true, quotaPause
		case codeMinuteQuota:
			return true, true, minutePause
		case codeConcurrency:
			return true, true, concurrentPause
		}
		return false, answered, 0
	case s.tokens:
		// Failures are reported by RejectedToken.
		return false, answered && !wechat.TokenRefused(code, true), 0
	}
	return code == codeComponentIP, answered, componentPause
}

// after returns how many failures in a row open a breaker of s.
func (s scope) after() int {
	if s.reason == Unreachable {
		return unreachableAfter
	}
	return 1
}

// describe returns the reason in words for callers and operators.
func (s scope) describe(call wechat.Call, err error) string {
	switch s.reason {
	case Quota:
		return fmt.Sprintf("quota of %s exhausted: %v "+
			"(/cgi-bin/component/clear_quota/v2 resets it, ten times a month)", call.Endpoint, err)
	case ComponentRefused:
		return fmt.Sprintf("WeChat rejects the component: %v "+
			"(add this machine's outgoing IP address to the component's IP allowlist, "+
			"and publish the change)", err)
	}
	return err.Error()
}
