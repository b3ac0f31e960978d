package pages

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"wxproxy/internal/returnticket"
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

// returned is what a merchant brings back from WeChat.
type returned struct {
	state  authState
	sealed string        // state as it was signed; "" without a valid one
	code   wechat.Secret // empty without a usable one
}

// serveAuthorized serves the page on which a merchant returns from WeChat.
//
// The code is exchanged whatever the state in s is: it stands for a consent to
// this component, which cannot be forged, and losing it would cost the merchant
// another round. But only with a valid state is the merchant redirected.
func (h *Handler) serveAuthorized(w http.ResponseWriter, r *http.Request) {
	ph := phrasesFor(r)
	p, location := h.authorizedPage(r, ph)
	h.observe(pageAuthorized, p.result())
	if location == "" {
		h.render(w, ph, referrerNone, p)
		return
	}
	setPageHeaders(w.Header(), referrerNone)
	w.Header().Del("Content-Type")
	w.Header().Set("Location", location)
	w.WriteHeader(p.status)
}

// authorizedPage exchanges the code of a request. It returns the page that says
// what came of it, or the location to which the merchant is redirected instead.
func (h *Handler) authorizedPage(r *http.Request, ph *phrases) (p page, location string) {
	if r.Method == http.MethodHead {
		return robotPage(ph), ""
	}
	s := h.settings.Load()
	back := h.parseAuthorizedQuery(s, r.URL.RawQuery)
	account, err := h.exchange(r, back, ph)
	if err != nil {
		p := exchangeErrorPage(err, ph)
		if p.Action != nil {
			p.Action.URL = back.state.authorizeURL()
		}
		// Requests over the limit or without a code would only fill the log.
		if r.Context().Err() == nil && p.status != http.StatusTooManyRequests &&
			!errors.Is(err, errNoAuthCode) {
			h.log.Warn("exchanging an authorization code failed",
				"status", p.status, "error", errorText(err, back.code))
		}
		return p, ""
	}
	h.log.Info("account authorized by its merchant", "account", wechat.Sanitize(account.AppID, 64))
	// Check the address again: the operator can have removed it in the
	// meantime.
	if target := back.state.returnTo; target != "" && returnAllowed(s.returnTo, target) {
		return page{status: http.StatusSeeOther}, h.resultURL(s, back.state, account)
	}
	return page{
		status: http.StatusOK, Title: ph.welcome, Text: []string{ph.welcomeText},
		Mark: "good", Account: &account,
	}, ""
}

// resultURL returns the address to which a merchant is redirected. Each time it
// has a new ticket: a merchant whose service could not redeem the last one
// reloads the page.
func (h *Handler) resultURL(s *settings, state authState, account tokens.Authorization) string {
	ticket := ""
	if h.tickets != nil {
		ticket = h.tickets.Issue(s.component, returnticket.Authorization{
			AppID: account.AppID, State: state.state, At: account.At,
		}, h.now())
	}
	return withResult(state.returnTo, account.AppID, state.state, ticket)
}

// parseAuthorizedQuery parses what WeChat, and before it wxproxy, put into the
// query. Values that are missing or invalid are returned empty.
func (h *Handler) parseAuthorizedQuery(s *settings, raw string) (back returned) {
	if len(raw) > maxPageQuery {
		return back
	}
	query, _ := url.ParseQuery(raw) // one invalid parameter must not cost the code
	if sealed := query["s"]; len(sealed) == 1 {
		var ok bool
		if back.state, ok = openState(h.stateKey, s.component, sealed[0], h.now()); ok {
			back.sealed = sealed[0]
		}
	}
	if c := query["auth_code"]; len(c) == 1 && wechat.IsAuthCode(c[0]) {
		back.code = wechat.NewSecret(c[0])
	}
	return back
}

// exchange exchanges a code once, however often it arrives.
func (h *Handler) exchange(
	r *http.Request, back returned, ph *phrases,
) (tokens.Authorization, error) {
	if back.code.IsEmpty() {
		return tokens.Authorization{}, errNoAuthCode
	}
	// The merchant has consented and can now close the window, so the end of
	// the connection does not end the work.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), pageTimeout)
	defer cancel()
	return h.codes.do(ctx, codeKeyOf(back.code, back.sealed), func() (tokens.Authorization, error) {
		uses := false // an attempt of the state
		account, err := h.exchanger.ExchangeReturned(ctx, back.code, back.sealed, func() error {
			// A merchant with a state comes from /authorize, and was counted
			// there.
			if uses = back.sealed != "" && h.attempts.take(back.sealed); uses {
				return nil
			}
			if d := h.spend(h.codeLimiter, r); d > 0 {
				return rateLimitError(d)
			}
			return nil
		})
		if uses && (err == nil || exchangeErrorPage(err, ph).result() != resultRejected) {
			h.attempts.giveBack(back.sealed)
		}
		return account, err
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
	case code == wechat.CodeCodeInvalid, code == codeOAuthInvalid, code == codeOAuthUsed,
		errors.Is(err, tokens.ErrForeignState):
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
