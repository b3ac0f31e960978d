package proxy

import (
	"strconv"

	"github.com/valyala/fasthttp"

	"wxproxy/tokens"
)

// The caller's query is forwarded byte for byte, in its order and spelling.
// Only whole parameters that carry a credential are cut out. What is injected
// comes before the rest.

// appendRequestHead appends the request line and the headers that WeChat
// receives, with the empty line after them.
func appendRequestHead(b []byte, s *settings, h *requestHead, r *route, token tokens.Token, bodySize int) []byte {
	b = append(b, h.method...)
	b = append(b, ' ')
	if r.path != "" {
		b = append(b, r.path...)
	} else {
		b = append(b, h.target.path...)
	}
	b = appendQuery(b, h.target.query, r, s.component, token)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, s.upstream.Host()...)
	b = append(b, "\r\n"...)
	b = append(b, h.forwarded...)
	if bodySize > 0 || h.hasLength || needsLength(h.method) {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(bodySize), 10)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}

// needsLength reports whether a request with this method and no body needs a
// Content-Length. WeChat answers 412 to requests without one, above all to
// chunked ones.
func needsLength(method []byte) bool {
	switch string(method) {
	case fasthttp.MethodGet, fasthttp.MethodHead, fasthttp.MethodDelete, fasthttp.MethodOptions:
		return false
	}
	return true
}

// appendQuery appends the query with its question mark: the parameters that r
// injects, and the caller's without those that r strips.
func appendQuery(b, query []byte, r *route, component []byte, token tokens.Token) []byte {
	start := len(b)
	b = append(b, '?')
	if r.addAppID || !r.secret.IsEmpty() {
		b = append(append(append(b, "appid="...), r.account...), '&')
	}
	if !r.secret.IsEmpty() {
		b = append(append(append(b, "secret="...), r.secret.Reveal()...), '&')
	}
	if r.addComponentAppID {
		b = append(append(append(b, "component_appid="...), component...), '&')
	}
	if r.tokenOwner != nil {
		b = append(append(b, r.parameter()...), '=')
		b = append(append(b, token.Escaped...), '&')
	}
	injected := len(b)
	if r.strip == 0 {
		b = append(b, query...)
	} else {
		b = appendWithout(b, query, r.strip)
	}
	// If nothing of the caller's query follows, the last separator or the
	// question mark is one too many. A question mark that the caller sent stays.
	if len(b) == injected && !(injected == start+1 && query != nil) {
		b = b[:injected-1]
	}
	return b
}
