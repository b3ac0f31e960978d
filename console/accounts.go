package console

import (
	"context"
	"net/http"
	"time"

	"wxproxy/tokens"
)

// How long requests may take that wait for WeChat or for many writes. All
// others have the short deadlines of [NewServer].
const (
	renewTimeout  = time.Minute      // the broker itself gives up after 20 s
	syncTimeout   = 3 * time.Hour    // ten million accounts take 45 minutes
	importTimeout = 30 * time.Minute // a durable write for each line
)

// extendDeadlines lets the response to r take d, and returns a context that
// ends then. Both deadlines matter: net/http cancels the context of a request
// at its read deadline, even after the whole request was read.
func extendDeadlines(
	w http.ResponseWriter, r *http.Request, d time.Duration,
) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(r.Context(), d)
	c, end := http.NewResponseController(w), time.Now().Add(d+10*time.Second)
	// This cannot fail over TCP. Elsewhere, the usual deadlines apply.
	_ = c.SetReadDeadline(end)
	_ = c.SetWriteDeadline(end)
	return ctx, cancel
}

// serveList is GET /api/accounts.
func (s *state) serveList(w http.ResponseWriter, r *http.Request) {
	q, f := query(r)
	var offset, limit int
	var state tokens.State
	if f == nil {
		state, f = accountState(q)
	}
	if f == nil {
		offset, f = number(q, "offset", 0, 0)
	}
	if f == nil {
		limit, f = number(q, "limit", 1, defaultLimit)
	}
	if f == nil && len(q.Get("q")) > maxParameter {
		f = &fault{status: http.StatusBadRequest, msg: "q is too long",
			hint: "send a part of an appid or of a name"}
	}
	if f != nil {
		fail(w, r, f)
		return
	}
	limit = min(limit, maxLimit)
	list, total, err := s.accounts.List(r.Context(), offset, limit,
		tokens.AccountFilter{Query: q.Get("q"), State: state})
	if err != nil {
		fail(w, r, s.toFault(err, ""))
		return
	}
	out := struct {
		Total    int       `json:"total"` // accounts that match q and state
		Offset   int       `json:"offset"`
		Limit    int       `json:"limit"`
		Accounts []account `json:"accounts"`
	}{total, offset, limit, make([]account, 0, len(list))}
	now := time.Now()
	for _, a := range list {
		out.Accounts = append(out.Accounts, newAccount(a, now))
	}
	replyJSON(w, http.StatusOK, out)
}

// serveAccount is GET and DELETE /api/accounts/APPID.
func (s *state) serveAccount(w http.ResponseWriter, r *http.Request, appid string) *fault {
	if r.Method == http.MethodDelete {
		if err := s.accounts.Forget(r.Context(), appid); err != nil {
			return s.toFault(err, appid)
		}
		s.log.Info("account forgotten by operator", "account", appid, "remote", r.RemoteAddr)
		replyJSON(w, http.StatusOK, struct {
			AppID     string `json:"appid"`
			Forgotten bool   `json:"forgotten"`
		}{appid, true})
		return nil
	}
	a, err := s.accounts.Account(r.Context(), appid)
	if err != nil {
		return s.toFault(err, appid)
	}
	replyJSON(w, http.StatusOK, newAccount(a, time.Now()))
	return nil
}

// serveRefresh is POST /api/accounts/APPID/refresh.
func (s *state) serveRefresh(w http.ResponseWriter, r *http.Request, appid string) *fault {
	ctx, cancel := extendDeadlines(w, r, renewTimeout)
	defer cancel()
	a, err := s.accounts.Refresh(ctx, appid)
	if err != nil {
		return s.toFault(err, appid)
	}
	s.log.Info("token renewed by operator", "account", appid, "remote", r.RemoteAddr)
	replyJSON(w, http.StatusOK, newAccount(a, time.Now()))
	return nil
}

// noComponent is the response to requests about authorizers without a
// component.
var noComponent = &fault{
	status: http.StatusConflict,
	msg:    "no component is configured, so there are no authorizers",
	hint:   "set [component] in the configuration",
}

// serveSync is POST /api/sync. With restore=true, forgotten accounts that WeChat
// lists come back; with confirm=true, accounts that are gone are marked as
// revoked however many they are. The response ends when the client disconnects,
// and the comparison goes on.
func (s *state) serveSync(w http.ResponseWriter, r *http.Request) {
	if s.stats.Component() == "" {
		fail(w, r, noComponent)
		return
	}
	q, f := query(r)
	var o tokens.SyncOptions
	if f == nil {
		o.Restore, f = flag(q, "restore")
	}
	if f == nil {
		o.Confirm, f = flag(q, "confirm")
	}
	if f != nil {
		fail(w, r, f)
		return
	}
	ctx, cancel := extendDeadlines(w, r, syncTimeout)
	defer cancel()
	got, err := s.accounts.Sync(ctx, o)
	if err != nil {
		fail(w, r, s.toFault(err, s.stats.Component()))
		return
	}
	s.log.Info("accounts compared with WeChat's list by operator",
		"listed", got.Listed, "added", got.Added,
		"recovered", got.Recovered, "revoked", got.Revoked, "held", got.Held,
		"confirmed", o.Confirm, "remote", r.RemoteAddr)
	replyJSON(w, http.StatusOK, struct {
		Listed    int     `json:"listed"`
		Added     int     `json:"added"`
		Recovered int     `json:"recovered"`
		Revoked   int     `json:"revoked"`
		Unchanged int     `json:"unchanged"`
		Held      int     `json:"held,omitempty"`
		Took      float64 `json:"took"` // seconds
	}{got.Listed, got.Added, got.Recovered, got.Revoked, got.Unchanged, got.Held, float64(
		got.Took.Round(time.Millisecond).Milliseconds()) / 1000})
}
