package callback

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

// eventHandler handles the pushes on the path of authorization events
// (授权事件接收URL).
type eventHandler struct {
	accounts  Accounts
	replays   *replayGuard
	claims    *claimer
	now       func() time.Time
	forwarder *eventForwarder
	log       *slog.Logger
}

// handle stores an event and then forwards it in the background.
//
// Tickets are taken at any age, so that a wrong clock does not stop the
// platform. They count only if they are newer than the stored one.
func (h *eventHandler) handle(ctx context.Context, p verifiedPush) outcome {
	e, err := p.doc.Event()
	if err != nil {
		return p.misdirected(err)
	}
	// A list of results can be without both; then the appid inside the
	// encryption, which was verified, says for which component it is.
	if e.AppID != p.settings.component && (e.AppID != "" || e.InfoType != "") {
		return *failure(http.StatusForbidden, "", resultWrongAppID, errInnerAppID)
	}
	if e.InfoType != infoTicket {
		if rejected := p.checkTime(h.now(), eventLabel(e.InfoType)); rejected != nil {
			return *rejected
		}
	}
	e.CreateTime = p.createTime(e)
	out := h.store(ctx, p, e)
	// An event that is older than what is known would mislead a service.
	if out.status == http.StatusOK && (out.result == resultOK || out.result == resultIgnored) {
		out.done = func(bool) { h.forwarder.forward(p, e) }
	}
	return out
}

// store runs the action of an event, unless this process has handled the same
// push before.
//
// The push is claimed after the action: the action of a process that was killed
// must be repeated. Repeating one that succeeded changes nothing, because
// events are ordered by CreateTime wherever they are stored, and a code can be
// exchanged only once. So a push that another process has handled is stored
// again and not forwarded again.
func (h *eventHandler) store(ctx context.Context, p verifiedPush, e wechat.Event) outcome {
	event := eventLabel(e.InfoType)
	action, err := h.action(e)
	if err != nil {
		return *failure(http.StatusBadRequest, event, resultBadMessage, err)
	}
	end, repeated := h.replays.dedupe(ctx, p, "", event)
	if repeated != nil {
		return *repeated
	}
	stored := false // also after a panic
	defer func() { end(stored, nil) }()

	result := resultOK
	switch err := action(ctx); {
	case err == nil:
	case errors.Is(err, tokens.ErrStale):
		result = resultStale
	case errors.Is(err, errNoAction):
		result = resultIgnored
	default:
		return *failure(http.StatusInternalServerError, event, resultStore, err)
	}
	stored = true
	if e.InfoType != infoTicket && result != resultStale && !h.claims.claim(ctx, event, p) {
		result = resultReplayed
	}
	return outcome{status: http.StatusOK, event: event, result: result}
}
