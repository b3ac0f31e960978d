package pages

import (
	"net/url"
	"strings"
)

// maxReturnTo is the longest address to which a merchant is sent back, in bytes.
const maxReturnTo = 1024

// returnAllowed reports whether a merchant may be sent to target. Compared is what the two mean, not how they begin:
// scheme, host and port are the same, and the path begins with that of a prefix and ends there, or goes on behind a
// slash. What browsers and servers are known to read in different ways is refused, whatever it begins with.
func returnAllowed(prefixes []string, target string) bool {
	u, ok := readReturn(target)
	if !ok {
		return false
	}
	for _, p := range prefixes {
		if prefix, ok := readReturn(p); ok && prefix.RawQuery == "" && prefix.Fragment == "" &&
			u.Scheme == prefix.Scheme && origin(u) == origin(prefix) && pathWithin(u.EscapedPath(), prefix.EscapedPath()) {
			return true
		}
	}
	return false
}

// readReturn takes an address apart that everybody takes apart in the same way.
func readReturn(s string) (*url.URL, bool) {
	if s == "" || len(s) > maxReturnTo {
		return nil, false
	}
	for _, c := range []byte(s) {
		// Browsers drop tabs and line breaks, take "\" for "/", and turn other letters into ASCII ones.
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\\\"<>^`{|}", c) >= 0 {
			return nil, false
		}
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Opaque != "" || u.User != nil || u.Hostname() == "" ||
		!strings.HasPrefix(s, u.Scheme+"://") || strings.HasSuffix(u.Host, ":") {
		return nil, false
	}
	if u.Path == "" {
		u.Path = "/"
	}
	// Both as written and as decoded: ..%2f is a way up for some servers.
	for _, part := range strings.FieldsFunc(strings.ToLower(u.Path), func(r rune) bool { return r == '/' || r == '\\' }) {
		if name, _, _ := strings.Cut(part, ";"); name == "." || name == ".." || strings.Contains(part, "%2e") {
			return nil, false
		}
	}
	escaped := strings.ToLower(u.EscapedPath())
	if strings.Contains(escaped, "%2f") || strings.Contains(escaped, "%5c") || strings.ContainsFunc(u.Path, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }) {
		return nil, false
	}
	// What wxproxy says of the account must not be drowned by what the opener says of it.
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil || query.Has("appid") || query.Has("state") {
		return nil, false
	}
	return u, true
}

// origin is host and port, the scheme's own port written out.
func origin(u *url.URL) string {
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

func pathWithin(path, prefix string) bool {
	if strings.HasSuffix(prefix, "/") {
		return strings.HasPrefix(path, prefix)
	}
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

// withResult adds the account, and the opener's state if there is one, to the query of an address; all else stays as
// it was written.
func withResult(target, appid, state string) string {
	target, fragment, hasFragment := strings.Cut(target, "#")
	// A "?" in a query is a letter like others: only the first one begins it.
	switch _, query, has := strings.Cut(target, "?"); {
	case !has:
		target += "?"
	case query != "" && !strings.HasSuffix(query, "&"):
		target += "&"
	}
	target += "appid=" + url.QueryEscape(appid)
	if state != "" {
		target += "&state=" + url.QueryEscape(state)
	}
	if hasFragment {
		target += "#" + fragment
	}
	return target
}
