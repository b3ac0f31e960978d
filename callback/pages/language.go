package pages

import (
	"strconv"
	"strings"
)

// chooseLanguage gives "en" or "zh" by an Accept-Language header (RFC 9110, 12.5.4): what is weighed highest; of
// equals, the one that is named first. Who asks for neither gets Chinese, as merchants do.
func chooseLanguage(header string) string {
	best := map[string]float64{} // of a language; absent: not named
	others, named := 0.0, false  // what * says
	first := ""
	for i, part := range strings.Split(header, ",") {
		if i == 50 {
			break // nobody speaks that many
		}
		tag, params, _ := strings.Cut(part, ";")
		weight, ok := quality(params)
		tag, _, _ = strings.Cut(strings.ToLower(strings.TrimSpace(tag)), "-")
		switch {
		case !ok:
		case tag == "*":
			others, named = weight, true
		case tag == "zh" || tag == "en":
			if first == "" {
				first = tag
			}
			// zh-CN;q=0.9, zh;q=0.8: the higher one counts
			if old, known := best[tag]; !known || weight > old {
				best[tag] = weight
			}
		}
	}
	weigh := func(tag string) float64 {
		if w, known := best[tag]; known {
			return w
		}
		if named {
			return others
		}
		return 0
	}
	zh, en := weigh("zh"), weigh("en")
	if en > zh || en == zh && en > 0 && first == "en" {
		return "en"
	}
	return "zh"
}

// quality reads q=0.8. Without one the weight is 1; one that cannot be read makes the entry void.
func quality(params string) (float64, bool) {
	for p := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if !strings.EqualFold(strings.TrimSpace(name), "q") {
			continue
		}
		q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		return q, err == nil && q >= 0 && q <= 1
	}
	return 1, true
}
