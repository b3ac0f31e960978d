// Package protocol answers requests to api.weixin.qq.com as WeChat does, from
// the memory in package state. Each family of endpoints has a handler type and
// a file, which also lists its paths.
//
// It does not know faults, the history of requests, or the control endpoints:
// package sandbox applies those around it. It never blocks.
//
// Errcodes are written as numbers, as in WeChat's documentation, so that they
// can be searched for; errmsg.go has their texts.
package protocol

import (
	"net/http"
	"time"

	"wxproxy/sandbox/internal/state"
)

// Config holds what the endpoints need besides the state.
type Config struct {
	ComponentAppID  string
	ComponentSecret string
	TokenLife       time.Duration

	// StartTicketPush starts to push a ticket in the background, if that is
	// possible. It must not block.
	StartTicketPush func()
	// FindFailed returns the failed request of that rid, if it is remembered.
	FindFailed func(rid string) (FailedRequest, bool)
}

// API is the endpoints of api.weixin.qq.com. It is safe for concurrent use.
type API struct {
	state     *state.State
	endpoints endpoints // not written after NewAPI
}

// NewAPI returns the endpoints of a WeChat with that state.
func NewAPI(st *state.State, c Config) *API {
	a := &API{state: st}
	a.endpoints = newEndpoints(st, c, a.has)
	return a
}

// has reports whether there is an endpoint at that path.
func (a *API) has(path string) bool {
	_, known := a.endpoints[path]
	return known
}

// TakesSecret reports whether the endpoint takes an app secret instead of a
// token. A secret in a request to any other endpoint is a mistake.
func (a *API) TakesSecret(path string) bool {
	e, known := a.endpoints[path]
	return known && e.token == noToken
}

// Token returns the token that a request carries, good or not. known is false
// if it carries none that was ever issued.
func (a *API) Token(r *Request) (t state.Token, known bool) {
	if values := r.Credentials(); len(values) > 0 {
		return a.findToken(values[0])
	}
	return state.Token{}, false
}

// findToken looks the token up among those of accounts and those of end users.
func (a *API) findToken(value string) (state.Token, bool) {
	if t, known := a.state.Accounts.Token(value); known {
		return t, true
	}
	return a.state.EndUsers.Token(value)
}

// Serve answers a request that WeChat's edge has let through. It checks the
// path, the encoding, the token and the form of the request, and then carries
// it out.
func (a *API) Serve(r *Request) Response {
	e, known := a.endpoints[r.Path]
	switch encoding := r.Header.Get("Content-Encoding"); {
	case !known:
		return fail(40066)
	case encoding != "" && encoding != "identity":
		return fail(40221)
	}
	formCode := e.checkForm(r)
	if formCode == 43001 || formCode == 43002 {
		return fail(formCode)
	}
	// An expired token is reported before a malformed body, as at WeChat. A
	// proxy can repair the former and must not miss it because of the latter.
	if code := a.admit(r, &e); code != 0 {
		return fail(code)
	}
	if formCode != 0 {
		return fail(formCode)
	}
	if r.account.AppID != "" {
		a.state.Quotas.Count(r.account.AppID, r.Path, r.Now)
	}
	return e.serve(r)
}

// edgeError is a response of the servers before api.weixin.qq.com: HTML, and no
// errcode.
func edgeError(status int, text string) Response {
	return Response{
		Status: status, ContentType: "text/html",
		Body: []byte("<html><head><title>" + text + "</title></head></html>\r\n"),
	}
}

// LengthRequired is what the edge answers to a body without a Content-Length.
func LengthRequired() Response {
	return edgeError(http.StatusPreconditionFailed, "412 Precondition Failed")
}

// TooLarge is what the edge answers to a body that is too large or incomplete.
func TooLarge() Response {
	return edgeError(http.StatusRequestEntityTooLarge, "413 Request Entity Too Large")
}
