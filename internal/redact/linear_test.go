package redact_test

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"testing"

	"wxproxy/internal/redact"
)

// worstCases are texts that are repeated to the length of a document. Each is
// the worst case of a part of the search, or was of an earlier one.
var worstCases = map[string]string{
	"plain text":            "plain text, ",
	"name":                  "authorizer_access_token",
	"names and spaces":      "authorizer_access_token ",
	"names and quotes":      `"authorizer_access_token"`,
	"names and colons":      `"authorizer_access_token":`,
	"values":                `"authorizer_access_token":"x",`,
	"values in objects":     `{"authorizer_access_token":"x"},`,
	"values and owners":     `"authorizer_access_token":"x","authorizer_appid":"wx",`,
	"open values":           `authorizer_access_token="`,
	"open values in quotes": `\"authorizer_access_token\":\\\"`,
	"open lists":            `"refresh_token":[`,
	"lists of names":        `"refresh_token":["refresh_token":[`,
	"open objects":          `{"refresh_token":{`,
	"open tags":             "<refresh_token ",
	"tags":                  "<refresh_token>",
	"empty elements":        "<refresh_token><a>",
	"open CDATA":            "<refresh_token><![CDATA[",
	"namespaces":            "a:",
	"brackets":              "refresh_token[",
	"quotes":                `"`,
	"single quotes":         `refresh_token:'`,
	"backslashes":           `\`,
	"escaped quotes":        `\"`,
	"percent signs":         "%",
	"percent":               "%25",
	"percent of percent":    "%2525",
	"ampersands":            "&",
	"entities":              "&amp;",
	"open entities":         "&#0000000000",
	"unicode":               `\u005c`,
	"unicode, open":         `\u00`,
	"braces":                "{",
	"closing braces":        "{}}",
	"zero bytes":            "\x00",
	"zero bytes and names":  "refresh_token\x00:\x00\"",
	"form":                  "@@@",
	"forms":                 "refreshtoken@@@",
	"known value, begun":    token[:80],
	"known value":           token,
	"known value, encoded":  "%37" + token[1:],
	"hexadecimal":           "0123456789abcdef",
}

// TestTimeIsLinear checks that the number of bytes that the search looks at is
// proportional to the length of the document, for documents of 64 KiB to 1 MiB
// (three of them 4 MiB) that repeat each worst case, plain and (up to 128 KiB)
// after the beginning of a value.
func TestTimeIsLinear(t *testing.T) {
	// Four searches for the beginning of an escape, the names, three values,
	// the forms, and twice what is masked.
	const perByte = 24
	o := redact.Options{Names: true, StandIn: func(bool, []byte) []byte { return []byte("x") }}
	o.Values.Add(token)
	o.Values.Add(strings.Repeat("a", 40))
	o.Values.Add(strings.Repeat("%25", 20))
	for name, part := range worstCases {
		for _, before := range []string{
			"", `{"refresh_token":"`, `{"a":{"b":["`, "<refresh_token>", "[{",
			strings.Repeat(`\"`, 100),
		} {
			sizes := []int{64 << 10, 128 << 10}
			if before == "" {
				sizes = append(sizes, 1<<20)
			}
			if before == "" && slices.Contains([]string{"name", "percent", "values and owners"}, name) {
				sizes = append(sizes, 4<<20)
			}
			for _, size := range sizes {
				text := append([]byte(before), bytes.Repeat([]byte(part), size/len(part))...)
				if steps := redact.Steps(text, &o); steps > perByte*len(text) {
					t.Errorf("%s after %.20q, %d bytes: got %d steps per byte, want at most %d",
						name, before, len(text), steps/len(text), perByte)
				}
			}
		}
	}
}

func BenchmarkMask(b *testing.B) {
	o := redact.Options{Names: true}
	o.Values.Add(token)
	for _, name := range []string{
		"plain text", "name", "values", "backslashes", "percent", "quotes", "tags", "hexadecimal",
	} {
		for _, size := range []int{64 << 10, 128 << 10, 4 << 20} {
			text := bytes.Repeat([]byte(worstCases[name]), size/len(worstCases[name]))
			b.Run(strings.ReplaceAll(name, " ", "-")+"/"+sizeName(size), func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					redact.Mask(text, &o)
				}
			})
		}
	}
}

// withEscapes is a part of a usual response.
const withEscapes = `{"url":"https:\/\/mp.weixin.qq.com\/s?a=1&b=%20","title":"\"x\""},`

// BenchmarkIn measures the search for an injected token in a usual response.
func BenchmarkIn(b *testing.B) {
	var v redact.Values
	v.Add(token)
	for name, text := range map[string]string{
		"short":   `{"errcode":0,"errmsg":"ok","msgid":3456789012345678901}`,
		"escapes": strings.Repeat(withEscapes, 30),
		"long":    strings.Repeat(`{"openid":"oABCDEFGHIJKLMNOPQRSTUVWXYZ","subscribe":1},`, 1000),
	} {
		b.Run(name, func(b *testing.B) {
			text := []byte(text)
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				v.In(text)
			}
		})
	}
}

func sizeName(n int) string {
	if n >= 1<<20 {
		return "4MiB"
	}
	return strconv.Itoa(n>>10) + "KiB"
}
