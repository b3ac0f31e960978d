package proxy

import "strings"

// headerRole says what happens to a header of a request.
type headerRole uint8

const (
	headerPass           headerRole = iota // forwarded
	headerDrop                             // hop-by-hop, or about the caller's network
	headerAccount                          // X-WX-APPID
	headerRequestID                        // X-Request-Id
	headerAcceptEncoding                   // forwarded as gzip, or not at all
	headerConnection                       // names further headers to drop
	headerContentLength                    // written anew
	headerBrowser                          // sent by web browsers only

	// These can hold the caller's key. They are dropped as well.
	headerAuthorization
	headerProxyAuthorization
	headerKey
)

// maxHeaderName is the length of the longest name that roleOf knows.
const maxHeaderName = len("x-original-forwarded-for")

// forwardedPrefix begins the names of headers in which reverse proxies before
// wxproxy say where a request came from, some with a certificate or token.
const forwardedPrefix = "x-forwarded-"

// roleOf returns the role of a header, in whatever case its name is written. It
// does not allocate. A switch is faster than a map here.
//
// Hop-by-hop headers concern one connection (RFC 9110, 7.6.1). Headers about
// the caller's network are none of WeChat's business.
func roleOf(name []byte) headerRole {
	if len(name) > len(forwardedPrefix) && name[2]|0x20 == 'f' &&
		equalFold(name[:len(forwardedPrefix)], forwardedPrefix) {
		return headerDrop
	}
	if len(name) > maxHeaderName {
		return headerPass
	}
	var buf [maxHeaderName]byte
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
		return headerContentLength
	case "connection":
		return headerConnection
	case "authorization":
		return headerAuthorization
	case "proxy-authorization":
		return headerProxyAuthorization
	case "x-wxproxy-key":
		return headerKey
	case "x-wx-appid":
		return headerAccount
	case "x-request-id":
		return headerRequestID
	case "accept-encoding":
		return headerAcceptEncoding
	case "origin", "sec-fetch-site":
		return headerBrowser
	}
	return headerPass
}

// isToken reports whether b is a valid header name or method (RFC 9110, 5.6.2).
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

// isPrintable reports whether b has no control characters, except for tabs.
func isPrintable(b []byte) bool {
	for _, ch := range b {
		if ch < ' ' && ch != '\t' || ch == 0x7f {
			return false
		}
	}
	return true
}

// equalFold reports whether b and s are equal in any case. It does not
// allocate.
func equalFold(b []byte, s string) bool {
	return len(b) == len(s) && strings.EqualFold(unsafeString(b), s)
}
