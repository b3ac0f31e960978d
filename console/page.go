package console

import (
	"embed"
	"net/http"
	"strconv"
)

//go:embed page
var pageFiles embed.FS

// pageFile is a file of the page, with its content type.
type pageFile struct{ name, kind string }

// pageRoutes are the files of the operator's page. All are embedded.
var pageRoutes = map[string]pageFile{
	"/":            {"page/index.html", "text/html; charset=utf-8"},
	"/console.css": {"page/console.css", "text/css; charset=utf-8"},
	"/console.js":  {"page/console.js", "text/javascript; charset=utf-8"},
}

// contentPolicy lets the page load its own files and send requests to its own
// listener, and nothing else. It must not be framed: another page could trick
// the user into clicking its buttons.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
	"img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// page adds the routes of the page.
func (s *state) page() {
	for path, file := range pageRoutes {
		body, err := pageFiles.ReadFile(file.name)
		if err != nil {
			panic("BUG: missing file of the page: " + file.name)
		}
		s.routes[path] = route{methods: []string{http.MethodGet, http.MethodHead},
			serve: func(w http.ResponseWriter, _ *http.Request) {
				h := w.Header()
				h.Set("Content-Type", file.kind)
				h.Set("Content-Length", strconv.Itoa(len(body)))
				h.Set("Content-Security-Policy", contentPolicy)
				h.Set("X-Frame-Options", "DENY") // for browsers that do not know frame-ancestors
				h.Set("Referrer-Policy", "same-origin")
				h.Set("Cross-Origin-Opener-Policy", "same-origin")
				w.Write(body)
			}}
	}
}
