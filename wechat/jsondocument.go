package wechat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Media types of pushes.
const (
	TypeXML  = "text/xml"
	TypeJSON = "application/json"
)

// IsJSON reports whether a push, or the document in it, is meant as JSON rather
// than XML: its first character is "{". Mini programs choose between the two
// (doc/oplatform/Mobile_App/WeChat_Login/message_push and
// miniprogram/dev/framework/server-ability/message-push).
func IsJSON(doc []byte) bool {
	b := bytes.TrimLeft(bytes.TrimPrefix(doc, []byte("\uFEFF")), " \t\r\n")
	return len(b) > 0 && b[0] == '{'
}

// ParseJSONDocument is [ParseDocument] for a document in JSON. The members of
// the object have the names of the elements of a document in XML. The error is
// [ErrMalformed].
//
// [Document.WellFormed] returns valid JSON. Only what JSON does not allow is
// replaced: control characters inside strings, which are escaped, and invalid
// UTF-8.
func ParseJSONDocument(doc []byte) (*Document, error) {
	valid, fields, err := readJSON(doc, documentFields)
	if err != nil {
		return nil, err
	}
	return &Document{raw: doc, wellFormed: valid, fields: fields, isJSON: true}, nil
}

// IsJSON reports whether the document is JSON, not XML.
func (d *Document) IsJSON() bool { return d.isJSON }

// ContentType returns the media type of the document.
func (d *Document) ContentType() string {
	if d.isJSON {
		return TypeJSON
	}
	return TypeXML
}

// readJSON collects the named members of an object, and returns the document as
// valid JSON. A member that is an object or a list gets a fault instead of a
// text, and so does one whose name is there again, in whatever case: some
// readers ignore case. Any other name that is there twice is an error. The
// error is [ErrMalformed].
func readJSON(doc []byte, names []string) (valid []byte, _ map[string]field, _ error) {
	if len(doc) > PushLimit {
		return nil, nil, fmt.Errorf("%w: it is too long", ErrMalformed)
	}
	valid = validJSON(bytes.TrimPrefix(doc, []byte("\uFEFF")))
	if len(valid) > PushLimit {
		return nil, nil, fmt.Errorf("%w: it is too long", ErrMalformed)
	}
	// Tokens are read after this check, because Decoder.Token accepts less than
	// the whole grammar checks, such as a second document behind the first.
	if !json.Valid(valid) {
		return nil, nil, fmt.Errorf("%w: it is no JSON", ErrMalformed)
	}
	r := jsonReader{d: json.NewDecoder(bytes.NewReader(valid)), names: names}
	r.d.UseNumber() // ids have 64 bits
	if err := r.read(); err != nil {
		return nil, nil, err
	}
	return valid, r.fields, nil
}

// jsonReader reads an object, which is known to be valid JSON.
type jsonReader struct {
	d        *json.Decoder
	names    []string
	fields   map[string]field
	seen     map[string]bool // names of the object
	elements int
}

// read reads the whole object. The error is [ErrMalformed].
func (r *jsonReader) read() error {
	r.fields, r.seen = make(map[string]field, len(r.names)), make(map[string]bool)
	if t, err := r.d.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("%w: it is no object", ErrMalformed)
	}
	for r.d.More() {
		if err := r.member(); err != nil {
			return err
		}
	}
	return nil
}

// member reads a name and its value. The error is [ErrMalformed].
func (r *jsonReader) member() error {
	t, err := r.d.Token()
	name, ok := t.(string)
	if err != nil || !ok {
		return fmt.Errorf("%w: it is no JSON", ErrMalformed)
	}
	if r.seen[name] {
		return fmt.Errorf("%w: it has a name twice", ErrMalformed)
	}
	r.seen[name] = true
	text, isText, err := r.value()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(r.names, func(n string) bool { return strings.EqualFold(n, name) })
	if i < 0 {
		return nil
	}
	// Two of the names differ only in case: AppId and appid.
	if j := slices.Index(r.names, name); j >= 0 {
		i = j
	}
	known, f := r.names[i], field{text: strings.TrimSpace(text)}
	_, again := r.fields[known]
	switch {
	case !isText:
		f.fault = fmt.Errorf("%w: its %s is no text", ErrMalformed, known)
	case again:
		f.fault = fmt.Errorf("%w: it has %s twice", ErrMalformed, known)
	case known != name:
		// Another case: it is not the field, but it would make it ambiguous.
		f.text = ""
	}
	r.fields[known] = f
	return nil
}

// value reads a value. isText is false for objects and lists. The error is
// [ErrMalformed].
func (r *jsonReader) value() (text string, isText bool, err error) {
	for depth := 1; ; {
		r.elements++
		t, err := r.d.Token()
		switch {
		case err != nil:
			return "", false, fmt.Errorf("%w: it is no JSON", ErrMalformed)
		case depth > maxDepth || r.elements > maxElements:
			return "", false, fmt.Errorf("%w: too many elements", ErrMalformed)
		}
		switch t := t.(type) {
		case json.Delim:
			if t == '{' || t == '[' {
				depth++
			} else {
				depth--
			}
			if depth == 1 {
				return "", false, nil
			}
		case string:
			if depth == 1 {
				return t, true, nil
			}
		case json.Number:
			if depth == 1 {
				return t.String(), true, nil
			}
		default: // true, false, null
			if depth == 1 {
				return "", true, nil
			}
		}
	}
}

// validJSON escapes control characters inside strings and replaces invalid
// UTF-8: names that users have chosen hold both. It returns doc itself if there
// are none.
func validJSON(doc []byte) []byte {
	isControl := func(r rune) bool {
		return r < ' ' && r != '\n' && r != '\r' && r != '\t'
	}
	// White space between tokens is common, and rare inside strings.
	if utf8.Valid(doc) && bytes.IndexFunc(doc, isControl) < 0 && !hasBrokenString(doc) {
		return doc
	}
	var out bytes.Buffer
	inString, escaped := false, false
	for _, r := range string(doc) { // an invalid byte becomes U+FFFD
		switch {
		case inString && r < ' ':
			if escaped { // a lone backslash stands for itself
				out.WriteByte('\\')
				escaped = false
			}
			const digits = "0123456789abcdef"
			out.WriteString(`\u00`)
			out.WriteByte(digits[r>>4])
			out.WriteByte(digits[r&15])
			continue
		case escaped:
			escaped = false
		case inString && r == '\\':
			escaped = true
		case r == '"':
			inString = !inString
		}
		out.WriteRune(r)
	}
	return out.Bytes()
}

// hasBrokenString reports whether a string of the document goes over the end of
// a line, or has a tab.
func hasBrokenString(doc []byte) bool {
	inString, escaped := false, false
	for _, c := range doc {
		switch {
		case inString && c < ' ':
			return true
		case escaped:
			escaped = false
		case inString && c == '\\':
			escaped = true
		case c == '"':
			inString = !inString
		}
	}
	return false
}
