package wechat

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// ErrSealedReply reports a passive reply that is encrypted already: its root
// has an Encrypt. A reply must not be encrypted twice.
var ErrSealedReply = errors.New("reply is encrypted already")

// maxAttributes is the maximum number of attributes of an element of a passive
// reply. Real ones have none.
const maxAttributes = 16

// ParseReply reports whether doc can be a passive reply before its encryption:
// well-formed XML without a document type, whose root is <xml>. Unlike pushes,
// replies are checked strictly, because they are passed on to WeChat as they
// are. The error is [ErrMalformed] or [ErrSealedReply].
func ParseReply(doc []byte) error {
	d := xml.NewDecoder(bytes.NewReader(doc))
	// An encoding may be declared, but what counts is that the text is UTF-8.
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	var r replyReader
	for {
		before := d.InputOffset()
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: it is no XML", ErrMalformed) // err quotes names
		}
		if err := r.token(token, before); err != nil {
			return err
		}
	}
	switch {
	case !r.closed:
		return fmt.Errorf("%w: it ends too early", ErrMalformed)
	case r.sealed:
		return ErrSealedReply
	}
	return nil
}

// replyReader is the state of ParseReply.
type replyReader struct {
	depth, elements int
	closed          bool // the root has been closed
	sealed          bool // the root has an Encrypt
}

// token handles a token that begins at the offset before. The error is
// [ErrMalformed].
func (r *replyReader) token(token xml.Token, before int64) error {
	switch t := token.(type) {
	case xml.StartElement:
		return r.start(t)
	case xml.EndElement:
		r.depth--
		r.closed = r.depth == 0
	case xml.CharData:
		if r.depth == 0 && len(bytes.TrimSpace(t)) > 0 {
			return fmt.Errorf("%w: there is text outside its root", ErrMalformed)
		}
	case xml.ProcInst:
		if before > 0 && strings.EqualFold(t.Target, "xml") {
			return fmt.Errorf("%w: its XML declaration is not at its start", ErrMalformed)
		}
	case xml.Directive:
		return fmt.Errorf("%w: it has a document type", ErrMalformed)
	}
	return nil
}

// start handles a start tag. The error is [ErrMalformed].
func (r *replyReader) start(t xml.StartElement) error {
	r.depth++
	r.elements++
	switch {
	case r.closed || r.depth == 1 && t.Name.Local != "xml":
		return fmt.Errorf("%w: its root is not a single <xml>", ErrMalformed)
	case r.depth > maxDepth || r.elements > maxElements || len(t.Attr) > maxAttributes:
		return fmt.Errorf("%w: too many elements", ErrMalformed)
	case r.depth == 2 && strings.EqualFold(t.Name.Local, "Encrypt"):
		r.sealed = true
	}
	for i, a := range t.Attr {
		if slices.ContainsFunc(t.Attr[:i], func(b xml.Attr) bool { return a.Name == b.Name }) {
			return fmt.Errorf("%w: it has an attribute twice", ErrMalformed)
		}
	}
	return nil
}
