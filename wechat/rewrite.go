package wechat

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// readLenient reads a document that is no well-formed XML, or in which a text
// could pretend to be a field. The error is [ErrMalformed].
func readLenient(valid []byte) (*Document, error) {
	s := string(valid)
	l := lenientScanner{s: s}
	start := strings.TrimPrefix(s, "\uFEFF")
	for {
		start = strings.TrimLeft(start, xmlSpace)
		after, isComment := l.skipComment(len(s) - len(start))
		if !isComment {
			break
		}
		start = s[after:]
	}
	root, ok := l.tag(len(s) - len(start))
	switch {
	case !ok || root.isEnd || root.isEmpty || root.name != "xml":
		return nil, fmt.Errorf("%w: its root is not a single <xml>", ErrMalformed)
	case strings.Contains(start[:root.after-(len(s)-len(start))], "xmlns"):
		return nil, fmt.Errorf("%w: its root is in a namespace", ErrMalformed)
	}
	for _, t := range tolerances {
		if front, _ := newLenientScanner(s, t).scan(root.after, nil); len(front.ops) > maxElements {
			return nil, fmt.Errorf("%w: too many elements", ErrMalformed)
		}
		if r, ok := findReading(s, root.after, t); ok {
			return r.document(s), nil
		}
	}
	return nil, fmt.Errorf("%w: its elements do not fit together", ErrMalformed)
}

// document returns the fields of a reading, and the reading as XML.
func (r reading) document(s string) *Document {
	d := &Document{fields: make(map[string]field)}
	w := rewriter{fields: d.fields}
	w.b.WriteString("<xml>")
	for _, p := range r.pieces {
		w.run(p)
		d.elements += len(p.ops)
		if p.text == nil {
			break
		}
		content := s[p.text.at:p.end.at]
		value, isCDATA := contentOf(content, p.text.cdata && p.end.endsCDATA)
		d.elements++
		name := p.text.path[strings.LastIndexByte(p.text.path, '/')+1:]
		depth := 1 + strings.Count(p.text.path, "/")
		w.leaf(op{kind: opLeaf, name: name, depth: depth, value: value, cdata: isCDATA}, p.withheld)
	}
	w.b.WriteString("</xml>")
	d.wellFormed, d.credentials = []byte(w.b.String()), w.credentials
	return d
}

// rewriter writes elements as XML that every parser reads.
type rewriter struct {
	b           strings.Builder
	fields      map[string]field
	credentials []span
	masked      int // depth of the credential element that is open; 0: none
	maskedFrom  int
}

// run writes a run. If it is unsure, only those elements stay that hold a text.
func (w *rewriter) run(p piece) {
	for i, o := range p.ops {
		switch {
		case o.kind == opLeaf:
			w.leaf(o, p.unsure)
		case p.unsure && isPaired(p.ops, i):
		case o.kind == opOpen:
			w.b.WriteString("<" + safeName(o.name) + ">")
			if w.masked == 0 && isCredentialElement(o.name) {
				w.masked, w.maskedFrom = o.depth, w.b.Len()
			}
		default:
			if w.masked == o.depth {
				w.credentials = append(w.credentials, span{w.maskedFrom, w.b.Len()})
				w.masked = 0
			}
			w.b.WriteString("</" + safeName(o.name) + ">")
		}
	}
}

// isPaired reports whether the element that ops[i] opens or closes is opened
// and closed within ops.
func isPaired(ops []op, i int) bool {
	isPair := func(o op) bool { return o.kind != opLeaf && o.depth == ops[i].depth }
	if ops[i].kind == opOpen {
		j := slices.IndexFunc(ops[i+1:], isPair)
		return j >= 0 && ops[i+1+j].kind == opClose
	}
	for j := i - 1; j >= 0; j-- {
		if isPair(ops[j]) {
			return ops[j].kind == opOpen
		}
	}
	return false
}

// leaf notes what a leaf says, and writes it unless it is withheld.
func (w *rewriter) leaf(o op, withheld bool) {
	if o.depth == 1 && slices.Contains(documentFields, o.name) {
		f := field{text: strings.TrimSpace(o.value)}
		_, twice := w.fields[o.name]
		switch {
		case withheld:
			f.fault = fmt.Errorf("%w: its %s can be part of a text", ErrMalformed, o.name)
		case o.odd:
			f.fault = fmt.Errorf("%w: there are elements inside its %s", ErrMalformed, o.name)
		case twice:
			f.fault = fmt.Errorf("%w: it has %s twice", ErrMalformed, o.name)
		}
		w.fields[o.name] = f
	}
	if withheld {
		return
	}
	name := safeName(o.name)
	w.b.WriteString("<" + name + ">")
	start := w.b.Len()
	w.value(o)
	if w.masked == 0 && isCredentialElement(o.name) && w.b.Len() > start {
		w.credentials = append(w.credentials, span{start, w.b.Len()})
	}
	w.b.WriteString("</" + name + ">")
}

// quotedCredential matches an element that holds a code or a ticket in a text.
var quotedCredential = regexp.MustCompile(
	`(?is)<(?:authorization_?code|pre_?auth_?code|auth_?code|component_?verify_?ticket)` +
		`[\s/>].*?(?:</|$)`)

// value writes the text of a leaf.
func (w *rewriter) value(o op) {
	if w.masked == 0 && strings.Contains(o.value, "<") {
		// A text can have swallowed a credential, which must be masked all the
		// same. A second CDATA section would hide the rest from some parsers.
		from := 0
		for _, m := range quotedCredential.FindAllStringIndex(o.value, -1) {
			w.text(o.value[from:m[0]], false)
			start := w.b.Len()
			w.text(o.value[m[0]:m[1]], false)
			w.credentials = append(w.credentials, span{start, w.b.Len()})
			from = m[1]
		}
		if from > 0 {
			w.text(o.value[from:], false)
			return
		}
	}
	w.text(o.value, o.cdata)
}

var escapeXML = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// text writes text, as a CDATA section if cdata is set and one can hold it.
func (w *rewriter) text(text string, cdata bool) {
	if text != "" && cdata && !strings.Contains(text, cdataEnd) {
		w.b.WriteString(cdataStart + text + cdataEnd)
		return
	}
	_, _ = escapeXML.WriteString(&w.b, text) // writing to a Builder never fails
}

// safeName returns a name that every parser accepts: some reject prefixes that
// are not declared, and some letters.
func safeName(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf || r == ':' {
			return '_'
		}
		return r
	}, name)
}

// unescapeXML replaces the entities that XML itself has, and references to
// characters that it allows. Everything else stays as it is.
func unescapeXML(s string) string {
	if !strings.Contains(s, "&") {
		return s
	}
	return xmlReference.ReplaceAllStringFunc(s, func(ref string) string {
		if text, ok := xmlEntities[ref]; ok {
			return text
		}
		digits, base := ref[2:len(ref)-1], 10
		if digits[0] == 'x' {
			digits, base = digits[1:], 16
		}
		n, err := strconv.ParseUint(digits, base, 32)
		if err != nil || n > utf8.MaxRune || n < ' ' && !strings.ContainsRune(xmlSpace, rune(n)) ||
			!utf8.ValidRune(rune(n)) || n == 0xFFFE || n == 0xFFFF {
			return ref
		}
		return string(rune(n))
	})
}

var (
	xmlReference = regexp.MustCompile(`&(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9a-fA-F]{1,6});`)
	xmlEntities  = map[string]string{
		"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": `"`, "&apos;": "'",
	}
)
