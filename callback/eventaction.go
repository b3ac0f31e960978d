package callback

import (
	"context"
	"errors"
	"time"

	"wxproxy/wechat"
)

// Maximum lengths, in characters, of texts in the log that come from a push or a
// service: of a name, and of a sentence.
const (
	maxLogWord = 64
	maxLogLine = 200
)

var (
	errNoTicket  = errors.New("no ComponentVerifyTicket in the push")
	errNoCode    = errors.New("no AuthorizationCode in the push")
	errNoAccount = errors.New("no valid appid of an account in the push")

	// errNoAction is returned by the action of an InfoType that changes
	// nothing.
	errNoAction = errors.New("no action for this type of push")
)

// eventAction stores what an event says.
type eventAction func(context.Context) error

// action returns what must be done about an event, or which field of it is
// missing. It does nothing itself.
//
// An event that lacks a field is rejected, not ignored. Either it is not
// WeChat's, or WeChat has changed; then a repeated push costs nothing and makes
// the change visible on both sides.
func (h *eventHandler) action(e wechat.Event) (eventAction, error) {
	switch e.InfoType {
	case infoTicket:
		if e.Ticket.IsEmpty() {
			return nil, errNoTicket
		}
		return func(ctx context.Context) error {
			return h.accounts.PutTicket(ctx, e.Ticket, e.CreateTime)
		}, nil

	case infoAuthorized, infoUpdateAuthorized:
		switch {
		case !wechat.IsAppID(e.AuthorizerAppID):
			return nil, errNoAccount
		case e.AuthorizationCode.IsEmpty():
			return nil, errNoCode
		}
		store := h.accounts.Authorize
		if e.InfoType == infoUpdateAuthorized {
			store = h.accounts.UpdateAuthorization
		}
		return func(ctx context.Context) error {
			return store(ctx, e.AuthorizerAppID,
				e.AuthorizationCode, e.AuthorizationCodeExpires, e.CreateTime)
		}, nil

	case infoUnauthorized: // has no code
		if !wechat.IsAppID(e.AuthorizerAppID) {
			return nil, errNoAccount
		}
		return func(ctx context.Context) error {
			return h.accounts.MarkRevoked(ctx, e.AuthorizerAppID, e.CreateTime)
		}, nil

	case wechat.InfoFastRegister:
		return h.registrationAction(e)
	}
	return func(context.Context) error {
		h.log.Info("push needs no action", "type", wechat.Sanitize(e.InfoType, maxLogWord))
		return errNoAction
	}, nil
}

// registrationAction is the action of a mini program that the platform has
// registered (快速注册企业小程序).
func (h *eventHandler) registrationAction(e wechat.Event) (eventAction, error) {
	// Every status except 0 is a failure, which only the platform's operators
	// can fix.
	if e.Status != 0 || e.AuthCode.IsEmpty() {
		return func(context.Context) error {
			h.log.Warn("fast registration failed", "status", e.Status,
				"account", wechat.Sanitize(e.NewAppID, maxLogWord),
				"errmsg", wechat.Sanitize(e.Msg, maxLogLine))
			return nil
		}, nil
	}
	if !wechat.IsAppID(e.NewAppID) {
		return nil, errNoAccount
	}
	return func(ctx context.Context) error {
		var unknown time.Time // such a push does not say when its code expires
		return h.accounts.Authorize(ctx, e.NewAppID, e.AuthCode, unknown, e.CreateTime)
	}, nil
}
