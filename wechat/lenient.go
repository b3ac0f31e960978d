package wechat

import (
	"slices"
	"strings"
)

const (
	cdataStart = "<![CDATA["
	cdataEnd   = "]]>"
	xmlSpace   = " \t\r\n"
)

// tolerance is what a lenientScanner accepts.
type tolerance struct {
	// toLast makes elements below the root that are not known end at their last
	// end tag, as if they held a user's text.
	toLast bool
	// loose lets elements hold "<", and accepts any text between them.
	loose bool
}

// tolerances are tried one after the other.
var tolerances = []tolerance{{}, {toLast: true}, {loose: true}, {true, true}}

// lenientScanner reads what WeChat writes itself: a run of elements without a
// user's text. Unlike an XML parser it can start in the middle of a document.
//
// An element that starts with a CDATA section ends at its first end tag that
// ends a CDATA section, any other at its first end tag. Entities are never
// expanded, except those of XML itself.
type lenientScanner struct {
	s string // valid characters only

	tolerance
	// once says where the start tags of onceFields stand.
	once map[string]occurrences
	// banned are fields of the root that stand elsewhere in the document.
	banned map[string]bool
	// lastEnds are the offsets of the last "-->" and "?>", as far as they were
	// needed. Without them, each comment that does not end would cost the
	// reading of all that follows.
	lastEnds map[string]int
	// budget is how many bytes may still be scanned. A text can hold many end
	// tags, each of which has to be looked at.
	budget int
}

// occurrences are offsets of a tag in a document.
type occurrences struct{ first, last int }

// newLenientScanner returns a scanner for a document.
func newLenientScanner(s string, t tolerance) *lenientScanner {
	l := &lenientScanner{
		s: s, tolerance: t, budget: 32 * PushLimit,
		once: make(map[string]occurrences), banned: make(map[string]bool),
	}
	for _, name := range onceFields {
		start := "<" + name + ">"
		if first := strings.Index(s, start); first >= 0 {
			l.once[name] = occurrences{first, strings.LastIndex(s, start)}
		}
	}
	return l
}

// op is one step of a run of elements.
type op struct {
	kind  opKind
	name  string
	depth int    // of the element; 1 for those below the root
	value string // of a leaf
	cdata bool   // the leaf is a CDATA section
	odd   bool   // the leaf holds tags
}

type opKind byte

const (
	opOpen opKind = iota
	opClose
	opLeaf
)

// textStart is the start of a text field in a document.
type textStart struct {
	path  string
	at    int // offset of its content
	cdata bool
}

// run is a run of elements: up to a text field, or to the end of the document.
type run struct {
	at   int // offset of its first byte
	ops  []op
	text *textStart // nil at the end of the document
}

// scan reads elements from an offset on. open are the elements that are open
// there, without the root. It returns false if there is something else before
// a text field or the end of the document.
func (l *lenientScanner) scan(at int, open []string) (r run, ok bool) {
	r.at = at
	open = slices.Clone(open)
	defer func() { l.budget -= 64 }()
	pos := at
	for l.budget > 0 {
		next := strings.IndexByte(l.s[pos:], '<')
		if next < 0 || !l.loose && strings.Trim(l.s[pos:pos+next], xmlSpace) != "" {
			return r, false
		}
		l.budget -= next
		pos += next
		if after, isComment := l.skipComment(pos); isComment {
			l.budget -= after - pos
			pos = after
			continue
		}
		tag, isTag := l.tag(pos)
		switch {
		case !isTag && l.loose && !strings.HasPrefix(l.s[pos:], "<!"):
			pos++ // a lone "<" between elements
			continue
		case !isTag || len(r.ops) > maxElements:
			return r, false
		case tag.isEnd && len(open) == 0:
			rest := l.s[tag.after:]
			return r, tag.name == "xml" && l.isRest(rest)
		case tag.isEnd:
			if open[len(open)-1] != tag.name {
				return r, false
			}
			r.ops = append(r.ops, op{kind: opClose, name: tag.name, depth: len(open)})
			open = open[:len(open)-1]
			l.budget -= tag.after - pos
			pos = tag.after
			continue
		}
		after, ok := l.element(tag, &open, &r)
		if !ok || r.text != nil {
			return r, ok
		}
		l.budget -= after - pos
		pos = after
	}
	return r, false
}

