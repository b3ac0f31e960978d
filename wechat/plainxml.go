package wechat

import (
	"bytes"
	"encoding/xml"
	"regexp"
	"slices"
	"strings"
)

// plainCheck finds out whether a document that encoding/xml reads is read in
// the same way by every other parser, and by [readLenient]. Other parsers
// reject some documents that encoding/xml accepts, and some callers of a DOM
// see only the first piece of a text that consists of several.
type plainCheck struct {
	doc  []byte // the whole document
	odd  bool
	path []string        // elements that are open
	seen map[string]bool // paths of text fields, and of fields that are there once
	// holds is what the open element holds so far.
	holds content
}

type content byte

const (
	holdsNothing content = iota
	holdsText
	holdsCDATA
	holdsElements
)

func newPlainCheck(doc []byte) *plainCheck {
	return &plainCheck{doc: doc, seen: make(map[string]bool)}
}

// plainDeclaration is a declaration that says nothing new.
var plainDeclaration = regexp.MustCompile(
	`^<\?xml version=["']1\.0["']( encoding=["'](?i:utf-8)["'])?\s*\?>$`)

// plainName is a name that every parser accepts, and none as part of a
// namespace.
var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// token checks a token, which is raw in the document and begins at an offset.
func (p *plainCheck) token(token xml.Token, raw []byte, at int) {
	switch t := token.(type) {
	case xml.StartElement:
		p.start(t, raw)
	case xml.EndElement:
		if p.isText() && !p.odd {
			p.odd = hasEndTag(p.doc[at+len(raw):], t.Name.Local)
		}
		p.path = p.path[:len(p.path)-1]
		p.holds = holdsElements
	case xml.CharData:
		p.text(t, raw)
	case xml.Comment:
		p.odd = p.odd || len(p.path) > 1
	case xml.ProcInst:
		p.odd = p.odd || at > 0 || !plainDeclaration.Match(raw)
	}
}

func (p *plainCheck) start(t xml.StartElement, raw []byte) {
	if p.isText() || t.Name.Space != "" || !plainName.MatchString(t.Name.Local) {
		p.odd = true
	}
	for i, a := range t.Attr {
		sameName := func(b xml.Attr) bool { return b.Name == a.Name }
		if a.Name.Space != "" || a.Name.Local == "xmlns" || !plainName.MatchString(a.Name.Local) ||
			slices.ContainsFunc(t.Attr[:i], sameName) || bytes.Contains(raw, []byte("&")) {
			p.odd = true
		}
	}
	p.path, p.holds = append(p.path, t.Name.Local), holdsNothing
	if p.isText() || len(p.path) == 2 && slices.Contains(onceFields, t.Name.Local) {
		key := strings.Join(p.path, "/")
		p.odd = p.odd || p.seen[key]
		p.seen[key] = true
	}
}

func (p *plainCheck) text(text xml.CharData, raw []byte) {
	switch {
	case bytes.HasPrefix(raw, []byte("<!")):
		p.odd = p.odd || p.holds == holdsText || p.holds == holdsCDATA || len(p.path) == 0
		p.holds = holdsCDATA
	case len(bytes.Trim(raw, xmlSpace)) > 0:
		p.odd = p.odd || p.holds == holdsCDATA || len(p.path) == 0
		p.holds = holdsText
	}
	// encoding/xml makes U+FFFD of references to characters that do not exist.
	if bytes.Contains(raw, []byte("&#")) && bytes.ContainsRune(text, '\uFFFD') {
		p.odd = true
	}
}

// hasEndTag reports whether there is an end tag of a name in rest, wherever it
// stands. Behind a text field, it can be the true end of that field: if a text
// has closed its field, WeChat's end tag is left over, and a text can hide it
// in a comment, or in an element that another text closes.
func hasEndTag(rest []byte, name string) bool {
	tag := []byte("</" + name)
	for {
		i := bytes.Index(rest, tag)
		if i < 0 {
			return false
		}
		rest = rest[i+len(tag):]
		if len(rest) == 0 || !isNameByte(rest[0], false) {
			return true
		}
	}
}

// isText reports whether the open element is a text field.
func (p *plainCheck) isText() bool {
	if len(p.path) < 2 {
		return false
	}
	_, ok := textFieldsByPath[strings.Join(p.path[1:], "/")]
	return ok
}
