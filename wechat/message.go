package wechat

import (
	"context"
	"fmt"
)

// Message has the fields of a decrypted message or event that decide which
// service receives it (消息与事件接收URL,
// doc/oplatform/Third-party_Platforms/2.0/api/Before_Develop/message_push). A
// field that the push does not have is "".
type Message struct {
	MsgType string // "text", "image" …; "event" for events
	Event   string // of an event: "subscribe", "weapp_audit_success" …

	FromUserName string // the openid of the sender
	ToUserName   string // the account's original id (gh_…)
	Content      string // of a text message
}

// Message returns the document as a message or event of an account. A document
// with an InfoType is neither: what is pushed to the component can hold a
// ticket or a code, and is sent to another address. The error is
// [ErrMalformed].
func (d *Document) Message() (Message, error) {
	f, err := d.text("MsgType", "Event", "FromUserName", "ToUserName", "Content", "InfoType")
	if err != nil {
		return Message{}, err
	}
	if f["InfoType"] != "" {
		return Message{}, fmt.Errorf("%w: an authorization event on the address for messages",
			ErrMalformed)
	}
	return Message{
		MsgType: f["MsgType"], Event: f["Event"],
		FromUserName: f["FromUserName"], ToUserName: f["ToUserName"], Content: f["Content"],
	}, nil
}

// SendText sends a text to a user of the account that token belongs to (客服消息,
// /cgi-bin/message/custom/send).
func (c *Client) SendText(ctx context.Context, token Secret, openid, text string) error {
	var a answer
	return c.post(ctx, "/cgi-bin/message/custom/send", token, fields{
		"touser": openid, "msgtype": "text", "text": map[string]string{"content": text},
	}, &a)
}
