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
	// contentSecurityPolicy allows the one style sheet in the page and nothing
	// else: no script, no image, no form, no frame, and nothing from another
	// address.
	contentSecurityPolicy = "default-src 'none'; style-src 'sha256-" + styleHash() + "'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

// styleHash returns the hash by which the policy names the style sheet.
func styleHash() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Values of the Referrer-Policy header.
const (
	// referrerOrigin sends the host of /authorize to WeChat, which checks that
	// the merchant comes from the platform's own host (授权发起页域名). The query,
	// which belongs to the page that linked here, is not sent.
	referrerOrigin = "strict-origin"
	// referrerNone is for /authorized, whose address contains a code.
	referrerNone = "no-referrer"
)

// page is what page.html shows.
type page struct {
	status     int
	retryAfter time.Duration // 0: no Retry-After header
	robot      bool          // it is for a program, and cost no call to WeChat

	Title   string
	Text    []string
	Mark    string // "good", "bad" or "wait"; "" for no mark
	Links   *links
	Account *tokens.Authorization
	Action  *action
	Notes   []string

	// Set by render.
	Phrases *phrases
	Lang    string
	Style   template.CSS
}

// links leads to WeChat's pages.
type links struct {
	PC, Phone string
	QR        string // data of an SVG path; "" if the link is too long for a QR code
	Side      int    // side length of the QR code in modules
}

// Pixels returns the side length of the QR code on the screen. Each module has
// a whole number of pixels, or some would be wider than others.
func (l *links) Pixels() int {
	const maxSideWith3Pixels = 100 // modules; up to version 19
	if l.Side <= maxSideWith3Pixels {
		return 3 * l.Side
	}
	return 2 * l.Side
}

// action is a button below the text.
type action struct{ Text, URL string }

// robotPage returns the page for programs that check what is here.
func robotPage(ph *phrases) page {
	return page{status: http.StatusOK, robot: true, Title: ph.robot, Text: []string{ph.robotText}}
}

// errorPage returns a page for a failure that waiting does not fix.
func errorPage(status int, title, text string) page {
	return page{status: status, Title: title, Text: []string{text}, Mark: "bad"}
}

// waitPage returns a page that asks to try again after some time.
func waitPage(status int, after time.Duration, title, text string) page {
	return page{status: status, retryAfter: after, Title: title, Text: []string{text}, Mark: "wait"}
}

// rateLimitPage returns the page for a client that must wait for d.
func rateLimitPage(ph *phrases, d time.Duration) page {
	text := insert(ph.tooManyText, ceilSeconds(d))
	return waitPage(http.StatusTooManyRequests, d, ph.tooMany, text)
}

// withAction returns the page with a button.
func (p page) withAction(a *action) page {
	p.Action = a
	return p
}

// render writes the page. referrerPolicy decides what the browser tells the
// pages that this one links to.
func (h *Handler) render(w http.ResponseWriter, ph *phrases, referrerPolicy string, p page) {
	p.Phrases, p.Lang, p.Style = ph, ph.Lang, template.CSS(pageStyle)
	var body bytes.Buffer
	if err := pageTemplate.Execute(&body, p); err != nil {
		h.log.Error("BUG: page template failed", "error", err)
		fail(w, http.StatusInternalServerError)
		return
	}
	setPageHeaders(w.Header(), referrerPolicy)
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Language", ph.Lang)
	header.Set("Content-Length", strconv.Itoa(body.Len()))
	if p.retryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(ceilSeconds(p.retryAfter)))
	}
	w.WriteHeader(p.status)
	_, _ = w.Write(body.Bytes()) // net/http drops it for HEAD
}

// setPageHeaders sets the headers of every response to a browser, redirects
// included.
func setPageHeaders(header http.Header, referrerPolicy string) {
	header.Set("Content-Security-Policy", contentSecurityPolicy)
	header.Set("Referrer-Policy", referrerPolicy)
	header.Set("X-Frame-Options", "DENY")
	header.Set("X-Robots-Tag", "noindex, nofollow")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Vary", "Accept-Language")
}

// phrasesFor returns the phrases in the reader's language.
func phrasesFor(r *http.Request) *phrases {
	return phrasesByLanguage[chooseLanguage(strings.Join(r.Header.Values("Accept-Language"), ","))]
}

// ceilSeconds returns d in seconds, rounded up.
func ceilSeconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// insert returns the phrase with n in place of "{}".
func insert(phrase string, n int) string {
	return strings.Replace(phrase, "{}", strconv.Itoa(n), 1)
}
