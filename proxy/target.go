package proxy

import (
	"bytes"
	"unicode"
	"unicode/utf8"

	"wxproxy/wechat"
)

// target is the content of a request line, before any rule is applied. All
// slices point into it.
type target struct {
	prefix      []byte // appid before the path, or nil
	path        []byte // as WeChat receives it, with escapes
	decodedPath []byte // what the rules are applied to
	query       []byte // without the question mark; nil if there was none
	absolute    bool   // it names the host, so that the Host header does not matter
}

// upstreamHosts are the names of WeChat's API
// (Basic_Information/Interface_field_description).
var upstreamHosts = []string{
	"api.weixin.qq.com", "api2.weixin.qq.com",
	"sh.api.weixin.qq.com", "sz.api.weixin.qq.com", "hk.api.weixin.qq.com",
}

// parseTarget parses a request target. It normalizes nothing: a target that
// could be read in two ways is rejected.
func parseTarget(uri []byte) (t target, err *apiError) {
	if len(uri) == 0 || uri[0] != '/' {
		var ok bool
		if uri, ok = cutAuthority(uri); !ok {
			return t, errForeignHost
		}
		t.absolute = true
	}
	t.path = uri
	if i := bytes.IndexByte(uri, '?'); i >= 0 {
		t.path, t.query = uri[:i], uri[i+1:]
	}
	// Base URLs end in a slash, and SDKs put one before the path.
	t.path = collapseLeadingSlash(t.path)
	const end = len("/wx0123456789abcdef")
	if len(t.path) >= end && wechat.IsAppID(t.path[1:end]) &&
		(len(t.path) == end || t.path[end] == '/') {
		t.prefix, t.path = t.path[1:end], collapseLeadingSlash(t.path[end:])
	}
	for _, ch := range t.query {
		if byteClasses[ch] == byteInvalid {
			return t, errQuery
		}
	}
	t.decodedPath, err = decodePath(t.path)
	return t, err
}

// cutAuthority removes scheme and host from a target in absolute form, as sent
// to a forward proxy. It returns false for hosts that are not WeChat's.
func cutAuthority(uri []byte) ([]byte, bool) {
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
	if !containsFold(upstreamHosts, unsafeString(rest[:end])) {
		return nil, false
	}
	if rest = rest[end:]; len(rest) == 0 || rest[0] != '/' {
		return nil, false
	}
	return rest, true
}

// collapseLeadingSlash removes the first of two slashes at the beginning.
func collapseLeadingSlash(path []byte) []byte {
	if len(path) > 1 && path[0] == '/' && path[1] == '/' {
		return path[1:]
	}
	return path
}

// decodePath undoes the escapes of a path. It rejects paths that WeChat could
// understand in another way: what the rules are applied to must be what WeChat
// receives. A path without escapes is returned as it is.
func decodePath(path []byte) ([]byte, *apiError) {
	if len(path) < 2 || path[0] != '/' {
		return nil, errPath
	}
	escaped := false // or not ASCII
	segment := 1     // start of the current one
	for i, ch := range path {
		switch byteClasses[ch] {
		case bytePlain:
		case byteSlash:
			if i > 0 && (i == segment || isDotSegment(path[segment:i])) {
				return nil, errPath
			}
			segment = i + 1
		case byteEscaped:
			escaped = true
		default:
			return nil, errPath
		}
	}
	if isDotSegment(path[segment:]) {
		return nil, errPath
	}
	if !escaped {
		return path, nil
	}
	return unescapePath(path)
}

// unescapePath is the rare part of decodePath.
func unescapePath(path []byte) ([]byte, *apiError) {
	decoded := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		ch := path[i]
		if ch == '%' {
			if i+2 >= len(path) || hexDigit(path[i+1]) < 0 || hexDigit(path[i+2]) < 0 {
				return nil, errPath
			}
			ch = byte(hexDigit(path[i+1])<<4 | hexDigit(path[i+2]))
			i += 2
			switch ch {
			case '/', '\\', '.', '%', ';', '?', '#', 0x7f:
				return nil, errPath
			}
			if ch <= ' ' {
				return nil, errPath
			}
		}
		decoded = append(decoded, ch)
	}
	for i := 0; i < len(decoded); {
		r, size := utf8.DecodeRune(decoded[i:])
		if !isPlainRune(r) {
			return nil, errPath
		}
		i += size
	}
	return decoded, nil
}

// isPlainRune reports whether no program turns a rune of a path into another
// one. Beyond ASCII these are letters without case, such as Chinese ones. There
// are full-width forms of all ASCII characters, and more that normalization
// turns into dots, slashes, letters or spaces. [utf8.RuneError] stands for
// invalid UTF-8, such as the overlong forms of a dot and a slash (C0 AE, C0 AF),
// which some decoders accept.
func isPlainRune(r rune) bool {
	const lastLatin = 0xff // ª and º are letters without case, and turn into a and o
	return r < utf8.RuneSelf || r > lastLatin && unicode.Is(unicode.Lo, r) && !isArabicForm(r)
}

// isArabicForm reports whether r is an Arabic presentation form. Some of them
// turn into text with spaces (U+FC5E, U+FDFA, U+FE70).
func isArabicForm(r rune) bool { return r >= 0xfb50 && r <= 0xfdff || r >= 0xfe70 && r <= 0xfeff }

// Classes of the bytes in a request target.
const (
	bytePlain         = iota
	byteSlash         // separates segments of a path
	byteEscaped       // an escape or not ASCII: decodePath checks it
	byteInvalid       // not allowed at all
	byteInvalidInPath // allowed in a query only
)

var byteClasses = func() (c [256]uint8) {
	for ch := range 256 {
		switch {
		case ch <= ' ' || ch == 0x7f || ch == '#':
			c[ch] = byteInvalid
		case ch >= 0x80:
			c[ch] = byteEscaped
		case ch == '\\' || ch == ';':
			c[ch] = byteInvalidInPath
		}
	}
	c['/'], c['%'] = byteSlash, byteEscaped
	return c
}()

func isDotSegment(segment []byte) bool {
	return string(segment) == "." || string(segment) == ".."
}
