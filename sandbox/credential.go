package sandbox

import (
	"net/http"
	"strings"
)

// The two names under which a token travels.
const (
	accessToken          = "access_token"
	componentAccessToken = "component_access_token"
)

// credentials gives the values under either name, in order.
func (c *call) credentials() []string {
	var out []string
	for _, p := range c.query {
		if p.name == accessToken || p.name == componentAccessToken {
			out = append(out, p.value)
		}
	}
	return out
}

// admit decides whether the call's credential is what its row wants, and finds the account. It gives an errcode, 0
// for good. s.mu is held.
func (s *WeChat) admit(c *call, e endpoint) int {
	if len(c.credentials()) > 1 {
		// What WeChat does with two is not known, and must not matter: nobody may send them.
		return 40001
	}
	if e.token == noToken {
		return 0
	}
	value := ""
	for _, name := range e.parameters(c.path) {
		if v := c.arg(name); v != "" {
			value = v
		}
	}
	if value == "" {
		if onlyLongName(c.path) {
			return 41021
		}
		return 41001
	}
	t := c.token
	if t == nil {
		if !wellFormed.MatchString(value) {
			return 40014
		}
		return 40001
	}
	if code := t.refusal(c.now); code != 0 {
		return code
	}
	if t.kind == UserToken || e.token == userToken {
		if t.kind != UserToken || e.token != userToken {
			return 40001
		}
		return 0
	}
	switch component := t.kind == ComponentToken; {
	case component && e.token == privacyToken:
		return 40001 // the trap: they stand under /cgi-bin/component/ and want the account's
	case component && (e.token == accountToken):
		return 61015
	case !component && e.token == componentToken:
		return 61014
	}
	c.account = s.account(t.appid)
	if c.account == nil || t.kind == AuthorizerToken && !c.account.authorized {
		return 61003
	}
	return 0
}

// onlyLongName: where the documentation has component_access_token and nothing else.
func onlyLongName(path string) bool {
	return strings.HasPrefix(path, "/sns/component/") || strings.HasPrefix(path, "/sns/oauth2/component/")
}

// parameters gives the names that are taken. Component-level paths are documented with both, in old pages and new
// ones.
func (e *endpoint) parameters(path string) []string {
	switch {
	case onlyLongName(path):
		return []string{componentAccessToken}
	case e.token == componentToken && (strings.HasPrefix(path, "/cgi-bin/component/") || strings.HasPrefix(path, "/wxa/component/") || strings.HasPrefix(path, "/product/register/")):
		return []string{accessToken, componentAccessToken}
	}
	return []string{accessToken}
}

// needsSecret: paths that are called with an app secret, where one is in its place.
func (s *WeChat) needsSecret(path string) bool {
	e, known := s.endpoints[path]
	return known && e.token == noToken
}

// hopByHop headers and those that speak of a hop end at a proxy; identity headers are nobody's business but its own.
var unwelcome = []string{"Authorization", "Proxy-Authorization", "Proxy-Connection", "Cookie", "Forwarded", "X-Real-Ip", "X-Wx-Appid", "Expect", "Te", "Trailer", "Upgrade", "Keep-Alive"}

// inspect notes what a proxy should have taken off.
func (s *WeChat) inspect(c *call) {
	for _, name := range unwelcome {
		if c.Header.Get(name) != "" {
			s.violate(c, "it has the header %s", name)
		}
	}
	for name := range c.Header {
		if upper := http.CanonicalHeaderKey(name); strings.HasPrefix(upper, "X-Forwarded-") || strings.HasPrefix(upper, "X-Wxproxy-") {
			s.violate(c, "it has the header %s", name)
		}
	}
	if len(c.credentials()) > 1 {
		s.violate(c, "it has more than one credential in its query")
	}
	if !s.needsSecret(c.path) {
		for _, p := range c.query {
			if p.name == "secret" || p.name == "appsecret" || p.name == "component_appsecret" {
				s.violate(c, "it has a secret in its query")
			}
		}
		s.inspectBody(c)
	}
	if c.holdsStandIn() {
		s.violate(c, "it holds a stand-in")
	}
}
