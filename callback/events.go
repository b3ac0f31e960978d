package callback

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

// eventHandler handles the pushes on the path of authorization events
// (授权事件接收URL).
type eventHandler struct {
	accounts  Accounts
	replays   *replayGuard
	forwarder *eventForwarder
	log       *slog.Logger
}

// handle stores an event and then forwards it in the background.
func (h *eventHandler) handle(ctx context.Context, p verifiedPush) outcome {
	e, err := p.doc.Event()
	if err != nil {
		return *failure(http.StatusBadRequest, "", resultBadMessage, err)
	}
	if e.AppID != p.settings.component {
		return *failure(http.StatusForbidden, "", resultWrongAppID, errInnerAppID)
	}
	out := h.store(ctx, p.signature, e)
	// An event that is older than what is known would mislead a service.
	if out.status == http.StatusOK && out.result != resultStale {
		out.done = func(bool) { h.forwarder.forward(p, e) }
	}
	return out
}

// store runs the action of an event, unless the same push was handled before.
func (h *eventHandler) store(ctx context.Context, signature string, e wechat.Event) outcome {
	event := eventLabel(e.InfoType)
	action, err := h.action(e)
	if err != nil {
		return *failure(http.StatusBadRequest, event, resultBadMessage, err)
	}
	end, rejected := h.replays.dedupe(ctx, signature, event)
	if rejected != nil {
		return *rejected
	}
	stored := false // also after a panic
	defer func() { end(stored) }()

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
	return outcome{status: http.StatusOK, event: event, result: result}
}
