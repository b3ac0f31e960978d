package wechat

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Sanitize returns s as text that is safe to log, to quote in an error, or to
// print to a terminal: one line of valid UTF-8 with at most limit characters,
// followed by "…" if s was longer. White space that would break the line
// becomes a space. Other control characters, characters that change the
// direction of the text, and invalid bytes become "?".
//
// Sanitize hides no secrets: mask them first. It reads at most
// limit*[utf8.UTFMax] bytes, however long s is. Short printable ASCII, the
// common case, costs no more than the conversion to a string.
func Sanitize[T ~string | ~[]byte](s T, limit int) string {
	if len(s) <= limit && isPrintableASCII(s) {
		return string(s)
	}
	limit = max(limit, 0)
	head := string(s[:min(len(s), limit*utf8.UTFMax)])
	var b strings.Builder
	used, chars := 0, 0
	for used < len(head) && chars < limit {
		r, n := utf8.DecodeRuneInString(head[used:])
		b.WriteRune(printableRune(r, n))
		used += n
		chars++
	}
	if used < len(s) {
		b.WriteRune('…')
	}
	return b.String()
}

// isPrintableASCII reports whether s consists of printable ASCII characters.
func isPrintableASCII[T ~string | ~[]byte](s T) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// printableRune returns what stands for r in sanitized text. size is the number
// of bytes that r was decoded from.
func printableRune(r rune, size int) rune {
	const zeroWidthNonJoiner, zeroWidthJoiner = '\u200c', '\u200d'
	switch {
	case r == utf8.RuneError && size <= 1:
		return '?'
	case r == zeroWidthNonJoiner, r == zeroWidthJoiner:
		return r // parts of emoji and of some scripts, common in nicknames
	case unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp) && unicode.IsSpace(r):
		return ' '
	case unicode.In(r, unicode.Cc, unicode.Cf):
		return '?'
	}
	return r
}
