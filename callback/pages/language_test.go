package pages_test

import (
	"net/http"
	"strings"
	"testing"

	"wxproxy/callback/pages"
)

func TestLanguageOfPages(t *testing.T) {
	w := start(t, pages.Config{})
	const zh, en = "zh-CN", "en"
	for _, tc := range []struct{ header, want string }{
		// The preferred one of the two languages, in any region and script.
		{"zh-CN,zh;q=0.9,en;q=0.8", zh},
		{"en-US,en;q=0.9,zh-CN;q=0.8", en},
		{"zh-Hant-HK", zh},
		{"zh-Hant-HK, en;q=0.9", zh},
		{"zh-Hant-TW, en;q=0.9", zh},
		{"zh-HK, en-HK", zh},
		{"en-HK, zh-HK;q=0.9", en},
		{"zh-TW", zh},
		{"zh-cn", zh},
		{"ZH-cn, EN-us;q=0.9", zh},
		{"zh-SG, en-US", zh},
		{"EN-gb", en},
		{"en, zh", en},
		{"zh, en", zh},
		// By quality, not by position.
		{"zh;q=0.5,en;q=0.6", en},
		{"en;q=0.5, zh;q=0.6", zh},
		{"fr-FR, en;q=0.1", en},
		{"fr, zh;q=0.2, en;q=0.1", zh},
		{"fr-FR, zh-TW;q=0.5", zh},
		{"zh-CN;q=0.1, zh;q=0.9, en;q=0.5", zh},
		{"zh;q=0, en;q=0.1", en},
		// Neither: merchants read Chinese.
		{"", zh},
		{"*", zh},
		{"en;q=0, *", zh},
		{"en;q=0", zh},
		{"zh;q=0, en;q=0", zh},
		{"fr-FR, de;q=0.9", zh},
		{"ja", zh},
		// Entries that are not valid are skipped.
		{"zh;q=x, en;q=0.1", en},
		{"ZH-cn;Q=0.5, en;Q=0.9", en},
		{"garbage!!, en-US", en},
		{";;,,;q=1,en", en},
		{"zh-", zh},
		{"商", zh},
		// So is the rest of a header that is too long.
		{"en," + strings.Repeat("fr-FR,", 200) + "zh", en},
		{"en" + strings.Repeat("-a", 2000), zh},
	} {
		r := w.request(http.MethodHead, "/authorize", "Accept-Language", tc.header)
		if got := r.header.Get("Content-Language"); got != tc.want {
			t.Errorf("Accept-Language %.60q: got %s, want %s", tc.header, got, tc.want)
		}
	}
}
