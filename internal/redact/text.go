package redact

import (
	"bytes"
	"math"
)

// text is a document and its plain form: what is left when every escape is
// undone, any number of times. Escapes are those of JSON (\u003d, \", \/),
// percent-encoding and HTML or XML entities, mixed in any way. NUL bytes are
// left out, so that UTF-16 is plain text, too. Escapes of characters outside
// ASCII stay as they are: names and credentials have none.
//
// The zero value is an empty document. A text is used by one goroutine.
type text struct {
	src   []byte // the document
	plain []byte // its plain form; src itself if that has no escapes
	wides []wide // where the two differ, in order

	buf   []byte // memory for plain
	next  [len(escapeStarts)]int
	steps int // work done so far, in bytes looked at; for tests
}

// wide is a byte of the plain form that stands for more than one byte of the
// document.
type wide struct {
	at       int32 // index in the plain form
	from, to int32 // what it stands for
	level    uint8 // how many escapes that begin with a backslash were undone
}

// escapeStarts are the bytes at which the plain form can begin to differ from
// the document.
const escapeStarts = "\\%&\x00"

// maxEscape is the length of the longest escape that is undone, with leading
// zeros: &#0000000034;
const maxEscape = 16

// reset makes src the document.
func (t *text) reset(src []byte) {
	t.src, t.plain, t.wides, t.steps = src, src, t.wides[:0], 0
	t.next = [len(escapeStarts)]int{-1, -1, -1, -1}
	if first := t.nextEscape(0); first < len(src) {
		t.decode(first)
	}
}

// release drops the document, and buffers that are too large to keep.
func (t *text) release() {
	const keep = 256 << 10
	t.src, t.plain = nil, nil
	if cap(t.buf) > keep {
		t.buf = nil
	}
	if cap(t.wides) > keep/8 {
		t.wides = nil
	}
}

// nextEscape returns the index of the first of escapeStarts at i or later, and
// the length of the document if there is none. i never decreases, so each byte
// is looked at once for each of escapeStarts.
func (t *text) nextEscape(i int) int {
	first := len(t.src)
	for k := range t.next {
		if t.next[k] < i {
			if n := bytes.IndexByte(t.src[i:], escapeStarts[k]); n >= 0 {
				t.next[k] = i + n
			} else {
				t.next[k] = len(t.src)
			}
			t.steps += t.next[k] - i
		}
		first = min(first, t.next[k])
	}
	return first
}

// decode fills plain. The document has no escape before i.
//
// Bytes are appended to plain. Whenever an escape is complete at the end of
// plain, the byte that it stands for replaces it, and can complete another one.
// Each replacement makes plain shorter, so there are fewer of them than bytes.
func (t *text) decode(i int) {
	t.buf = append(t.buf[:0], t.src[:i]...)
	hot := 0 // an escape can end before this index of plain
	for i < len(t.src) {
		if len(t.buf) >= hot {
			j := t.nextEscape(i)
			t.buf = append(t.buf, t.src[i:j]...)
			if i = j; i == len(t.src) {
				break
			}
			// Most escapes are simple: nothing before them is waiting, and what they
			// stand for begins no other one.
			if n, ch := simpleEscape(t.src[i:]); n > 0 {
				level := uint8(0)
				if t.src[i] == '\\' {
					level = 1
				}
				t.wides = append(t.wides, wide{int32(len(t.buf)), int32(i), int32(i + n), level})
				t.buf = append(t.buf, ch)
				i += n
				t.steps += n
				continue
			}
		}
		ch := t.src[i]
		i++
		t.steps++
		if ch == 0 {
			t.widen(i)
			continue
		}
		t.buf = append(t.buf, ch)
		if !inEscape[ch] {
			hot = 0
			continue
		}
		hot = max(hot, len(t.buf)-1+escapeLength[ch])
		for canEnd[ch] || len(t.buf) > 1 && t.buf[len(t.buf)-2] == '\\' {
			var n int
			if n, ch = escape(t.buf); n == 0 || n == len(`\\`) && ch == '\\' && t.isOuter() {
				break
			}
			t.steps++
			t.collapse(n, ch, i)
			hot = max(hot, len(t.buf)-1+escapeLength[ch])
		}
	}
	t.plain = t.buf
}

