package callback

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"wxproxy/internal/recovery"
	"wxproxy/wechat"
)

// Maximum lengths in bytes. Real queries have about 150, openid included, and a
// nonce has ten digits.
const (
	maxQuery  = 2048
	maxParam  = 128
	maxOpenID = 64
)

var (
	errQuery    = errors.New("timestamp, nonce or msg_signature missing or repeated in the query")
	errTooLarge = errors.New("body over 1 MiB")
	errSlow     = errors.New("timeout reading the body")
	errBodyEnd  = errors.New("body ended early")
)

// rawPush is what was read of a request. It is not verified.
type rawPush struct {
	timestamp, nonce, signature string
	// openid is the user that a message is from, "" if the query names none. No
	// signature covers it.
	openid string
	body   []byte
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
	// From here on net/http reads only to notice that the client disconnects. If
	// the deadline passed meanwhile, it would count as a disconnection.
	_ = conn.SetReadDeadline(time.Time{})
	return p, nil
}

// readQuery reads the query of a push. Its error does not quote the query.
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
	}{{"timestamp", &p.timestamp}, {"nonce", &p.nonce}, {"msg_signature", &p.signature}} {
		v := query[param.name]
		if len(v) != 1 || v[0] == "" || len(v[0]) > maxParam {
			return p, errQuery
		}
		*param.to = v[0]
	}
	if v := query["openid"]; len(v) == 1 && isOpenID(v[0]) {
		p.openid = v[0]
	}
	return p, nil
}

// isOpenID reports whether s can be an openid. Known ones have 28 letters,
// digits, "-" and "_"; other lengths are accepted up to maxOpenID.
func isOpenID(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= maxOpenID
}
