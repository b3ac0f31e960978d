package wechat

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// ErrMalformed: a document is not what WeChat pushes. What wraps it says what is missing or
// wrong, and quotes nothing of what was received.
var ErrMalformed = errors.New("not a push as WeChat makes them")

// PushLimit is the size, in bytes, up to which a push is looked at. Real ones have less than 4 KiB.
const PushLimit = 1 << 20

// WeChat's deepest documents have three levels (<xml><info><name>), and some twenty elements. The
// limits keep a hostile one from costing more than reading it.
const (
	maxDepth    = 16
	maxElements = 1000
	// An outer document has two elements and no attributes; its Encrypt ends in two "=" at most.
	// As nobody has been verified when it is read, it is counted before it is parsed: a tag
	// of many attributes would take twenty times its size in memory.
	maxOuterMarks = 64
)

// Envelope is the outer document of a push, of which all but Encrypt is unprotected.
type Envelope struct {
	AppID      string // the component's, on the address for authorization events; else ""
	ToUserName string // the account's original id (gh_…), on the address for messages; else ""
	Encrypt    string // base64, as msg_signature covers it; never ""
}

// ParseEnvelope reads the body of a push (消息加解密,
// doc/oplatform/Third-party_Platforms/2.0/api/Before_Develop/message_push). Its error is [ErrMalformed].
func ParseEnvelope(body []byte) (Envelope, error) {
	if b := bytes.TrimSpace(body); len(b) > 0 && b[0] == '{' {
		return Envelope{}, fmt.Errorf("%w: it is JSON, and those to third-party platforms are XML", ErrMalformed)
	}
	if bytes.Count(body, []byte("<"))+bytes.Count(body, []byte("=")) > maxOuterMarks {
		return Envelope{}, fmt.Errorf("%w: too many elements", ErrMalformed)
	}
	f, err := topLevel(body, "AppId", "ToUserName", "Encrypt")
	if err != nil {
		return Envelope{}, err
	}
	if f["Encrypt"] == "" {
		return Envelope{}, fmt.Errorf("%w: it has no Encrypt", ErrMalformed)
	}
	return Envelope{AppID: f["AppId"], ToUserName: f["ToUserName"], Encrypt: f["Encrypt"]}, nil
}

// InfoFastRegister tells that a mini program was registered by the platform, or why it was not
// (快速注册企业小程序). The lost "r" is WeChat's.
const InfoFastRegister = "notify_third_fasteregister"

// Event is a decrypted authorization event
// (doc/oplatform/Third-party_Platforms/2.0/api/Before_Develop/component_verify_ticket and authorize_event).
// A field that the push does not have is its zero value. The pre-auth code is not kept.
type Event struct {
	AppID      string    // the component's
	CreateTime time.Time // whole seconds; zero where it is absent or 0
	InfoType   string    // never ""; may be one that did not exist when this was written

	Ticket Secret // component_verify_ticket

	// authorized, updateauthorized; unauthorized has the appid only
	AuthorizerAppID          string
	AuthorizationCode        Secret
	AuthorizationCodeExpires time.Time // zero where it is absent or cannot be read

	// InfoFastRegister; zero for all others
	NewAppID string // `appid` in the document, where `AppId` is the component
	Status   int    // 0: registered
	AuthCode Secret // of the new mini program, to be exchanged like an AuthorizationCode
	Msg      string // WeChat's words for Status
}

