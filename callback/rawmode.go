package callback

import (
	"context"
	"mime"
	"net/http"
	"slices"
)

// answerRaw passes a push on as WeChat sent it, and the response of the service
// back as the service made it.
//
// The response is never shared with another push of the same message, as that
// of [messageHandler.answerReply] is: services make it with timestamp and nonce
// of the push. Repeats of the same bytes get it from [replayGuard].
func (h *messageHandler) answerRaw(ctx context.Context, p verifiedPush, m message) outcome {
	d, note := m.delivery(p.settings)
	d.body, d.contentType, d.query = p.raw.body, p.raw.contentType, p.raw.query
	resp, err := post(ctx, h.services, d)
	if err != nil {
		return undelivered(err, note)
	}
	contentType := rawContentType(resp.Header.Get("Content-Type"))
	body, err := readServiceResponse(resp)
	out := outcome{status: http.StatusOK, event: eventMessage, result: resultOK, note: note}
	switch {
	case isBadReply(err):
		out.result, out.err = resultBadReply, err
	case err != nil:
		return undelivered(err, note)
	default:
		out.reply = &reply{string(body), contentType}
	}
	return out
}

// rawContentType returns the Content-Type of a response that is passed on:
// WeChat's own kinds as the service wrote them, and text instead of others,
// such as PHP's text/html. The listener is on the internet and serves no pages
// of services.
func rawContentType(s string) string {
	kinds := []string{"text/xml", "application/xml", "application/json", "text/plain"}
	if kind, _, err := mime.ParseMediaType(s); err == nil && slices.Contains(kinds, kind) {
		return s
	}
	return "text/plain; charset=utf-8"
}