// element reads an element from its start tag on: a whole leaf, the start tag
// of an element that holds others, or the start of a text field. It returns the
// offset after what it has read.
func (l *lenientScanner) element(tag lenientTag, open *[]string, r *run) (after int, ok bool) {
	depth := len(*open) + 1
	if depth >= maxDepth || depth == 1 && l.banned[tag.name] {
		return 0, false
	}
	leaf := op{kind: opLeaf, name: tag.name, depth: depth}
	if tag.isEmpty {
		r.ops = append(r.ops, leaf)
		return tag.after, true
	}
	content := strings.TrimLeft(l.s[tag.after:], xmlSpace)
	inner := len(l.s) - len(content)
	isCDATA := strings.HasPrefix(content, cdataStart)
	path := strings.Join(append(slices.Clone(*open), tag.name), "/")
	if _, isText := textFieldsByPath[path]; isText {
		r.text = &textStart{path: path, at: tag.after, cdata: isCDATA}
		return tag.after, true
	}
	isKnown := depth == 1 && slices.Contains(documentFields, tag.name)
	if next, isTag := l.tag(inner); isTag && !next.isEnd && !isKnown {
		r.ops = append(r.ops, op{kind: opOpen, name: tag.name, depth: depth})
		*open = append(*open, tag.name)
		return inner, true
	}
	end, found := l.leafEnd(tag, depth, isCDATA)
	if !found {
		return 0, false
	}
	raw := l.s[tag.after:end.at]
	leaf.value, leaf.cdata = contentOf(raw, isCDATA && end.endsCDATA)
	leaf.odd = !leaf.cdata && strings.Contains(raw, "<") && !isCDATA
	if leaf.odd && !l.loose {
		return 0, false
	}
	r.ops = append(r.ops, leaf)
	return end.after, true
}

// leafEnd returns the end tag of a leaf.
//
// A leaf below the root that is not known could be a new field that holds a
// user's text. If a field that WeChat writes once comes again after the leaf's
// first end tag, the text has closed the leaf, and it ends at its last end tag.
func (l *lenientScanner) leafEnd(
	tag lenientTag, depth int, isCDATA bool,
) (end endTag, found bool) {
	end, found = l.firstEnd(tag.after, tag.name, isCDATA)
	if !found && isCDATA {
		end, found = l.firstEnd(tag.after, tag.name, false)
	}
	if !found || !isCDATA || depth > 1 || slices.Contains(documentFields, tag.name) {
		return end, found
	}
	again := 0
	for _, name := range onceFields {
		if seen := l.once[name]; seen.first < end.at {
			again = max(again, seen.last)
		}
	}
	if again < end.at && !l.toLast {
		return end, true
	}
	l.budget -= len(l.s)
	last, from := end, end.after
	for l.budget > 0 {
		next, ok := l.firstEnd(from, tag.name, true)
		if !ok {
			break
		}
		last, from = next, next.after
	}
	if last.at > again {
		return last, true
	}
	return end, true
}

// endTag is an end tag in a document.
type endTag struct {
	name      string
	at, after int  // offsets of its first byte and of the byte after its last
	endsCDATA bool // a CDATA section ends right before it
}

// firstEnd returns the first end tag of a name from an offset on. If cdata is
// set, it must end a CDATA section.
func (l *lenientScanner) firstEnd(from int, name string, cdata bool) (endTag, bool) {
	for {
		i := strings.Index(l.s[from:], "</"+name)
		if i < 0 {
			l.budget -= len(l.s) - from
			return endTag{}, false
		}
		l.budget -= i
		e, ok := l.endAt(from + i)
		if ok && e.name == name && (e.endsCDATA || !cdata) {
			return e, true
		}
		from += i + 2
	}
}

