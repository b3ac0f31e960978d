package proxy

import (
	"bytes"
	"strings"
)

// headerRole says what happens to a header of a request.
type headerRole uint8

const (
	headerUnknown        headerRole = iota // dropped, unless the configuration names it
	headerPass                             // forwarded
	headerAccount                          // X-WX-APPID
	headerRequestID                        // X-Request-Id
	headerAcceptEncoding                   // forwarded as gzip, or not at all
	headerConnection                       // names further headers to drop
	headerContentLength                    // written anew
	headerOrigin                           // Origin or Sec-Fetch-Site: sent by browsers
	headerBrowser                          // another header that browsers send
	headerReferer                          // sent by browsers, if it has the URL of a page

	// These can hold the caller's key. They are dropped as well.
	headerAuthorization
	headerProxyAuthorization
	headerKey

	// The trace id in one of these is logged. The first one that has one
	// counts.
	headerTraceparent
	headerB3
	headerB3TraceID
	headerSentryTrace
	headerAmznTraceID
	headerRoles // the number of roles
)

// traceHeaders is how many roles are for headers with a trace id.
const traceHeaders = headerRoles - headerTraceparent

// maxHeaderName is the length of the longest name that roleOf knows.
const maxHeaderName = len("proxy-authorization")

// roleOf returns the role of a header, in whatever case its name is written. It
// does not allocate. A switch is faster than a map here.
//
// Headers are forwarded by allow-list: what WeChat has no use for can be about
// the caller's network, or a credential of it. So can the request's trace.
func roleOf(name []byte) headerRole {
	var buf [maxHeaderName]byte
	n := copy(buf[:], name)
	for i, ch := range buf[:n] {
		if ch >= 'A' && ch <= 'Z' {
			buf[i] = ch + 'a' - 'A'
		}
	}
	if n == len(name) {
		switch string(buf[:n]) {
		case "accept", "accept-language", "user-agent", "range", "cache-control", "content-type":
			return headerPass
		case "content-length":
			return headerContentLength
		case "connection":
			return headerConnection
		case "accept-encoding":
			return headerAcceptEncoding
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
		case "origin", "sec-fetch-site":
			return headerOrigin
		case "referer":
			return headerReferer
		}
	}
	// The buffer ends in zeros, so it begins with a prefix only if name does.
	// Wechatmp-* are the headers of signed requests (WeChat's API security).
	if string(buf[:8]) == "content-" || string(buf[:3]) == "if-" || string(buf[:9]) == "wechatmp-" {
		return headerPass
	}
	return rareRoleOf(string(buf[:n]), len(name))
}

// rareRoleOf returns the role of a header that few requests have, or
// headerUnknown. name is the beginning of its name in lower case, and size the
// length of the whole.
//
// Names that begin with Sec- are marks of browsers, which let no script set them
// (Fetch, 2.2.2): Sec-Fetch-*, Sec-CH-UA* and others. Those of WebSockets are
// not, because other clients send them, and browsers send Origin beside them.
func rareRoleOf(name string, size int) headerRole {
	const upgrade = "upgrade-insecure-requests"
	isSec := strings.HasPrefix(name, "sec-") && !strings.HasPrefix(name, "sec-websocket-")
	if isSec || size == len(upgrade) && strings.HasPrefix(upgrade, name) {
		return headerBrowser
	}
	if size != len(name) {
		return headerUnknown
	}
	switch name {
	case "traceparent":
		return headerTraceparent
	case "b3":
		return headerB3
	case "x-b3-traceid":
		return headerB3TraceID
	case "sentry-trace":
		return headerSentryTrace
	case "x-amzn-trace-id":
		return headerAmznTraceID
	}
	return headerUnknown
}

// isPageURL reports whether the value of a Referer is the URL of a page.
func isPageURL(value []byte) bool {
	scheme, _, _ := bytes.Cut(value, []byte(":"))
	return equalFold(scheme, "http") || equalFold(scheme, "https")
}

// neverForwarded are the names that the configuration cannot add to what WeChat
// receives, and why. A name that ends in "*" is a prefix. Every other name can
// be meant for an egress gateway, for example a key of it.
var neverForwarded = []struct {
	names  []string
	reason string
}{
	{[]string{"host", "content-length", "transfer-encoding", "expect", "accept-encoding"},
		"wxproxy writes or answers it itself"},
	{[]string{"connection", "keep-alive", "te", "trailer", "upgrade", "http2-settings", "proxy-*"},
		"it concerns one connection only"},
	{[]string{"authorization", "cookie", "cookie2", "x-wx-appid", "x-request-id", "x-wxproxy-*"},
		"it is for wxproxy, or a credential of the caller"},
	{[]string{"forwarded", "via", "x-forwarded-*", "x-real-ip", "x-client-ip", "true-client-ip",
		"cf-connecting-ip", "x-cluster-client-ip", "x-envoy-*"},
		"it is about the caller's network"},
	{[]string{"traceparent", "tracestate", "baggage", "b3", "x-b3-*", "sentry-trace",
		"x-amzn-trace-id", "uber-trace-id", "uberctx-*", "x-cloud-trace-context", "x-datadog-*", "x-ot-span-context",
		"grpc-trace-bin", "newrelic", "sw8*", "eagleeye-*"},
		"it is part of a trace, and its id is in the log"},
	{[]string{"origin", "referer", "sec-*", "upgrade-insecure-requests"},
		"web browsers send it, and this listener is not for them"},
	{[]string{"x-http-method*", "x-method-override", "x-original-*", "x-rewrite-url",
		"x-override-url"},
		"it could change the method or path on which permissions were decided"},
}

