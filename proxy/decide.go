package proxy

import (
	"slices"
	"strings"

	"wxproxy/internal/hostname"
	"wxproxy/wechat"
)

// decision says what is to be done with a request, and on whose behalf.
type decision struct {
	route
	// identity is the authenticated caller. It is zero if authentication is
	// disabled and if it failed.
	identity
	// grants is what the stand-ins of the request are bound to.
	grants grants
}

// decide applies the rules to a request: which endpoint it is for, which caller
// sends it, and whether that caller is allowed to. Forwarding, requests for
// stand-ins, "Expect: 100-continue", Explain and Permission all use it.
//
// It reads nothing but its arguments, and changes nothing but h.scratch: the
// same head gets the same decision everywhere. The state of accounts and the
// caller's rate are not part of it. With an error the decision holds what was
// known by then, for logs and metrics.
func (s *settings) decide(h *requestHead) (d decision, err *apiError) {
	if s.callers.disabled() && !h.assumed {
		if err = s.rejectBrowsers(h); err != nil {
			return d, err
		}
	}
	presented := s.readQueryTokens(h)
	var routeErr *apiError
	d.route, routeErr = s.resolveRoute(h, &presented)
	d.grants = grants{account: presented.account.AppID, component: presented.component.AppID != nil}
	if d.endpoint.Need == wechat.NeedStandIn {
		err = s.decideStandIn(h, &presented, &d)
		return d, err
	}
	// Authenticate first, so that unauthenticated callers learn nothing else
	// and unauthorized ones cannot probe which accounts exist.
	if d.identity, err = s.authenticate(h, &presented, d.endpoint); err != nil {
		return d, err
	}
	switch {
	case routeErr != nil:
		return d, routeErr
	case d.endpoint.Bodyless && h.hasBody:
		return d, errLoginBody
	}
	if err = s.authorizeStandIn(&d.grants, &d.route); err != nil {
		return d, err
	}
	return d, s.authorize(d.caller, h, &d.route)
}

// rejectBrowsers returns an error for requests that can come from a web
// browser. Without authentication a page of any site could otherwise make the
// browser of a colleague send them.
//
// Browsers send marks of their own to trustworthy URLs only, which localhost
// and 127.0.0.1 are and other names are not. Under a name that the page's own
// DNS server resolves to this listener, they would even let the page read
// responses (DNS rebinding). So the name in the request has to be one that no
// such server controls.
func (s *settings) rejectBrowsers(h *requestHead) *apiError {
	if h.browserMarks {
		return errBrowser
	}
	if s.anyHost || h.target.absolute {
		return nil
	}
	value := unsafeString(h.host)
	name, ok := hostname.Of(value)
	switch {
	case !ok:
		return errHost
	case hostname.IsIP(name), strings.EqualFold(name, "localhost"), containsFold(upstreamHosts, name),
		containsFold(s.hosts, name):
		return nil
	}
	return hostDenied(name)
}

// containsFold reports whether name is in list, in any case.
func containsFold(list []string, name string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, name) })
}

// bodyLimit returns how large the body of a request may be, in bytes, after
// decide has returned d and rejection. Bodies are held in memory: large ones
// are read only from callers that are allowed to send the request.
func (s *settings) bodyLimit(d *decision, rejection *apiError) int {
	if rejection != nil || d.endpoint.Bodyless || d.endpoint.Need == wechat.NeedStandIn || d.isOwn() {
		return min(maxFormSize, s.maxBody)
	}
	return s.maxBody
}
