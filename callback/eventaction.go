package callback

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"wxproxy/wechat"
)

// plan says what is to be done about an event, or which field of it is missing. It does nothing yet.
//
// An event that lacks a field is refused, not passed over: it is either not WeChat's, or WeChat
// has changed, and then pushing it again costs nothing and shows up on both sides.
func (h *Handler) plan(e wechat.Event) (func(context.Context) error, error) {
	switch e.InfoType {
	case infoTicket:
		if e.Ticket.IsEmpty() {
			return nil, errNoTicket
		}
		return func(ctx context.Context) error { return h.accounts.PutTicket(ctx, e.Ticket, e.CreateTime) }, nil

	case infoAuthorized, infoUpdateAuthorized:
		switch {
		case !wechat.IsAppID(e.AuthorizerAppID):
			return nil, errNoAccount
		case e.AuthorizationCode.IsEmpty():
			return nil, errNoCode
		}
		return func(ctx context.Context) error {
			return h.accounts.Authorize(ctx, e.AuthorizerAppID, e.AuthorizationCode, e.AuthorizationCodeExpires, e.CreateTime)
		}, nil

	case infoUnauthorized: // has no code
		if !wechat.IsAppID(e.AuthorizerAppID) {
			return nil, errNoAccount
		}
		return func(ctx context.Context) error { return h.accounts.MarkRevoked(ctx, e.AuthorizerAppID, e.CreateTime) }, nil

	case wechat.InfoFastRegister:
		// Any other status is a failure that only the platform's people can mend.
		if e.Status != 0 || e.AuthCode.IsEmpty() {
			return func(context.Context) error {
				h.log.Warn("a registration brought no new account", "status", e.Status, "account", wechat.Sanitize(e.NewAppID, wordLimit), "msg", wechat.Sanitize(e.Msg, lineLimit))
				return nil
			}, nil
		}
		if !wechat.IsAppID(e.NewAppID) {
			return nil, errNoAccount
		}
		return func(ctx context.Context) error {
			// Such a push does not say when its code ends.
			return h.accounts.Authorize(ctx, e.NewAppID, e.AuthCode, time.Time{}, e.CreateTime)
		}, nil
	}
	return func(context.Context) error {
		h.log.Info("a push of a type that wxproxy does nothing about", "type", wechat.Sanitize(e.InfoType, wordLimit))
		return errNothingToDo
	}, nil
}

// report counts and logs what became of a push. Of the request it tells what no secret can be
// in: the query holds a signature that would let a push be repeated.
func (h *Handler) report(r *http.Request, out outcome) {
	h.observe(out.event, out.result)
	level, text := slog.LevelWarn, "push refused"
	switch {
	case out.status == http.StatusOK && out.err != nil:
		text = "push taken, and its answer is of no use"
	case out.status == http.StatusOK && out.event == eventMessage:
		level, text = slog.LevelDebug, "push taken" // there are as many as users write
	case out.status == http.StatusOK:
		level, text = slog.LevelInfo, "push taken"
	case out.result == resultUndelivered:
		level, text = slog.LevelError, "no service took the push, WeChat has to repeat it"
	case out.status >= http.StatusInternalServerError:
		level, text = slog.LevelError, "push could not be kept, WeChat has to repeat it"
	}
	attrs := []slog.Attr{
		slog.String("event", out.event), slog.String("result", out.result), slog.Int("status", out.status),
		slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("query_bytes", len(r.URL.RawQuery)),
	}
	if out.note != "" {
		attrs = append(attrs, slog.String("answered_by", out.note))
	}
	if out.err != nil {
		attrs = append(attrs, slog.Any("error", out.err))
	}
	h.log.LogAttrs(r.Context(), level, text, attrs...)
}
