package sandbox

import (
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"wxproxy/sandbox/internal/state"
	"wxproxy/wechat"
)

// What the control endpoints show. None of it contains a secret.

// stateView is the response of /sandbox/state.
type stateView struct {
	Component  accountView   `json:"component"`
	PushURL    string        `json:"push_url"`
	TicketAge  int           `json:"ticket_age"` // seconds, -1 if there is none
	Ticket     string        `json:"ticket_fingerprint"`
	Calls      int64         `json:"calls"` // since the start or the last reset
	Violations int           `json:"violations"`
	Total      int           `json:"total_accounts"`
	Accounts   []accountView `json:"accounts"`
}

// accountView is one account in stateView.
type accountView struct {
	AppID      string `json:"appid"`
	Kind       string `json:"kind"`
	Authorized bool   `json:"authorized"`
	OwnSecret  bool   `json:"own_secret"`
	Token      string `json:"token_fingerprint"` // see wechat.Secret; "" if there is none
	TokenAge   int    `json:"token_age"`         // seconds, -1 if there is none
	Refused    int    `json:"token_refused"`     // errcode that the token gets now, 0 if it is good
	Refresh    string `json:"refresh_token_fingerprint"`
}

// view returns the state with at most limit accounts from offset on. Its parts
// are read one after the other, so requests that run meanwhile can make them
// differ.
func (c *controlServer) view(offset, limit int) stateView {
	st, now := c.wx.state, c.wx.cfg.Now()
	accounts, total := st.Accounts.Statuses(offset, limit, now)
	ticket, made, hasTicket := st.Tickets.Newest()
	out := stateView{
		Component: viewAccount(st.Accounts.ComponentStatus(now), now),
		PushURL:   withoutUser(c.wx.push.URL()),
		TicketAge: -1, Ticket: fingerprint(ticket),
		Calls: c.wx.history.size(), Violations: len(c.wx.Violations()),
		Total: total, Accounts: []accountView{},
	}
	out.Component.Kind = "component"
	if hasTicket {
		out.TicketAge = seconds(now.Sub(made))
	}
	for _, a := range accounts {
		out.Accounts = append(out.Accounts, viewAccount(a, now))
	}
	return out
}

// viewAccount returns what may be shown of an account.
func viewAccount(a state.Status, now time.Time) accountView {
	out := accountView{
		AppID: a.AppID, Kind: a.Kind.String(), Authorized: a.Authorized, OwnSecret: a.Secret != "",
		TokenAge: -1, Refused: a.Refused, Refresh: fingerprint(a.RefreshToken),
	}
	if a.Token != nil {
		out.Token, out.TokenAge = fingerprint(a.Token.Value), seconds(now.Sub(a.Token.Issued))
	}
	return out
}

// seconds returns d in whole seconds, rounded down.
func seconds(d time.Duration) int { return int(d / time.Second) }

// fingerprint returns a few digits by which secrets can be distinguished, but
// not reconstructed.
func fingerprint(secret string) string { return wechat.NewSecret(secret).Fingerprint() }

// withoutUser cuts the user and the password from a URL.
func withoutUser(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	if u.User != nil {
		u.User = url.User("…")
	}
	return u.String()
}

// callView is a Call with its secrets cut.
type callView struct {
	Time      time.Time   `json:"time"`
	Method    string      `json:"method"`
	Path      string      `json:"path"`
	Query     string      `json:"query"`
	Host      string      `json:"host"`
	Header    http.Header `json:"header"`
	Body      string      `json:"body"` // its first 4 KiB
	SHA256    string      `json:"body_sha256"`
	Length    int64       `json:"length"`
	Status    int         `json:"status"`
	ErrCode   int         `json:"errcode"`
	AppID     string      `json:"appid"`
	TokenKind TokenKind   `json:"token_kind"`
	RID       string      `json:"rid"`
	Answer    string      `json:"answer"` // the first KiB
	Fault     int         `json:"fault"`
}

// hiddenHeaders are shown by name only: their values are secrets that can be
// too short to be recognized, such as a password.
var hiddenHeaders = []string{"Authorization", "Proxy-Authorization", "Cookie", "X-Wxproxy-Key"}

// calls returns the last requests with all secrets cut.
func (c *controlServer) calls(limit int) []callView {
	cfg := &c.wx.cfg
	chosen := []string{cfg.ComponentSecret, cfg.MessageToken, cfg.EncodingAESKey}
	chosen = append(chosen, c.wx.state.Accounts.OwnSecrets()...)
	cut := func(text string) string { return cutChosenSecrets(text, chosen) }
	out := []callView{}
	for _, call := range c.wx.history.last(limit) {
		header := make(http.Header, len(call.Header))
		for name, values := range call.Header {
			for _, v := range values {
				if slices.Contains(hiddenHeaders, name) {
					v = "…"
				}
				header[name] = append(header[name], cut(v))
			}
		}
		out = append(out, callView{
			Time: call.Time, Method: wechat.Sanitize(call.Method, maxQuoted), Host: cut(call.Host),
			Path: cut(call.Path), Query: cut(call.RawQuery), Header: header,
			Body:   cut(strings.ToValidUTF8(string(call.Body), "\uFFFD")),
			SHA256: hex.EncodeToString(call.BodySHA256[:]), Length: call.Length,
			AppID: call.Appid, TokenKind: call.TokenKind,
			Status: call.Status, ErrCode: call.ErrCode, RID: call.RID,
			Answer: cut(string(call.Response)), Fault: call.Fault,
		})
	}
	return out
}
