package proxy

import (
	"bytes"
	"encoding/json"
	"net/url"
)

// maxFormSize bounds the body of a request for a stand-in, in bytes: it holds
// an appid, a key and a few tokens. It also bounds the bodies of requests that
// are rejected.
const maxFormSize = 64 << 10

// form holds the parameters of a request for a stand-in. The zero value is the
// form of a request whose body has not been read.
type form struct {
	fields map[string]json.RawMessage
	state  formState
}

// formState says how much of a form is known. What is not known yet is not held
// against the request.
type formState uint8

const (
	// formUnread is the form of a request whose body has not been read. Nothing
	// is known: the body takes precedence over the query, so it could name
	// other values than the query does.
	formUnread formState = iota
	// formQueryOnly is the form of a request that Explain or Permission asks
	// about. There is no body to contradict the query, so what the query names
	// counts. What it does not name could be in a body.
	formQueryOnly
	// formComplete is the form of a request whose body has been read. What is
	// missing stays missing.
	formComplete
)

// readForm reads the parameters of a request. The body is JSON or a form,
// whatever its Content-Type says: SDKs send JSON under the types of forms, or
// under none. The query adds what the body does not name.
func readForm(body, query []byte) form {
	f := form{fields: map[string]json.RawMessage{}, state: formComplete}
	body = bytes.TrimSpace(body)
	if !bytes.HasPrefix(body, []byte("{")) || json.Unmarshal(body, &f.fields) != nil {
		f.fields = map[string]json.RawMessage{}
		f.add(string(body))
	}
	f.add(string(query))
	return f
}

// queryForm returns the form of a request of which only the query is known.
func queryForm(query []byte) form {
	f := readForm(nil, query)
	f.state = formQueryOnly
	return f
}

// add adds the parameters in a query string that are not there yet. A parameter
// that occurs with different values counts as empty.
func (f *form) add(query string) {
	values, _ := url.ParseQuery(query) // as far as it can be parsed
	for name, v := range values {
		if _, there := f.fields[name]; there {
			continue
		}
		for _, other := range v[1:] {
			if other != v[0] {
				v[0] = ""
			}
		}
		f.fields[name], _ = json.Marshal(v[0]) // cannot fail: it is a string
	}
}

// get returns a string, or "" if the value is anything else. Some SDKs send
// null for values that they do not have.
func (f *form) get(name string) string {
	var s string
	if json.Unmarshal(f.fields[name], &s) != nil {
		return ""
	}
	return s
}

// complete reports whether nothing can supply a field that is missing.
func (f *form) complete() bool { return f.state == formComplete }
