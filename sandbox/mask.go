package sandbox

import (
	"net/url"
	"regexp"
	"strings"
)

// shownPrefix is how many characters of a secret the pages and the JSON show.
const shownPrefix = 8

// longRun matches text that is long enough to be a secret. It is shown by its
// first eight characters: hashes and identifiers are cut too, because no secret
// may be missed. The "@" of tickets and codes can be percent-encoded; base64
// has + and /.
var longRun = regexp.MustCompile(`((?:[a-z]{3,20}(?:@@@|%40%40%40))?[0-9A-Za-z_~+/-]{8})[0-9A-Za-z_~+/-]{24,}=*`)

// namedSecret matches a value that its name says to be a secret, however short:
// a person may have typed a real one.
var namedSecret = regexp.MustCompile(`((?:session_key|[a-z_]*secret)(?:"\s*:\s*"|=))[^"&\s]+`)

// cutSecrets returns text from a request with everything cut that may be a
// secret. In a path each segment is looked at alone: a long path is no secret.
func cutSecrets(text string) string {
	text = namedSecret.ReplaceAllString(text, "$1…")
	if !strings.HasPrefix(text, "/") {
		return longRun.ReplaceAllString(text, "$1…")
	}
	segments := strings.Split(text, "/")
	for i := range segments {
		segments[i] = longRun.ReplaceAllString(segments[i], "$1…")
	}
	return strings.Join(segments, "/")
}

// cutChosenSecrets is cutSecrets for text that may also contain secrets which
// the user of the sandbox chose. Those can be of any length and
// percent-encoded.
func cutChosenSecrets(text string, chosen []string) string {
	for _, v := range chosen {
		short := v[:min(len(v)/2, shownPrefix)] + "…"
		text = strings.ReplaceAll(text, v, short)
		text = strings.ReplaceAll(text, url.QueryEscape(v), short)
	}
	return cutSecrets(text)
}
