package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"

	"wxproxy/sandbox/internal/protocol"
)

const (
	maxViolations = 1_000
	// minComparedToken is the length from which a token is looked for in bodies
	// and headers. A shorter one could be there by chance.
	minComparedToken = 16
)

// Violations returns what no good client or proxy sends, in sentences without
// secrets, the last 1,000: two credentials in one request, credentials in
// headers or bodies, stand-in tokens and headers that were meant for a proxy,
// chunked bodies. A test of a proxy should end with a check that there are
// none.
func (s *WeChat) Violations() []string { return s.violations.all() }

// ResetViolations forgets all violations.
func (s *WeChat) ResetViolations() { s.violations.clear() }

// violationList holds the last violations. The zero value is empty. It is safe
// for concurrent use.
type violationList struct {
	mu    sync.Mutex // guards everything below
	texts []string   // oldest first
}

// all returns a copy of the list, oldest first.
func (l *violationList) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.texts)
}

func (l *violationList) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.texts = nil
}

// add records a violation by that request.
func (l *violationList) add(req *protocol.Request, format string, args ...any) {
	text := req.Method + " " + cutSecrets(req.Path) + ": " + fmt.Sprintf(format, args...)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.texts = append(l.texts, text)
	if excess := len(l.texts) - maxViolations; excess > 0 {
		l.texts = slices.Delete(l.texts, 0, excess)
	}
}

// forbiddenHeaders must be removed by a proxy: they concern one hop, or identify
// the caller to the proxy alone.
var forbiddenHeaders = []string{
	"Authorization", "Proxy-Authorization", "Proxy-Connection", "Cookie", "Forwarded", "X-Real-Ip", "X-Wx-Appid",
	"Expect", "Te", "Trailer", "Upgrade", "Keep-Alive",
}

// forbiddenPrefixes are those of further forbidden headers.
var forbiddenPrefixes = []string{"X-Forwarded-", "X-Wxproxy-"}

// inspect records what a proxy should have removed from the request.
// takesSecret says that its endpoint takes an app secret.
func (l *violationList) inspect(req *protocol.Request, takesSecret bool) {
	for _, name := range forbiddenHeaders {
		if req.Header.Get(name) != "" {
			l.add(req, "it has the header %s", name)
		}
	}
	for name := range req.Header {
		for _, prefix := range forbiddenPrefixes {
			if strings.HasPrefix(http.CanonicalHeaderKey(name), prefix) {
				l.add(req, "it has the header %s", name)
			}
		}
	}
	if len(req.Credentials()) > 1 {
		l.add(req, "it has more than one credential in its query")
	}
	if !takesSecret {
		for _, p := range req.Query() {
			if p.Name == "secret" || p.Name == "appsecret" || p.Name == "component_appsecret" {
				l.add(req, "it has a secret in its query")
			}
		}
		l.inspectFields(req)
		l.inspectCopies(req)
	}
	if containsStandIn(req) {
		l.add(req, "it contains a stand-in token")
	}
}

// inspectFields records a body that has a token in a field of its own, where
// WeChat never takes one.
func (l *violationList) inspectFields(req *protocol.Request) {
	names := []string{protocol.AccessToken, protocol.ComponentAccessToken}
	var object map[string]json.RawMessage
	if json.Unmarshal(req.Body, &object) == nil {
		for _, name := range names {
			if _, has := object[name]; has {
				l.add(req, "its body has the field %s", name)
			}
		}
		return
	}
	if strings.HasPrefix(req.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		for _, p := range req.FormParams() {
			if slices.Contains(names, p.Name) {
				l.add(req, "its body has the field %s", p.Name)
			}
		}
	}
}

// inspectCopies records a token of the query that is in the body or in a header
// as well.
func (l *violationList) inspectCopies(req *protocol.Request) {
	for _, token := range req.Credentials() {
		if len(token) < minComparedToken {
			continue
		}
		if bytes.Contains(req.Body, []byte(token)) {
			l.add(req, "its body contains the token of its query")
		}
		for name, values := range req.Header {
			for _, v := range values {
				if strings.Contains(v, token) {
					l.add(req, "its header %s contains the token of its query", name)
				}
			}
		}
	}
}

// standInPattern is the form of the stand-in tokens that wxproxy issues to
// SDKs. WeChat does not know them; one that arrives was not replaced.
var standInPattern = regexp.MustCompile(`\bwxp_[0-9A-Za-z_-]{20}`)

// isStandIn reports whether text contains a stand-in token.
func isStandIn(text []byte) bool {
	// The regexp is slow on large bodies, the first test is not.
	return bytes.Contains(text, []byte("wxp_")) && standInPattern.Match(text)
}

// containsStandIn reports whether there is a stand-in token in the query, as it
// is or decoded, in the path, or in the body.
func containsStandIn(req *protocol.Request) bool {
	for _, p := range req.Query() {
		if isStandIn([]byte(p.Value)) {
			return true
		}
	}
	return isStandIn([]byte(req.Path)) || isStandIn([]byte(req.URL.RawQuery)) || isStandIn(req.Body)
}
