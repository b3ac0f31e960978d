package redact

import (
	"bytes"
	"strings"
)

// minValue is the length from which on a credential is searched for. A shorter
// text can occur by chance. WeChat's tokens have more than 100 characters, its
// secrets 32.
const minValue = 16

// swallowed is the number of characters at the beginning of a credential that
// need not be found. What is before it can look like an escape that takes up to
// five of them: "%" before a token that begins with "75", or "\u" before one
// that begins with four hexadecimal digits.
const swallowed = 6

// Values are credentials that are searched for as such. The zero value has
// none. Values are compared in their plain form: a credential that is
// percent-encoded is the same as one that is not.
type Values struct {
	all [4]string
	n   int
}

// Add adds a credential, four at most. Short ones are ignored.
func (v *Values) Add(credential string) {
	if len(credential) < minValue || v.n == len(v.all) {
		return
	}
	for i := range escapeStarts {
		if strings.IndexByte(credential, escapeStarts[i]) < 0 {
			continue
		}
		var t text
		t.reset([]byte(credential))
		credential = string(t.plain)
		break
	}
	for _, known := range v.all[:v.n] {
		if known == credential {
			return
		}
	}
	v.all[v.n] = credential
	v.n++
}

// Empty reports whether there are no credentials.
func (v *Values) Empty() bool { return v.n == 0 }

// In reports whether b contains one of the credentials. It does not allocate
// unless b has escapes.
func (v *Values) In(b []byte) bool {
	shortest := len(b) + 1
	for _, value := range v.all[:v.n] {
		shortest = min(shortest, len(value)-swallowed)
	}
	if len(b) < shortest {
		return false
	}
	s := scanners.Get().(*scanner)
	defer s.release()
	s.text.reset(b)
	for _, value := range v.all[:v.n] {
		var c cursor
		if from, _ := find(&s.text, &c, value, 0); from >= 0 {
			return true
		}
	}
	return false
}

// findAll calls found with the place of each occurrence in the document of t,
// the occurrences of one credential after those of another.
func (v *Values) findAll(t *text, found func(from, to int)) {
	for _, value := range v.all[:v.n] {
		var c cursor
		for at := 0; ; {
			first, end := find(t, &c, value, at)
			if first < 0 {
				break
			}
			from, _ := c.span(t, first)
			_, to := c.span(t, end-1)
			found(from, to)
			at = end
		}
	}
}

// find returns where value is in the plain form of t, from at on. first is
// negative if it is not there.
func find(t *text, c *cursor, value string, at int) (first, end int) {
	rest := unsafeBytes(value[swallowed:])
	for {
		n := bytes.Index(t.plain[at:], rest)
		if n < 0 {
			t.steps += len(t.plain) - at
			return -1, 0
		}
		t.steps += n + len(rest)
		at += n
		if first := begins(t, c, value, at); first >= 0 {
			return first, at + len(rest)
		}
		at++
	}
}

// begins returns where value begins whose part after the first characters is at
// i, and a negative number if that is all there is of it.
func begins(t *text, c *cursor, value string, i int) int {
	k := swallowed
	for i > 0 && k > 0 && t.plain[i-1] == value[k-1] {
		i--
		k--
	}
	if k == 0 {
		return i
	}
	if i == 0 {
		return -1
	}
	// Without its first byte, what looks like an escape is none.
	const most = 1 << 10
	from, to := c.span(t, i-1)
	switch {
	case to-from < 2:
		return -1
	case to-from > most:
		return i // such an escape has no other purpose
	}
	var before text
	before.reset(t.src[from+1 : to])
	if bytes.HasSuffix(before.plain, unsafeBytes(value[:k])) {
		return i
	}
	return -1
}
