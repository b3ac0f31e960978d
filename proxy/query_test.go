package proxy

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"wxproxy/wechat"
)

func TestAppendWithout(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		if got := string(appendWithout([]byte("x?"), []byte(in), paramTokens)); got != "x?"+want {
			t.Errorf("%q: got %q, want %q", in, got, "x?"+want)
		}
	}
	f("", "")
	f("a=1&b=2", "a=1&b=2")
	f("access_token=x", "")
	f("access_token=x&a=1", "a=1")
	f("a=1&access_token=x", "a=1")
	f("a=1&access_token=x&b=2", "a=1&b=2")
	f("a=1&access_token=x&access_token=y&component_access_token=z&b=2", "a=1&b=2")
	f("access_token", "")
	f("access_token=&a", "a")
	f("acc%65ss%5Ftoken=x&a=%20+%2B", "a=%20+%2B")
	f("%61%63%63%65%73%73%5f%74%6f%6b%65%6e=x", "")
	const others = "access_tokens=x&my_access_token=y&access_token_x=z&Token=a"
	f(others, others)
	for _, name := range []string{
		"Access_Token", "ACCESS%5FTOKEN", "%2561ccess_token", "%25252561ccess_token", "access_token[]",
		"access_token%5B0%5D", "access_token[", "access_token%00x",
		"access.token", "access%20token", "access+token", "+access_token", "%20access_token",
		"access_token%20", "Component.Access+Token[a][b]",
		strings.Repeat("+", 500) + "access_token", "access_token[" + strings.Repeat("x", 500) + "]",
	} {
		f("a=1&"+name+"=x&b=2", "a=1&b=2")
	}
	f("b=access_token=x", "b=access_token=x")
	f("&&a=1&&access_token=x&&", "&&a=1&&&")
	f("a=1;access_token=x;b=2", "a=1;b=2")
	f("a=%zz&access_token=x", "a=%zz")
	f("a=\xff\xfe&access_token=x&~!*'()=1", "a=\xff\xfe&~!*'()=1")
}

func TestLookup(t *testing.T) {
	f := func(q, value string, found, unique bool) {
		t.Helper()
		v, fo, un := lookup([]byte(q), paramAction)
		if string(v) != value || fo != found || un != unique {
			t.Errorf("%q: got %q, found %v, unique %v, want %q, %v, %v", q, v, fo, un, value, found, unique)
		}
	}
	f("", "", false, true)
	f("a=1&action=get_share_ratio", "get_share_ratio", true, true)
	f("%61ction=get%5Fshare", "get_share", true, true)
	f("action=a&action=a", "a", true, true)
	f("action=a&action=b", "b", true, false)
}

// FuzzQuery checks that stripping the tokens leaves what net/url sees, in the
// same order, without them.
func FuzzQuery(f *testing.F) {
	f.Add("a=1&access_token=x&b=2")
	f.Add("acc%65ss_token=x&%63omponent_access_token=1&&=&a=%2")
	f.Add("access_token&a;b&component_access_token=")
	f.Add("&access_token=x&")
	f.Add("ACC%65ss token &a=1&Access_Token[\u017f]=x&acce\u017fs_token=y")
	f.Fuzz(func(t *testing.T, q string) {
		got := string(appendWithout(nil, []byte(q), paramTokens))
		if strings.Contains(q, ";") {
			// net/url rejects these. At least no token must be left in either
			// reading.
			for _, piece := range strings.FieldsFunc(got, func(r rune) bool { return r == '&' || r == ';' }) {
				if k, _, _ := strings.Cut(piece, "="); isTokenName(k) {
					t.Fatalf("%q: got %q, want no token in it", q, got)
				}
			}
			return
		}
		var want []string
		for _, piece := range strings.Split(q, "&") {
			if k, _, _ := strings.Cut(piece, "="); !isTokenName(k) {
				want = append(want, piece)
			}
		}
		if len(q) == 0 {
			want = nil
		}
		if w := strings.Join(want, "&"); got != w {
			t.Fatalf("%q: got %q, want %q", q, got, w)
		}
	})
}

// tokenName matches the decoded names that some parser reads as the name of a
// token: see oddParam.
var tokenName = regexp.MustCompile(
	`(?s)^[ +]*(component[_. +])?access[_. +]token([ +]*|[\[\x00].*)$`)

func isTokenName(k string) bool {
	for range 4 {
		k = string(unescape(nil, []byte(k)))
	}
	for upper := 'A'; upper <= 'Z'; upper++ { // other letters fold to these, too
		k = strings.ReplaceAll(k, string(upper), string(upper+'a'-'A'))
	}
	return tokenName.MatchString(k)
}

// queryParser is a way in which a server reads a query.
type queryParser struct {
	name       string
	separators string
	rename     func(string) string // what it makes of a decoded name
}

