// Package redact finds credentials in text and masks them: tokens, refresh
// tokens, authorization codes, tickets and app secrets. Bytes go in and bytes
// come out; it knows nothing of HTTP or of accounts.
//
// There are three searches, which can be combined:
//
//   - by name: the values behind "refresh_token" and its like, in JSON at any
//     depth, JSON inside strings, queries, forms and XML;
//   - by form: WeChat's refresh tokens, codes and tickets begin with a word and
//     "@@@" (refreshtoken@@@…), whatever their name is;
//   - by value: credentials that the caller of this package knows.
//
// All of them see the text after its escapes are undone, any number of times
// and in any mixture: those of JSON (\u003d), percent-encoding and entities.
// Everything but what is masked stays as it is, byte for byte. The time is
// proportional to the length of the text, whatever it contains.
//
// Not found are credentials in base64, in compressed or encrypted parts, and
// those that have another name and form and are not known.
package redact

import (
	"bytes"
	"slices"
	"sync"
)

// mask takes the place of a credential.
const mask = "***"

// Options says what [Mask] looks for. The zero value looks for nothing.
type Options struct {
	// Values are known credentials.
	Values Values
	// Names turns the searches by name and by form on.
	Names bool
	// UserTokens lets access_token and refresh_token pass: in this text they
	// are an end user's. Names with another beginning are masked all the same.
	UserTokens bool
	// StandIn returns what takes the place of the component's access token, or
	// of the access token of the account appid. Tokens for which it returns nil
	// are masked. nil: all are.
	StandIn func(component bool, appid []byte) []byte
	// Code is called with each authorization code that is found by its name.
	// It must not keep the slice. nil: ignored.
	Code func(code []byte)
}

// edit replaces a part of the document.
type edit struct {
	from, to int    // in the document
	text     []byte // nil: mask
	pending  int    // index+1 of the next edit that waits for the same owner; see frame
	level    int    // of the quotes around the name
}

var scanners = sync.Pool{New: func() any { return new(scanner) }}

// Mask returns b with the credentials masked, and their number. Without any the
// result is b itself. The length changes.
func Mask(b []byte, o *Options) (masked []byte, n int) {
	s := scanners.Get().(*scanner)
	defer s.release()
	s.search(b, o)
	if len(s.edits) == 0 {
		return b, 0
	}
	masked = make([]byte, 0, len(b)+64)
	from := 0
	for _, e := range s.edits {
		masked = append(masked, b[from:e.from]...)
		masked = e.append(masked, b)
		from = e.to
	}
	return append(masked, b[from:]...), len(s.edits)
}

// Contains reports whether [Mask] would change b.
func Contains(b []byte, o *Options) bool {
	s := scanners.Get().(*scanner)
	defer s.release()
	s.search(b, o)
	return len(s.edits) > 0
}

// append appends what replaces a part of doc.
func (e *edit) append(b, doc []byte) []byte {
	if e.text != nil {
		return append(b, e.text...)
	}
	old := doc[e.from:e.to]
	if bytes.IndexByte(old, 0) < 0 {
		return append(b, mask...)
	}
	// UTF-16: the zero bytes have to stay where they are.
	start := len(b)
	b = append(b, old...)
	star(b[start:])
	return b
}

// star overwrites b with asterisks, except for zero bytes.
func star(b []byte) {
	for i := range b {
		if b[i] != 0 {
			b[i] = '*'
		}
	}
}

// search fills s.edits: in order, without overlaps.
func (s *scanner) search(b []byte, o *Options) {
	s.reset(b, o)
	if o.Names {
		s.findNames()
		s.findForms()
	}
	o.Values.findAll(&s.text, func(from, to int) {
		s.edits = append(s.edits, edit{from: from, to: to})
	})
	s.edits = merge(s.edits)
}

// merge sorts edits and joins those that overlap.
func merge(edits []edit) []edit {
	if len(edits) < 2 {
		return edits
	}
	byPlace := func(a, b edit) int { return a.from - b.from }
	if !slices.IsSortedFunc(edits, byPlace) {
		slices.SortStableFunc(edits, byPlace)
	}
	kept := edits[:1]
	for _, e := range edits[1:] {
		last := &kept[len(kept)-1]
		switch {
		case e.from >= last.to:
			kept = append(kept, e)
		case e.to > last.to:
			last.to, last.text = e.to, nil
		}
	}
	return kept
}
