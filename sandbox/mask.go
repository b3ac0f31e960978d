package sandbox

import (
	"net/url"
	"regexp"
	"strings"
)

// longRun: whatever is long enough to be a secret is shown by its first eight characters, hashes and identifiers too,
// rather than missing one. The "@" of tickets and codes may be percent-encoded; base64 has + and /.
var longRun = regexp.MustCompile(`((?:[a-z]{3,20}(?:@@@|%40%40%40))?[0-9A-Za-z_~+/-]{8})[0-9A-Za-z_~+/-]{24,}=*`)

// named: what the name beside it says to be a secret, however short: somebody may have typed a real one.
var named = regexp.MustCompile(`((?:session_key|[a-z_]*secret)(?:"\s*:\s*"|=))[^"&\s]+`)

// shorten makes text from a request fit to be shown to people. A run of path segments is no secret: only what stands
// between slashes is measured where text is a path.
func shorten(text string) string {
	text = named.ReplaceAllString(text, "$1…")
	if !strings.HasPrefix(text, "/") {
		return longRun.ReplaceAllString(text, "$1…")
	}
	parts := strings.Split(text, "/")
	for i := range parts {
		parts[i] = longRun.ReplaceAllString(parts[i], "$1…")
	}
	return strings.Join(parts, "/")
}

// mask is shorten for text that may hold secrets which the user of the sandbox chose, of whatever length; they may be
// percent-encoded as well.
func mask(text string, chosen []string) string {
	for _, v := range chosen {
		short := v[:min(len(v)/2, 8)] + "…"
		text = strings.ReplaceAll(text, v, short)
		text = strings.ReplaceAll(text, url.QueryEscape(v), short)
	}
	return shorten(text)
}

// chosenSecrets are those that were not made here.
func (s *WeChat) chosenSecrets() []string {
	out := []string{s.cfg.ComponentSecret, s.cfg.MessageToken, s.cfg.EncodingAESKey}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.order {
		if a.secret != "" {
			out = append(out, a.secret)
		}
	}
	return out
}
