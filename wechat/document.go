package wechat

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

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
// message ([Document.Message]), and what of it must not be forwarded
// ([Document.MaskCodes]). It must not be changed while it is in use.
type Document struct {
	raw         []byte
	valid       []byte // raw, with what XML does not allow replaced
	fields      map[string]field
	credentials []span // in valid; contents of the elements that hold credentials
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
// Elements that are not known are passed over, wherever they stand. The error
// is [ErrMalformed].
func ParseDocument(doc []byte) (*Document, error) {
	r := documentReader{names: documentFields, findCredentials: true}
	if err := r.read(doc); err != nil {
		return nil, err
	}
	return &Document{raw: doc, valid: r.valid, fields: r.fields, credentials: r.credentials}, nil
}

// Bytes returns the document as it was parsed, byte for byte.
func (d *Document) Bytes() []byte { return d.raw }

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
		out.Write(d.valid[copied:c.start])
		out.WriteString(redacted)
		copied = c.end
	}
	out.Write(d.valid[copied:])
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

// documentReader collects the named children of the root, which must be <xml>.
// CDATA or not makes no difference. A named element that is there twice, or
// that has elements inside, gets a fault instead of a text.
//
// The names are case-sensitive: `AppId` and `appid` stand beside each other in
// one document and mean the component and the new mini program.
type documentReader struct {
	names           []string
	findCredentials bool

	valid       []byte
	fields      map[string]field
	credentials []span

	open       string          // name of the field that is open; "" if none is
	text       strings.Builder // of the open field
	fault      error           // of the open field
	credential int             // depth of the credential element that is open; 0 if none is
	start      int             // offset of its content
	depth      int
	elements   int
	closed     bool // the root has been closed
}

// read reads the whole document. The error is [ErrMalformed].
func (r *documentReader) read(doc []byte) error {
	if len(doc) > PushLimit {
		return fmt.Errorf("%w: it is too long", ErrMalformed)
	}
	r.valid, r.fields = validXML(doc), make(map[string]field, len(r.names))
	d := xml.NewDecoder(bytes.NewReader(r.valid))
	// Whatever encoding is declared: validXML has made it UTF-8, and all that
	// matters is ASCII.
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	for {
		before := int(d.InputOffset())
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: it is no XML", ErrMalformed) // err quotes names
		}
		switch t := token.(type) {
		case xml.StartElement:
			err = r.startElement(t.Name, int(d.InputOffset()))
		case xml.CharData:
			err = r.charData(t)
		case xml.EndElement:
			r.endElement(before)
		case xml.Directive:
			// A DOCTYPE declares entities, which can name files and addresses.
			err = fmt.Errorf("%w: it has a document type", ErrMalformed)
		}
		if err != nil {
			return err
		}
	}
	if !r.closed {
		return fmt.Errorf("%w: it ends too early", ErrMalformed)
	}
	return nil
}

// startElement handles a start tag, which ends before the offset after.
func (r *documentReader) startElement(name xml.Name, after int) error {
	r.depth++
	r.elements++
	switch {
	case r.closed || r.depth == 1 && name.Local != "xml":
		return fmt.Errorf("%w: its root is not a single <xml>", ErrMalformed)
	case r.depth > maxDepth || r.elements > maxElements:
		return fmt.Errorf("%w: too many elements", ErrMalformed)
	case r.open != "":
		r.fault = fmt.Errorf("%w: there are elements inside its %s", ErrMalformed, r.open)
	case r.depth == 2 && name.Space == "" && slices.Contains(r.names, name.Local):
		r.open, r.fault = name.Local, nil
		r.text.Reset()
		if _, twice := r.fields[r.open]; twice {
			r.fault = fmt.Errorf("%w: it has %s twice", ErrMalformed, r.open)
		}
	}
	if r.findCredentials && r.credential == 0 && isCredentialElement(name.Local) {
		r.credential, r.start = r.depth, after
	}
	return nil
}

// charData handles text between tags.
func (r *documentReader) charData(text []byte) error {
	switch {
	case r.open != "":
		r.text.Write(text)
	case r.depth == 0 && len(bytes.TrimSpace(bytes.TrimPrefix(text, []byte("\uFEFF")))) > 0:
		return fmt.Errorf("%w: there is text outside its root", ErrMalformed)
	}
	return nil
}

// endElement handles an end tag, which begins at the offset before.
func (r *documentReader) endElement(before int) {
	if r.depth == 2 && r.open != "" {
		r.fields[r.open] = field{strings.TrimSpace(r.text.String()), r.fault}
		r.open = ""
	}
	if r.depth == r.credential {
		if before > r.start { // <auth_code/> holds nothing
			r.credentials = append(r.credentials, span{r.start, before})
		}
		r.credential = 0
	}
	r.depth--
	r.closed = r.depth == 0
}

func isCredentialElement(name string) bool {
	name = strings.ToLower(strings.ReplaceAll(name, "_", ""))
	return slices.Contains(credentialElements, name)
}

// validXML replaces what XML does not allow, character by character. Company
// names hold raw control characters and cut-off UTF-8, and no ticket may be
// lost because of a neighboring field.
func validXML(doc []byte) []byte {
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
