package protocol

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"wxproxy/sandbox/internal/state"
)

// maxBody is how many bytes of a request body are read. WeChat's largest upload
// is 10 MB, so that this leaves room for tests of what is too large.
const maxBody = 40 << 20

// Request is a request to one of WeChat's endpoints, with its body read. It is
// used by one goroutine.
type Request struct {
	*http.Request
	Now    time.Time // when it arrived: the one time that counts for it
	Path   string    // as received, neither decoded nor cleaned
	Body   []byte
	SHA256 [sha256.Size]byte // of the body

	query  []Param
	upload upload // file of a multipart body, once its endpoint has asked for it

	// Set by API.admit, for the endpoints that take such a token.
	account state.Account // the account whose token it is
	user    state.Token   // the end user's token
}

// Param is one parameter of a query or a form, decoded.
type Param struct{ Name, Value string }

// ReadRequest reads r with its body. complete is false if the body is too large
// or if the client did not send all of it.
func ReadRequest(r *http.Request, now time.Time) (req *Request, complete bool) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	req = &Request{
		Request: r, Now: now, Path: r.URL.EscapedPath(),
		Body: body, SHA256: sha256.Sum256(body), query: parseParams(r.URL.RawQuery),
	}
	return req, err == nil && len(body) <= maxBody
}

// parseParams parses a query or a form. What cannot be decoded stays as it is:
// url.ParseQuery would drop it, and perhaps a credential with it.
func parseParams(raw string) []Param {
	var out []Param
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		out = append(out, Param{unescape(name), unescape(value)})
	}
	return out
}

// unescape returns s unchanged if it is not well-formed.
func unescape(s string) string {
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}

// Query returns the parameters of the query in order. It must not be changed.
func (r *Request) Query() []Param { return r.query }

// Arg returns the first query parameter of that name, "" if there is none.
func (r *Request) Arg(name string) string {
	for _, p := range r.query {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

// Field returns a string at the top level of the JSON body, "" if there is none
// of that name or if it is no string.
func (r *Request) Field(name string) string {
	var object map[string]json.RawMessage
	var v string
	if json.Unmarshal(r.Body, &object) == nil {
		_ = json.Unmarshal(object[name], &v)
	}
	return v
}

// FormParams returns the parameters of a body in the form of a query.
func (r *Request) FormParams() []Param { return parseParams(string(r.Body)) }

// LengthMissing reports whether the request has a body whose end is not
// announced by a Content-Length. WeChat's edge refuses such requests with 412.
func (r *Request) LengthMissing() bool {
	if len(r.TransferEncoding) > 0 || r.ContentLength < 0 {
		return true
	}
	// net/http takes a POST without any length as one without a body.
	return r.Method == http.MethodPost && r.ProtoMajor == 1 &&
		r.ContentLength == 0 && r.Header.Get("Content-Length") == ""
}

// decode parses the JSON body; ok is false if it has another shape (47001).
func decode[T any](r *Request) (v T, ok bool) {
	return v, json.Unmarshal(r.Body, &v) == nil
}

// hasUnicodeEscape reports whether JSON contains \uXXXX, which WeChat refuses
// in menus and messages (40033).
func hasUnicodeEscape(body []byte) bool {
	for {
		i := bytes.IndexByte(body, '\\')
		if i < 0 || i+1 >= len(body) {
			return false
		}
		if body[i+1] == 'u' {
			return true
		}
		body = body[i+2:] // the escaped character may be a backslash: skip both
	}
}
