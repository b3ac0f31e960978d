package pages

import "golang.org/x/text/language"

// maxAcceptLanguage is the maximum length, in bytes, of the Accept-Language
// headers that are parsed. Browsers send less than 200.
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
// neither language, means Chinese. One that cannot be parsed, or is too long,
// means English.
func chooseLanguage(header string) string {
	if len(header) > maxAcceptLanguage {
		return "en"
	}
	wanted, _, err := language.ParseAcceptLanguage(header)
	if err != nil {
		return "en"
	}
	_, index, confidence := languageMatcher.Match(wanted...)
	if confidence == language.No {
		index = 0 // the matcher has guessed by the script: English for French
	}
	base, _ := supportedLanguages[index].Base()
	return base.String()
}
