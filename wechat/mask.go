package wechat

import (
	"bytes"
	"net/url"

	"wxproxy/internal/redact"
)

// Mask returns text with each occurrence of the secret replaced by "***", as it
// is or escaped in any way (\u003d, %3D, &#61;). It is a second line of defense
// for texts that should not contain the secret, such as errors. Escapes are
// undone only for secrets of 16 characters or more.
func (s Secret) Mask(text string) string {
	return string(maskSecrets([]byte(text), redact.Options{}, s))
}

// maskSecrets returns text without the secrets, of which there are four at
// most, and without what o looks for.
func maskSecrets(text []byte, o redact.Options, secrets ...Secret) []byte {
	for _, s := range secrets {
		if s.IsEmpty() {
			continue
		}
		value := s.Reveal()
		text = bytes.ReplaceAll(text, []byte(value), []byte(redacted))
		text = bytes.ReplaceAll(text, []byte(url.QueryEscape(value)), []byte(redacted))
		o.Values.Add(value)
	}
	text, _ = redact.Mask(text, &o)
	return text
}