// escapeLength holds the length of the longest escape that begins with a byte.
var escapeLength = [256]int{'%': len("%u0000"), '\\': len(`\u0000`), '&': maxEscape}

// simpleEscape returns the length of the escape at the beginning of b, and the
// byte that it stands for. The length is 0 without an escape, and with one that
// stands for the beginning of another.
func simpleEscape(b []byte) (n int, ch byte) {
	switch {
	case len(b) < 3:
		return 0, 0
	case b[0] == '\\' && b[1] == '\\':
		return 0, 0
	case b[0] == '\\':
		n = 2
		switch b[1] {
		case 'u':
			n = min(len(b), len(`\u0000`))
		case 'x':
			n = min(len(b), len(`\x00`))
		}
	case b[0] == '%':
		n = 3
	case b[0] == '&':
		n = 1 + bytes.IndexByte(b[:min(len(b), maxEscape)], ';')
	}
	if n == 0 {
		return 0, 0
	}
	m, ch := escape(b[:n])
	if m != n || escapeLength[ch] > 0 {
		return 0, 0
	}
	return n, ch
}

// inEscape holds the bytes that can be in an escape. At any other one, all that
// were begun end without a result.
var inEscape = func() (t [256]bool) {
	for i := range t {
		t[i] = i >= '0' && i <= '9' || i|0x20 >= 'a' && i|0x20 <= 'z' && i < 0x80
	}
	for _, ch := range "\\%&#;\"'/" {
		t[ch] = true
	}
	return t
}()

// canEnd holds the bytes at which an escape of more than two bytes can end.
var canEnd = func() (t [256]bool) {
	for i := range t {
		t[i] = hexValue[i] >= 0 || i == ';'
	}
	return t
}()

// isOuter reports whether the last byte of plain, a backslash after another
// one, begins an escape of its own. That is so if fewer escapes have led to it
// than to the one before. \u005c\u006e is \n, not \u006e.
func (t *text) isOuter() bool {
	n, k, level := len(t.wides), len(t.buf)-1, uint8(0)
	if n > 0 && int(t.wides[n-1].at) == k {
		n--
		level = t.wides[n].level
	}
	return n > 0 && int(t.wides[n-1].at) == k-1 && t.wides[n-1].level > level
}

// widen makes the last byte of plain stand for the document up to end.
func (t *text) widen(end int) {
	k := len(t.buf) - 1
	if n := len(t.wides); n > 0 && int(t.wides[n-1].at) == k {
		t.wides[n-1].to = int32(end)
		return
	}
	from := 0
	if k >= 0 {
		from = t.start(len(t.wides), k)
	}
	t.wides = append(t.wides, wide{int32(k), int32(from), int32(end), 0})
}

// collapse replaces the last n bytes of plain with ch. They stand for the
// document up to end.
func (t *text) collapse(n int, ch byte, end int) {
	k, last := len(t.buf)-n, len(t.wides)
	level := uint8(0)
	for last > 0 && int(t.wides[last-1].at) >= k {
		last--
		level = max(level, t.wides[last].level)
	}
	if t.buf[k] == '\\' && level < math.MaxUint8 {
		level++
	}
	from := t.start(last, k)
	if last < len(t.wides) && int(t.wides[last].at) == k {
		from = int(t.wides[last].from)
	}
	t.wides = append(t.wides[:last], wide{int32(k), int32(from), int32(end), level})
	t.buf = append(t.buf[:k], ch)
}

// start returns where byte k of plain begins in the document. n is the number
// of wides before k.
func (t *text) start(n, k int) int {
	if n == 0 {
		return k
	}
	w := t.wides[n-1]
	return int(w.to) + k - int(w.at) - 1
}

// cursor finds the places of plain bytes in the document. Its zero value is at
// the beginning. Finding one costs as many steps as there are wides between it
// and the one before.
type cursor int

