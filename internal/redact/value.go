package redact

import (
	"bytes"
	"slices"
)

// value masks the value at i, which belongs to a name of class c, and returns
// where it ends. level is that of the quote behind the name.
func (s *scanner) value(c class, i, level int) int {
	switch s.plain[i] {
	case '"', '\'':
		if level < 0 && s.closesString(i) {
			return i // as in {"url":"…?access_token="}
		}
		end, next := s.quotedEnd(i)
		s.mask(c, i+1, end, level)
		return next
	case '[', '{', '(':
		return s.container(i, level)
	case '<':
		return s.elements(i)
	}
	return s.bare(c, i, level)
}

// quotedEnd returns where the quoted value ends whose opening quote is at i,
// and where to continue. Quotes with more backslashes than the opening one are
// part of the value. One with fewer ends the string around it as well.
func (s *scanner) quotedEnd(i int) (end, next int) {
	level := s.level(i)
	if s.plain[i] == '\'' {
		// It is no quote of JSON. The end of the string around it ends it.
		level = max(level, s.strings-1)
	}
	for end = i + 1; end < len(s.plain); end++ {
		switch ch := s.plain[end]; {
		case ch == '\'' && s.plain[i] == ch:
			s.text.steps += end - i
			return end, end + 1
		case ch != '"':
		case s.level(end) == level:
			s.text.steps += end - i
			return end, end + 1
		case s.level(end) < level:
			s.text.steps += end - i
			return end, end
		}
	}
	s.text.steps += end - i
	return end, end
}

// bare masks a value without quotes.
func (s *scanner) bare(c class, i, level int) (end int) {
	end = s.bareEnd(i)
	if end == i || level < 0 {
		s.mask(c, i, end, level)
		return end
	}
	// The name has quotes, so this is JSON. Literals and single digits are no
	// credentials. Anything else is replaced by a string, to remain JSON.
	switch value := string(s.plain[i:end]); value {
	case "null", "true", "false":
		return end
	}
	if end == i+1 {
		return end
	}
	if c == authorizerToken || c == componentToken {
		c = otherToken
	}
	s.mask(c, i, end, level)
	const maxLevel = 4 // as many backslashes before a quote as 2^4-1
	if level > maxLevel {
		return end
	}
	quote := append(bytes.Repeat([]byte{'\\'}, 1<<level-1), '"')
	s.edits[len(s.edits)-1].text = slices.Concat(quote, []byte(mask), quote)
	return end
}

// bareEnd returns where the value at i ends, which has no quotes.
func (s *scanner) bareEnd(i int) int {
	start := i
	for i < len(s.plain) && (kinds[s.plain[i]] == isWord || kinds[s.plain[i]] == isInValue) {
		i++
	}
	s.text.steps += i - start
	return i
}

// container masks everything in the list or object at i, names included, and
// returns where it ends. level is that of the quotes around its name.
func (s *scanner) container(i, level int) int {
	outside := level // quotes of a lower level end the string that this is in
	if level < 0 {
		outside = s.strings
	}
	for depth := 0; i < len(s.plain); {
		s.text.steps++
		switch ch := s.plain[i]; {
		case ch == '"' && s.level(i) < outside:
			return i
		case ch == '"', ch == '\'':
			end, next := s.quotedEnd(i)
			s.mask(otherSecret, i+1, end, level)
			i = next
			continue
		case ch == '[', ch == '{', ch == '(':
			depth++
		case ch == ']', ch == '}', ch == ')':
			if depth--; depth == 0 {
				return i + 1
			}
		case ch != ':' && ch != '=' && (kinds[ch] == isWord || kinds[ch] == isInValue):
			i = s.bare(otherSecret, i, level)
			continue
		}
		i++
	}
	return len(s.plain)
}

// isTag reports whether the name from start to end is that of an XML element,
// at its beginning. It can have a namespace.
func (s *scanner) isTag(start, end int) bool {
	const maxNamespace = 32
	if end < len(s.plain) && !isSpace(s.plain[end]) && s.plain[end] != '>' && s.plain[end] != '/' {
		return false
	}
	for i := start; i > max(0, start-maxNamespace); i-- {
		switch ch := s.plain[i-1]; {
		case ch == '<':
			return true
		case ch != ':' && kinds[ch] != isWord:
			return false
		}
	}
	return false
}

