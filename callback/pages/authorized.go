package pages

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

var errNoAuthCode = errors.New("no authorization code, or none that could be one")

// overLimit says that a client has to wait before a code of theirs is exchanged.
type overLimit time.Duration

func (overLimit) Error() string { return "too many authorization codes from one address" }

// serveAuthorized takes a merchant who comes back from WeChat.
//
// The code counts, whatever s says: it stands for a consent to this component, which nobody can make up, and losing
// it would cost the merchant another round. But only with a good s is the merchant sent on.
func (h *Handler) serveAuthorized(w http.ResponseWriter, r *http.Request) {
	words := wordsFor(r)
	if r.Method == http.MethodHead {
		h.show(w, r, words, noReferrer, view{status: http.StatusOK, Title: words.robot, Text: []string{words.robotText}})
		return
	}
	k := h.settings.Load()
	p, code := h.readReturned(k, r.URL.RawQuery)
	account, err := h.exchange(r, code)
	if err != nil {
		v := h.exchangeFailed(err, words)
		if v.Action != nil {
			v.Action.URL = p.page()
		}
		if r.Context().Err() == nil && v.status != http.StatusTooManyRequests && !errors.Is(err, errNoAuthCode) {
			h.log.Warn("a merchant came back, and the code could not be exchanged", "status", v.status, "error", errorText(err, code))
		}
		h.show(w, r, words, noReferrer, v)
		return
	}
	h.log.Info("a merchant came back", "account", wechat.Sanitize(account.AppID, 64))
	// Asked again, because the operator may have taken the address back meanwhile.
	if p.returnTo != "" && returnAllowed(k.returnTo, p.returnTo) {
		pageHeaders(w, noReferrer)
		w.Header().Del("Content-Type")
		w.Header().Set("Location", withResult(p.returnTo, account.AppID, p.state))
		w.WriteHeader(http.StatusSeeOther)
		return
	}
	h.show(w, r, words, noReferrer, view{status: http.StatusOK, Title: words.welcome, Text: []string{words.welcomeText}, Mark: "good", Account: &account})
}

// readReturned reads what WeChat, and before it we, have put into the query. What cannot be used is empty.
func (h *Handler) readReturned(k *settings, raw string) (p passage, code wechat.Secret) {
	if len(raw) > maxPageQuery {
		return p, code
	}
	query, _ := url.ParseQuery(raw) // what it could read is enough
	if s := query["s"]; len(s) == 1 {
		p, _ = openPassage(h.stateKey, k.component, s[0], h.now())
	}
	if c := query["auth_code"]; len(c) == 1 && wechat.IsAuthCode(c[0]) {
		code = wechat.NewSecret(c[0])
	}
	return p, code
}

// exchange has the code exchanged once, however often and from where it comes.
func (h *Handler) exchange(r *http.Request, code wechat.Secret) (tokens.Authorization, error) {
	if code.IsEmpty() {
		return tokens.Authorization{}, errNoAuthCode
	}
	// A merchant who closes the window has still consented: the connection's end does not end the work.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), pageTimeout)
	defer cancel()
	return h.codes.do(ctx, code, func() error {
		if d := h.authorizedLimiter.spend(clientOf(r)); d > 0 {
			return overLimit(d)
		}
		return nil
	}, func() (tokens.Authorization, error) { return h.exchanger.Exchange(ctx, code) })
}

// exchangeFailed is the page for err, in the merchant's words. The Action has no address yet. There is none where the
// code is still good: that page would have to have the code in it.
func (h *Handler) exchangeFailed(err error, words *phrases) view {
	again := &action{Text: words.again}
	var over overLimit
	switch code := wechat.Code(err); {
	case errors.As(err, &over):
		d := time.Duration(over)
		return wait(http.StatusTooManyRequests, d, words.tooMany, with(words.tooManyText, inSeconds(d)))
	case errors.Is(err, errNoAuthCode):
		return failed(http.StatusBadRequest, words.noCode, words.noCodeText).and(again)
	case code == wechat.CodeCodeInvalid, code == 40029, code == 40163:
		return failed(http.StatusGone, words.used, words.usedText).and(again)
	case code == wechat.CodeCodeExpired, code == 42003:
		return failed(http.StatusGone, words.expired, words.expiredText).and(again)
	case code == wechat.CodeNotAuthorized, errors.Is(err, tokens.ErrRevoked), errors.Is(err, tokens.ErrStale):
		return failed(http.StatusConflict, words.withdrawn, words.withdrawnText).and(again)
	case code == 61018, code == 61019, code == 61022: // confirmed already, or needs no confirmation
		return failed(http.StatusConflict, words.bound, words.boundText)
	case code == 48004, code == 50001, code == 50002, code == 50004:
		return failed(http.StatusConflict, words.frozen, words.frozenText).and(again)
	}
	return trouble(err, words, words.notReadyCode, words.defectCode)
}

func (v view) and(a *action) view {
	v.Action = a
	return v
}
