package wechat

import (
	"bytes"
	"errors"
	"fmt"

	"wxproxy/internal/redact"
)

// ErrMalformed reports that a document is not what WeChat pushes. Errors that
// wrap it say what is missing or wrong, and quote nothing of what was received.
var ErrMalformed = errors.New("not a push as WeChat makes them")

// PushLimit is the maximum size of a push in bytes. Real ones have less than
// 4 KiB.
const PushLimit = 1 << 20

// WeChat's deepest documents have three levels (<xml><info><name>) and about
// twenty elements. The limits keep a hostile document from costing more than
// the reading of its bytes.
const (
	maxDepth    = 16
	maxElements = 1000
)

// Document is the decrypted document of a push. It is parsed once; its methods
// say what it means as an authorization event ([Document.Event]) or as a
// message ([Document.Message]), and what of it is forwarded
// ([Document.WellFormed], [Document.MaskCodes]). It must not be changed while
// it is in use.
type Document struct {
	raw         []byte
	wellFormed  []byte
	fields      map[string]field
	credentials []span // in wellFormed; what must be masked
	elements    int    // without the root
	isJSON      bool   // see ParseJSONDocument
}

// documentFields are the elements that events and messages are read from.
var documentFields = []string{
	"AppId", "CreateTime", "InfoType", "ComponentVerifyTicket",
	"AuthorizerAppid", "AuthorizationCode", "AuthorizationCodeExpiredTime",
	"appid", "status", "auth_code", "msg", "authorizer_appid", "verify_appid",
	"MsgType", "Event", "FromUserName", "ToUserName", "Content",
}

// credentialElements are the elements of authorization events that hold codes
// and tickets (…/Before_Develop/authorize_event,
// …/Before_Develop/component_verify_ticket), in lower case and without
// underscores.
var credentialElements = []string{
	"authorizationcode", "preauthcode", "authcode", "componentverifyticket",
}

// ParseDocument parses the decrypted document of a push, which is not copied.
// Elements that are not known are passed over, wherever they stand.
//
// WeChat does not escape what users type, so a document need not be
// well-formed, and a text can hold what looks like the end of its field and
// like other fields. A text never adds or changes a field, see
// [Document.WellFormed]. The error is [ErrMalformed].
func ParseDocument(doc []byte) (*Document, error) {
	if len(doc) > PushLimit {
		return nil, fmt.Errorf("%w: it is too long", ErrMalformed)
	}
	valid := validXML(doc) // can be three times as long
	r := documentReader{names: documentFields, plain: newPlainCheck(valid)}
	if err := r.read(valid); err == nil && !r.plain.odd {
		return &Document{
			raw: doc, wellFormed: valid, fields: r.fields, credentials: r.credentials,
			elements: r.elements - 1,
		}, nil
	}
	d, err := readLenient(valid)
	if err != nil {
		return nil, err
	}
	d.raw = doc
	return d, nil
}

// Bytes returns the document as it was parsed, byte for byte.
func (d *Document) Bytes() []byte { return d.raw }

// WellFormed returns the document as XML that every parser reads, and reads in
// the same way, or as valid JSON. A document that was so before is returned
// byte for byte. In others, the texts of users are escaped, and each field is
// one element; characters that XML does not allow are replaced. If it cannot be
// decided whether WeChat wrote a field or a user typed it, the field is left
// out. Only a text that tries to forge that very field can cause this.
func (d *Document) WellFormed() []byte { return d.wellFormed }

// Account returns the appid of the account that an authorization event is
// about, or "" if it names none. The element's name differs from type to type
// (the pages below doc/oplatform/openApi). If one of these elements is
// ambiguous, the event names no account.
func (d *Document) Account() string {
	names := []string{"AuthorizerAppid", "authorizer_appid", "verify_appid", "appid"}
	f, err := d.text(names...)
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

// MaskCodes returns an authorization event in which codes and tickets are
// "***", wherever they stand. All else is as it was, except for characters that
// XML does not allow. e is the document as an event: should one of its codes be
// repeated somewhere else, it is masked there, too.
func (d *Document) MaskCodes(e Event) []byte {
	var out bytes.Buffer
	copied := 0 // everything before it is in out, or masked
	for _, c := range d.credentials {
		out.Write(d.wellFormed[copied:c.start])
		out.WriteString(redacted)
		copied = c.end
	}
	out.Write(d.wellFormed[copied:])
	return maskSecrets(out.Bytes(), redact.Options{}, e.AuthorizationCode, e.AuthCode, e.Ticket)
}

// text returns the texts of the fields by name. The error says which of them is
// ambiguous; other fields may be.
func (d *Document) text(names ...string) (map[string]string, error) {
	return fieldTexts(d.fields, names...)
}

// field is a top-level element of a document.
type field struct {
	text  string // without white space at its ends
	fault error  // the element is ambiguous: two readers could see different texts
}

// span is a part of a document: offsets of its first byte and of the byte after
// its last.
type span struct{ start, end int }

// fieldTexts returns the texts of some fields by name, or the first fault.
func fieldTexts(fields map[string]field, names ...string) (map[string]string, error) {
	texts := make(map[string]string, len(names))
	for _, name := range names {
		f := fields[name]
		if f.fault != nil {
			return nil, f.fault
		}
		texts[name] = f.text
	}
	return texts, nil
}
