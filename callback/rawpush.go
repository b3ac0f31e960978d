package callback

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"wxproxy/internal/recovery"
	"wxproxy/wechat"
)

// Maximum lengths in bytes. Real queries have about 150, openid included, and a
// nonce has ten digits.
//
// Nothing separates the signed parts, so the beginning of Encrypt could be
// moved to the end of a nonce. What is left of Encrypt is still complete if 64
// characters were moved, which are whole blocks of AES. No nonce is that long.
const (
	maxQuery     = 2048
	maxParam     = 63
	maxTimestamp = 12
	maxOpenID    = 64
)

var (
	errQuery = errors.New(
		"timestamp, nonce or msg_signature missing, repeated or invalid in the query")
	errTooLarge = errors.New("body over 1 MiB")
	errSlow     = errors.New("timeout reading the body")
	errBodyEnd  = errors.New("body ended early")
)

// rawPush is what was read of a request. It is not verified.
type rawPush struct {
	timestamp, nonce string
	signature        string    // msg_signature; "" in plain mode
	plainSignature   string    // `signature`; "" if it is missing or repeated
	signedAt         time.Time // timestamp as a time
	body             []byte

	// For [ModeRaw]: the query as it was received, and the Content-Type.
	query, contentType string
}

// readPush reads a push. A request that says that its body is too long is
// rejected before the body arrives.
func readPush(w *recovery.ResponseWriter, r *http.Request, deadline time.Time) (rawPush, *outcome) {
	p, err := readQuery(r.URL.RawQuery)
	if err != nil {
		return p, failure(http.StatusBadRequest, "", resultBadMessage, err)
	}
	if r.ContentLength > wechat.PushLimit {
		return p, failure(http.StatusRequestEntityTooLarge, "", resultTooLarge, errTooLarge)
	}

	p.query, p.contentType = r.URL.RawQuery, r.Header.Get("Content-Type")

	// The server's own read timeout covers everything on the listener and is
	// longer. Not every ResponseWriter has a deadline to set; then the server's
	// applies.
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(deadline)
	var tooLarge *http.MaxBytesError
	// Only with net/http's own writer does MaxBytesReader close the connection
	// instead of reading the rest.
	p.body, err = io.ReadAll(http.MaxBytesReader(w.ResponseWriter, r.Body, wechat.PushLimit))
	switch {
	case errors.As(err, &tooLarge):
		return p, failure(http.StatusRequestEntityTooLarge, "", resultTooLarge, errTooLarge)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return p, failure(http.StatusRequestTimeout, "", resultBadMessage, errSlow)
	case err != nil:
		return p, failure(http.StatusBadRequest, "", resultBadMessage, errBodyEnd)
	}
	// From here on net/http reads only to notice that the client disconnects.
	// If the deadline passed meanwhile, it would count as a disconnection.
	_ = conn.SetReadDeadline(time.Time{})
	return p, nil
}

// readQuery reads the query of a push. Its error does not quote the query. One
// of the two signatures may be missing: plain mode has no msg_signature.
func readQuery(raw string) (rawPush, error) {
	var p rawPush
	if len(raw) > maxQuery {
		return p, errQuery
	}
	query, err := url.ParseQuery(raw)
	if err != nil {
		return p, errQuery
	}
	for _, param := range []struct {
		name string
		to   *string
	}{{"timestamp", &p.timestamp}, {"nonce", &p.nonce}, {"msg_signature", &p.signature},
		{"signature", &p.plainSignature}} {
		v := query[param.name]
		switch {
		case len(v) == 1 && v[0] != "" && len(v[0]) <= maxParam:
			*param.to = v[0]
		case param.to == &p.plainSignature:
			// Beside a msg_signature it does not count.
		case len(v) > 0 || param.to != &p.signature:
			return p, errQuery
		}
	}
	if p.signature == "" && p.plainSignature == "" {
		return p, errQuery
	}
	var ok bool
	if p.signedAt, ok = parseTimestamp(p.timestamp); !ok {
		return p, errQuery
	}
	return p, nil
}

// parseTimestamp parses seconds since 1970, in the one form that WeChat writes:
// digits without a sign or a zero in front.
func parseTimestamp(s string) (time.Time, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || len(s) > maxTimestamp || strconv.FormatInt(n, 10) != s || n < 0 {
		return time.Time{}, false
	}
	return time.Unix(n, 0), true
}

// isOpenID reports whether s can be an openid. Known ones have 28 letters,
// digits, "-" and "_"; other lengths are accepted up to maxOpenID.
func isOpenID(s string) bool { return isWord(s) && len(s) <= maxOpenID }

// isWord reports whether s consists of letters, digits, "-" and "_", and has at
// least one.
func isWord(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return s != ""
}
