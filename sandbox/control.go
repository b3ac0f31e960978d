package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"wxproxy/sandbox/internal/origin"
	"wxproxy/wechat"
)

const (
	maxControlBody = 1 << 20 // bytes of a request to a control endpoint
	maxQuoted      = 40      // characters of a request that an error quotes
)

// controlServer serves the control endpoints below /sandbox/ and their page. It
// does nothing that the exported methods of WeChat cannot do.
type controlServer struct {
	wx    *WeChat
	guard *origin.Guard
}

// controlError is an error with the HTTP status that reports it.
type controlError struct {
	status int
	text   string
}

// Error implements error. The text is what the client reads.
func (e controlError) Error() string { return e.text }

// badRequest returns an error that is reported with 400.
func badRequest(format string, args ...any) error {
	return controlError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// ServeHTTP answers in JSON, except for the page.
func (c *controlServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	if err := c.guard.Check(r); err != nil {
		writeControl(w, nil, controlError{http.StatusForbidden, err.Error()})
		return
	}
	if r.URL.Path == "/sandbox" || r.URL.Path == "/sandbox/" {
		c.servePage(w, r)
		return
	}
	result, err := c.serve(r)
	writeControl(w, result, err)
}

// serve finds the route of a request, checks the request against it, and
// carries it out. A result with an error says what was done before it failed.
func (c *controlServer) serve(r *http.Request) (result any, err error) {
	route, err := findRoute(r.Method, r.URL.Path)
	if err != nil {
		return nil, err
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("malformed query")
	}
	if err := route.checkQuery(q); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxControlBody+1))
	switch {
	case err != nil:
		return nil, badRequest("incomplete body")
	case len(body) > maxControlBody:
		return nil, controlError{http.StatusRequestEntityTooLarge, "body larger than 1 MiB"}
	case route.Body == "" && len(bytes.TrimSpace(body)) > 0:
		return nil, badRequest("this endpoint takes no body; put parameters into the query")
	}
	return route.serve(c, controlRequest{Request: r, query: q, body: body})
}

// findRoute returns the route for a method and a path.
func findRoute(method, path string) (*route, error) {
	var allowed []string
	for i := range routes {
		if routes[i].Path != path {
			continue
		}
		if routes[i].Method == method {
			return &routes[i], nil
		}
		allowed = append(allowed, routes[i].Method)
	}
	if allowed == nil {
		return nil, controlError{http.StatusNotFound, "unknown endpoint; /sandbox/ lists all"}
	}
	return nil, controlError{http.StatusMethodNotAllowed, "this endpoint takes " + strings.Join(allowed, ", ")}
}

// checkQuery rejects parameters that the route does not know, because a
// mistyped one would otherwise be ignored.
func (r *route) checkQuery(q url.Values) error {
	known := "none"
	if len(r.Params) > 0 {
		known = strings.Join(r.Params, ", ")
	}
	for name, values := range q {
		if !slices.Contains(r.Params, name) {
			return badRequest("unknown parameter %q; known: %s", wechat.Sanitize(name, maxQuoted), known)
		}
		if len(values) > 1 {
			return badRequest("parameter %q appears more than once", name)
		}
	}
	return nil
}

// readJSON parses a body that is one object with known fields.
func readJSON(body []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("data after the object")
		}
	}
	if err != nil {
		return badRequest("malformed body: %s", wechat.Sanitize(strings.TrimPrefix(err.Error(), "json: "), maxQuoted))
	}
	return nil
}

// writeControl writes a result, or an error as {"error": …}.
func writeControl(w http.ResponseWriter, result any, err error) {
	status := http.StatusOK
	if err != nil {
		status = http.StatusBadRequest
		var e controlError
		if errors.As(err, &e) {
			status = e.status
		}
		out := fields{"error": strings.TrimPrefix(err.Error(), "sandbox: ")}
		if partial, ok := result.(fields); ok {
			maps.Copy(out, partial)
		}
		result = out
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(result) // fails only if the client is gone
}
