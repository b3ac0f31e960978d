package sandbox

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
)

// inspectBody notes credentials where WeChat never has one.
func (s *WeChat) inspectBody(c *call) {
	var top map[string]json.RawMessage
	if json.Unmarshal(c.body, &top) == nil {
		for _, name := range []string{accessToken, componentAccessToken} {
			if _, has := top[name]; has {
				s.violate(c, "its body has the field %s", name)
			}
		}
	} else if strings.HasPrefix(c.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		for _, p := range parseQuery(string(c.body)) {
			if p.name == accessToken || p.name == componentAccessToken {
				s.violate(c, "its body has the field %s", p.name)
			}
		}
	}
	for _, v := range c.credentials() {
		if len(v) < 16 {
			continue
		}
		if bytes.Contains(c.body, []byte(v)) {
			s.violate(c, "its body holds the token of its query")
		}
		for name, values := range c.Header {
			for _, h := range values {
				if strings.Contains(h, v) {
					s.violate(c, "its header %s holds the token of its query", name)
				}
			}
		}
	}
}

// standInPattern is the form of what wxproxy gives to SDKs in place of tokens. They are worth nothing here, and
// one that arrives has slipped through.
var standInPattern = regexp.MustCompile(`\bwxp_[0-9A-Za-z_-]{20}`)

func standIn(text []byte) bool {
	return bytes.Contains(text, []byte("wxp_")) && standInPattern.Match(text)
}

// holdsStandIn looks at the query as it is and decoded, at the path, and at the body.
func (c *call) holdsStandIn() bool {
	for _, p := range c.query {
		if standIn([]byte(p.value)) {
			return true
		}
	}
	return standIn([]byte(c.path)) || standIn([]byte(c.URL.RawQuery)) || standIn(c.body)
}