// tag handles an XML element whose name ends at i, and returns where to
// continue. With pass its contents stay.
func (s *scanner) tag(i int, pass bool) int {
	start := i
	for i < len(s.plain) && s.plain[i] != '<' && s.plain[i] != '>' {
		switch ch := s.plain[i]; {
		case ch != '"' && ch != '\'':
			i++
		case s.endsString(i):
			return i // it was no tag
		default:
			end, next := s.quotedEnd(i)
			if !pass {
				s.mask(otherSecret, i+1, end, -1)
			}
			i = next
		}
	}
	s.text.steps += i - start
	if i == len(s.plain) || s.plain[i] == '<' || s.plain[i-1] == '/' || pass {
		return i
	}
	return s.elements(i + 1)
}

// endsString reports whether the quote at i ends a string that began before the
// text that is looked at.
func (s *scanner) endsString(i int) bool {
	return s.plain[i] == '"' && s.level(i) < s.strings
}

// closesString reports whether the quote at i ends the JSON string that it is
// in: what follows it is no value.
func (s *scanner) closesString(i int) bool {
	if !s.endsString(i) {
		return false
	}
	for i++; i < len(s.plain) && isSpace(s.plain[i]); i++ {
		s.text.steps++
	}
	return i == len(s.plain) || bytes.IndexByte([]byte(`,}]`), s.plain[i]) >= 0
}

// elements masks the text at i, which is inside an XML element, up to the end
// of that element, and returns where that is.
func (s *scanner) elements(i int) int {
	for depth := 0; i < len(s.plain); {
		s.text.steps++
		rest := s.plain[i:]
		switch {
		case rest[0] == '"' && s.endsString(i):
			return i
		case isSpace(rest[0]):
			i++
		case rest[0] != '<':
			end := i + 1
			for end < len(s.plain) && s.plain[end] != '<' && !s.endsString(end) {
				end++
			}
			s.text.steps += end - i
			s.mask(otherSecret, i, end, -1)
			i = end
		case bytes.HasPrefix(rest, cdata):
			i += len(cdata)
			end := len(s.plain)
			if n := bytes.Index(s.plain[i:], cdataEnd); n >= 0 {
				end = i + n
			}
			s.text.steps += end - i
			s.mask(otherSecret, i, end, -1)
			i = min(end+len(cdataEnd), len(s.plain))
		default:
			end := i + 1
			for end < len(s.plain) && s.plain[end] != '>' && !s.endsString(end) {
				end++
			}
			s.text.steps += end - i
			switch {
			case len(rest) > 1 && rest[1] == '/':
				depth--
			case end == len(s.plain), s.plain[end-1] == '/', rest[1] == '!', rest[1] == '?':
			default:
				depth++
			}
			if depth < 0 || end < len(s.plain) && s.plain[end] != '>' {
				return end
			}
			i = min(end+1, len(s.plain))
		}
	}
	return i
}

var (
	cdata    = []byte("<![CDATA[")
	cdataEnd = []byte("]]>")
)

// mask adds an edit for plain[from:to].
func (s *scanner) mask(c class, from, to, level int) {
	if from >= to {
		return
	}
	if c == code && s.o.Code != nil {
		s.o.Code(s.plain[from:to])
	}
	e := edit{level: level}
	e.from, _ = s.spans.span(&s.text, from)
	_, e.to = s.spans.span(&s.text, to-1)
	if s.o.StandIn != nil {
		switch c {
		case componentToken:
			e.text = s.o.StandIn(true, nil)
		case authorizerToken:
			s.findOwner(&e)
		}
	}
	s.edits = append(s.edits, e)
}

// Words before "@@@" in WeChat's credentials. preauthcode is none: callers need
// it.
var forms = []string{"efreshtoken", "queryauthcode", "ticket"}

// findForms adds an edit for each credential in WeChat's form: a word, "@@@",
// and more.
func (s *scanner) findForms() {
	const sign, maxWord = "@@@", 32
	for at := 0; ; {
		n := bytes.Index(s.plain[at:], []byte(sign))
		if n < 0 {
			s.text.steps += len(s.plain) - at
			return
		}
		s.text.steps += n + len(sign)
		i := at + n
		start := i
		for start > max(at, i-maxWord) && kinds[s.plain[start-1]] == isWord {
			start--
		}
		at = i + len(sign)
		word := s.plain[start:i]
		if slices.ContainsFunc(forms, func(f string) bool { return endsWith(word, f, false) }) {
			if end := s.bareEnd(at); end > at {
				s.mask(otherSecret, start, end, -1)
				at = end
			}
		}
	}
}
