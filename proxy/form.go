package proxy

import (
	"bytes"
	"encoding/json"
	"net/url"
)

// longestForm bounds the bodies that are read, in bytes: they hold an appid and a few tokens.
const longestForm = 64 << 10

// form is what a request of a token holds.
type form map[string]json.RawMessage

// readForm reads the body as what it is, whatever its Content-Type says: JSON, which SDKs send as a form or as
// nothing in particular, or else a form. What the body does not name may stand in the query.
func (c *call) readForm() form {
	f, body := form{}, bytes.TrimSpace(c.body)
	if !bytes.HasPrefix(body, []byte("{")) || json.Unmarshal(body, &f) != nil {
		f = form{}
		f.take(string(body))
	}
	f.take(string(c.target.query))
	return f
}

// take adds what is written like a query, unless it is there already. A field that occurs twice with different
// values is none.
func (f form) take(query string) {
	values, _ := url.ParseQuery(query) // what can be read of it
	for name, v := range values {
		if _, there := f[name]; there {
			continue
		}
		for _, other := range v[1:] {
			if other != v[0] {
				v[0] = ""
			}
		}
		f[name], _ = json.Marshal(v[0]) // a string: cannot fail
	}
}

// get gives a text, "" where it is something else: some SDKs send null for what they do not have.
func (f form) get(name string) string {
	var s string
	if json.Unmarshal(f[name], &s) != nil {
		return ""
	}
	return s
}
