package wechat

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// documentReader collects the named children of the root, which must be <xml>.
// CDATA or not makes no difference. A named element that is there twice, or
// that has elements inside, gets a fault instead of a text.
//
// The names are case-sensitive: `AppId` and `appid` stand beside each other in
// one document and mean the component and the new mini program.
type documentReader struct {
	names []string
	// plain, if set, checks whether other parsers read the document in the same
	// way. Then credentials are found, too.
	plain *plainCheck

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

// read reads a whole document that [validXML] has returned. The error is
// [ErrMalformed].
func (r *documentReader) read(valid []byte) error {
	if len(valid) > PushLimit {
		return fmt.Errorf("%w: it is too long", ErrMalformed)
	}
	r.fields = make(map[string]field, len(r.names))
	d := xml.NewDecoder(bytes.NewReader(valid))
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
		if r.plain != nil {
			r.plain.token(token, valid[before:d.InputOffset()], before)
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
	if r.plain != nil && r.credential == 0 && isCredentialElement(name.Local) {
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
	name = name[strings.LastIndexByte(name, ':')+1:]
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
