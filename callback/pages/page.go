package pages

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"

	"wxproxy/tokens"
)

var (
	//go:embed page.html
	pageSource string
	//go:embed page.css
	pageStyle string

	pageTemplate = template.Must(template.New("page").Parse(pageSource))
	// Nothing but this one style sheet, and nothing from anywhere: no script, no picture, no form, no frame.
	pagePolicy = "default-src 'none'; style-src 'sha256-" + styleHash() + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

func styleHash() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// view is one page.
type view struct {
	status     int
	retryAfter time.Duration // 0: nothing is said

	Title   string
	Text    []string
	Mark    string // "good", "bad" or "wait"; "": none
	Links   *links
	Account *tokens.Authorization
	Action  *action
	Notes   []string

	// Filled in by show.
	Words *phrases
	Lang  string
	Style template.CSS
}

// links are the ways to WeChat.
type links struct {
	PC, Phone string
	QR        string // path of an SVG; "": the link is too long for one
	Side      int    // of the code, in modules
}

// Pixels is how large the code is shown: modules are of whole pixels, or some would be wider than others.
func (l *links) Pixels() int {
	const roomy = 100 // modules: up to version 19
	if l.Side <= roomy {
		return 3 * l.Side
	}
	return 2 * l.Side
}

// action is a button.
type action struct{ Text, URL string }

func failed(status int, title, text string) view {
	return view{status: status, Title: title, Text: []string{text}, Mark: "bad"}
}

func wait(status int, after time.Duration, title, text string) view {
	return view{status: status, retryAfter: after, Title: title, Text: []string{text}, Mark: "wait"}
}

// show answers with a page. referrer is what the browser may say of where it comes from.
func (h *Handler) show(w http.ResponseWriter, r *http.Request, words *phrases, referrer string, v view) {
	v.Words, v.Lang, v.Style = words, words.Lang, template.CSS(pageStyle)
	var page bytes.Buffer
	if err := pageTemplate.Execute(&page, v); err != nil {
		h.log.Error("BUG: a page cannot be made", "error", err)
		fail(w, http.StatusInternalServerError)
		return
	}
	pageHeaders(w, referrer)
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Language", words.Lang)
	header.Set("Content-Length", strconv.Itoa(page.Len()))
	if v.retryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(inSeconds(v.retryAfter)))
	}
	w.WriteHeader(v.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(page.Bytes())
	}
}

// pageHeaders are on all that browsers get, redirects too.
func pageHeaders(w http.ResponseWriter, referrer string) {
	header := w.Header()
	header.Set("Content-Security-Policy", pagePolicy)
	header.Set("Referrer-Policy", referrer)
	header.Set("X-Frame-Options", "DENY")
	header.Set("X-Robots-Tag", "noindex, nofollow")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Vary", "Accept-Language")
}

func wordsFor(r *http.Request) *phrases {
	return phrasesOf[chooseLanguage(strings.Join(r.Header.Values("Accept-Language"), ","))]
}

// inSeconds rounds up.
func inSeconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// with puts a number into a phrase.
func with(phrase string, n int) string { return strings.Replace(phrase, "{}", strconv.Itoa(n), 1) }