var queryParsers = []queryParser{
	{"strict", "&", func(name string) string { return name }},
	{"with semicolons", "&;", func(name string) string { return name }},
	{"without case", "&", strings.ToLower},
	{"of C", "&", func(name string) string { name, _, _ = strings.Cut(name, "\x00"); return name }},
	{"that decodes twice", "&", func(name string) string { return decodeOnce(name) }},
	{"of PHP", "&;", func(name string) string {
		name, _, _ = strings.Cut(strings.TrimLeft(name, " "), "[")
		name, _, _ = strings.Cut(name, "\x00")
		return strings.NewReplacer(".", "_", " ", "_").Replace(name)
	}},
	{"that trims", "&", strings.TrimSpace},
}

func decodeOnce(s string) string {
	return strings.ReplaceAll(string(unescape(nil, []byte(s))), "+", " ")
}

// read returns all values of each parameter.
func (p queryParser) read(query string) map[string][]string {
	all := map[string][]string{}
	separates := func(r rune) bool { return strings.ContainsRune(p.separators, r) }
	for _, piece := range strings.FieldsFunc(query, separates) {
		name, value, _ := strings.Cut(piece, "=")
		name = p.rename(decodeOnce(name))
		all[name] = append(all[name], decodeOnce(value))
	}
	return all
}

// FuzzForwardedQuery checks that every kind of parser reads in the forwarded
// query what was decided: exactly one token, which is the injected one, and on
// logins exactly one account, the one that was decided about.
func FuzzForwardedQuery(f *testing.F) {
	for _, q := range []string{
		"appid=" + acc, "js_code=1&appid=" + own, "appid=" + acc + "&appid=" + own, "a=1;appid=" + acc,
		"appid[]=" + acc,
		"appid=" + acc + "&APPID=" + own, "%2561ppid=" + acc + "&appid=" + own,
		"access.token=x&component_access_token=y&a", "Access_Token%00=x",
		"appid=" + acc + "&component_appid=&secret=x", "&&;=&%=%00&+appid=" + acc,
		"component_access_token[a][b]=x;access%20token=y",
	} {
		for path := range queryPaths {
			f.Add(uint8(path), q)
		}
	}
	s := testSettings()
	f.Fuzz(func(t *testing.T, path uint8, q string) {
		uri := queryPaths[int(path)%len(queryPaths)] + "?" + q
		target, targetErr := parseTarget([]byte(uri))
		if targetErr != nil {
			return
		}
		h := requestHead{method: []byte("GET"), target: target, assumed: true}
		d, err := s.decide(&h)
		if err != nil {
			return
		}
		query := string(appendQuery(nil, h.target.query, &d.route, s.component, testToken))
		for _, p := range queryParsers {
			checkForwarded(t, p.name, uri, query, p.read(strings.TrimPrefix(query, "?")), &d.route)
		}
	})
}

var queryPaths = []string{
	"/" + acc + "/cgi-bin/user/info", "/wxa/gettemplatelist", "/" + acc + "/wxa/getdefaultamsinfo",
	"/sns/component/jscode2session", "/sns/oauth2/component/access_token",
	"/" + acc + "/sns/component/jscode2session",
	"/sns/jscode2session", "/" + own + "/sns/jscode2session", "/sns/userinfo",
}

// checkForwarded checks what one parser reads in a forwarded query.
func checkForwarded(t *testing.T, parser, uri, query string, got map[string][]string, r *route) {
	t.Helper()
	tokens := append(got["access_token"], got["component_access_token"]...)
	switch {
	case r.endpoint.Need == wechat.NeedUser: // the tokens are the caller's
	case r.tokenOwner == nil && len(tokens) != 0,
		r.tokenOwner != nil && (len(tokens) != 1 || tokens[0] != testToken.Value.Reveal()),
		r.tokenOwner != nil && len(got[r.parameter()]) != 1:
		t.Fatalf("%s: forwarded as %s: a parser %s reads the tokens %q, want the injected one",
			uri, query, parser, tokens)
	}
	var secrets []string
	if !r.secret.IsEmpty() {
		secrets = []string{r.secret.Reveal()}
	}
	if s := got["secret"]; !slices.Equal(s, secrets) {
		t.Fatalf("%s: forwarded as %s: a parser %s reads the secrets %q", uri, query, parser, s)
	}
	if !isLogin(r.endpoint) {
		return
	}
	if a := got["appid"]; len(a) != 1 || a[0] != string(r.account) {
		t.Fatalf("%s: forwarded as %s: a parser %s reads the accounts %q, want %s",
			uri, query, parser, a, r.account)
	}
	if c := got["component_appid"]; r.tokenOwner != nil && (len(c) != 1 || c[0] != comp) {
		t.Fatalf("%s: forwarded as %s: a parser %s reads the components %q, want %s",
			uri, query, parser, c, comp)
	}
}
