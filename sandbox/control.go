package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// controlLimit is the most that is read of a body at the control door, in bytes.
const controlLimit = 1 << 20

// route is one row of the control door. The page shows them, so that it cannot fall behind.
type route struct {
	Method string
	Path   string
	Params []string // of the query; any other is refused
	Body   string   // an example in JSON; "": it takes none
	What   string
	serve  func(s *WeChat, r *http.Request, q url.Values, body []byte) (any, error)
}

// refusal is an error with an HTTP status.
type refusal struct {
	status int
	text   string
}

func (r refusal) Error() string { return r.text }

func badRequest(format string, args ...any) error {
	return refusal{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// serveControl is the second door. It answers in JSON, but for the page.
func (s *WeChat) serveControl(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	if err := s.foreign(r); err != nil {
		answerControl(w, nil, err)
		return
	}
	if r.URL.Path == "/sandbox" || r.URL.Path == "/sandbox/" {
		s.servePage(w, r)
		return
	}
	result, err := s.control(r)
	answerControl(w, result, err)
}

// foreign refuses what a web site that a developer happens to look at could send to a sandbox on the same machine:
// requests that the browser says come from elsewhere, and, against sites that point their own name at this
// address, host names that could be anybody's.
func (s *WeChat) foreign(r *http.Request) error {
	switch site := r.Header.Get("Sec-Fetch-Site"); site {
	case "", "none", "same-origin":
	default:
		return refusal{http.StatusForbidden, "this door takes no requests from other web sites"}
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		if u, err := url.Parse(origin); err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
			return refusal{http.StatusForbidden, "this door takes no requests from other web sites"}
		}
	}
	if !s.hostAllowed(r.Host) {
		return refusal{http.StatusForbidden, "this door is not reached under that host name: use an IP address or localhost"}
	}
	return nil
}

func (s *WeChat) hostAllowed(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	for _, end := range []string{".localhost", ".test", ".internal"} {
		if strings.HasSuffix(host, end) {
			return true
		}
	}
	return host != "" && !strings.Contains(host, ".") || slices.ContainsFunc(s.cfg.ControlHosts, func(h string) bool { return strings.EqualFold(h, host) })
}

func (s *WeChat) control(r *http.Request) (any, error) {
	var row *route
	var allowed []string
	for i := range routes {
		if routes[i].Path == r.URL.Path {
			allowed = append(allowed, routes[i].Method)
			if routes[i].Method == r.Method {
				row = &routes[i]
			}
		}
	}
	switch {
	case allowed == nil:
		return nil, refusal{http.StatusNotFound, "there is nothing at this address; /sandbox/ lists what there is"}
	case row == nil:
		return nil, refusal{http.StatusMethodNotAllowed, "this address takes " + strings.Join(allowed, ", ")}
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("the query cannot be decoded")
	}
	for name, values := range q {
		if !slices.Contains(row.Params, name) {
			return nil, badRequest("there is no parameter %q here; there are: %s", clip(name), orNone(row.Params))
		}
		if len(values) > 1 {
			return nil, badRequest("the parameter %q comes more than once", name)
		}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, controlLimit+1))
	switch {
	case err != nil:
		return nil, badRequest("the body broke off")
	case len(body) > controlLimit:
		return nil, refusal{http.StatusRequestEntityTooLarge, "the body is longer than 1 MiB"}
	case row.Body == "" && len(bytes.TrimSpace(body)) > 0:
		return nil, badRequest("this address takes no body; parameters go into the query")
	}
	return row.serve(s, r, q, body)
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// clip keeps what is quoted back short.
func clip(text string) string {
	if r := []rune(text); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return text
}

// readJSON wants one object with known fields.
func readJSON(body []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("there is something after the object")
		}
	}
	if err != nil {
		return badRequest("the body is not what this address takes: %s", clip(strings.TrimPrefix(err.Error(), "json: ")))
	}
	return nil
}

func answerControl(w http.ResponseWriter, result any, err error) {
	status := http.StatusOK
	if err != nil {
		status = http.StatusBadRequest
		var r refusal
		if errors.As(err, &r) {
			status = r.status
		}
		out := fields{"error": strings.TrimPrefix(err.Error(), "sandbox: ")}
		if more, is := result.(fields); is { // what was done before it failed
			for k, v := range more {
				out[k] = v
			}
		}
		result = out
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(append(encode(result), '\n'))
}
