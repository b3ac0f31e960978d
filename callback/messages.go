package callback

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"wxproxy/wechat"
)

// messageHandler handles the pushes on the path of an account: messages of its
// users and events (消息与事件接收URL).
type messageHandler struct {
	replays  *replayGuard
	replies  replyCache
	services *http.Client
	checker  *releaseChecker
}

// messageReply is how a message is answered. Without xml and empty, the
// response is success.
type messageReply struct {
	xml    []byte // the passive reply before encryption; nil: there is none
	empty  bool   // respond with an empty body instead of success
	result string // result label
	note   string // for the log: what replied
	err    error  // for the log: a service accepted the message, but its reply is invalid
}

// handle gets the reply to a message.
//
// The account is in the path alone, which no signature covers. The replay guard
// keeps a push that was observed on its way from being sent to another
// account's path.
func (h *messageHandler) handle(ctx context.Context, account string, p verifiedPush) outcome {
	m, err := p.doc.Message()
	if err != nil {
		return *failure(http.StatusBadRequest, "", resultBadMessage, err)
	}
	end, rejected := h.replays.dedupe(ctx, p.signature, eventMessage)
	if rejected != nil {
		return *rejected
	}
	finish := end // must be called once, also after a panic
	handedOver := false
	defer func() {
		if !handedOver {
			finish(false)
		}
	}()

	key := replyKeyOf(account, p.doc.Bytes())
	answer, settle, err := h.replies.do(ctx, key, func() (messageReply, error) {
		return h.reply(ctx, account, p, m)
	})
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = errors.New("timeout waiting for the reply to the same message")
		}
		out := failure(http.StatusInternalServerError, eventMessage, resultUndelivered, err)
		out.note = answer.note
		return *out
	}
	// If the reply is not delivered, the repeat of this push is not a replay.
	finish = func(delivered bool) { settle(delivered); end(delivered) }
	out := outcome{
		status: http.StatusOK, event: eventMessage,
		result: answer.result, err: answer.err, note: answer.note, done: finish,
	}
	switch {
	case answer.xml != nil:
		out.reply = &reply{sealReply(p.settings.crypts[0], answer.xml), "text/xml; charset=utf-8"}
	case answer.empty:
		out.reply = &reply{"", "text/plain; charset=utf-8"}
	}
	handedOver = true
	return out
}

// reply gets the reply of the release checker's rules, or of the service of the
// first rule that matches. An error means that WeChat must repeat the message.
func (h *messageHandler) reply(
	ctx context.Context, account string, p verifiedPush, m wechat.Message,
) (messageReply, error) {
	if r, isCheck, err := h.checker.reply(account, p, m); isCheck {
		return r, err
	}
	n := firstMatch(p.settings.forwards, account, m.MsgType, eventName(m))
	if n == 0 {
		return messageReply{result: resultIgnored}, nil
	}
	d := delivery{
		url: p.settings.forwards[n-1].URL, account: account, openid: p.openid,
		id: newDeliveryID(), doc: p.doc.Bytes(),
	}
	note := fmt.Sprintf("forward[%d] as %s", n, d.id)
	xml, err := send(ctx, h.services, d)
	switch {
	case err == nil:
		return messageReply{xml: xml, result: resultOK, note: note}, nil
	case isBadReply(err):
		// The service has the message. A repeat would get the same reply, and
		// would show the user an error message in between.
		return messageReply{result: resultBadReply, note: note, err: err}, nil
	}
	return messageReply{note: note}, err
}

// eventName returns the second name by which rules match an event: its Event.
// Messages have none.
func eventName(m wechat.Message) string {
	if !strings.EqualFold(m.MsgType, "event") {
		return ""
	}
	return m.Event
}
