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

// errNoAuthCode means that the query of /authorized has no usable code.
var errNoAuthCode = errors.New("no authorization code in the query")

// rateLimitError means that a client must wait that long before another code is
// exchanged for it.
type rateLimitError time.Duration

// Error implements error.
func (rateLimitError) Error() string { return "too many authorization codes from one address" }

// serveAuthorized serves the page on which a merchant returns from WeChat.
//
// The code is exchanged whatever the state in s is: it stands for a consent to
// this component, which cannot be forged, and losing it would cost the merchant
// another round. But only with a valid state is the merchant redirected.
func (h *Handler) serveAuthorized(w http.ResponseWriter, r *http.Request) {
	ph := phrasesFor(r)
	if r.Method == http.MethodHead {
		p := page{status: http.StatusOK, Title: ph.robot, Text: []string{ph.robotText}}
		h.render(w, ph, referrerNone, p)
		return
	}
	s := h.settings.Load()
	state, code := h.parseAuthorizedQuery(s, r.URL.RawQuery)
	account, err := h.exchange(r, code)
	if err != nil {
		p := exchangeErrorPage(err, ph)
		if p.Action != nil {
			p.Action.URL = state.authorizeURL()
		}
		// Requests over the limit or without a code would only fill the log.
		if r.Context().Err() == nil && p.status != http.StatusTooManyRequests &&
			!errors.Is(err, errNoAuthCode) {
			h.log.Warn("exchanging an authorization code failed",
				"status", p.status, "error", errorText(err, code))
		}
		h.render(w, ph, referrerNone, p)
		return
	}
	h.log.Info("account authorized by its merchant", "account", wechat.Sanitize(account.AppID, 64))
	// Check the address again: the operator can have removed it in the
	// meantime.
	if state.returnTo != "" && returnAllowed(s.returnTo, state.returnTo) {
		setPageHeaders(w.Header(), referrerNone)
		w.Header().Del("Content-Type")
		w.Header().Set("Location", withResult(state.returnTo, account.AppID, state.state))
		w.WriteHeader(http.StatusSeeOther)
		return
	}
	h.render(w, ph, referrerNone, page{
		status: http.StatusOK, Title: ph.welcome, Text: []string{ph.welcomeText},
		Mark: "good", Account: &account,
	})
}

// parseAuthorizedQuery parses what WeChat, and before it wxproxy, put into the
// query. Values that are missing or invalid are returned empty.
func (h *Handler) parseAuthorizedQuery(
	s *settings, raw string,
) (state authState, code wechat.Secret) {
	if len(raw) > maxPageQuery {
		return state, code
	}
	query, _ := url.ParseQuery(raw) // one invalid parameter must not cost the code
	if sealed := query["s"]; len(sealed) == 1 {
		state, _ = openState(h.stateKey, s.component, sealed[0], h.now())
	}
	if c := query["auth_code"]; len(c) == 1 && wechat.IsAuthCode(c[0]) {
		code = wechat.NewSecret(c[0])
	}
	return state, code
}

// exchange exchanges a code once, however often it arrives.
func (h *Handler) exchange(r *http.Request, code wechat.Secret) (tokens.Authorization, error) {
	if code.IsEmpty() {
		return tokens.Authorization{}, errNoAuthCode
	}
	// The merchant has consented and can now close the window, so the end of
	// the connection does not end the work.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), pageTimeout)
	defer cancel()
	admit := func() error {
		if d := h.authorizedLimiter.spend(clientOf(r)); d > 0 {
			return rateLimitError(d)
		}
		return nil
	}
	return h.codes.do(ctx, code, admit, func() (tokens.Authorization, error) {
		return h.exchanger.Exchange(ctx, code)
	})
}

// WeChat's error codes that only the pages distinguish.
const (
	codeOAuthInvalid     = 40029
	codeOAuthUsed        = 40163
	codeOAuthExpired     = 42003
	codeAlreadyConfirmed = 61018
	codeNeedsNoConfirm   = 61019
	codeCannotResubmit   = 61022
	codeAPIForbidden     = 48004 // the account is banned
	codeUserUnauthorized = 50001
	codeUserLimited      = 50002
	codeUserPunished     = 50004
)

// exchangeErrorPage returns the page for a code that could not be exchanged.
// Its Action has no URL yet. There is no Action if the code is still valid:
// reloading the page tries again, and a link to it would show the code.
func exchangeErrorPage(err error, ph *phrases) page {
	again := &action{Text: ph.again}
	var limited rateLimitError
	switch code := wechat.Code(err); {
	case errors.As(err, &limited):
		return rateLimitPage(ph, time.Duration(limited))
	case errors.Is(err, errNoAuthCode):
		return errorPage(http.StatusBadRequest, ph.noCode, ph.noCodeText).withAction(again)
	case code == wechat.CodeCodeInvalid, code == codeOAuthInvalid, code == codeOAuthUsed:
		return errorPage(http.StatusGone, ph.used, ph.usedText).withAction(again)
	case code == wechat.CodeCodeExpired, code == codeOAuthExpired:
		return errorPage(http.StatusGone, ph.expired, ph.expiredText).withAction(again)
	case code == wechat.CodeNotAuthorized,
		errors.Is(err, tokens.ErrRevoked), errors.Is(err, tokens.ErrStale):
		return errorPage(http.StatusConflict, ph.revoked, ph.revokedText).withAction(again)
	case code == codeAlreadyConfirmed, code == codeNeedsNoConfirm, code == codeCannotResubmit:
		return errorPage(http.StatusConflict, ph.bound, ph.boundText)
	case code == codeAPIForbidden, code == codeUserUnauthorized,
		code == codeUserLimited, code == codeUserPunished:
		return errorPage(http.StatusConflict, ph.frozen, ph.frozenText).withAction(again)
	}
	return upstreamErrorPage(err, ph, ph.notReadyCode, ph.defectCode)
}
