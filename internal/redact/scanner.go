package redact

import "bytes"

// scanner finds credentials by name. It walks over the plain form of a document
// once: after a name it looks ahead over separators and then continues behind
// them, or behind the value.
//
// It does not parse JSON or XML, because what it reads can be a part of either,
// inside a string, or broken. It recognizes a name, a separator (":", "=", or
// the ">" of a tag), and a value.
type scanner struct {
	text  text
	o     *Options
	plain []byte // of text
	spans cursor
	edits []edit

	owners
}

func (s *scanner) reset(b []byte, o *Options) {
	s.text.reset(b)
	s.o, s.plain, s.spans, s.edits = o, s.text.plain, 0, s.edits[:0]
	s.owners.reset()
}

// release puts s back into the pool.
func (s *scanner) release() {
	s.text.release()
	if s.o != nil && s.o.Names {
		clear(s.objects[:])
	}
	clear(s.edits)
	s.edits = s.edits[:0]
	if cap(s.edits) > 4096 {
		s.edits = nil
	}
	s.o, s.plain = nil, nil
	scanners.Put(s)
}

// Kinds of bytes in the plain form.
const (
	isOther   uint8 = iota
	isWord          // part of a name
	isQuote         // "
	isBrace         // { or }
	isInValue       // can be a part of a value without quotes, as words can
)

var kinds = func() (t [256]uint8) {
	for i := '!'; i <= '~'; i++ {
		t[i] = isInValue
	}
	for _, ch := range "&,;'`[]<>()|\\" {
		t[ch] = isOther
	}
	for ch := range t {
		switch {
		case ch >= '0' && ch <= '9', ch >= 'a' && ch <= 'z', ch >= 'A' && ch <= 'Z',
			ch == '_', ch == '-':
			t[ch] = isWord
		}
	}
	t['"'], t['{'], t['}'] = isQuote, isBrace, isBrace
	return t
}()

// findNames adds an edit for each value behind the name of a credential.
func (s *scanner) findNames() {
	for i := 0; i < len(s.plain); {
		s.text.steps++
		switch kinds[s.plain[i]] {
		case isWord:
			start := i
			for i < len(s.plain) && kinds[s.plain[i]] == isWord {
				i++
			}
			s.text.steps += i - start
			if c := classOf(s.plain[start:i]); c != notCredential {
				i = s.name(c, start, i)
			}
		case isQuote:
			s.quote(i)
			i++
		case isBrace:
			s.brace(s.plain[i] == '{')
			i++
		default:
			i++
		}
	}
}

// name handles a name of class c and returns where to continue.
func (s *scanner) name(c class, start, end int) int {
	isUsers := s.o.UserTokens && usersName(c, s.plain[start:end])
	if s.isTag(start, end) {
		return s.tag(end, isUsers || c == owner)
	}
	i, level, separated := s.separator(end)
	s.text.steps += i - end
	switch {
	case !separated || i == len(s.plain) || isUsers:
		return i
	case c == owner:
		s.setOwner(i, level)
		return i
	}
	return s.value(c, i, level)
}

// separator looks for the separator behind a name that ends at i. It returns
// where the value begins, and the level of the quote behind the name, -1 if
// that has none.
func (s *scanner) separator(i int) (value, level int, found bool) {
	level = -1
	if i < len(s.plain) && s.plain[i] == '[' {
		// refresh_token[0]= is how a form writes a list.
		const maxIndex = 8
		i += 1 + bytes.IndexByte(s.plain[i:min(len(s.plain), i+maxIndex)], ']')
	}
	for ; i < len(s.plain); i++ {
		if ch := s.plain[i]; ch == '"' {
			level = s.quote(i)
		} else if !isSpace(ch) && ch != '\\' && ch != '\'' && ch != '`' && ch != ']' {
			break
		}
	}
	for i < len(s.plain) {
		n := separatorAt(s.plain[i:])
		switch {
		case n > 0:
			found = true
			i += n
		case found && (isSpace(s.plain[i]) || s.plain[i] == '\\' || s.plain[i] == '>'): // =>
			i++
		default:
			return i, level, found
		}
	}
	return i, level, found
}

// separatorAt returns the length of the separator at the beginning of b, and 0
// if there is none. The full-width ones occur in Chinese texts.
func separatorAt(b []byte) int {
	switch {
	case b[0] == ':' || b[0] == '=':
		return 1
	case b[0] == 0xef && (bytes.HasPrefix(b, []byte("：")) || bytes.HasPrefix(b, []byte("＝"))):
		return len("：")
	}
	return 0
}

func isSpace(ch byte) bool { return ch == ' ' || ch >= '\t' && ch <= '\r' }
