package console

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

// This file defines the JSON for operators' programs. Names are in snake_case,
// times in RFC 3339, and durations in seconds. A field without a value is
// omitted, except counters.

// Limits of query parameters.
const (
	defaultLimit = 50   // accounts in one response
	maxLimit     = 1000 // a larger limit means this one
	maxParameter = 200  // bytes of q, method and caller
	maxPath      = 8192 // bytes of the path to explain
)

// api adds the routes of the JSON API.
func (s *state) api() {
	read := []string{http.MethodGet, http.MethodHead}
	post := []string{http.MethodPost}
	s.routes["/api/status"] = route{methods: read, serve: s.serveStatus}
	s.routes["/api/accounts"] = route{methods: read, serve: s.serveList}
	s.routes["/api/accounts/import"] = route{methods: post, serve: s.serveImport}
	s.routes["/api/sync"] = route{methods: post, serve: s.serveSync}
	if s.export != nil {
		get := []string{http.MethodGet}
		s.routes["/api/store/export"] = route{methods: get, serve: s.serveExport}
	}
	if s.events != nil {
		s.eventRoutes()
	}
	if s.explain != nil {
		s.routes["/api/explain"] = route{methods: read, serve: s.serveExplain}
	}
}

// accountRoute finds the route of a path below /api/accounts/APPID. An invalid
// appid is reported as such, rather than as an unknown path. Percent-encoding
// is not decoded, because no appid needs it.
func (s *state) accountRoute(u *url.URL) (route, bool) {
	rest, ok := strings.CutPrefix(u.EscapedPath(), "/api/accounts/")
	if !ok || s.accounts == nil {
		return route{}, false
	}
	appid, verb, hasVerb := strings.Cut(rest, "/")
	with := func(serve func(http.ResponseWriter, *http.Request, string) *fault) func(
		http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			f := badAppID
			if wechat.IsAppID(appid) {
				f = serve(w, r, appid)
			}
			if f != nil {
				fail(w, r, f)
			}
		}
	}
	switch {
	case !hasVerb:
		return route{methods: []string{http.MethodGet, http.MethodHead, http.MethodDelete},
			serve: with(s.serveAccount)}, true
	case verb == "refresh":
		return route{methods: []string{http.MethodPost}, serve: with(s.serveRefresh)}, true
	}
	return route{}, false
}

// badAppID is the response to an invalid appid.
var badAppID = &fault{
	status: http.StatusBadRequest,
	msg:    "invalid appid",
	hint:   "an appid is wx and 16 lower-case letters or digits",
}

// account is [tokens.Account] as JSON. Secrets appear as fingerprints, which is
// enough to see whether two places have the same.
type account struct {
	AppID      string       `json:"appid"`
	Kind       string       `json:"kind"` // authorizer, component, app
	State      tokens.State `json:"state"`
	Name       string       `json:"name,omitempty"`
	Type       string       `json:"type,omitempty"`
	Token      string       `json:"token_fingerprint,omitempty"`
	Refresh    string       `json:"refresh_token_fingerprint,omitempty"`
	Issued     time.Time    `json:"issued,omitzero"`
	Expires    time.Time    `json:"expires,omitzero"`
	Age        *int64       `json:"age,omitempty"`        // seconds since it was issued
	ExpiresIn  *int64       `json:"expires_in,omitempty"` // seconds, negative if expired; absent without a token
	Authorized time.Time    `json:"authorized,omitzero"`
	Revoked    time.Time    `json:"revoked,omitzero"`
	Forgotten  time.Time    `json:"forgotten,omitzero"`
	Failures   int          `json:"failures"`
	Failure    string       `json:"failure,omitempty"`
	RetryAt    time.Time    `json:"retry_at,omitzero"`
}

// newAccount returns a as JSON, with ages as of now.
func newAccount(a tokens.Account, now time.Time) account {
	out := account{
		AppID: a.AppID, Kind: a.Kind.String(), State: a.State, Name: a.Name, Type: a.Type,
		Token: a.Token, Refresh: a.RefreshToken,
		Issued: utc(a.Issued), Expires: utc(a.Expires),
		Authorized: utc(a.Authorized), Revoked: utc(a.Revoked), Forgotten: utc(a.Forgotten),
		Failures: a.Failures, Failure: a.Failure, RetryAt: utc(a.RetryAt),
	}
	if !a.Issued.IsZero() {
		out.Age = seconds(now.Sub(a.Issued))
	}
	if !a.Expires.IsZero() {
		out.ExpiresIn = seconds(a.Expires.Sub(now))
	}
	return out
}

