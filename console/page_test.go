package console_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"wxproxy/console"
	"wxproxy/wechat"
)

func TestPageIsServed(t *testing.T) {
	c := newBackend().config()
	c.Key = wechat.NewSecret(key)
	address := start(t, c)
	for path, kind := range map[string]string{"/": "text/html", "/console.css": "text/css",
		"/console.js": "text/javascript"} {
		denied := ask(t, address, "GET", path, "")
		if denied.status != 401 || !strings.Contains(denied.header.Get("WWW-Authenticate"), "Basic") {
			t.Errorf("%s without the key: got %d %v, want 401", path, denied.status, denied.header)
		}
		got := ask(t, address, "GET", path, "", basic("me", key), "Sec-Fetch-Site: none")
		if got.status != 200 || !strings.HasPrefix(got.header.Get("Content-Type"), kind+";") || len(got.body) < 1000 {
			t.Errorf("%s: got %d %v", path, got.status, got.header)
		}
		policy := got.header.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none';") ||
			!strings.Contains(policy, "frame-ancestors 'none'") ||
			strings.Contains(policy, "unsafe") || got.header.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s: got policy %q", path, policy)
		}
		// A file from another server would reveal this address, and could do
		// here what the operator can.
		if foreign := regexp.MustCompile(`(?i)(https?:)?//[a-z0-9.-]+\.[a-z]{2,}`).FindString(
			got.body); foreign != "" {
			t.Errorf("%s: got a reference to %s, want none", path, foreign)
		}
		if head := ask(t, address, "HEAD", path, "", basic("me", key)); head.status != 200 || head.body != "" {
			t.Errorf("HEAD %s: got %d, want 200 without a body", path, head.status)
		}
		post := ask(t, address, "POST", path, "", basic("me", key))
		if post.status != 405 || post.body != "method not allowed\n" {
			t.Errorf("POST %s: got %d, want 405", path, post.status)
		}
	}
}

func pageFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("page/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The browser ignores code and styles in the markup because of the page's
// policy. Markup made of strings would let the names of accounts inject code.
func TestPageObeysItsPolicy(t *testing.T) {
	html, js := pageFile(t, "index.html"), pageFile(t, "console.js")
	if bad := regexp.MustCompile(`(?i)\son[a-z]+=|\sstyle=|<style|<script>|javascript:`).FindString(html); bad != "" {
		t.Errorf("index.html: got %q, want none", bad)
	}
	if bad := regexp.MustCompile(
		`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\.style\b|srcdoc`).FindString(js); bad != "" {
		t.Errorf("console.js: got %q, want none", bad)
	}
}

func all(re, text string) (out []string) {
	for _, m := range regexp.MustCompile(re).FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Each text exists in both languages, and each element that the script uses is
// on the page.
func TestPageMatchesItsScript(t *testing.T) {
	html, js := pageFile(t, "index.html"), pageFile(t, "console.js")
	en, zh, found := strings.Cut(js, "\n  zh: {")
	if !found {
		t.Fatal("console.js: got one language, want two")
	}
	_, en, _ = strings.Cut(en, "\n  en: {")
	zh, code, _ := strings.Cut(zh, "\n};")
	names := all(`\b([A-Za-z_]+): "`, en)
	if other := all(`\b([A-Za-z_]+): "`, zh); !slices.Equal(names, other) || len(names) < 50 {
		t.Errorf("names of texts:\nEnglish %v\nChinese %v\nwant them equal", names, other)
	}
	used := append(all(`data-t(?:-label|-hint)?="([A-Za-z_]+)"`, html), all(`say\("([A-Za-z_]+)"[,)]`, code)...)
	for _, name := range all(`\badd\("([a-z]+)"`, code) {
		used = append(used, "x_"+name)
	}
	for _, name := range all(`\bfield\("([a-z]+)"`, code) {
		used = append(used, "v_"+name)
	}
	used = append(used, all(`\bbutton\("([a-z]+)"`, code)...)
	used = append(used, "waiting", "dead", "r_route", "r_table", "r_default", "r_", "c_component", "c_authorizer",
		"c_app", "c_secret", "c_none", "c_refused", "active", "revoked", "failing", "forgotten")
	for _, name := range used {
		if !slices.Contains(names, name) {
			t.Errorf("text %q: got none", name)
		}
	}
	ids := all(`\bid="([a-z-]+)"`, html)
	for _, id := range append(all(`\$\("([a-z-]+)"\)`, code), all(`\bput\("([a-z-]+)"`, code)...) {
		if !slices.Contains(ids, id) {
			t.Errorf("element %q: got none", id)
		}
	}
}

// A link on another site can open the page, and nothing else.
func TestLinkOpensThePage(t *testing.T) {
	address := start(t, newBackend().config())
	f := func(status int, method, path string, headers ...string) {
		t.Helper()
		if got := ask(t, address, method, path, "",
			append(headers, "Sec-Fetch-Site: cross-site")...); got.status != status {
			t.Errorf("%s %s %v: got %d, want %d", method, path, headers, got.status, status)
		}
	}
	const navigate, document = "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"
	f(200, "GET", "/", navigate, document)
	f(403, "GET", "/", navigate, "Sec-Fetch-Dest: iframe")
	f(403, "GET", "/", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty")
	f(403, "GET", "/")
	f(403, "POST", "/", navigate, document)
	f(403, "GET", "/console.js", navigate, document)
	f(403, "GET", "/api/status", navigate, document)
	f(403, "GET", "/metrics", navigate, document)
	f(403, "POST", "/api/sync", navigate, document)
	if got := send(t, start(t,
		func() (c console.Config) { c = newBackend().config(); c.Loopback = true; return }()),
		"GET / HTTP/1.1", "Host: evil.example", navigate, document); got.status != 403 {
		t.Errorf("link with another host: got %d, want 403", got.status)
	}
}
