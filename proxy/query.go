package proxy

import "wxproxy/proxy/standin"

// The caller's query is his: it goes on byte for byte, order, spelling and all. Only whole
// parameters that carry a credential are cut out, and ours are put in front.

// param is a query parameter that means something here; a set of them is their sum.
type param uint8

const (
	paramAccessToken param = 1 << iota
	paramComponentAccessToken
	paramAppID
	paramComponentAppID
	paramAction
	paramSecret

	// paramStandIn is no name: it stands for the tokens whose value is a stand-in.
	paramStandIn

	paramTokens = paramAccessToken | paramComponentAccessToken
	paramOther  = param(0)
)

// nextParam gives the parameter at the beginning of q: its raw value, and its length with the
// separator behind it. A semicolon separates too: some servers take it so, and what they
// would read as a token of the caller's must not slip through.
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

// paramOf recognizes a name however it is percent-encoded.
func paramOf(raw []byte) param {
	if len(raw) < len("appid") || len(raw) > 3*len("component_access_token") {
		return paramOther
	}
	for _, ch := range raw {
		if ch == '%' {
			var buf [3 * len("component_access_token")]byte
			return plainParam(unescape(buf[:0], raw))
		}
	}
	return plainParam(raw)
}

func plainParam(name []byte) param {
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

// unescape appends s to dst with the percent-escapes undone; broken ones stay as they are.
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

// appendWithout appends q to dst without the parameters in drop.
func appendWithout(dst, q []byte, drop param) []byte {
	start, cut := len(dst), false
	for len(q) > 0 {
		name, value, n := nextParam(q)
		dropped := name&drop != 0 || drop&paramStandIn != 0 && name&paramTokens != 0 && spellsStandIn(value)
		if !dropped {
			dst = append(dst, q[:n]...)
		}
		cut = dropped && q[n-1] != '&' && q[n-1] != ';'
		q = q[n:]
	}
	// The separator in front of a last parameter that was cut out goes with it.
	if cut && len(dst) > start {
		dst = dst[:len(dst)-1]
	}
	return dst
}

// spellsStandIn reports whether the raw value of a parameter is meant to be a stand-in.
func spellsStandIn(value []byte) bool {
	if hasEscape(value) {
		// Escaped it is up to three times as long, and longer ones are looked at as far.
		var buf [3 * len(standin.Prefix)]byte
		value = unescape(buf[:0], value[:min(len(value), len(buf))])
	}
	return standin.HasPrefix(value)
}

// lookup gives the decoded value of name in q. unique is false where it occurs with different
// values: then it means nothing that we could be sure of.
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

// present reports which parameters of interest occur in q.
func present(q []byte) param {
	var all param
	for len(q) > 0 {
		p, _, n := nextParam(q)
		all |= p
		q = q[n:]
	}
	return all
}

func hasEscape(v []byte) bool {
	for _, ch := range v {
		if ch == '%' || ch == '+' {
			return true
		}
	}
	return false
}
