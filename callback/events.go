package callback

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"wxproxy/callback/queue"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// eventHandler handles the pushes on the path of authorization events
// (授权事件接收URL).
type eventHandler struct {
	accounts Accounts
	replays  *replayGuard
	claims   *claimer
	copies   *copier
	now      func() time.Time
	log      *slog.Logger
}

// handle stores an event and then queues copies for services.
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
	return h.store(ctx, p, e)
}

// store runs the action of an event and queues copies, unless this process has
// handled the same push before.
//
// The push is claimed last: what a killed process did not do must be done by
// the one that gets WeChat's repeat. Repeating the action changes nothing,
// because events are ordered by CreateTime wherever they are stored, and a code
// can be exchanged only once. A copy is queued once. So the claim only tells
// repeats from others.
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
	if failed := h.queue(ctx, p, e, result); failed != nil {
		return *failed
	}
	stored = true
	if e.InfoType != infoTicket && result != resultStale && !h.claims.claim(ctx, event, p) {
		result = resultReplayed
	}
	return outcome{status: http.StatusOK, event: event, result: result}
}

// queue queues copies of an event for services, without codes: each works once,
// and wxproxy needs it. result says what the action did: an event that is older
// than what is known would mislead a service.
func (h *eventHandler) queue(
	ctx context.Context, p verifiedPush, e wechat.Event, result string,
) *outcome {
	if result == resultStale {
		return nil
	}
	account := p.doc.Account()
	if !wechat.IsAppID(account) {
		account = p.settings.component // the event is about the platform itself
	}
	services := p.settings.eventFanOut(account, e.InfoType)
	if len(services) == 0 {
		return nil
	}
	return h.copies.add(ctx, p, queue.Event{
		ID: documentIDOf(account, p.doc.Bytes()).String(), AppID: account,
		Kind: eventLabel(e.InfoType), Document: p.doc.MaskCodes(e),
	}, services)
}
