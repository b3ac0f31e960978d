package protocol

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"

	"wxproxy/sandbox/internal/state"
)

// The two query parameters that carry a token.
const (
	AccessToken          = "access_token"
	ComponentAccessToken = "component_access_token"
)

// Credentials returns the values of both parameters, in order.
func (r *Request) Credentials() []string {
	var out []string
	for _, p := range r.query {
		if p.Name == AccessToken || p.Name == ComponentAccessToken {
			out = append(out, p.Value)
		}
	}
	return out
}

// admit decides whether the request carries the token that its endpoint takes,
// and finds the account. It returns an errcode, 0 if the request is admitted.
func (a *API) admit(r *Request, e *endpoint) int {
	if len(r.Credentials()) > 1 {
		// It is not known which of two WeChat uses. No client should depend on
		// that, so two are an error here.
		return 40001
	}
	if e.token == noToken {
		return 0
	}
	value := ""
	for _, name := range e.tokenParams(r.Path) {
		if v := r.Arg(name); v != "" {
			value = v
		}
	}
	if value == "" {
		if takesLongNameOnly(r.Path) {
			return 41021
		}
		return 41001
	}
	t, known := a.findToken(value)
	if !known {
		if !state.WellFormedToken(value) {
			return 40014
		}
		return 40001
	}
	if code := t.Refusal(r.Now); code != 0 {
		return code
	}
	if code := e.checkKind(t.Kind); code != 0 {
		return code
	}
	if t.Kind == state.UserToken {
		r.user = t
		return 0
	}
	account, known := a.state.Accounts.Find(t.AppID)
	if !known || t.Kind == state.AuthorizerToken && !account.Authorized {
		return 61003
	}
	r.account = account
	return 0
}

// checkKind returns the errcode of a request with a good token of that kind.
func (e *endpoint) checkKind(kind state.TokenKind) int {
	if kind == state.UserToken || e.token == userToken {
		if kind != state.UserToken || e.token != userToken {
			return 40001
		}
		return 0
	}
	switch component := kind == state.ComponentToken; {
	case component && e.token == privacyToken:
		// These paths begin with /cgi-bin/component/ but take the account's
		// token, which proxies get wrong.
		return 40001
	case component && e.token == accountToken:
		return 61015
	case !component && e.token == componentToken:
		return 61014
	}
	return 0
}

// tokenParams returns the parameters in which the endpoint takes its token.
// Component-level endpoints are documented with both names, in old pages and
// new ones.
func (e *endpoint) tokenParams(path string) []string {
	if takesLongNameOnly(path) {
		return []string{ComponentAccessToken}
	}
	if e.token == componentToken {
		for _, prefix := range []string{"/cgi-bin/component/", "/wxa/component/", "/product/register/"} {
			if strings.HasPrefix(path, prefix) {
				return []string{AccessToken, ComponentAccessToken}
			}
		}
	}
	return []string{AccessToken}
}

// takesLongNameOnly reports whether the documentation of the path has
// component_access_token and nothing else.
func takesLongNameOnly(path string) bool {
	return strings.HasPrefix(path, "/sns/component/") || strings.HasPrefix(path, "/sns/oauth2/component/")
}

// checkForm checks the method and the body of a request. It returns an errcode,
// 0 if both are as the endpoint requires.
func (e *endpoint) checkForm(r *Request) int {
	switch {
	case e.method == http.MethodGet && r.Method != http.MethodGet:
		return 43001
	case e.method == http.MethodPost && r.Method != http.MethodPost:
		return 43002
	}
	// Endpoints that take either method require a body only with POST.
	if e.body == noBody || r.Method == http.MethodGet {
		return 0
	}
	if len(r.Body) == 0 {
		return 44002
	}
	if e.body == multipartBody {
		return r.readUpload()
	}
	if e.body == plainJSON && hasUnicodeEscape(r.Body) {
		return 40033
	}
	if !json.Valid(r.Body) || !bytes.HasPrefix(bytes.TrimLeft(r.Body, " \t\r\n"), []byte("{")) {
		return 47001
	}
	return 0
}
