package proxy

import (
	"bytes"
	"strings"
	"wxproxy/proxy/standin"

	"github.com/valyala/fasthttp"
)

// What becomes of a header of the caller's.
type headerRole uint8

const (
	headerPass     headerRole = iota
	headerDrop                // hop-by-hop, identity, or a credential for wxproxy
	headerTarget              // X-WX-APPID
	headerID                  // X-Request-Id
	headerEncoding            // Accept-Encoding
	headerConn                // Connection: names further headers to drop
	headerLength              // Content-Length: written anew
	headerBrowser             // only web browsers send it

	headerAuthorization // these three may hold the caller's key; they are dropped as well
	headerProxyAuthorization
	headerKey
)

// longestHeader is the length of the longest name that roleOf knows.
const longestHeader = len("x-original-forwarded-for")

// forwarded begins a family of headers in which servers in front tell where a request came from, and some of them who
// sent it, with his certificate or token.
const forwarded = "x-forwarded-"

// roleOf looks a header up, whatever its case. It allocates nothing; a switch is faster than a map here.
//
// Hop-by-hop headers concern one connection (RFC 9110, 7.6.1). Identity headers tell about the inside of the caller's
// network, which WeChat has no need to know. Credentials are meant for wxproxy, or for nobody.
func roleOf(name []byte) headerRole {
	if len(name) > len(forwarded) && name[2]|0x20 == 'f' && equalFold(name[:len(forwarded)], forwarded) {
		return headerDrop
	}
	if len(name) > longestHeader {
		return headerPass
	}
	var buf [longestHeader]byte
	for i, ch := range name {
		if ch >= 'A' && ch <= 'Z' {
			ch += 'a' - 'A'
		}
		buf[i] = ch
	}
	switch string(buf[:len(name)]) {
	case "host", "expect", "transfer-encoding",
		"proxy-connection", "keep-alive", "te", "trailer", "upgrade", "http2-settings",
		"proxy-authenticate", "cookie", "x-wxproxy-token",
		"forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip",
		"x-original-forwarded-for", "x-cluster-client-ip", "x-envoy-external-address":
		return headerDrop
	case "content-length":
		return headerLength
	case "connection":
		return headerConn
	case "authorization":
		return headerAuthorization
	case "proxy-authorization":
		return headerProxyAuthorization
	case "x-wxproxy-key":
		return headerKey
	case "x-wx-appid":
		return headerTarget
	case "x-request-id":
		return headerID
	case "accept-encoding":
		return headerEncoding
	case "origin", "sec-fetch-site":
		return headerBrowser
	}
	return headerPass
}

// caller is what the headers of a call say to us, and the stand-in in its query.
type caller struct {
	target    []byte // X-WX-APPID
	requestID []byte
	conflict  bool // X-WX-APPID twice, with different values
	browser   bool
	sized     bool // the caller sent a Content-Length

	credentials credentials
	standIn     standin.Token
}

// readHeaders appends to dst the headers that WeChat gets, each with its line end, as the caller spelled
// them, and notes what is meant for us. ok is false where one holds control characters.
func readHeaders(dst []byte, h *fasthttp.RequestHeader) (_ []byte, c caller, ok bool) {
	var listed [][]byte // header names in Connection
	start := len(dst)
	for name, value := range h.All() {
		switch role := roleOf(name); role {
		case headerPass:
			if !isToken(name) || !printable(value) {
				return dst, c, false
			}
			dst = append(dst, name...)
			dst = append(dst, ": "...)
			dst = append(dst, value...)
			dst = append(dst, "\r\n"...)
		case headerAuthorization, headerProxyAuthorization, headerKey:
			c.credentials.note(role, value)
		case headerTarget:
			if c.target != nil && !bytes.Equal(c.target, value) {
				c.conflict = true
			}
			c.target = value
		case headerID:
			c.requestID = value
		case headerEncoding:
			// Compressed answers have to be looked into, and gzip is what we can undo.
			if acceptsGzip(value) {
				dst = append(dst, "Accept-Encoding: gzip\r\n"...)
			}
		case headerConn:
			for tok := range bytes.SplitSeq(value, []byte(",")) {
				tok = bytes.TrimSpace(tok)
				if len(tok) > 0 && !equalFold(tok, "close") && !equalFold(tok, "keep-alive") {
					listed = append(listed, tok)
				}
			}
		case headerLength:
			c.sized = true
		case headerBrowser:
			// "none": typed into the address bar, by the person at the machine.
			if !equalFold(value, "none") {
				c.browser = true
			}
		}
	}
	if listed != nil {
		dst = dropListed(dst, start, listed)
	}
	return dst, c, true
}

