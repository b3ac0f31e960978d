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
	if err := r.read(validXML(body)); err != nil {
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
	InfoType   string    // may be one that WeChat added later; "" in a list of results

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

// Event returns the document as an authorization event. Of an InfoType that has
// no meaning here, only InfoType and AppId have to be unambiguous: it can hold
// the same names several times. The error is [ErrMalformed].
func (d *Document) Event() (Event, error) {
	f, err := d.text("AppId", "InfoType", "MsgType", "FromUserName")
	if err != nil {
		return Event{}, err
	}
	if f["MsgType"] != "" || f["FromUserName"] != "" {
		return Event{}, fmt.Errorf("%w: a message on the address for events", ErrMalformed)
	}
	if f["InfoType"] == "" && !d.isResultList() {
		return Event{}, fmt.Errorf("%w: no InfoType", ErrMalformed)
	}
	e := Event{AppID: f["AppId"], InfoType: f["InfoType"], CreateTime: d.CreateTime()}
	names := eventFields[e.InfoType]
	if names == nil {
		return e, nil
	}
	if f, err = d.text(names...); err != nil {
		return Event{}, err
	}
	if e.CreateTime, err = unixTime(f["CreateTime"]); err != nil {
		return Event{}, fmt.Errorf("%w: invalid CreateTime", ErrMalformed)
	}
	e.Ticket = NewSecret(f["ComponentVerifyTicket"])
	e.AuthorizerAppID = f["AuthorizerAppid"]
	e.AuthorizationCode = NewSecret(f["AuthorizationCode"])
	// The code is useful without its expiry, which only says when to stop
	// trying.
	e.AuthorizationCodeExpires, _ = unixTime(d.fields["AuthorizationCodeExpiredTime"].text)
	if e.InfoType != InfoFastRegister {
		return e, nil
	}
	e.NewAppID, e.AuthCode, e.Msg = f["appid"], NewSecret(f["auth_code"]), d.fields["msg"].text
	if s := f["status"]; s != "" {
		if e.Status, err = strconv.Atoi(s); err != nil {
			return Event{}, fmt.Errorf("%w: status is not a number", ErrMalformed)
		}
	}
	return e, nil
}

// eventFields are the fields of each InfoType that have to be unambiguous.
// Other types use the lower-case names with other meanings, and a status in
// words.
var eventFields = map[string][]string{
	"component_verify_ticket": {"CreateTime", "ComponentVerifyTicket"},
	"authorized":              {"CreateTime", "AuthorizerAppid", "AuthorizationCode"},
	"updateauthorized":        {"CreateTime", "AuthorizerAppid", "AuthorizationCode"},
	"unauthorized":            {"CreateTime", "AuthorizerAppid"},
	InfoFastRegister:          {"CreateTime", "appid", "status", "auth_code"},
}

// isResultList reports whether the document has neither an InfoType nor an
// AppId, but other fields: WeChat's example of the results of a batch
// (批量提交结果通知, order_path_apply_result_notify, below doc/oplatform/openApi)
// is a list without both. Only the encryption says then for which component it
// is.
func (d *Document) isResultList() bool {
	_, hasType := d.fields["InfoType"]
	_, hasAppID := d.fields["AppId"]
	return !hasType && !hasAppID && d.elements > 0
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
