package sandbox

import (
	"context"
	"errors"
	"strings"
	"time"

	"wxproxy/sandbox/internal/push"
)

// ticketInterval is how often WeChat pushes a ticket.
const ticketInterval = 10 * time.Minute

// ErrNoPushURL is returned by methods that only push, if there is no push URL.
var ErrNoPushURL = push.ErrNoURL

// SetPushURL changes where pushes are sent; "" ends pushing. It returns an
// error if base is no http or https URL.
func (s *WeChat) SetPushURL(base string) error { return s.push.SetURL(base) }

// PushTicket makes a new ticket and pushes it. The ticket works even if the
// push fails. It fails with [ErrNoPushURL], or if the callback cannot be
// reached within [Config].PushTimeout or responds with anything but the seven
// bytes "success".
func (s *WeChat) PushTicket(ctx context.Context) error {
	now := s.cfg.Now()
	ticket := s.state.Tickets.New(now)
	event := s.push.Event(now, "component_verify_ticket").CDATA("ComponentVerifyTicket", ticket)
	if err := s.push.SendEvent(ctx, event); err != nil {
		return err
	}
	s.state.Tickets.Accepted(now)
	return nil
}

// Run pushes a ticket at once and then every ten minutes, until ctx ends.
// onError is called with the error of each push that fails, unless it is nil;
// the next push follows all the same.
func (s *WeChat) Run(ctx context.Context, onError func(error)) {
	ticker := time.NewTicker(ticketInterval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		if err := s.PushTicket(ctx); err != nil && onError != nil && ctx.Err() == nil {
			onError(err)
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// PushXML pushes any document, encrypted and signed, to a path below the push
// URL. It returns the body of the response, at most 1 MiB of it. On the path
// "/component/events" it is an authorization event, on "/{appid}/events" a
// message to that account. It fails with [ErrNoPushURL], if the callback cannot
// be reached within [Config].PushTimeout, or if it responds with another status
// than 200.
func (s *WeChat) PushXML(ctx context.Context, path, xml string) (response []byte, err error) {
	var to push.Recipient
	appid, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if a, known := s.state.Accounts.FindAuthorizer(appid); known {
		to = push.Recipient{OriginalID: a.OriginalID(), OpenID: a.OpenID("1")}
	}
	return s.push.Send(ctx, path, xml, to)
}

// ignoreNoURL drops ErrNoPushURL, for pushes that are the consequence of
// something else: without a push URL they just do not happen.
func ignoreNoURL(err error) error {
	if errors.Is(err, ErrNoPushURL) {
		return nil
	}
	return err
}
