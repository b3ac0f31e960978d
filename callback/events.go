package callback

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

// success, seven bytes with nothing around them, tells WeChat not to push this again.
const success = "success"

// outcome is what a push comes to. event stays "other" until the push has been read.
type outcome struct {
	status int
	event  string
	result string
	err    error // for the log; quotes nothing of the push
}

// serveEvents answers a push on the address for authorisation events (授权事件接收URL).
func (h *Handler) serveEvents(w *recorder, r *http.Request) {
	// A panic further down leaves what stands here: WeChat will repeat.
	out := outcome{http.StatusInternalServerError, other, resultStore, errPanic}
	defer func() { h.report(r, out) }()

	deadline := time.Now().Add(h.timeout)
	// A sender who hangs up has still sent a ticket: the connection's end does not end the work.
	ctx, cancel := context.WithDeadline(context.WithoutCancel(r.Context()), deadline)
	defer cancel()

	out = h.take(ctx, w, r, deadline)
	if out.status == http.StatusOK {
		answer(w, http.StatusOK, success)
		return
	}
	refuse(w, out.status)
}

// take reads, then believes, then stores.
func (h *Handler) take(ctx context.Context, w *recorder, r *http.Request, deadline time.Time) outcome {
	p, refused := h.read(w, r, deadline)
	if refused != nil {
		return *refused
	}
	e, refused := h.open(p)
	if refused != nil {
		return *refused
	}
	return h.handle(ctx, p.signature, e)
}

// push is what has been read of a request, and not believed yet.
type push struct {
	timestamp, nonce, signature string
	body                        []byte
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
func (h *Handler) open(p push) (wechat.Event, *outcome) {
	k := h.keys.Load()
	envelope, err := wechat.ParseEnvelope(p.body)
	if err != nil {
		return wechat.Event{}, refusal(http.StatusBadRequest, resultBadMessage, err)
	}
	// Two components that push to one address is a known mistake, and this is its plainest sign.
	if envelope.AppID != "" && envelope.AppID != k.component {
		return wechat.Event{}, refusal(http.StatusForbidden, resultWrongAppID, errOuter)
	}
	doc, err := k.decrypt(p, envelope.Encrypt)
	switch {
	case errors.Is(err, wechat.ErrWrongAppID):
		return wechat.Event{}, refusal(http.StatusForbidden, resultWrongAppID, err)
	case errors.Is(err, wechat.ErrDecrypt):
		return wechat.Event{}, refusal(http.StatusBadRequest, resultUndecryptable, err)
	case err != nil:
		return wechat.Event{}, refusal(http.StatusForbidden, resultBadSignature, err)
	}
	e, err := wechat.ParseEvent(doc)
	if err != nil {
		return wechat.Event{}, refusal(http.StatusBadRequest, resultBadMessage, err)
	}
	if e.AppID != k.component {
		return wechat.Event{}, refusal(http.StatusForbidden, resultWrongAppID, errInner)
	}
	return e, nil
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

// handle has an authentic event stored, unless it was before.
func (h *Handler) handle(ctx context.Context, signature string, e wechat.Event) outcome {
	event := eventOf(e.InfoType)
	do, err := h.plan(e)
	if err != nil {
		return outcome{http.StatusBadRequest, event, resultBadMessage, err}
	}
	end, fresh, err := h.replays.begin(ctx, signature)
	switch {
	case err != nil:
		return outcome{http.StatusInternalServerError, event, resultStore, err}
	case !fresh:
		return outcome{http.StatusConflict, event, resultReplayed, errReplay}
	}
	done := false // stays so in a panic
	defer func() { end(done) }()

	result := resultOK
	switch err := do(ctx); {
	case err == nil:
	case errors.Is(err, tokens.ErrStale):
		result = resultStale
	case errors.Is(err, errNothingToDo):
		result = resultIgnored
	default:
		return outcome{http.StatusInternalServerError, event, resultStore, err}
	}
	done = true
	return outcome{http.StatusOK, event, result, nil}
}

func refusal(status int, result string, err error) *outcome {
	return &outcome{status, other, result, err}
}
