package pages

import (
	"net/url"
	"strings"
	"unicode"
)

// maxReturnTo is the maximum length, in bytes, of an address to which a
// merchant is redirected.
const maxReturnTo = 1024

// returnAllowed reports whether a merchant can be redirected to target. It
// compares what the addresses mean, not their first characters: scheme, host
// and port must equal those of a prefix, and the path must be that of the
// prefix or below it. An address that browsers and servers are known to parse
// differently is rejected, whatever it begins with.
func returnAllowed(prefixes []string, target string) bool {
	u, ok := parseReturnURL(target)
	if !ok {
		return false
	}
	for _, p := range prefixes {
		prefix, ok := parseReturnURL(p)
		if ok && prefix.RawQuery == "" && prefix.Fragment == "" && u.Scheme == prefix.Scheme &&
			hostPort(u) == hostPort(prefix) && isPathWithin(u.EscapedPath(), prefix.EscapedPath()) {
			return true
		}
	}
	return false
}

// parseReturnURL parses an absolute http or https URL. ok is false for URLs
// that browsers and servers are known to parse differently, and for those that
// cannot take the parameters of [withResult].
func parseReturnURL(s string) (u *url.URL, ok bool) {
	if s == "" || len(s) > maxReturnTo || !hasURLCharactersOnly(s) {
		return nil, false
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" ||
		u.Opaque != "" || u.User != nil || u.Hostname() == "" ||
		!strings.HasPrefix(s, u.Scheme+"://") || strings.HasSuffix(u.Host, ":") {
		return nil, false
	}
	if u.Path == "" {
		u.Path = "/"
	}
	if hasAmbiguousPath(u) {
		return nil, false
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, false
	}
	for name := range query {
		if !leavesResultAlone(name) {
			return nil, false
		}
	}
	// Scripts read a query of their own out of the fragment.
	isSeparator := func(r rune) bool { return strings.ContainsRune("#?&;", r) }
	for _, part := range strings.FieldsFunc(u.EscapedFragment(), isSeparator) {
		if name, _, hasValue := strings.Cut(part, "="); hasValue && !leavesResultAlone(name) {
			return nil, false
		}
	}
	return u, true
}

// resultParams are the parameters that [withResult] adds.
var resultParams = []string{"appid", "state", "ticket"}

// leavesResultAlone reports whether the name of a parameter stands for none
// that wxproxy adds: of two with the same name, some parsers take the first. It
// counts names as equal that any common parser does: in other letter case, with
// an index ("appid[]", "[appid]"), cut off at a NUL, with spaces around them
// (PHP), and escaped more than once.
func leavesResultAlone(name string) bool {
	for range maxReturnTo { // each round makes an escaped name shorter
		parts := strings.FieldsFunc(name, func(r rune) bool {
			return r != '_' && r != '-' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
		})
		for _, p := range resultParams {
			if len(parts) > 0 && strings.EqualFold(parts[0], p) {
				return false
			}
		}
		decoded, err := url.QueryUnescape(name)
		if err != nil || strings.ContainsAny(decoded, "&=;") {
			return false
		}
		if decoded == name {
			return true
		}
		name = decoded
	}
	return false
}

// hasURLCharactersOnly reports whether s has only characters that are allowed
// in a URL. Browsers drop tabs and line breaks, read "\" as "/", and map some
// Unicode letters to ASCII.
func hasURLCharactersOnly(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\\\"<>^`{|}", c) >= 0 {
			return false
		}
	}
	return true
}

// hasAmbiguousPath reports whether some servers resolve the path to another one
// than it seems to be. These are paths with dot segments, also encoded ones or
// those with a parameter, with encoded slashes, or with control characters.
func hasAmbiguousPath(u *url.URL) bool {
	isSlash := func(r rune) bool { return r == '/' || r == '\\' }
	for _, segment := range strings.FieldsFunc(strings.ToLower(u.Path), isSlash) {
		name, _, _ := strings.Cut(segment, ";")
		if name == "." || name == ".." || strings.Contains(segment, "%2e") {
			return true
		}
	}
	for _, p := range []string{strings.ToLower(u.EscapedPath()), strings.ToLower(u.Path)} {
		if strings.Contains(p, "%2f") || strings.Contains(p, "%5c") {
			return true // encoded once, or twice
		}
	}
	return strings.ContainsFunc(u.Path, func(r rune) bool {
		return r < ' ' || r == 0x7f || r == '\\'
	})
}

// hostPort returns host and port, with the scheme's default port written out.
func hostPort(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "http":
		port = "80"
	default:
		port = "443"
	}
	return strings.ToLower(u.Hostname()) + " " + port
}

// isPathWithin reports whether path is prefix or below it.
func isPathWithin(path, prefix string) bool {
	if strings.HasSuffix(prefix, "/") {
		return strings.HasPrefix(path, prefix)
	}
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

// withResult returns target with the account, the link's state and the ticket,
// if there are any, added to its query. Everything else stays as it was
// written.
func withResult(target, appid, state, ticket string) string {
	target, fragment, hasFragment := strings.Cut(target, "#")
	// Only the first "?" begins the query; a second one is part of it.
	switch _, query, hasQuery := strings.Cut(target, "?"); {
	case !hasQuery:
		target += "?"
	case query != "" && !strings.HasSuffix(query, "&"):
		target += "&"
	}
	target += "appid=" + url.QueryEscape(appid)
	if state != "" {
		target += "&state=" + url.QueryEscape(state)
	}
	if ticket != "" {
		target += "&ticket=" + url.QueryEscape(ticket)
	}
	if hasFragment {
		target += "#" + fragment
	}
	return target
}