// ParseEvent reads a decrypted authorization event. Elements that it does not know are passed over,
// wherever they stand. Its error is [ErrMalformed].
func ParseEvent(doc []byte) (Event, error) {
	f, err := topLevel(doc, "AppId", "CreateTime", "InfoType", "ComponentVerifyTicket",
		"AuthorizerAppid", "AuthorizationCode", "AuthorizationCodeExpiredTime",
		"appid", "status", "auth_code", "msg")
	if err != nil {
		return Event{}, err
	}
	if f["InfoType"] == "" {
		return Event{}, fmt.Errorf("%w: it has no InfoType", ErrMalformed)
	}
	e := Event{
		AppID:             f["AppId"],
		InfoType:          f["InfoType"],
		Ticket:            NewSecret(f["ComponentVerifyTicket"]),
		AuthorizerAppID:   f["AuthorizerAppid"],
		AuthorizationCode: NewSecret(f["AuthorizationCode"]),
	}
	if e.CreateTime, err = unixTime(f["CreateTime"]); err != nil {
		return Event{}, fmt.Errorf("%w: its CreateTime is no time", ErrMalformed)
	}
	// The code is worth having without its end, which is only a help for giving up.
	e.AuthorizationCodeExpires, _ = unixTime(f["AuthorizationCodeExpiredTime"])
	// Other types use the small names with other meanings, and words for a status.
	if e.InfoType == InfoFastRegister {
		e.NewAppID, e.AuthCode, e.Msg = f["appid"], NewSecret(f["auth_code"]), f["msg"]
		if s := f["status"]; s != "" {
			if e.Status, err = strconv.Atoi(s); err != nil {
				return Event{}, fmt.Errorf("%w: its status is no number", ErrMalformed)
			}
		}
	}
	return e, nil
}

// unixTime reads seconds since 1970; "" and 0 are the zero time. Later than the year 9999 is an error:
// neither JSON nor any store could keep it.
func unixTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > 253402300799 {
		return time.Time{}, errors.New("no time")
	}
	if n == 0 {
		return time.Time{}, nil
	}
	return time.Unix(n, 0), nil
}

// topLevel gives the text of the named children of the root, <xml>, without white space at its ends. CDATA
// or not makes no difference. A named element that comes twice, or that has elements
// inside, is an error: two readers might see two different things in it.
//
// The names are case-sensitive: `AppId` and `appid` stand beside each other in one document, and
// mean the component and the new mini program.
func topLevel(doc []byte, names ...string) (map[string]string, error) {
	if len(doc) > PushLimit {
		return nil, fmt.Errorf("%w: it is too long", ErrMalformed)
	}
	d := xml.NewDecoder(bytes.NewReader(legal(doc)))
	// Whatever encoding is declared: legal has made it UTF-8, and what matters is ASCII.
	d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil }

	var (
		found    = make(map[string]string, len(names))
		text     strings.Builder // of the named element that is open
		open     string          // its name; "" while there is none
		depth    int
		elements int
		closed   bool // the root has been
	)
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: it is no XML", ErrMalformed) // err quotes names
		}
		switch t := token.(type) {
		case xml.StartElement:
			depth++
			elements++
			switch name := t.Name.Local; {
			case closed || depth == 1 && name != "xml":
				return nil, fmt.Errorf("%w: its root is not a single <xml>", ErrMalformed)
			case depth > maxDepth || elements > maxElements:
				return nil, fmt.Errorf("%w: too many elements", ErrMalformed)
			case open != "":
				return nil, fmt.Errorf("%w: there are elements inside its %s", ErrMalformed, open)
			case depth == 2 && t.Name.Space == "" && slices.Contains(names, name):
				if _, twice := found[name]; twice {
					return nil, fmt.Errorf("%w: it has %s twice", ErrMalformed, name)
				}
				open = name
				text.Reset()
			}
		case xml.CharData:
			switch {
			case open != "":
				text.Write(t)
			case depth == 0 && len(bytes.TrimSpace(bytes.TrimPrefix(t, []byte("\uFEFF")))) > 0:
				return nil, fmt.Errorf("%w: there is text outside its root", ErrMalformed)
			}
		case xml.EndElement:
			if open != "" {
				found[open], open = strings.TrimSpace(text.String()), ""
			}
			depth--
			closed = depth == 0
		case xml.Directive:
			// A DOCTYPE: that way entities come, files and addresses among them.
			return nil, fmt.Errorf("%w: it has a document type", ErrMalformed)
		}
	}
	if !closed {
		return nil, fmt.Errorf("%w: it ends too early", ErrMalformed)
	}
	return found, nil
}

// legal replaces what XML does not allow, character by character: company names hold raw control
// characters and cut-off UTF-8, and no ticket is to be lost because of a neighbor.
func legal(doc []byte) []byte {
	return bytes.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
			return r
		case r < ' ':
			return ' '
		case r == 0xFFFE || r == 0xFFFF:
			return utf8.RuneError
		}
		return r
	}, doc)
}
