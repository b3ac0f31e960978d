package proxy

import (
	"bytes"
	"context"
	"errors"
	"net/url"
	"time"

	"wxproxy/internal/returnticket"
	"wxproxy/wechat"
)

// Below ownFolder, wxproxy has endpoints of its own. A request for it is never
// forwarded, whether there is such an endpoint or not, whatever a [[route]]
// says, and however the path is written.
const (
	ownFolder         = "/.well-known/wxproxy"
	pathAuthorization = ownFolder + "/authorization"
)

var (
	// authorizationEndpoint redeems the ticket that a merchant has brought back
	// to return_to.
	authorizationEndpoint = &wechat.Endpoint{Path: pathAuthorization, Need: wechat.NeedNothing}
	// noEndpoint stands for all other paths of ownFolder.
	noEndpoint = &wechat.Endpoint{Path: ownFolder + "/*", Need: wechat.NeedNothing}
)

// ownEndpoint returns the endpoint of a decoded path in ownFolder, and nil for
// every other path.
func ownEndpoint(path []byte) *wechat.Endpoint {
	const end = len(ownFolder)
	switch {
	case len(path) < end || path[1] != '.' || !equalFold(path[:end], ownFolder),
		len(path) > end && path[end] != '/':
		return nil
	case string(path) == pathAuthorization:
		return authorizationEndpoint
	}
	return noEndpoint
}

// isOwn reports whether wxproxy answers the request on an endpoint of its own.
func (r *route) isOwn() bool {
	return r.endpoint == authorizationEndpoint || r.endpoint == noEndpoint
}

// resolveOwn completes the route of a request for an endpoint of wxproxy's own.
// The account is nil if the request names none.
func (s *settings) resolveOwn(r *route, h *requestHead, presented *queryTokens) (err *apiError) {
	switch {
	case r.endpoint == noEndpoint:
		return errNoOwnEndpoint
	case string(h.method) != "GET":
		return errOwnMethod
	}
	r.account, err = s.resolveAccount(h, presented, r.endpoint)
	return err
}

// redeem answers a request for the authorization of a ticket. The ticket says
// which account it is for, so the caller's permission is checked here. If it is
// denied, the ticket is not used up.
func (c *call) redeem() *apiError {
	redeem := c.settings.redeem
	query, err := url.ParseQuery(string(c.head.target.query))
	tickets := query["ticket"]
	if redeem == nil || err != nil || len(tickets) != 1 {
		return errTicket
	}
	ctx, cancel := context.WithDeadline(context.Background(), c.deadline)
	defer cancel()
	authorization, err := redeem(ctx, tickets[0], func(appid string) error {
		// A nil pointer in an interface would not be nil.
		if denied := c.mayRedeem([]byte(appid)); denied != nil {
			return denied
		}
		return nil
	})
	c.now = time.Now()
	if err != nil {
		return redemptionError(err)
	}
	c.decision.account = []byte(authorization.AppID)
	c.ctx.Response.Header.Set("Cache-Control", "no-store")
	return c.respond(struct {
		AppID        string `json:"appid"`
		State        string `json:"state"`
		AuthorizedAt string `json:"authorized_at"`
	}{authorization.AppID, authorization.State, authorization.At.UTC().Format(time.RFC3339)})
}

// mayRedeem checks that the call may redeem a ticket of appid. A prefix, header
// or stand-in that names another account is an error, unless it is the
// component.
func (c *call) mayRedeem(appid []byte) *apiError {
	named := c.decision.account
	isNamed := named == nil || bytes.Equal(named, appid) || bytes.Equal(named, c.settings.component)
	if !isNamed || !c.settings.allowIssue(&c.decision.grants, appid) {
		return errTicketAccount
	}
	return c.decision.caller.authorizeAccount(appid)
}

// redemptionError turns the error of a redemption into the response.
func redemptionError(err error) *apiError {
	var e *apiError
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, returnticket.ErrInvalid):
		return errTicket
	case errors.Is(err, returnticket.ErrExpired):
		return errTicketExpired
	case errors.Is(err, returnticket.ErrUsed):
		return errTicketUsed
	}
	return errTicketStore
}
