package callback

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/xml"
	"strconv"
	"strings"
	"time"

	"wxproxy/wechat"
)

// sealReply encrypts and signs a passive reply (message_push).
func sealReply(c *wechat.Crypt, doc []byte) string {
	var random [8]byte
	rand.Read(random[:])                                // never fails
	number := binary.BigEndian.Uint64(random[:]) % 1e10 // ten digits, like WeChat's
	timestamp, nonce := strconv.FormatInt(time.Now().Unix(), 10), strconv.FormatUint(number, 10)
	encrypted := c.Encrypt(doc)
	return "<xml><Encrypt><![CDATA[" + encrypted + "]]></Encrypt>" +
		"<MsgSignature><![CDATA[" + c.Signature(timestamp, nonce, encrypted) + "]]></MsgSignature>" +
		"<TimeStamp>" + timestamp + "</TimeStamp>" +
		"<Nonce><![CDATA[" + nonce + "]]></Nonce></xml>"
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
