package pages_test

import (
	"net/http"
	"strings"
	"testing"

	"wxproxy/callback/pages"
)

func TestRoutes(t *testing.T) {
	w := start(t, pages.Config{})
	for _, path := range []string{pages.AuthorizePath, pages.AuthorizedPath} {
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get"} {
			r := w.raw(method, method+" "+path+" HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			if allow := r.header.Get("Allow"); r.status != http.StatusMethodNotAllowed ||
				allow != "GET, HEAD" {
				t.Errorf("%s %s: got status %d and Allow %q, want 405 and GET, HEAD",
					method, path, r.status, allow)
			}
		}
		for _, other := range []string{
			path + "/", "/" + path, path + "%20", "/x/.." + path, strings.ToUpper(path), path + ".html",
		} {
			r := w.raw("GET", "GET "+other+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			if r.status != http.StatusNotFound {
				t.Errorf("GET %s: got status %d, want 404", other, r.status)
			}
		}
	}
	w.wantCalls(0, 0)
}

func TestPagesWithoutPublicURL(t *testing.T) {
	w := start(t, pages.Config{})
	w.handler.Reconfigure(pages.Config{ComponentAppID: component})
	for lang, title := range map[string]string{"zh": "授权页面尚未配置", "en": "This page is not set up yet"} {
		r := w.get("/authorize", "Accept-Language", lang)
		if p := w.parse(r); r.status != 503 || p.title != title || !strings.Contains(p.text, "public_url") {
			t.Errorf("%s: got status %d and page %+v, want 503, title %q and public_url in the text",
				lang, r.status, p, title)
		}
	}
	w.wantCalls(0, 0)
	// A merchant at WeChat is not lost when the setting is removed.
	if r := w.consent("/authorized"); r.status != 200 {
		t.Errorf("/authorized: got status %d, want 200", r.status)
	}
	w.handler.Reconfigure(pages.Config{ComponentAppID: component, PublicURL: publicURL})
	w.open("")
}

func TestPagesWithoutComponent(t *testing.T) {
	w := start(t, pages.Config{})
	w.handler.Reconfigure(pages.Config{PublicURL: publicURL})
	for _, path := range []string{"/authorize", "/authorized?auth_code=" + codeInQuery} {
		if r := w.get(path); r.status != 404 {
			t.Errorf("%s: got status %d, want 404", path, r.status)
		}
	}
	w.wantCalls(0, 0)
}
