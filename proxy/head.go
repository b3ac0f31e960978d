package proxy

import (
	"bytes"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// requestHead is the content of a request line and headers, before any rule is
// applied. Everything that decides about a request is here, so that decisions
// can be made before the body is read, and can be asked for without a request.
// Its slices point into fasthttp's request, or into its own buffers.
type requestHead struct {
	received    time.Time // when the request arrived; stand-ins must be valid then
	method      []byte
	target      target
	host        []byte // value of Host, empty without one
	account     []byte // value of X-WX-APPID, nil without one
	requestID   []byte
	traces      [traceHeaders][]byte // values of the headers that can have a trace id
	keys        keyHeaders
	certificate string // common name of the verified client certificate, or ""

	accountConflict bool // X-WX-APPID occurs with different values
	browser         bool // sent by a page in a web browser
	browserMarks    bool // may have been sent by a web browser
	// hasLength means that the caller has sent a Content-Length.
	hasLength bool
	// hasBody means that a body is announced which is not empty. A chunked body
	// can be empty, so it does not count.
	hasBody bool

	// forwarded holds the headers that WeChat receives, each with its line end.
	forwarded []byte

	// form holds the parameters of a request for a stand-in.
	form form

	// assumed makes assumedCaller the caller, instead of the one whose key or
	// certificate the head presents. If assumedCaller is nil everything is
	// allowed, unless the query has a stand-in, which belongs to a caller.
	// Explain and Permission use it.
	assumed       bool
	assumedCaller *caller

	// scratch is memory for decoded keys and stand-ins. Slices of the decision
	// point into it. Until reset it is only appended to: when it has to grow,
	// they keep the old memory, which nothing overwrites.
	scratch []byte
}

// reset clears h and keeps the memory that the next request can use.
func (h *requestHead) reset() {
	*h = requestHead{forwarded: h.forwarded[:0], scratch: h.scratch[:0]}
}

// parse fills h from r. It returns the error of a request that must be
// rejected, whatever its credentials are.
// forward are the names of further headers that are forwarded.
func (h *requestHead) parse(r *fasthttp.RequestHeader, forward []string) (err *apiError) {
	if r.IsConnect() {
		return errConnect
	}
	if ambiguousFraming(r) {
		return errMalformedRequest
	}
	h.method, h.host = r.Method(), r.Host()
	h.hasBody = r.ContentLength() > 0
	if !h.readHeaders(r, forward) {
		return errHeader
	}
	if h.target, err = parseTarget(r.RequestURI()); err != nil {
		return err
	}
	if h.browser {
		return errBrowser
	}
	return nil
}

// readHeaders sorts the headers into those that are forwarded, as the caller
// spelled them, and those that are for wxproxy. It returns false if a header
// contains control characters. All others are dropped.
func (h *requestHead) readHeaders(r *fasthttp.RequestHeader, forward []string) bool {
	var connection [][]byte // header names listed in Connection
	for name, value := range r.All() {
		switch role := roleOf(name); role {
		case headerPass, headerUnknown:
			if !isToken(name) || !isPrintable(value) {
				return false
			}
			if role == headerPass || containsFold(forward, unsafeString(name)) {
				h.forwarded = appendHeader(h.forwarded, name, value)
			}
		case headerAuthorization, headerProxyAuthorization, headerKey:
			h.keys.add(role, value)
		case headerAccount:
			if h.account != nil && !bytes.Equal(h.account, value) {
				h.accountConflict = true
			}
			h.account = value
		case headerRequestID:
			h.requestID = value
		case headerAcceptEncoding:
			// Compressed responses have to be searched, and gzip is all that
			// can be decompressed here.
			if acceptsGzip(value) {
				h.forwarded = append(h.forwarded, "Accept-Encoding: gzip\r\n"...)
			}
		case headerConnection:
			connection = appendListed(connection, value)
		case headerContentLength:
			// fasthttp adds "0" where none was sent, except for GET and HEAD.
			h.hasLength = string(value) != "0" || sentLength(r)
		case headerOrigin, headerBrowser, headerReferer:
			h.noteBrowser(role, value)
		default: // the roles of traces are the last ones
			h.traces[role-headerTraceparent] = value
		}
	}
	if connection != nil {
		h.forwarded = removeListed(h.forwarded, connection)
	}
	return true
}

// noteBrowser records a header that browsers send.
func (h *requestHead) noteBrowser(role headerRole, value []byte) {
	switch role {
	case headerOrigin:
		// Sec-Fetch-Site is "none" if the user typed the address.
		h.browser = h.browser || !equalFold(value, "none")
	case headerReferer:
		h.browserMarks = h.browserMarks || isPageURL(value)
		return
	}
	h.browserMarks = true
}

// appendHeader appends a header line.
func appendHeader(b, name, value []byte) []byte {
	b = append(append(b, name...), ": "...)
	return append(append(b, value...), "\r\n"...)
}

// appendListed appends the header names in value, the value of a Connection
// header.
func appendListed(names [][]byte, value []byte) [][]byte {
	for name := range bytes.SplitSeq(value, []byte(",")) {
		name = bytes.TrimSpace(name)
		if len(name) > 0 && !equalFold(name, "close") && !equalFold(name, "keep-alive") {
			names = append(names, name)
		}
	}
	return names
}

// removeListed removes the header lines whose names are listed. It allocates:
// clients that list headers in Connection are rare.
func removeListed(lines []byte, listed [][]byte) []byte {
	all := strings.SplitAfter(string(lines), "\r\n")
	lines = lines[:0]
next:
	for _, line := range all {
		name, _, _ := strings.Cut(line, ":")
		for _, l := range listed {
			if equalFold(l, name) {
				continue next
			}
		}
		lines = append(lines, line...)
	}
	return lines
}

// ambiguousFraming reports whether a server before wxproxy might see the end of
// the request elsewhere, which would allow request smuggling. fasthttp takes
// any version for HTTP/1. It also takes "Transfer-Encoding: identity" for no
// body, but that coding no longer exists (RFC 9112, 6.3 and A.2).
func ambiguousFraming(r *fasthttp.RequestHeader) bool {
	if !r.IsHTTP11() && string(r.Protocol()) != "HTTP/1.0" {
		return true
	}
	if n := r.ContentLength(); n > 0 || n == -1 {
		return false // -1: chunked
	}
	for line := range bytes.Lines(r.RawHeaders()) {
		if line[0]|0x20 != 't' {
			continue // this is fast: nearly every request is read here
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if equalFold(name, "Transfer-Encoding") && !equalFold(bytes.TrimSpace(value), "chunked") {
			return true
		}
	}
	return false
}

// sentLength reports whether the headers, as they were received, contain a
// Content-Length.
func sentLength(r *fasthttp.RequestHeader) bool {
	for line := range bytes.Lines(r.RawHeaders()) {
		if name, _, _ := bytes.Cut(line, []byte(":")); equalFold(name, "Content-Length") {
			return true
		}
	}
	return false
}

// acceptsGzip reports whether value, of an Accept-Encoding header, allows gzip.
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
