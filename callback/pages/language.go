package pages

import (
	"strings"

	"golang.org/x/text/language"
)

// maxAcceptLanguage is how much of an Accept-Language header is read, in bytes.
// Browsers send less than 200.
const maxAcceptLanguage = 1000

// supportedLanguages lists what the pages are written in. The first one is used
// for readers of neither language, because merchants read Chinese. Traditional
// Chinese is listed although those readers get the same texts. Without it, the
// matcher would choose English for "zh-Hant-HK, en;q=0.9".
var (
	supportedLanguages = []language.Tag{
		language.SimplifiedChinese, language.TraditionalChinese, language.English,
	}
	languageMatcher = language.NewMatcher(supportedLanguages)
)

// chooseLanguage returns "zh" or "en" for the value of an Accept-Language
// header (RFC 9110, section 12.5.4). A header that is missing, or that accepts
// neither language, means Chinese.
func chooseLanguage(header string) string {
	_, index, confidence := languageMatcher.Match(parseAcceptLanguage(header)...)
	if confidence == language.No {
		index = 0 // the matcher has guessed by the script: English for French
	}
	base, _ := supportedLanguages[index].Base()
	return base.String()
}

// parseAcceptLanguage returns the languages of a header, the preferred one
// first. It skips entries that are not valid, and the rest of a header that is
// too long. The parser of x/text rejects the whole header for one such entry,
// and a Q in upper case, which RFC 9110 allows.
func parseAcceptLanguage(header string) []language.Tag {
	header = strings.ToLower(header[:min(len(header), maxAcceptLanguage)])
	tags, _, err := language.ParseAcceptLanguage(header)
	if err == nil {
		return tags
	}
	var valid []string
	for entry := range strings.SplitSeq(header, ",") {
		if _, _, err := language.ParseAcceptLanguage(entry); err == nil {
			valid = append(valid, entry)
		}
	}
	tags, _, _ = language.ParseAcceptLanguage(strings.Join(valid, ","))
	return tags
}
