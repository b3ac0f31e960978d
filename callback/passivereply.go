package callback

import (
	"encoding/xml"
	"strconv"
	"strings"
	"time"

	"wxproxy/wechat"
)

// reply returns a passive reply to the push, in its form: encrypted with the
// key that decrypted it and signed (message_push), as XML or JSON, or plain.
func (p verifiedPush) reply(doc []byte) *reply {
	if p.crypt == nil {
		return &reply{string(doc), replyType(wechat.IsJSON(doc))}
	}
	timestamp, nonce := strconv.FormatInt(time.Now().Unix(), 10), newNonce()
	encrypted := p.crypt.Encrypt(doc)
	signature := p.crypt.Signature(timestamp, nonce, encrypted)
	if p.doc.IsJSON() {
		// Nothing in the values needs an escape.
		return &reply{`{"Encrypt":"` + encrypted + `","MsgSignature":"` + signature +
			`","TimeStamp":` + timestamp + `,"Nonce":"` + nonce + `"}`, replyType(true)}
	}
	return &reply{"<xml><Encrypt><![CDATA[" + encrypted + "]]></Encrypt>" +
		"<MsgSignature><![CDATA[" + signature + "]]></MsgSignature>" +
		"<TimeStamp>" + timestamp + "</TimeStamp>" +
		"<Nonce><![CDATA[" + nonce + "]]></Nonce></xml>", replyType(false)}
}

// replyType returns the media type of a passive reply.
func replyType(isJSON bool) string {
	if isJSON {
		return "application/json; charset=utf-8"
	}
	return "text/xml; charset=utf-8"
}

// textReply returns a passive text reply to m.
func textReply(m wechat.Message, text string) []byte {
	var b strings.Builder
	element := func(name, value string) {
		b.WriteString("<" + name + ">")
		_ = xml.EscapeText(&b, []byte(value)) // writing to a Builder never fails
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
