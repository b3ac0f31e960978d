package wechat

import (
	"net/url"
	"strings"
)

// Mask returns text with each occurrence of the secret replaced by "***",
// whether it stands there as it is or escaped for a query. It is a second line
// of defense for texts that should not contain the secret, such as errors.
func (s Secret) Mask(text string) string {
	if s.IsEmpty() {
		return text
	}
	text = strings.ReplaceAll(text, s.Reveal(), redacted)
	return strings.ReplaceAll(text, url.QueryEscape(s.Reveal()), redacted)
}
