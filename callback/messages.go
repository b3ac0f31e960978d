package callback

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"wxproxy/wechat"
)

// serviceAnswer is what a message comes to.
type serviceAnswer struct {
	xml    []byte // the reply to be encrypted; nil: there is none
	empty  bool   // an empty body in place of success
	result string
	note   string
	err    error // for the log: the service took it, and said something that is of no use
}

// accountOf is the account in /{appid}/events, "" for every other path.
func accountOf(path string) string {
	account, ok := strings.CutSuffix(strings.TrimPrefix(path, "/"), "/events")
	if !ok || !strings.HasPrefix(path, "/") || !wechat.IsAppID(account) {
		return ""
	}
	return account
}

// takeMessage handles a push on the address for messages and events of an account (消息与事件接收URL).
//
// The account is in the path alone, which no signature covers: whoever has seen a push go by could send it to the
// address of another account, were it not for replays.
func (h *Handler) takeMessage(ctx context.Context, account string, l letter) outcome {
	m, err := l.doc.Message()
	if err != nil {
		return *refusal(http.StatusBadRequest, resultBadMessage, err)
	}
	end, refused := h.first(ctx, l.signature, eventMessage)
	if refused != nil {
		return *refused
	}
	var settle func(delivered bool)
	handed := false // over to answered; stays so in a panic
	defer func() {
		if !handed && settle != nil {
			settle(false)
		}
		if !handed {
			end(false)
		}
	}()
	text, settled, err := h.answers.do(ctx, keyOf(account, l.doc.Bytes()), func() (serviceAnswer, error) { return h.respond(ctx, account, l, m) })
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = errors.New("an equal push took too long")
		}
		return outcome{status: http.StatusInternalServerError, event: eventMessage, result: resultUndelivered, err: err, note: text.note}
	}
	settle = settled
	out := outcome{
		status: http.StatusOK, event: eventMessage, result: text.result, err: text.err, note: text.note,
		// What reached nobody is no replay when it comes again.
		answered: func(delivered bool) { settle(delivered); end(delivered) },
	}
	switch {
	case text.xml != nil:
		out.reply = &reply{l.keys.seal(text.xml), "text/xml; charset=utf-8"}
	case text.empty:
		out.reply = &reply{"", "text/plain; charset=utf-8"}
	}
	handed = true
	return out
}

// respond has the message answered: by us, where it is the release checker's, or by the service of the first rule that fits.
func (h *Handler) respond(ctx context.Context, account string, l letter, m wechat.Message) (serviceAnswer, error) {
	if text, is, err := h.check(account, l, m); is {
		return text, err
	}
	n := firstMatch(l.keys.rules, account, m.MsgType, eventName(m))
	if n == 0 {
		return serviceAnswer{result: resultIgnored}, nil
	}
	d := delivery{url: l.keys.rules[n-1].URL, account: account, openid: l.openid, id: newID(), doc: l.doc.Bytes()}
	note := fmt.Sprintf("forward[%d] as %s", n, d.id)
	xml, err := send(ctx, h.services, d)
	switch {
	case err == nil:
		return serviceAnswer{xml: xml, result: resultOK, note: note}, nil
	case badReply(err):
		// It has the message: a repeat would bring the same answer, and show the user an error in between.
		return serviceAnswer{result: resultBadReply, note: note, err: err}, nil
	}
	return serviceAnswer{note: note}, err
}

// eventName is the second name of an event.
func eventName(m wechat.Message) string {
	if !strings.EqualFold(m.MsgType, "event") {
		return ""
	}
	return m.Event
}

// seal encrypts and signs a passive reply (message_push), with the current key.
func (k *keys) seal(doc []byte) string {
	c := k.crypts[0]
	var random [8]byte
	rand.Read(random[:])
	timestamp, nonce := strconv.FormatInt(time.Now().Unix(), 10), strconv.FormatUint(binary.BigEndian.Uint64(random[:])%1e10, 10)
	encrypted := c.Encrypt(doc)
	return "<xml><Encrypt><![CDATA[" + encrypted + "]]></Encrypt>" +
		"<MsgSignature><![CDATA[" + c.Signature(timestamp, nonce, encrypted) + "]]></MsgSignature>" +
		"<TimeStamp>" + timestamp + "</TimeStamp>" +
		"<Nonce><![CDATA[" + nonce + "]]></Nonce></xml>"
}

// textReply is a passive text reply to m.
func textReply(m wechat.Message, text string) []byte {
	var b strings.Builder
	element := func(name, value string) {
		b.WriteString("<" + name + ">")
		_ = xml.EscapeText(&b, []byte(value)) // a Builder takes everything
		b.WriteString("</" + name + ">")
	}
	b.WriteString("<xml>")
	element("ToUserName", m.FromUserName)
	element("FromUserName", m.ToUserName)
	element("CreateTime", strconv.FormatInt(time.Now().Unix(), 10))
	element("MsgType", "text")
	element("Content", text)
	b.WriteString("</xml>")
	return []byte(b.String())
}