// span returns which part of the document byte k of plain stands for.
func (c *cursor) span(t *text, k int) (from, to int) {
	n := int(*c)
	for n < len(t.wides) && int(t.wides[n].at) <= k {
		n++
		t.steps++
	}
	for n > 0 && int(t.wides[n-1].at) > k {
		n--
		t.steps++
	}
	*c = cursor(n)
	if n > 0 && int(t.wides[n-1].at) == k {
		return int(t.wides[n-1].from), int(t.wides[n-1].to)
	}
	from = t.start(n, k)
	return from, from + 1
}

// escape returns the length of the escape at the end of b and the byte that it
// stands for. Without one the length is 0.
func escape(b []byte) (n int, ch byte) {
	end := len(b)
	last := b[end-1]
	if last == ';' {
		return entity(b)
	}
	if hexValue[last] >= 0 {
		var v int
		switch {
		case end >= 3 && b[end-3] == '%':
			n, v = 3, hexNumber(b[end-2:])
		case end >= 4 && b[end-4] == '\\' && b[end-3] == 'x':
			n, v = 4, hexNumber(b[end-2:])
		case end >= 6 && b[end-5]|0x20 == 'u' && (b[end-6] == '\\' || b[end-6] == '%'):
			n, v = 6, hexNumber(b[end-4:])
		}
		if n > 0 && v > 0 && v < 0x80 {
			return n, byte(v)
		}
	}
	if end >= 2 && b[end-2] == '\\' {
		switch last {
		case '"', '\\', '/', '\'':
			return 2, last
		case 'n', 'r', 't', 'b', 'f':
			return 2, ' '
		}
	}
	return 0, 0
}

// entity is escape for entities, which end with a semicolon.
func entity(b []byte) (n int, ch byte) {
	at := bytes.LastIndexByte(b[max(0, len(b)-maxEscape):], '&')
	if at < 0 {
		return 0, 0
	}
	at += max(0, len(b)-maxEscape)
	n = len(b) - at
	name := b[at+1 : len(b)-1]
	if len(name) < 2 || name[0] != '#' {
		ch = entities[string(name)]
		if ch == 0 {
			n = 0
		}
		return n, ch
	}
	v := 0
	if name[1]|0x20 == 'x' && len(name) > 2 {
		v = hexNumber(name[2:])
	} else {
		for _, digit := range name[1:] {
			if digit < '0' || digit > '9' {
				return 0, 0
			}
			v = v*10 + int(digit-'0')
		}
	}
	if v <= 0 || v >= 0x80 {
		return 0, 0
	}
	return n, byte(v)
}

// entities are the names of characters that have a meaning in JSON, XML, or a
// query, and of those in names and credentials.
var entities = map[string]byte{
	"quot": '"', "QUOT": '"', "amp": '&', "AMP": '&', "apos": '\'', "lt": '<', "LT": '<',
	"gt": '>', "GT": '>', "equals": '=', "colon": ':', "lowbar": '_', "UnderBar": '_',
	"commat": '@', "comma": ',', "sol": '/', "bsol": '\\', "percnt": '%', "num": '#',
	"semi": ';', "plus": '+', "period": '.', "lbrace": '{', "lcub": '{', "rbrace": '}',
	"rcub": '}', "lbrack": '[', "lsqb": '[', "rbrack": ']', "rsqb": ']', "Tab": '\t',
	"NewLine": '\n',
}

// hexNumber returns the value of hexadecimal digits, and -1 if one is none.
func hexNumber(digits []byte) (v int) {
	for _, d := range digits {
		x := hexValue[d]
		if x < 0 {
			return -1
		}
		v = v<<4 | int(x)
	}
	return v
}

// hexValue holds the values of hexadecimal digits, -1 for all other bytes.
var hexValue = func() (t [256]int8) {
	for i := range t {
		switch {
		case i >= '0' && i <= '9':
			t[i] = int8(i - '0')
		case i >= 'a' && i <= 'f':
			t[i] = int8(i-'a') + 10
		case i >= 'A' && i <= 'F':
			t[i] = int8(i-'A') + 10
		default:
			t[i] = -1
		}
	}
	return t
}()
