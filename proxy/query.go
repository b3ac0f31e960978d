package proxy

import (
	"bytes"

	"wxproxy/proxy/standin"
)

// param is a query parameter that has a meaning here. A set of them is their
// sum.
type param uint8

const (
	paramAccessToken param = 1 << iota
	paramComponentAccessToken
	paramAppID
	paramComponentAppID
	paramAction
	paramSecret

	// paramStandIn is no name. It stands for the tokens whose value is a
	// stand-in.
	paramStandIn

	// paramOdd is no name. Beside one it means that only some parsers read that
	// name: see oddParam.
	paramOdd

	paramTokens = paramAccessToken | paramComponentAccessToken
	paramOther  = param(0)
)

// nextParam returns the first parameter of q: its raw name and value, and its
// length with the separator. A semicolon separates, too. Some servers read it
// so, and a caller's token that only they see must not slip through.
func nextParam(q []byte) (name, value []byte, length int) {
	end, eq := len(q), -1
	length = len(q)
scan:
	for i, ch := range q {
		switch ch {
		case '&', ';':
			end, length = i, i+1
			break scan
		case '=':
			if eq < 0 {
				eq = i
			}
		}
	}
	name = q[:end]
	if eq >= 0 {
		name, value = q[:eq], q[eq+1:end]
	}
	return name, value, length
}

// paramOf recognizes a raw name, however it is spelled.
func paramOf(raw []byte) param {
	for _, ch := range raw {
		if !plainNameBytes[ch] {
			return oddParam(raw)
		}
	}
	return paramNamed(raw)
}

// plainNameBytes are those of the known names, and all others that no parser
// changes.
var plainNameBytes = func() (t [256]bool) {
	for _, ch := range []byte("abcdefghijklmnopqrstuvwxyz0123456789_-") {
		t[ch] = true
	}
	return t
}()

// oddParam recognizes a name with other bytes than plainNameBytes. Every parser
// undoes percent-escapes once. The other spellings of a name have the bit
// paramOdd: only some parsers undo escapes twice, ignore case or spaces, end a
// name at a zero byte or a bracket (PHP's arrays), or read a space or a dot as
// an underscore (PHP). It does not allocate for names of usual length.
func oddParam(raw []byte) param {
	var buf [128]byte
	name := unescape(buf[:0], raw)
	if p := paramNamed(name); p != paramOther {
		return p
	}
	for range 3 {
		name = unescape(name[:0], name)
	}
	name = bytes.Trim(name, " +")
	for i, ch := range name {
		switch {
		case ch == '[' || ch == 0:
			name = name[:i]
		case ch >= 'A' && ch <= 'Z':
			name[i] = ch + 'a' - 'A'
		case ch == '.' || ch == ' ' || ch == '+':
			name[i] = '_'
		}
		if len(name) == i {
			break
		}
	}
	if p := paramNamed(name); p != paramOther {
		return p | paramOdd
	}
	return paramOther
}

// paramNamed returns the parameter with this decoded name.
func paramNamed(name []byte) param {
	switch string(name) {
	case "access_token":
		return paramAccessToken
	case "component_access_token":
		return paramComponentAccessToken
	case "appid":
		return paramAppID
	case "component_appid":
		return paramComponentAppID
	case "action":
		return paramAction
	case "secret":
		return paramSecret
	}
	return paramOther
}

// unescape appends s to dst with its percent-escapes undone. Invalid ones stay
// as they are. A plus sign stays too: the values that are looked up have no
// spaces.
func unescape(dst, s []byte) []byte {
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if hi, lo := hexDigit(s[i+1]), hexDigit(s[i+2]); hi >= 0 && lo >= 0 {
				dst = append(dst, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		dst = append(dst, s[i])
	}
	return dst
}

// hexDigit returns the value of a hexadecimal digit, or -1.
func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// appendWithout appends q to dst without the parameters in strip.
func appendWithout(dst, q []byte, strip param) []byte {
	start, cut := len(dst), false
	for len(q) > 0 {
		raw, value, n := nextParam(q)
		name := paramOf(raw)
		stripped := name&strip != 0 ||
			strip&paramStandIn != 0 && name&paramTokens != 0 && spellsStandIn(value)
		if !stripped {
			dst = append(dst, q[:n]...)
		}
		cut = stripped && q[n-1] != '&' && q[n-1] != ';'
		q = q[n:]
	}
	// If the last parameter was cut out, so is the separator before it.
	if cut && len(dst) > start {
		dst = dst[:len(dst)-1]
	}
	return dst
}

// spellsStandIn reports whether the raw value of a parameter claims to be a
// stand-in.
func spellsStandIn(value []byte) bool {
	if hasEscape(value) {
		// Escaped, the prefix is up to three times as long.
		var buf [3 * len(standin.Prefix)]byte
		value = unescape(buf[:0], value[:min(len(value), len(buf))])
	}
	return standin.HasPrefix(value)
}

// lookup returns the decoded value of name in q, in any spelling. unique is
// false if the parameter occurs with different values: then it is not certain
// which one WeChat takes.
func lookup(q []byte, name param) (value []byte, found, unique bool) {
	unique = true
	for len(q) > 0 {
		raw, v, n := nextParam(q)
		q = q[n:]
		if paramOf(raw)&name == 0 {
			continue
		}
		if hasEscape(v) {
			v = unescape(nil, v)
		}
		if found && string(v) != string(value) {
			unique = false
		}
		value, found = v, true
	}
	return value, found, unique
}

// isUnambiguous reports whether every parser of queries reads the same from q
// about these parameters. Where the query decides about a request this is
// required, because WeChat must read what was decided. So there is no
// semicolon, which separates for some, not even an escaped one. Each of the
// parameters occurs once at most, and names are words that no parser changes.
func isUnambiguous(q []byte, names param) bool {
	if bytes.IndexByte(q, ';') >= 0 {
		return false
	}
	var seen param
	for len(q) > 0 {
		name, value, n := nextParam(q)
		q = q[n:]
		p := paramOf(name)
		if p&paramOdd != 0 || p&names&seen != 0 {
			return false
		}
		seen |= p
		var buf [128]byte
		for _, ch := range unescape(buf[:0], name) {
			if !plainNameBytes[ch] && (ch < 'A' || ch > 'Z') {
				return false
			}
		}
		for _, ch := range unescape(buf[:0], value) {
			if ch < ' ' || ch == '&' || ch == ';' {
				return false
			}
		}
	}
	return true
}

// hasEscape reports whether v may differ from its decoded form.
func hasEscape(v []byte) bool {
	for _, ch := range v {
		if ch == '%' || ch == '+' {
			return true
		}
	}
	return false
}
