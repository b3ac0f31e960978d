package proxy

import (
	"bytes"
	"unicode/utf8"
)

// target is what the request line says, before any rule is applied. All slices point into it.
type target struct {
	prefix []byte // appid in front of the path
	path   []byte // as it goes to WeChat, escapes and all
	plain  []byte // path with its escapes undone: what the rules are applied to
	query  []byte // without the question mark
}

// hosts that WeChat's API answers on (Basic_Information/Interface_field_description).
var hosts = map[string]bool{
	"api.weixin.qq.com": true, "api2.weixin.qq.com": true,
	"sh.api.weixin.qq.com": true, "sz.api.weixin.qq.com": true, "hk.api.weixin.qq.com": true,
}

// readTarget takes the request target apart. It cleans nothing: what might be read in two ways is refused.
func readTarget(uri []byte) (t target, p *problem) {
	if len(uri) == 0 || uri[0] != '/' {
		var ok bool
		if uri, ok = absoluteForm(uri); !ok {
			return t, errForeignHost
		}
	}
	t.path = uri
	if i := bytes.IndexByte(uri, '?'); i >= 0 {
		t.path, t.query = uri[:i], uri[i+1:]
	}
	// Base URLs end in a slash, and SDKs put one in front of the path.
	t.path = joinSlash(t.path)
	if len(t.path) > 18 && isAppID(t.path[1:19]) && (len(t.path) == 19 || t.path[19] == '/') {
		t.prefix, t.path = t.path[1:19], joinSlash(t.path[19:])
	}
	for _, ch := range t.query {
		if classes[ch] == byteBad {
			return t, errQuery
		}
	}
	t.plain, p = plainPath(t.path)
	return t, p
}

// absoluteForm takes scheme and host off a target as sent to a forward proxy.
func absoluteForm(uri []byte) ([]byte, bool) {
	rest, ok := bytes.CutPrefix(uri, []byte("http://"))
	if !ok {
		if rest, ok = bytes.CutPrefix(uri, []byte("https://")); !ok {
			return nil, false
		}
	}
	end := bytes.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	if !hosts[string(bytes.ToLower(rest[:end]))] {
		return nil, false
	}
	if rest = rest[end:]; len(rest) == 0 || rest[0] != '/' {
		return nil, false
	}
	return rest, true
}

func joinSlash(path []byte) []byte {
	if len(path) > 1 && path[0] == '/' && path[1] == '/' {
		return path[1:]
	}
	return path
}

// isAppID: wx and 16 lower-case letters or digits.
func isAppID(b []byte) bool {
	if len(b) != 18 || b[0] != 'w' || b[1] != 'x' {
		return false
	}
	for _, ch := range b[2:] {
		if (ch < '0' || ch > '9') && (ch < 'a' || ch > 'z') {
			return false
		}
	}
	return true
}

// plainPath undoes the escapes of path, for looking rules up, or refuses what WeChat might understand
// otherwise than we do.
func plainPath(path []byte) ([]byte, *problem) {
	if len(path) < 2 || path[0] != '/' {
		return nil, errPath
	}
	escaped := false // or not ASCII
	segment := 1     // where the current one begins
	for i, ch := range path {
		switch classes[ch] {
		case bytePlain:
		case byteSlash:
			if i > 0 && (i == segment || dots(path[segment:i])) {
				return nil, errPath
			}
			segment = i + 1
		case bytePercent:
			escaped = true
		default:
			return nil, errPath
		}
	}
	if dots(path[segment:]) {
		return nil, errPath
	}
	if !escaped {
		return path, nil
	}
	plain := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		ch := path[i]
		if ch == '%' {
			if i+2 >= len(path) || hexDigit(path[i+1]) < 0 || hexDigit(path[i+2]) < 0 {
				return nil, errPath
			}
			ch = byte(hexDigit(path[i+1])<<4 | hexDigit(path[i+2]))
			i += 2
			switch {
			case ch < ' ' || ch == 0x7f, ch == '/', ch == '\\', ch == '.', ch == '%', ch == ';', ch == '?', ch == '#':
				return nil, errPath
			}
		}
		plain = append(plain, ch)
	}
	// Among what is no UTF-8 are the long forms of a dot and a slash (C0 AE, C0 AF), which some decoders take for them.
	if !utf8.Valid(plain) {
		return nil, errPath
	}
	return plain, nil
}

// What a byte of a request target may do.
const (
	bytePlain     = iota
	byteSlash     // parts segments of a path
	bytePercent   // begins an escape, or is no ASCII: has to be looked at closely
	byteBad       // nowhere
	byteBadInPath // only in a query
)

var classes = func() (c [256]uint8) {
	for ch := range 256 {
		switch {
		case ch <= ' ' || ch == 0x7f || ch == '#':
			c[ch] = byteBad
		case ch >= 0x80:
			c[ch] = bytePercent
		case ch == '\\' || ch == ';':
			c[ch] = byteBadInPath
		}
	}
	c['/'], c['%'] = byteSlash, bytePercent
	return c
}()

func dots(segment []byte) bool {
	return len(segment) == 1 && segment[0] == '.' || len(segment) == 2 && segment[0] == '.' && segment[1] == '.'
}
