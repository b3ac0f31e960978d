package callback

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"wxproxy/internal/recovery"
)

// maxEcho is the maximum length of an echostr in bytes. WeChat's have 19
// digits.
const maxEcho = 128

var errEcho = errors.New(
	"signature, timestamp, nonce or echostr missing, repeated or invalid in the query")

// isURLCheck reports whether a request is WeChat's check of the URL of an own
// account (doc/oplatform/developers/dev/push).
func isURLCheck(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.RawQuery, "echostr=")
}

// serveURLCheck answers WeChat's check with its echostr. The check is plain in
// all three modes, for mini programs too, and changes nothing, so it is
// answered at any age and any number of times: an operator can save the URL
// even if a clock is wrong.
//
// What is echoed is not signed. It is answered as text, and the headers forbid
// a browser to take it for anything else, such as a page.
func (h *Handler) serveURLCheck(w *recovery.ResponseWriter, r *http.Request, app App) {
	out := outcome{status: http.StatusOK, event: eventMessage, result: resultOK, note: "URL check"}
	query, echo, err := readURLCheck(r.URL.RawQuery)
	switch {
	case err != nil:
		out = *failure(http.StatusBadRequest, eventMessage, resultBadMessage, err)
	case !app.signed(query.plainSignature, query.timestamp, query.nonce):
		out = *failure(http.StatusForbidden, eventMessage, resultBadSignature, errPlainSigned)
	default:
		out.reply = &reply{echo, "text/plain; charset=utf-8"}
	}
	h.report(r, out)
	respond(w, out)
}

// readURLCheck reads the query of the check.
func readURLCheck(raw string) (p rawPush, echo string, err error) {
	p, err = readQuery(raw)
	if err != nil {
		return p, "", err
	}
	query, err := url.ParseQuery(raw)
	if err != nil || len(query["echostr"]) != 1 || p.plainSignature == "" {
		return p, "", errEcho
	}
	if echo = query.Get("echostr"); !isEcho(echo) {
		return p, "", errEcho
	}
	return p, echo, nil
}

// isEcho reports whether s has only printable ASCII, and not too much of it.
func isEcho(s string) bool {
	isOther := func(r rune) bool { return r < ' ' || r > '~' }
	return s != "" && len(s) <= maxEcho && !strings.ContainsFunc(s, isOther)
}
