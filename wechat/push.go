package wechat

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// maxOuterMarks is the maximum number of "<" and "=" in an outer document. Real
// ones have two elements and no attributes, and an Encrypt that ends in at most
// two "=". An outer document is read before its sender is verified, so the
// marks are counted before it is parsed: a tag of many attributes would take
// twenty times its size in memory.
const maxOuterMarks = 64

// Envelope is the outer document of a push. Only Encrypt is covered by the
// signature; do not trust the other fields.
type Envelope struct {
	// AppID is the component's, on the address for authorization events.
	AppID string

	// ToUserName is the account's original id (gh_…), on the address for
	// messages.
	ToUserName string

	// Encrypt is base64, in the form that msg_signature covers. It is never "".
	Encrypt string
}

// ParseEnvelope parses the body of a push (消息加解密,
// doc/oplatform/Third-party_Platforms/2.0/api/Before_Develop/message_push). Its
// error is [ErrMalformed].
func ParseEnvelope(body []byte) (Envelope, error) {
	if b := bytes.TrimSpace(body); len(b) > 0 && b[0] == '{' {
		return Envelope{}, fmt.Errorf("%w: JSON instead of XML", ErrMalformed)
	}
	if bytes.Count(body, []byte("<"))+bytes.Count(body, []byte("=")) > maxOuterMarks {
		return Envelope{}, fmt.Errorf("%w: too many elements", ErrMalformed)
	}
	r := documentReader{names: []string{"AppId", "ToUserName", "Encrypt"}}
	if err := r.read(body); err != nil {
		return Envelope{}, err
	}
	f, err := fieldTexts(r.fields, r.names...)
	if err != nil {
		return Envelope{}, err
	}
	if f["Encrypt"] == "" {
		return Envelope{}, fmt.Errorf("%w: no Encrypt", ErrMalformed)
	}
	return Envelope{AppID: f["AppId"], ToUserName: f["ToUserName"], Encrypt: f["Encrypt"]}, nil
}

// InfoFastRegister is the InfoType of the result of registering a mini program
// through the platform (快速注册企业小程序). The missing "r" is WeChat's.
const InfoFastRegister = "notify_third_fasteregister"

// Event is a decrypted authorization event
// (doc/oplatform/Third-party_Platforms/2.0/api/Before_Develop/component_verify_ticket
// and authorize_event). A field that the push does not have is its zero value.
// The pre-auth code is not kept.
type Event struct {
	AppID      string    // the component's
	CreateTime time.Time // whole seconds; zero if absent or 0
	InfoType   string    // never ""; may be one that WeChat added later

	Ticket Secret // of component_verify_ticket

	// Of authorized and updateauthorized; unauthorized has the appid only.
	AuthorizerAppID          string
	AuthorizationCode        Secret
	AuthorizationCodeExpires time.Time // zero if absent or not a time

	// Of InfoFastRegister; zero for all others.
	NewAppID string // `appid` in the document; `AppId` is the component
	Status   int    // 0 if registered
	AuthCode Secret // of the new mini program, exchanged like AuthorizationCode
	Msg      string // WeChat's explanation of Status
}

// Event returns the document as an authorization event. The error is
// [ErrMalformed].
func (d *Document) Event() (Event, error) {
	f, err := d.text("AppId", "CreateTime", "InfoType", "ComponentVerifyTicket",
		"AuthorizerAppid", "AuthorizationCode", "AuthorizationCodeExpiredTime",
		"appid", "status", "auth_code", "msg", "MsgType", "FromUserName")
	if err != nil {
		return Event{}, err
	}
	if f["MsgType"] != "" || f["FromUserName"] != "" {
		return Event{}, fmt.Errorf("%w: a message on the address for events", ErrMalformed)
	}
	if f["InfoType"] == "" {
		return Event{}, fmt.Errorf("%w: no InfoType", ErrMalformed)
	}
	e := Event{
		AppID:             f["AppId"],
		InfoType:          f["InfoType"],
		Ticket:            NewSecret(f["ComponentVerifyTicket"]),
		AuthorizerAppID:   f["AuthorizerAppid"],
		AuthorizationCode: NewSecret(f["AuthorizationCode"]),
	}
	if e.CreateTime, err = unixTime(f["CreateTime"]); err != nil {
		return Event{}, fmt.Errorf("%w: invalid CreateTime", ErrMalformed)
	}
	// The code is useful without its expiry, which only says when to stop
	// trying.
	e.AuthorizationCodeExpires, _ = unixTime(f["AuthorizationCodeExpiredTime"])
	// Other types use the lower-case names with other meanings, and a status in
	// words.
	if e.InfoType == InfoFastRegister {
		e.NewAppID, e.AuthCode, e.Msg = f["appid"], NewSecret(f["auth_code"]), f["msg"]
		if s := f["status"]; s != "" {
			if e.Status, err = strconv.Atoi(s); err != nil {
				return Event{}, fmt.Errorf("%w: status is not a number", ErrMalformed)
			}
		}
	}
	return e, nil
}

// CreateTime returns the time at which the event or message was made, in whole
// seconds, or the zero time if the document has none that can be read.
func (d *Document) CreateTime() time.Time {
	f, err := d.text("CreateTime")
	if err != nil {
		return time.Time{}
	}
	t, err := unixTime(f["CreateTime"])
	if err != nil {
		return time.Time{}
	}
	return t
}

// unixTime parses seconds since 1970. "" and 0 are the zero time. A time after
// the year 9999 is an error, because JSON cannot represent it.
func unixTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > 253402300799 {
		return time.Time{}, errors.New("not a time")
	}
	if n == 0 {
		return time.Time{}, nil
	}
	return time.Unix(n, 0), nil
}
