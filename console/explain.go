package console

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

// ErrQuestion, wrapped by what Config.Explain returns, is a question that makes no sense.
var ErrQuestion = errors.New("the question cannot be answered")

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

func (s *state) answerExplain(w http.ResponseWriter, r *http.Request, appid, method, path, caller string) *fault {
	switch {
	case appid != "" && !wechat.IsAppID(appid):
		return badAppID
	case path == "":
		return &fault{status: http.StatusBadRequest, msg: "which path is to be explained?", hint: "path=/cgi-bin/…, percent-encoded, a query of its own included"}
	case len(method) > mostQuery || len(caller) > mostQuery || len(path) > mostPath:
		return &fault{status: http.StatusBadRequest, msg: "a parameter is too long", hint: "method and caller have 200 bytes at most, path has 8192"}
	case method == "":
		method = http.MethodGet
	}
	e, err := s.explain(appid, method, path, caller)
	if errors.Is(err, ErrQuestion) {
		return &fault{status: http.StatusBadRequest, msg: err.Error(), hint: "method is a word such as GET, path begins with a slash"}
	}
	if err == nil && e.Holder != "" {
		err = s.addHolder(r, &e)
	}
	if err != nil {
		return s.faultOf(err, e.Holder)
	}
	replyJSON(w, http.StatusOK, e)
	return nil
}

// addHolder joins e with what is known of the account whose token goes in.
func (s *state) addHolder(r *http.Request, e *Explanation) error {
	a, err := s.accounts.Account(r.Context(), e.Holder)
	switch {
	case errors.Is(err, tokens.ErrUnknownAccount) && e.Credential == tokens.Authorizer.String():
		e.refuse(http.StatusNotFound, fmt.Sprintf("wxproxy: account %s has not authorized this component", e.Holder), "check the appid; an account is known from its authorization on")
		return nil
	case errors.Is(err, tokens.ErrUnknownAccount):
		e.Note = "no token has been fetched yet; the first call fetches one"
		return nil
	case err != nil:
		return err
	}
	shown := newAccount(a, time.Now())
	e.Account = &shown
	switch {
	case a.State == tokens.Revoked:
		e.refuse(http.StatusGone, fmt.Sprintf("wxproxy: account %s has withdrawn its authorization", e.Holder), "the account has to authorize the component again")
	case a.Token == "":
		e.Note = "there is no token yet; the next call fetches one"
	case !a.Expires.After(time.Now()):
		e.Note = "its token is over; the next call fetches a new one"
	}
	return nil
}

// refuse notes what is answered instead, unless something was refused before.
func (e *Explanation) refuse(status int, msg, hint string) {
	if e.Refusal == nil {
		e.Refusal, e.Forwarded = &Refusal{Status: status, Error: msg, Hint: hint}, ""
	}
}
