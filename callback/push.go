package callback

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"wxproxy/wechat"
)

// success, seven bytes with nothing around them, tells WeChat not to push this again.
const success = "success"

// outcome is what a push comes to. event stays what its address says until the push has been read.
type outcome struct {
	status int
	event  string
	result string
	err    error // for the log; quotes nothing of the push

	reply *reply // in place of success, where the status is 200
	note  string // what a service was told, for the log; "": none was
	// answered, where there is one, is called once, behind the answer: delivered says that whoever pushed was still there.
	answered func(delivered bool)
}

// servePush answers a push: it is read, then believed, then handled, all within timeout. event is the word for what
// comes on this address, as long as nothing more is known.
func (h *Handler) servePush(w *recorder, r *http.Request, event string, timeout time.Duration, handle func(context.Context, letter) outcome) {
	// A panic further down leaves what stands here: WeChat will repeat.
	out := outcome{status: http.StatusInternalServerError, event: event, result: resultStore, err: errPanic}
	report := sync.OnceFunc(func() { h.report(r, out) })
	defer report()

	deadline := time.Now().Add(timeout)
	// A sender who hangs up has still sent a ticket: the connection's end does not end the work.
	ctx, cancel := context.WithDeadline(context.WithoutCancel(r.Context()), deadline)
	defer cancel()

	if p, refused := h.read(w, r, deadline); refused != nil {
		out = *refused
	} else if l, refused := h.open(p); refused != nil {
		out = *refused
	} else {
		out = handle(ctx, l)
	}
	if out.event == "" {
		out.event = event
	}
	text := success
	if out.reply != nil {
		text = out.reply.body
	}
	delivered, gone := false, r.Context().Err() != nil // asked before the answer: who has it may go
	if out.answered != nil {
		defer func() { out.answered(delivered) }()
	}
	switch {
	case out.status != http.StatusOK:
		refuse(w, out.status)
	default:
		if out.reply != nil {
			w.Header().Set("Content-Type", out.reply.contentType)
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(text))) // or flushing would make it chunked
		answer(w, http.StatusOK, text)
	}
	if out.answered != nil {
		report() // who has the answer finds it counted
		delivered = http.NewResponseController(w.ResponseWriter).Flush() == nil && !gone
	}
}

// reply is an answer of more than seven bytes, or of none.
type reply struct{ body, contentType string }

// push is what has been read of a request, and not believed yet.
type push struct {
	timestamp, nonce, signature string
	openid                      string // of who sent a message; "" where the query has none. No signature covers it
	body                        []byte
}

// letter is a push that is believed: WeChat has made it, for this component.
type letter struct {
	keys      *keys // what it was opened with
	signature string
	openid    string
	doc       *wechat.Document // the document inside, decrypted
}

// Lengths in bytes. Real queries have some 150, openid and all; a nonce has ten digits.
const (
	maxQuery = 2048
	maxParam = 128
)

var (
	errPanic       = errors.New("a defect of wxproxy")
	errQuery       = errors.New("timestamp, nonce and msg_signature must be in the query, once each")
	errTooLarge    = errors.New("the body is over 1 MiB")
	errSlow        = errors.New("the body did not come in time")
	errBrokeOff    = errors.New("the body broke off")
	errOuter       = errors.New("the outer document names another component")
	errInner       = errors.New("the decrypted document names another component")
	errReplay      = errors.New("handled already")
	errNothingToDo = errors.New("a type that nothing is done about")
	errNoTicket    = errors.New("it has no ComponentVerifyTicket")
	errNoCode      = errors.New("it has no AuthorizationCode")
	errNoAccount   = errors.New("it names no account, or not as an appid")
)

