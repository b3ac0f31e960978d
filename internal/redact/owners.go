package redact

import "bytes"

// owners finds out which account a token belongs to: the authorizer_appid in
// the same JSON object, before the token or else behind it. Names must have the
// same kind of quotes, so that no text inside a string counts. A document that
// is not JSON has no owners. A wrong result gives a caller the stand-in of
// another account, but never one that it has no permission for.
type owners struct {
	strings int // how many strings are open: JSON inside a string has two
	objects [maxObjects]object
	depth   int  // of open objects; objects[0] is outside of all
	lost    bool // there were more than maxObjects: no more owners
}

// maxObjects is the depth of nesting up to which the owner of a token is found.
// WeChat's responses have a depth of 4.
const maxObjects = 32

// object is an open JSON object.
type object struct {
	strings int    // the value of owners.strings when it was opened
	owner   []byte // its authorizer_appid; nil if that was not seen yet
	level   int    // of the quotes around that name
	pending int    // index+1 of the last edit whose owner may follow; see edit
}

func (o *owners) reset() {
	o.strings, o.depth, o.lost = 0, 0, false
	o.objects[0] = object{}
}

// notPlain is the least level of a quote that is written with anything else
// than backslashes, such as \u0022.
const notPlain = 64

// level returns the level of the quote at i: 0 for a quote, 1 for one inside a
// string (\"), 2 for one inside a string inside a string (\\\"). Quotes in
// other notations have levels by their length, from notPlain on.
func (s *scanner) level(i int) int {
	from, to := s.spans.span(&s.text, i)
	if to-from == 1 {
		return 0
	}
	s.text.steps += to - from
	n, last := 0, byte(0) // backslashes, and what follows them
	for _, ch := range s.text.src[from:to] {
		switch {
		case ch == 0:
		case ch == '\\' && last == 0:
			n++
		case last != 0:
			return notPlain + to - from
		default:
			last = ch
		}
	}
	if last != '"' && last != '\'' {
		return notPlain + to - from
	}
	level := 0
	for ; n%2 == 1; n /= 2 {
		level++
	}
	return level
}

// quote notes that a string begins or ends at i, and returns the level of the
// quote.
func (s *scanner) quote(i int) int {
	level := s.level(i)
	switch {
	case level == s.strings:
		s.strings++
	case level < s.strings:
		s.strings = level
		for s.depth > 0 && s.objects[s.depth].strings > level {
			s.depth--
		}
	}
	return level
}

// brace notes that an object begins or ends. A brace in a text inside a string
// does not end an object around the string.
func (s *scanner) brace(begins bool) {
	switch {
	case begins && s.depth+1 < maxObjects:
		s.depth++
		s.objects[s.depth] = object{strings: s.strings}
	case begins:
		s.lost = true
	case s.depth > 0 && s.objects[s.depth].strings == s.strings:
		s.depth--
	}
}

// setOwner reads the authorizer_appid at i, whose name has quotes of the given
// level.
func (s *scanner) setOwner(i, level int) {
	if level < 0 || s.depth == 0 || s.lost || s.plain[i] != '"' || s.level(i) != level {
		return
	}
	const maxAppID = 32
	appid := s.plain[i+1 : min(i+1+maxAppID, len(s.plain))]
	end := bytes.IndexByte(appid, '"')
	if end < 0 {
		return
	}
	o := &s.objects[s.depth]
	o.owner, o.level = appid[:end], level
	for p := o.pending; p > 0; {
		e := &s.edits[p-1]
		if s.text.steps++; e.level == level {
			e.text = s.o.StandIn(false, o.owner)
		}
		p = e.pending
	}
	o.pending = 0
}

// findOwner sets the stand-in for the token of e, now or when the owner is
// found.
func (s *scanner) findOwner(e *edit) {
	if e.level < 0 || s.depth == 0 || s.lost {
		return
	}
	switch o := &s.objects[s.depth]; {
	case o.owner == nil:
		e.pending, o.pending = o.pending, len(s.edits)+1
	case o.level == e.level:
		e.text = s.o.StandIn(false, o.owner)
	}
}