// utc returns t in UTC, in whole seconds, so that replicas in different time
// zones give equal responses.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Truncate(time.Second)
}

// seconds returns d in whole seconds.
func seconds(d time.Duration) *int64 {
	n := int64(d / time.Second)
	return &n
}

// query returns the query parameters of a request. Invalid and repeated
// parameters are reported, not ignored.
func query(r *http.Request) (url.Values, *fault) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, &fault{status: http.StatusBadRequest, msg: "invalid query",
			hint: "percent-encode what is not a letter or a digit"}
	}
	for _, values := range q {
		if len(values) > 1 {
			return nil, &fault{status: http.StatusBadRequest, msg: "repeated query parameter",
				hint: "send each parameter once"}
		}
	}
	return q, nil
}

// number returns a query parameter that is a whole number of at least least,
// and otherwise if there is none.
func number(q url.Values, name string, least, otherwise int) (int, *fault) {
	text := q.Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || int(n) < least {
		return 0, &fault{status: http.StatusBadRequest, msg: "invalid " + name, hint: name +
			" is a whole number from " + strconv.Itoa(least) + " on"}
	}
	return int(n), nil
}

// accountState returns the query parameter state, "" if there is none.
func accountState(q url.Values) (tokens.State, *fault) {
	s := tokens.State(q.Get("state"))
	if s == "" || slices.Contains(tokens.States(), s) {
		return s, nil
	}
	return "", &fault{status: http.StatusBadRequest, msg: "unknown state",
		hint: "a state is active, failing, revoked or forgotten"}
}

// flag returns a query parameter that is true or false, and false if there is
// none.
func flag(q url.Values, name string) (bool, *fault) {
	switch q.Get(name) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, &fault{status: http.StatusBadRequest, msg: "invalid " + name,
		hint: name + " is true or false"}
}

// serveStatus is GET /api/status.
func (s *state) serveStatus(w http.ResponseWriter, r *http.Request) {
	type component struct {
		AppID     string `json:"appid"`
		TicketAge *int64 `json:"ticket_age"`       // seconds; null without a ticket
		ExpiresIn *int64 `json:"token_expires_in"` // seconds, negative if expired; null without a token
	}
	type counts struct {
		Active    int `json:"active"`
		Revoked   int `json:"revoked"`
		Failing   int `json:"failing"`
		Forgotten int `json:"forgotten"`
	}
	type comparison struct {
		Age *int64 `json:"age"` // seconds since the last complete one; null without one
		// Held accounts of Of have left WeChat's list. They are so many that an
		// operator has to confirm that they are revoked.
		Held int `json:"held"`
		Of   int `json:"of,omitempty"`
	}
	out := struct {
		Version   string     `json:"version"`
		GoVersion string     `json:"go_version"`
		Started   time.Time  `json:"started"`
		Uptime    int64      `json:"uptime"` // seconds
		Store     string     `json:"store"`
		Ready     bool       `json:"ready"`
		Reasons   []string   `json:"reasons"`   // why it is not ready; empty if it is
		Component *component `json:"component"` // null if none is configured
		Accounts  counts     `json:"accounts"`  // authorizers, by state
		Sync      comparison `json:"sync"`
		// Events is null if the size of the queue is not known.
		Events *eventTotals `json:"events"`
	}{
		Version: s.about.Version, GoVersion: s.about.GoVersion, Store: s.about.Store,
		Started: utc(s.about.Started), Uptime: *seconds(
			time.Since(s.about.Started)), Ready: true, Reasons: []string{},
		Events: s.eventTotals(),
	}
	if err := s.ready.get(r.Context()); err != nil {
		out.Ready = false
		out.Reasons = strings.Split(strings.TrimSpace(err.Error()), "\n")
	}
	if appid := s.stats.Component(); appid != "" {
		out.Component = &component{AppID: appid}
		if age, ok := s.stats.TicketAge(); ok {
			out.Component.TicketAge = seconds(age)
		}
		if left, ok := s.stats.ComponentExpiry(); ok {
			out.Component.ExpiresIn = seconds(left)
		}
	}
	if c, ok := s.stats.Comparison(); ok {
		out.Sync = comparison{Age: seconds(c.Age), Held: c.Held, Of: c.HeldOf}
	}
	c, _ := s.stats.AccountCounts()
	out.Accounts = counts(c)
	replyJSON(w, http.StatusOK, out)
}
