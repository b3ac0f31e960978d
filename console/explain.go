package console

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

// ErrQuestion is wrapped by the errors of Config.Explain for invalid arguments,
// such as a path without a slash.
var ErrQuestion = errors.New("invalid request to explain")

// serveExplain is GET /api/explain.
func (s *state) serveExplain(w http.ResponseWriter, r *http.Request) {
	q, f := query(r)
	if f == nil {
		f = s.answerExplain(w, r, q.Get("appid"), q.Get("method"), q.Get("path"), q.Get("caller"))
	}
	if f != nil {
		fail(w, r, f)
	}
}

// answerExplain checks the parameters and responds unless it returns a fault.
func (s *state) answerExplain(
	w http.ResponseWriter, r *http.Request, appid, method, path, caller string,
) *fault {
	switch {
	case appid != "" && !wechat.IsAppID(appid):
		return badAppID
	case path == "":
		return &fault{status: http.StatusBadRequest, msg: "no path given",
			hint: "send path=/cgi-bin/…, percent-encoded, with its query if it has one"}
	case len(method) > maxParameter || len(caller) > maxParameter || len(path) > maxPath:
		return &fault{status: http.StatusBadRequest, msg: "parameter too long",
			hint: "the limit is 200 bytes for method and caller, and 8192 for path"}
	case method == "":
		method = http.MethodGet
	}
	e, err := s.explain(appid, method, path, caller)
	if errors.Is(err, ErrQuestion) {
		return &fault{status: http.StatusBadRequest, msg: err.Error(),
			hint: "send a method such as GET, and a path that begins with a slash"}
	}
	if err == nil && e.Holder != "" {
		err = s.addHolder(r, &e)
	}
	if err != nil {
		return s.toFault(err, e.Holder)
	}
	replyJSON(w, http.StatusOK, e)
	return nil
}

// addHolder adds to e the account whose token would be injected. Its state can
// change the outcome: the errors are the ones that the proxy returns.
func (s *state) addHolder(r *http.Request, e *Explanation) error {
	a, err := s.accounts.Account(r.Context(), e.Holder)
	switch {
	case errors.Is(err, tokens.ErrUnknownAccount) && e.Credential == tokens.Authorizer.String():
		e.refuse(http.StatusNotFound,
			fmt.Sprintf("wxproxy: account %s has not authorized this component", e.Holder),
			"check the appid; an account is known once it has authorized")
		e.Note = "the account is not known here: the first request asks WeChat about it, " +
			"and gets 503 while WeChat cannot be asked"
		return nil
	case errors.Is(err, tokens.ErrUnknownAccount):
		e.Note = "no token was fetched yet; the first request fetches one"
		return nil
	case err != nil:
		return err
	}
	view := newAccount(a, time.Now())
	e.Account = &view
	switch {
	case a.State == tokens.Revoked:
		e.refuse(http.StatusGone, fmt.Sprintf("wxproxy: account %s has revoked its authorization",
			e.Holder), "the merchant has to authorize again")
	case a.State == tokens.Forgotten:
		e.refuse(http.StatusGone, fmt.Sprintf("wxproxy: account %s was forgotten by an operator",
			e.Holder), "the merchant has to authorize again, or an operator runs "+
			"wxproxy accounts refresh")
	case a.Token == "":
		e.Note = "there is no token; the next request fetches one"
	case !a.Expires.After(time.Now()):
		e.Note = "the token has expired; the next request fetches a new one"
	}
	return nil
}

// refuse sets the error that would be returned, unless there is one already.
func (e *Explanation) refuse(status int, msg, hint string) {
	if e.Refusal == nil {
		e.Refusal, e.Forwarded = &Refusal{Status: status, Error: msg, Hint: hint}, ""
	}
}
