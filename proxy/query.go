package proxy

import "wxproxy/proxy/standin"

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

	paramTokens = paramAccessToken | paramComponentAccessToken
	paramOther  = param(0)
)

// nextParam returns the first parameter of q: its raw value, and its length
// with the separator. A semicolon separates, too. Some servers read it so, and
// a caller's token that only they see must not slip through.
func nextParam(q []byte) (name param, value []byte, length int) {
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
	raw := q[:end]
	if eq >= 0 {
		raw, value = q[:eq], q[eq+1:end]
	}
	return paramOf(raw), value, length
}

// paramOf recognizes a name, however it is percent-encoded.
func paramOf(raw []byte) param {
	const maxName = len("component_access_token")
	if len(raw) < len("appid") || len(raw) > 3*maxName {
		return paramOther
	}
	for _, ch := range raw {
		if ch == '%' {
			var buf [3 * maxName]byte
			return paramNamed(unescape(buf[:0], raw))
		}
	}
	return paramNamed(raw)
}

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
		name, value, n := nextParam(q)
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

// lookup returns the decoded value of name in q. unique is false if the
// parameter occurs with different values: then it is not certain which one
// WeChat takes.
func lookup(q []byte, name param) (value []byte, found, unique bool) {
	unique = true
	for len(q) > 0 {
		p, v, n := nextParam(q)
		q = q[n:]
		if p != name {
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

// present returns the set of parameters in q.
func present(q []byte) param {
	var all param
	for len(q) > 0 {
		p, _, n := nextParam(q)
		all |= p
		q = q[n:]
	}
	return all
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
