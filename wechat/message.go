package wechat

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Message is what decides where a decrypted push on the address for messages goes (消息与事件接收URL,
// doc/oplatform/Third-party_Platforms/2.0/api/Before_Develop/message_push). A field that it does not have is "".
type Message struct {
	MsgType string // "text", "image" …; "event" for events
	Event   string // of an event: "subscribe", "weapp_audit_success" …

	FromUserName string // whose message it is: an openid
	ToUserName   string // the account's original id (gh_…)
	Content      string // of a text message
}

// ParseMessage reads a decrypted message or event of an account. A document with an InfoType is none: what is pushed to
// the component may hold a ticket or a code, and goes to another address. The error is [ErrMalformed].
func ParseMessage(doc []byte) (Message, error) {
	f, err := topLevel(doc, "MsgType", "Event", "FromUserName", "ToUserName", "Content", "InfoType")
	if err != nil {
		return Message{}, err
	}
	if f["InfoType"] != "" {
		return Message{}, fmt.Errorf("%w: it is an authorization event, on the address for messages", ErrMalformed)
	}
	return Message{MsgType: f["MsgType"], Event: f["Event"], FromUserName: f["FromUserName"], ToUserName: f["ToUserName"], Content: f["Content"]}, nil
}

// ParseReply says whether doc can be a passive reply: XML whose root is <xml>. The error is [ErrMalformed].
func ParseReply(doc []byte) error {
	_, err := topLevel(doc)
	return err
}

// EventAccount gives what a decrypted authorization event names as the account that it is about: the element's name differs
// from type to type (the pages below doc/oplatform/openApi). "" where it names none.
func EventAccount(doc []byte) string {
	names := []string{"AuthorizerAppid", "authorizer_appid", "verify_appid", "appid"}
	f, err := topLevel(doc, names...)
	if err != nil {
		return ""
	}
	for _, name := range names {
		if f[name] != "" {
			return f[name]
		}
	}
	return ""
}

// credentials are the elements of authorization events that somebody could do something with
// (…/Before_Develop/authorize_event, …/Before_Develop/component_verify_ticket), without case and underscores.
var credentials = []string{"authorizationcode", "preauthcode", "authcode", "componentverifyticket"}

// MaskCodes gives a decrypted authorization event in which codes and tickets are "***", wherever they stand; all else
// is as it was, but for characters that XML does not allow. The error is [ErrMalformed].
func MaskCodes(doc []byte, e Event) ([]byte, error) {
	doc = legal(doc)
	d := xml.NewDecoder(bytes.NewReader(doc))
	d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
	var out bytes.Buffer
	copied := int64(0) // up to there doc is in out, or masked
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: it is no XML", ErrMalformed)
		}
		t, isStart := token.(xml.StartElement)
		if !isStart || !slices.Contains(credentials, strings.ToLower(strings.ReplaceAll(t.Name.Local, "_", ""))) {
			continue
		}
		from := d.InputOffset()
		to, err := endOf(d)
		if err != nil {
			return nil, fmt.Errorf("%w: it is no XML", ErrMalformed)
		}
		if to > from { // not <auth_code/>
			out.Write(doc[copied:from])
			out.WriteString(redacted)
			copied = to
		}
	}
	out.Write(doc[copied:])
	masked := out.Bytes()
	for _, s := range []Secret{e.AuthorizationCode, e.AuthCode, e.Ticket} { // should one be repeated elsewhere
		if !s.IsEmpty() {
			masked = bytes.ReplaceAll(masked, []byte(s.Reveal()), []byte(redacted))
		}
	}
	return masked, nil
}

// endOf reads to the end of the element that is open, and gives the offset at which its end tag begins.
func endOf(d *xml.Decoder) (int64, error) {
	for depth := 1; ; {
		at := d.InputOffset()
		token, err := d.Token()
		if err != nil {
			return 0, err
		}
		switch token.(type) {
		case xml.StartElement:
			depth++
		case xml.EndElement:
			if depth--; depth == 0 {
				return at, nil
			}
		}
	}
}

// SendText sends a text to a user of the account whose token it is (客服消息, /cgi-bin/message/custom/send).
func (c *Client) SendText(ctx context.Context, token Secret, openid, text string) error {
	var a answer
	return c.post(ctx, "/cgi-bin/message/custom/send", token, fields{
		"touser": openid, "msgtype": "text", "text": map[string]string{"content": text},
	}, &a)
}
