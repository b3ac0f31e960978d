package redact_test

import (
	"bytes"
	"html"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"wxproxy/internal/redact"
)

// names matches the last words of all names and forms, in any spelling.
var names = regexp.MustCompile(`token|secret|code|ticket|appid|@@@`)

// hasName reports whether names matches the plain form of s.
func hasName(s string) bool {
	plain := strings.ToLower(string(redact.Plain([]byte(s))))
	return names.MatchString(strings.NewReplacer("_", "", "-", "").Replace(plain))
}

// FuzzMaskByName checks that a credential behind its name is masked whatever is
// around it.
func FuzzMaskByName(f *testing.F) {
	f.Add(`{"a":"`, `","a":1}`)
	f.Add(`{"request_url":"https:\/\/api.weixin.qq.com\/x?`, `&y=1"}`)
	f.Add(`<a><![CDATA[`, `]]></a>`)
	f.Add(`%`, `%`)
	f.Add(`\u00`, `\`)
	f.Add(`<`, `>`)
	f.Fuzz(func(t *testing.T, before, after string) {
		// A name before the text makes what follows its own value.
		if strings.Contains(after, token) || hasName(before) {
			t.Skip()
		}
		for _, field := range []string{
			`"authorizer_refresh_token":"`, `access_token=`, `\"component_access_token\":\"`,
			`"refresh\u005ftoken":["`, `access_token%3D`, `&quot;appsecret&quot;:&quot;`,
			` AuthorizationCode="`,
		} {
			for _, end := range []string{`"`, `&`, `\"`} {
				in := before + field + token + end + after
				got, n := redact.Mask([]byte(in), &redact.Options{Names: true})
				if bytes.Contains(got, []byte(token)) || n == 0 {
					t.Fatalf("%q: got %q, want the credential masked", in, got)
				}
			}
		}
	})
}

// FuzzMaskByValue hides a token in a document with a random composition of one
// to three encodings. After the search no composition of decoders may find it.
func FuzzMaskByValue(f *testing.F) {
	f.Add(`{"a":"`, `"}`, uint64(1))
	f.Add("%", "%", uint64(2))
	f.Add(`\u00`, `0;`, uint64(3))
	f.Add("&#", ";", uint64(4))
	var o redact.Options
	o.Values.Add(token)
	f.Fuzz(func(t *testing.T, before, after string, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		hidden := token
		for range 1 + r.IntN(3) {
			hidden = encode(r, hidden, encodingNames[r.IntN(len(encodingNames))], r.Float64())
		}
		in := []byte(before + hidden + after)
		got, n := redact.Mask(in, &o)
		if n == 0 || !o.Values.In(in) {
			t.Fatalf("%q: got %q, want the token masked", in, got)
		}
		checkDecoded(t, string(got), 3)
		out := readAll(t, redact.NewReader(&slowReader{data: in, r: r}, o.Values, func() {}))
		if len(out) != len(in) {
			t.Errorf("%q: got a stream of %d bytes, want %d", in, len(out), len(in))
		}
		checkDecoded(t, out, 3)
	})
}

// checkDecoded fails if s contains the token after at most depth decodings.
func checkDecoded(t *testing.T, s string, depth int) {
	t.Helper()
	if strings.Contains(s, token) {
		t.Fatalf("got %q, want no token in it", s)
	}
	if depth == 0 {
		return
	}
	for _, decode := range decoders {
		if decoded := decode(s); decoded != s {
			checkDecoded(t, decoded, depth-1)
		}
	}
}

// decoders undo one level of escapes. They share no code with the package.
var decoders = []func(string) string{
	func(s string) string {
		return regexp.MustCompile(`%[0-9A-Fa-f]{2}`).ReplaceAllStringFunc(s, func(e string) string {
			return number(e[1:])
		})
	},
	func(s string) string {
		return backslashes.ReplaceAllStringFunc(s, func(e string) string {
			if len(e) == 2 {
				return e[1:]
			}
			return number(e[2:])
		})
	},
	html.UnescapeString,
}

var backslashes = regexp.MustCompile(`\\(u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|["\\/])`)

func number(hex string) string {
	n, _ := strconv.ParseUint(hex, 16, 32)
	return string(rune(n))
}

// FuzzHarmlessText checks that a document without a name, a form or a value
// stays as it is, byte for byte.
func FuzzHarmlessText(f *testing.F) {
	f.Add(`{"errcode":0,"errmsg":"ok"}`)
	f.Add(`{"access_token_":"x","url":"a?b=%63&amp;c"}`)
	var o redact.Options
	o.Values.Add(token)
	o.Names = true
	f.Fuzz(func(t *testing.T, in string) {
		if hasName(in) || strings.Contains(string(redact.Plain([]byte(in))), token[6:]) {
			t.Skip()
		}
		if got, n := redact.Mask([]byte(in), &o); string(got) != in || n != 0 {
			t.Errorf("%q: got %q, want it unchanged", in, got)
		}
	})
}
