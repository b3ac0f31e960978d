package callback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"wxproxy/callback/queue"
	"wxproxy/wechat"
)

// messageHandler handles the pushes on the path of an account: messages of its
// users and events (消息与事件接收URL).
type messageHandler struct {
	replays *replayGuard
	claims  *claimer
	copies  *copier
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

// handle queues copies of a message and gets the reply to it. It first makes
// sure that the push is fresh, that it was made for this account, and that it
// was not handled before, in this order: a copy that is rejected must not use
// up the push.
//
// No push is accepted before its copies are durable, not even a repeat of one
// that was handled by another process: that one may have been killed after it
// had claimed the push. Queueing a copy again changes nothing.
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
	msg := message{Message: m, account: account, id: documentIDOf(account, p.doc.Bytes()),
		to: p.settings.messageFanOut(account, m, h.checker.canExchange(p.settings))}
	if msg.to.isAnswered() || p.isPlain() {
		claimed = h.claims.claim(ctx, eventMessage, p)
		if !claimed {
			// Another process has handled it, or this one before a restart.
			if failed := h.copyReplayed(ctx, p, msg); failed != nil {
				return *failed
			}
			handled = true
			return outcome{status: http.StatusOK, event: eventMessage, result: resultReplayed}
		}
	}
	copied := h.startCopy(ctx, p, msg)
	out := h.answer(ctx, p, msg)
	if failed := copied(); failed != nil && out.status == http.StatusOK {
		if out.done != nil {
			out.done(false) // the reply is kept for WeChat's repeat
		}
		return *failed
	}
	handled, answered = out.status == http.StatusOK, out.reply
	return out
}

// copyReplayed queues copies of a message that was claimed before: the process
// that claimed it may have been killed before it could.
//
// The signature of a plain push does not cover the body, so another message
// could be queued with it. Its copies are only queued if the process that
// claimed it has queued none.
func (h *messageHandler) copyReplayed(
	ctx context.Context, p verifiedPush, m message,
) *outcome {
	if !p.isPlain() {
		return h.copy(ctx, p, m)
	}
	first, err := h.claims.claimCopies(ctx, p, m.account)
	if err != nil {
		return failure(http.StatusInternalServerError, eventMessage, resultStore, err)
	}
	if !first {
		return nil
	}
	failed := h.copy(ctx, p, m)
	if failed != nil {
		h.claims.unclaimCopies(ctx, p)
	}
	return failed
}

// startCopy begins to queue copies of a message, while the service that replies
// is asked. The returned function waits until they are durable, and returns
// why they are not; it must be called before the push is accepted.
func (h *messageHandler) startCopy(
	ctx context.Context, p verifiedPush, m message,
) (copied func() *outcome) {
	if len(m.to.copies) == 0 || !m.to.isAnswered() {
		failed := h.copy(ctx, p, m)
		return func() *outcome { return failed }
	}
	done := make(chan *outcome, 1)
	go func() {
		failed := failure(http.StatusInternalServerError, eventMessage, resultStore, errInternal)
		defer func() {
			if cause := recover(); cause != nil {
				logPanic(h.log, "copies of a message", cause)
			}
			done <- failed
		}()
		failed = h.copy(ctx, p, m)
	}()
	return func() *outcome { return <-done }
}

// copy queues copies of a message.
func (h *messageHandler) copy(ctx context.Context, p verifiedPush, m message) *outcome {
	failed := h.copies.add(ctx, p, queue.Event{
		ID: m.id.String(), AppID: m.account, OpenID: senderOf(m.Message), Kind: eventMessage,
		Document: p.doc.WellFormed(), ContentType: p.doc.ContentType(),
	}, m.to.copies)
	if failed == nil {
		// If this fails, a repeat queues the same copies again, which changes
		// nothing.
		_, _ = h.claims.claimCopies(ctx, p, m.account)
	}
	return failed
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

// message is a message that is being answered.
type message struct {
	wechat.Message
	account string
	id      documentID
	to      fanOut
}

// answer gets the response to a message that was not handled before.
func (h *messageHandler) answer(ctx context.Context, p verifiedPush, m message) outcome {
	switch {
	case m.to.check == noCheck && m.to.answering == 0 && len(m.to.copies) == 0:
		return outcome{status: http.StatusOK, event: eventMessage, result: resultIgnored}
	case !m.to.isAnswered():
		return outcome{status: http.StatusOK, event: eventMessage, result: resultOK}
	case m.to.check == noCheck && p.settings.forwards[m.to.answering-1].Mode == ModeRaw:
		return h.answerRaw(ctx, p, m)
	}
	return h.answerReply(ctx, p, m)
}

// answerReply gets the reply to a message, or that to the same message in
// another push.
func (h *messageHandler) answerReply(ctx context.Context, p verifiedPush, m message) outcome {
	answer, settle, err := h.replies.do(ctx, m.id, func() (messageReply, error) {
		return h.reply(ctx, p, m)
	})
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = errors.New("timeout waiting for the reply to the same message")
		}
		return undelivered(err, answer.note)
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

// undelivered returns the outcome of a message that WeChat repeats, because the
// service has not accepted it.
func undelivered(err error, note string) outcome {
	out := failure(http.StatusInternalServerError, eventMessage, resultUndelivered, err)
	out.note = note
	return *out
}

// reply gets the reply of the release checker's rules, or of the service. An
// error means that WeChat must repeat the message.
func (h *messageHandler) reply(
	ctx context.Context, p verifiedPush, m message,
) (messageReply, error) {
	if m.to.check != noCheck {
		return h.checker.reply(m.to.check, m.account, p.settings, m.Message)
	}
	d, note := m.delivery(p.settings)
	d.body, d.contentType = p.doc.WellFormed(), p.doc.ContentType()
	body, err := h.ask(ctx, d)
	var xml []byte
	if err == nil {
		xml, err = parseServiceReply(body, p.doc.IsJSON())
	}
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

// ask sends a message to the service that replies, and returns the body of its
// response.
func (h *messageHandler) ask(ctx context.Context, d delivery) ([]byte, error) {
	resp, err := post(ctx, h.services, d)
	if err != nil {
		return nil, err
	}
	return readServiceResponse(resp)
}

// delivery returns the request to the service that replies, without a body, and
// what names it in the log.
func (m message) delivery(s *settings) (d delivery, note string) {
	rule := &s.forwards[m.to.answering-1]
	d = delivery{
		rule: rule, id: newDeliveryID(), event: m.id.String(), attempt: 1,
		account: m.account, openid: senderOf(m.Message),
	}
	return d, fmt.Sprintf("forward[%d] %s as %s", m.to.answering, rule.Name, d.id)
}

// senderOf returns the openid of the sender of a message, or "".
func senderOf(m wechat.Message) string {
	if !isOpenID(m.FromUserName) {
		return ""
	}
	return m.FromUserName
}

// eventName returns the second name by which rules match an event: its Event.
// Messages have none.
func eventName(m wechat.Message) string {
	if !strings.EqualFold(m.MsgType, "event") {
		return ""
	}
	return m.Event
}