// endAt returns the end tag at an offset.
func (l *lenientScanner) endAt(at int) (endTag, bool) {
	tag, ok := l.tag(at)
	if !ok || !tag.isEnd {
		return endTag{}, false
	}
	before := strings.TrimRight(l.s[:at], xmlSpace)
	return endTag{tag.name, at, tag.after, strings.HasSuffix(before, cdataEnd)}, true
}

// lenientTag is a start tag or an end tag. Attributes are passed over.
type lenientTag struct {
	name           string
	after          int
	isEnd, isEmpty bool
}

// tag reads the tag at an offset.
func (l *lenientScanner) tag(at int) (t lenientTag, ok bool) {
	rest := l.s[at:]
	if !strings.HasPrefix(rest, "<") {
		return t, false
	}
	rest = rest[1:]
	if t.isEnd = strings.HasPrefix(rest, "/"); t.isEnd {
		rest = rest[1:]
	}
	n := 0
	for n < len(rest) && isNameByte(rest[n], n == 0) {
		n++
	}
	t.name = rest[:n]
	rest = rest[n:]
	i := strings.IndexAny(rest, "<>")
	if n == 0 || i < 0 || rest[i] == '<' {
		return t, false
	}
	attributes := strings.Trim(rest[:i], xmlSpace)
	t.isEmpty = strings.HasSuffix(attributes, "/")
	if attributes = strings.TrimSuffix(attributes, "/"); attributes != "" {
		ok = !t.isEnd && strings.Contains(attributes, "=") && strings.Contains(xmlSpace, rest[:1])
	} else {
		ok = !t.isEnd || !t.isEmpty
	}
	t.after = len(l.s) - len(rest) + i + 1
	return t, ok
}

// isNameByte reports whether b can be part of a name, or its first byte.
func isNameByte(b byte, first bool) bool {
	switch {
	case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b == '_', b >= 0x80:
		return true
	}
	return !first && (b >= '0' && b <= '9' || b == '-' || b == '.' || b == ':')
}

// skipComment passes over a comment or a processing instruction.
func (l *lenientScanner) skipComment(at int) (after int, ok bool) {
	for start, end := range map[string]string{"<!--": "-->", "<?": "?>"} {
		if strings.HasPrefix(l.s[at:], start) {
			if at += len(start); l.lastEnd(end) < at {
				return at, false
			}
			return at + strings.Index(l.s[at:], end) + len(end), true
		}
	}
	return at, false
}

// lastEnd returns the offset of the last end of a comment or a processing
// instruction, and -1 if there is none.
func (l *lenientScanner) lastEnd(end string) int {
	at, known := l.lastEnds[end]
	if !known {
		if l.lastEnds == nil {
			l.lastEnds = make(map[string]int, 2)
		}
		at = strings.LastIndex(l.s, end)
		l.lastEnds[end] = at
	}
	return at
}

// isRest reports whether s can stand behind the root.
func (l *lenientScanner) isRest(s string) bool {
	for {
		s = strings.TrimLeft(s, xmlSpace)
		after, isComment := l.skipComment(len(l.s) - len(s))
		if !isComment {
			return s == ""
		}
		s = l.s[after:]
	}
}

// contentOf returns the text in an element. If cdata is set, it is one CDATA
// section, whatever it holds.
func contentOf(raw string, cdata bool) (text string, isCDATA bool) {
	if cdata {
		raw = strings.Trim(raw, xmlSpace)
		return strings.TrimSuffix(strings.TrimPrefix(raw, cdataStart), cdataEnd), true
	}
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(raw, cdataStart)
		b.WriteString(unescapeXML(before))
		if !found {
			return b.String(), false
		}
		literal, after, closed := strings.Cut(rest, cdataEnd)
		b.WriteString(literal)
		if !closed {
			return b.String(), false
		}
		raw = after
	}
}
