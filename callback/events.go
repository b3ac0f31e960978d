package callback

import (
	"context"
	"errors"
	"net/http"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

// takeEvent handles a push on the address for authorization events (授权事件接收URL).
func (h *Handler) takeEvent(ctx context.Context, l letter) outcome {
	e, err := l.doc.Event()
	if err != nil {
		return *refusal(http.StatusBadRequest, resultBadMessage, err)
	}
	if e.AppID != l.keys.component {
		return *refusal(http.StatusForbidden, resultWrongAppID, errInner)
	}
	out := h.handle(ctx, l.signature, e)
	// What is older than what is known would mislead a service as it would mislead us.
	if out.status == http.StatusOK && out.result != resultStale {
		out.answered = func(bool) { h.relay(l, e) }
	}
	return out
}

// first has nobody else handle the push at the same time, or again: where it is nil, end must be called, once.
func (h *Handler) first(ctx context.Context, signature, event string) (end func(success bool), refused *outcome) {
	end, fresh, err := h.replays.begin(ctx, signature)
	switch {
	case err != nil:
		return nil, &outcome{status: http.StatusInternalServerError, event: event, result: resultStore, err: err}
	case !fresh:
		return nil, &outcome{status: http.StatusConflict, event: event, result: resultReplayed, err: errReplay}
	}
	return end, nil
}

// handle has an authentic event stored, unless it was before.
func (h *Handler) handle(ctx context.Context, signature string, e wechat.Event) outcome {
	event := eventOf(e.InfoType)
	do, err := h.plan(e)
	if err != nil {
		return outcome{status: http.StatusBadRequest, event: event, result: resultBadMessage, err: err}
	}
	end, refused := h.first(ctx, signature, event)
	if refused != nil {
		return *refused
	}
	done := false // stays so in a panic
	defer func() { end(done) }()

	result := resultOK
	switch err := do(ctx); {
	case err == nil:
	case errors.Is(err, tokens.ErrStale):
		result = resultStale
	case errors.Is(err, errNothingToDo):
		result = resultIgnored
	default:
		return outcome{status: http.StatusInternalServerError, event: event, result: resultStore, err: err}
	}
	done = true
	return outcome{status: http.StatusOK, event: event, result: result}
}