// doubtful reports whether a request might end elsewhere for a server in front of this one: fasthttp takes any version
// for HTTP/1, and a Transfer-Encoding of identity, which is none any more (RFC 9112, 6.3 and A.2), for no body.
func doubtful(h *fasthttp.RequestHeader, body []byte) bool {
	if !h.IsHTTP11() && string(h.Protocol()) != "HTTP/1.0" {
		return true
	}
	if len(body) > 0 || h.IsGet() || h.IsHead() {
		return false
	}
	for line := range bytes.Lines(h.RawHeaders()) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if equalFold(name, "Transfer-Encoding") && !equalFold(bytes.TrimSpace(value), "chunked") {
			return true
		}
	}
	return false
}

// dropListed takes the headers out that Connection names.
func dropListed(dst []byte, start int, listed [][]byte) []byte {
	lines := strings.SplitAfter(string(dst[start:]), "\r\n")
	dst = dst[:start]
next:
	for _, line := range lines {
		name, _, _ := strings.Cut(line, ":")
		for _, l := range listed {
			if equalFold(l, name) {
				continue next
			}
		}
		dst = append(dst, line...)
	}
	return dst
}

// acceptsGzip reads Accept-Encoding: gzip named, and not with q=0.
func acceptsGzip(value []byte) bool {
	for part := range strings.SplitSeq(strings.ToLower(string(value)), ",") {
		coding, params, _ := strings.Cut(part, ";")
		switch strings.TrimSpace(coding) {
		case "gzip", "x-gzip", "*":
			q := strings.TrimPrefix(strings.ReplaceAll(params, " ", ""), "q=")
			return strings.Trim(q, "0.") != "" || q == ""
		}
	}
	return false
}

// Headers of answers that concern the connection between WeChat and us only.
var answerHops = []string{"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Transfer-Encoding", "Te", "Trailer", "Upgrade", "X-Wxproxy-Token"}

// cleanAnswer takes hop-by-hop headers off, what only we may say, and what shows a credential of ours.
func (c *call) cleanAnswer(h *fasthttp.ResponseHeader) {
	others, connection := false, []byte(nil)
	for name, value := range h.All() {
		if c.echoes(value) {
			others = true
		}
		switch roleOf(name) {
		case headerConn:
			connection = value
		case headerDrop, headerAuthorization, headerProxyAuthorization, headerKey:
			others = true
		}
	}
	switch {
	case connection == nil && !others:
		return
	case !others && (equalFold(connection, "keep-alive") || equalFold(connection, "close")): // nearly always
		h.ResetConnectionClose()
		h.Del("Connection")
		return
	}
	// Names are as WeChat spelled them.
	var names []string
	for tok := range bytes.SplitSeq(connection, []byte(",")) {
		if tok = bytes.TrimSpace(tok); len(tok) > 0 && roleOf(tok) == headerPass && !protected(tok) {
			names = append(names, string(tok))
		}
	}
	for name, value := range h.All() {
		if c.echoes(value) { // a redirect to where the request went, say
			names = append(names, string(name))
		}
		for _, hop := range answerHops {
			if equalFold(name, hop) {
				names = append(names, string(name))
			}
		}
	}
	for _, n := range names {
		h.Del(n)
	}
	h.ResetConnectionClose()
}

// protected headers frame or describe the body: Connection cannot take them away.
func protected(name []byte) bool {
	return equalFold(name, "Content-Type") || equalFold(name, "Content-Encoding") || equalFold(name, "Content-Length")
}

// isToken reports whether b is a proper header name (RFC 9110, 5.6.2).
func isToken(b []byte) bool {
	for _, ch := range b {
		if !tokenBytes[ch] {
			return false
		}
	}
	return len(b) > 0
}

var tokenBytes = func() (t [256]bool) {
	for _, ch := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[ch] = true
	}
	return t
}()

func printable(b []byte) bool {
	for _, ch := range b {
		if ch < ' ' && ch != '\t' || ch == 0x7f {
			return false
		}
	}
	return true
}

func equalFold(b []byte, s string) bool {
	return len(b) == len(s) && strings.EqualFold(string(b), s)
}
