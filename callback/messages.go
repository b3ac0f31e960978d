package callback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"wxproxy/wechat"
)

// messageHandler handles the pushes on the path of an account: messages of its
// users and events (消息与事件接收URL).
type messageHandler struct {
	replays *replayGuard
	claims  *claimer
	isFor   func(ctx context.Context, appid, userName string) (bool, error) // nil: all are
	// isAnothers is asked in its place about an own account; nil: none is.
	isAnothers func(ctx context.Context, appid, userName string) (bool, error)
	now        func() time.Time
	replies    replyCache
	services   *http.Client
	checker    *releaseChecker
	log        *slog.Logger
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

// handle gets the reply to a message. It first makes sure that the push is
// fresh, that it was made for this account, and that it was not handled before,
// in this order: a copy that is rejected must not use up the push.
func (h *messageHandler) handle(ctx context.Context, account string, p verifiedPush) outcome {
	if rejected := p.checkTime(h.now(), eventMessage); rejected != nil {
		return *rejected
	}
	m, err := p.doc.Message()
	if err != nil {
		return p.misdirected(err)
	}
	if !h.addressed(ctx, account, p, m.ToUserName) {
		return *failure(http.StatusForbidden, eventMessage, resultWrongAccount, errOtherAccount)
	}
	end, repeated := h.replays.dedupe(ctx, p, account, eventMessage)
	if repeated != nil {
		return *repeated
	}
	claimed, handled, answered := false, false, (*reply)(nil)
	defer func() { // also after a panic
		if claimed && !handled {
			h.claims.unclaim(ctx, p)
		}
		end(handled, answered)
	}()
	if h.isHandled(account, p, m) {
		if !h.claims.claim(ctx, eventMessage, p) {
			// Another process has handled it, or this one before a restart.
			handled = true
			return outcome{status: http.StatusOK, event: eventMessage, result: resultReplayed}
		}
		claimed = true
	}
	out := h.answer(ctx, account, p, m)
	handled, answered = out.status == http.StatusOK, out.reply
	return out
}

// addressed reports whether a message to userName may be for the account in
// the path, which no signature covers. While that cannot be found out, it may.
func (h *messageHandler) addressed(
	ctx context.Context, account string, p verifiedPush, userName string,
) bool {
	if p.isOwn {
		return !h.belongsToAnother(ctx, account, userName)
	}
	switch {
	case userName == "", h.isFor == nil:
		return true
	}
	for checker, name := range checkerAccounts {
		if name == userName {
			return account == checker // known without asking, as they do not stay authorized
		}
	}
	ctx, cancel := context.WithTimeout(ctx, h.claims.storeTime())
	defer cancel()
	ok, err := h.isFor(ctx, account, userName)
	if err != nil {
		h.log.Debug("account of a message not checked", "account", account, "error", err)
		return true
	}
	return ok
}

// isHandled reports whether anything happens because of the message. Others are
// answered with success, and need not be claimed, except in plain mode: with
// the signature of such a push another message could be sent.
func (h *messageHandler) isHandled(account string, p verifiedPush, m wechat.Message) bool {
	return isChecker(account) || p.body != "" ||
		firstMatch(p.settings.forwards, account, m.MsgType, eventName(m)) > 0
}

// answer gets the reply to a message that was not handled before, or that of
// the same message in another push.
func (h *messageHandler) answer(
	ctx context.Context, account string, p verifiedPush, m wechat.Message,
) outcome {
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
	out := outcome{
		status: http.StatusOK, event: eventMessage,
		result: answer.result, err: answer.err, note: answer.note, done: settle,
	}
	switch {
	case answer.xml != nil:
		out.reply = p.reply(answer.xml)
	case answer.empty:
		out.reply = &reply{"", "text/plain; charset=utf-8"}
	}
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
		url: p.settings.forwards[n-1].URL, account: account,
		id: newDeliveryID(), doc: p.doc.WellFormed(), contentType: p.doc.ContentType(),
	}
	if isOpenID(m.FromUserName) {
		d.openid = m.FromUserName
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