// ForwardHeaderProblem returns why name cannot be in [Config.ForwardHeaders],
// or "". Underscores count as hyphens: some servers take them for the same.
func ForwardHeaderProblem(name string) string {
	if !isToken([]byte(name)) {
		return "is not the name of a header"
	}
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	for _, group := range neverForwarded {
		for _, never := range group.names {
			prefix, isPrefix := strings.CutSuffix(never, "*")
			if name == never || isPrefix && strings.HasPrefix(name, prefix) {
				return "is never forwarded: " + group.reason
			}
		}
	}
	return ""
}

// traceID returns the trace id that the request came with, or "". It returns
// only what is valid, so the id can be logged: letters, digits and hyphens, at
// most 35 of them.
func (h *requestHead) traceID() string {
	for i, value := range h.traces {
		if len(value) == 0 {
			continue
		}
		if id := traceIDIn(headerTraceparent+headerRole(i), value); id != nil {
			return string(id)
		}
	}
	return ""
}

// traceIDIn returns the trace id in the value of a header, or nil if the value
// is not valid. The formats are those of the W3C (Trace Context, 3.2), of
// Zipkin (B3, single and multiple headers), of Sentry, and of AWS X-Ray.
func traceIDIn(role headerRole, value []byte) []byte {
	parts := bytes.SplitN(value, []byte("-"), 5)
	switch role {
	case headerTraceparent: // version-id-parent-flags; later versions can append to it
		if len(parts) >= 4 && isHex(parts[0], 2) && !equalFold(parts[0], "ff") &&
			startWithIDs(parts[1:], 32, 16) && isHex(parts[3], 2) {
			return parts[1]
		}
	case headerB3, headerSentryTrace: // id-span, and more
		if startWithIDs(parts, 32, 16) || role == headerB3 && startWithIDs(parts, 16, 16) {
			return parts[0]
		}
	case headerB3TraceID:
		if isID(value, 32) || isID(value, 16) {
			return value
		}
	case headerAmznTraceID:
		return amazonTraceID(value)
	}
	return nil
}

// startWithIDs reports whether the first parts are ids of these lengths.
func startWithIDs(parts [][]byte, lengths ...int) bool {
	for i, n := range lengths {
		if i >= len(parts) || !isID(parts[i], n) {
			return false
		}
	}
	return true
}

// amazonTraceID returns the trace id in "Root=1-TIME-ID", which can be one of
// several parts between semicolons, or nil.
func amazonTraceID(value []byte) []byte {
	_, root, _ := bytes.Cut(value, []byte("Root="))
	root, _, _ = bytes.Cut(root, []byte(";"))
	parts := bytes.Split(root, []byte("-"))
	if len(parts) == 3 && string(parts[0]) == "1" && startWithIDs(parts[1:], 8, 24) {
		return root
	}
	return nil
}

// isHex reports whether b consists of n hexadecimal digits.
func isHex(b []byte, n int) bool {
	for _, ch := range b {
		if hexDigit(ch) < 0 {
			return false
		}
	}
	return len(b) == n
}

// isID reports whether b consists of n hexadecimal digits that are not all
// zero, which stands for no id.
func isID(b []byte, n int) bool {
	return isHex(b, n) && len(bytes.Trim(b, "0")) > 0
}

// isResponseHop reports whether a header of WeChat's response concerns the
// connection between WeChat and wxproxy only, or is wxproxy's to set.
func isResponseHop(name []byte) bool {
	if len(name) < 2 {
		return false
	}
	// Nearly all names of WeChat's are sorted out here.
	switch name[0] | 0x20 {
	case 'c':
		return equalFold(name, "Connection")
	case 'k':
		return equalFold(name, "Keep-Alive")
	case 'p':
		return equalFold(name, "Proxy-Connection") || equalFold(name, "Proxy-Authenticate") ||
			equalFold(name, "Proxy-Authorization")
	case 't':
		return equalFold(name, "Transfer-Encoding") || equalFold(name, "Te") || equalFold(name, "Trailer")
	case 'u':
		return equalFold(name, "Upgrade")
	case 'x':
		const prefix = "X-Wxproxy-"
		return equalFold(name, "X-Request-Id") ||
			len(name) >= len(prefix) && equalFold(name[:len(prefix)], prefix)
	}
	return false
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