// isOpenID: 28 letters, digits, - and _, as seen; others are bounded.
func isOpenID(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// read takes the request apart. A query that cannot be right is refused before the body is read, and
// a body that says that it is too long as well.
func (h *Handler) read(w *recorder, r *http.Request, deadline time.Time) (push, *outcome) {
	var p push
	if len(r.URL.RawQuery) > maxQuery {
		return p, refusal(http.StatusBadRequest, resultBadMessage, errQuery)
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return p, refusal(http.StatusBadRequest, resultBadMessage, errQuery) // err quotes it
	}
	for name, to := range map[string]*string{"timestamp": &p.timestamp, "nonce": &p.nonce, "msg_signature": &p.signature} {
		v := query[name]
		if len(v) != 1 || v[0] == "" || len(v[0]) > maxParam {
			return p, refusal(http.StatusBadRequest, resultBadMessage, errQuery)
		}
		*to = v[0]
	}
	if v := query["openid"]; len(v) == 1 && isOpenID(v[0]) {
		p.openid = v[0]
	}
	if r.ContentLength > wechat.PushLimit {
		return p, refusal(http.StatusRequestEntityTooLarge, resultTooLarge, errTooLarge)
	}

	// The server's own limit is for everything that reaches the listener, and longer.
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(deadline) // not every ResponseWriter can, and then the server's counts
	var tooLarge *http.MaxBytesError
	// net/http's own writer, so that it closes the connection instead of reading the rest
	p.body, err = io.ReadAll(http.MaxBytesReader(w.ResponseWriter, r.Body, wechat.PushLimit))
	switch {
	case errors.As(err, &tooLarge):
		return p, refusal(http.StatusRequestEntityTooLarge, resultTooLarge, errTooLarge)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return p, refusal(http.StatusRequestTimeout, resultBadMessage, errSlow)
	case err != nil:
		return p, refusal(http.StatusBadRequest, resultBadMessage, errBrokeOff)
	}
	_ = conn.SetReadDeadline(time.Time{}) // all has been read; the next request gets its own
	return p, nil
}

// open decides whether a push is WeChat's and this component's. It changes nothing.
func (h *Handler) open(p push) (letter, *outcome) {
	k := h.keys.Load()
	envelope, err := wechat.ParseEnvelope(p.body)
	if err != nil {
		return letter{}, refusal(http.StatusBadRequest, resultBadMessage, err)
	}
	// Two components that push to one address is a known mistake, and this is its plainest sign.
	if envelope.AppID != "" && envelope.AppID != k.component {
		return letter{}, refusal(http.StatusForbidden, resultWrongAppID, errOuter)
	}
	doc, err := k.decrypt(p, envelope.Encrypt)
	switch {
	case errors.Is(err, wechat.ErrWrongAppID):
		return letter{}, refusal(http.StatusForbidden, resultWrongAppID, err)
	case errors.Is(err, wechat.ErrDecrypt):
		return letter{}, refusal(http.StatusBadRequest, resultUndecryptable, err)
	case err != nil:
		return letter{}, refusal(http.StatusForbidden, resultBadSignature, err)
	}
	parsed, err := wechat.ParseDocument(doc)
	if err != nil {
		return letter{}, refusal(http.StatusBadRequest, resultBadMessage, err)
	}
	return letter{keys: k, signature: p.signature, openid: p.openid, doc: parsed}, nil
}

// decrypt tries the keys in turn. Where none fits, the error is that of the key that came furthest:
// a message for another appid fails on the padding with the key that it was not made with.
func (k *keys) decrypt(p push, encrypted string) ([]byte, error) {
	furthest := wechat.ErrSignature
	for _, c := range k.crypts {
		doc, err := c.Open(p.signature, p.timestamp, p.nonce, encrypted)
		switch {
		case err == nil:
			return doc, nil
		case errors.Is(err, wechat.ErrWrongAppID), furthest == wechat.ErrSignature:
			furthest = err
		}
	}
	return nil, furthest
}

// refusal leaves the event open: what it was is not known, or not believed.
func refusal(status int, result string, err error) *outcome {
	return &outcome{status: status, result: result, err: err}
}
