package sandbox

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxBody is the most that is read of a request, in bytes. WeChat's largest upload is 10 MB.
const maxBody = 40 << 20

// call is a request under way.
type call struct {
	*http.Request
	now    time.Time
	method string
	path   string // as received
	query  []pair // in order, decoded
	body   []byte
	sum    [32]byte
	upload upload // of a multipart body, once the row of the path asks for it

	token   *token // nil: none, or none ever given out
	account *account
	fault   *Fault
}

// pair is a parameter of a query.
type pair struct{ name, value string }

// newCall reads the request. ok is false where the body could not be read whole.
func newCall(r *http.Request, now time.Time) (c *call, ok bool) {
	c = &call{Request: r, now: now, method: r.Method, path: r.URL.EscapedPath(), query: parseQuery(r.URL.RawQuery)}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	c.body, c.sum = body, sha256.Sum256(body)
	return c, err == nil && len(body) <= maxBody
}

// parseQuery takes everything: what cannot be decoded stays as it is. url.ParseQuery would drop it, and a
// credential with it.
func parseQuery(raw string) []pair {
	var out []pair
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		out = append(out, pair{unescape(name), unescape(value)})
	}
	return out
}

func unescape(s string) string {
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}

// arg gives the first parameter of that name, "" where there is none.
func (c *call) arg(name string) string {
	for _, p := range c.query {
		if p.name == name {
			return p.value
		}
	}
	return ""
}

// decode reads the JSON body; false: it has another shape (47001).
func decode[T any](c *call) (v T, ok bool) {
	return v, json.Unmarshal(c.body, &v) == nil
}

// field gives a string of the body's top level, "" where there is none of that name.
func (c *call) field(name string) string {
	var m map[string]json.RawMessage
	var v string
	if json.Unmarshal(c.body, &m) == nil {
		_ = json.Unmarshal(m[name], &v) // not a string: ""
	}
	return v
}

// escaped reports whether JSON holds a \uXXXX, which WeChat refuses in menus and messages.
func escaped(body []byte) bool {
	for {
		i := bytes.IndexByte(body, '\\')
		if i < 0 || i+1 >= len(body) {
			return false
		}
		if body[i+1] == 'u' {
			return true
		}
		body = body[i+2:] // whatever is escaped, a backslash for one, begins nothing
	}
}
