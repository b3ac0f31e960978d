package sandbox

import (
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"wxproxy/wechat"
)

// What the control door shows. Nothing of it is a secret, though some of it is made of secrets.

type state struct {
	Component  accountState   `json:"component"`
	PushURL    string         `json:"push_url"`
	TicketAge  int            `json:"ticket_age"` // seconds; -1: there is none
	Ticket     string         `json:"ticket_fingerprint"`
	Calls      int64          `json:"calls"` // since the start or the last forgetting
	Violations int            `json:"violations"`
	Total      int            `json:"total_accounts"`
	Accounts   []accountState `json:"accounts"`
}

type accountState struct {
	AppID      string `json:"appid"`
	Kind       string `json:"kind"`
	Authorized bool   `json:"authorized"`
	OwnSecret  bool   `json:"own_secret"`
	Token      string `json:"token_fingerprint"` // first 8 hexadecimal digits of its SHA-256; "": none
	TokenAge   int    `json:"token_age"`         // seconds; -1: none
	Refused    int    `json:"token_refused"`     // errcode with which it would be refused now; 0: it is good
	Refresh    string `json:"refresh_token_fingerprint"`
}

func (s *WeChat) state(offset, limit int) state {
	now := s.cfg.Now()
	s.history.mu.Lock()
	calls, violations := s.history.total, len(s.history.violations)
	s.history.mu.Unlock()

	s.mu.Lock()
	defer s.mu.Unlock()
	out := state{
		Component: s.component.state(now), PushURL: withoutUser(s.pushURL), TicketAge: -1, Ticket: wechat.NewSecret(s.ticket).Fingerprint(),
		Calls: calls, Violations: violations, Total: len(s.order), Accounts: []accountState{},
	}
	out.Component.Kind = "component"
	if made, known := s.tickets.get(s.ticket); known {
		out.TicketAge = int(now.Sub(made) / time.Second)
	}
	for i := offset; i < len(s.order) && len(out.Accounts) < limit; i++ {
		out.Accounts = append(out.Accounts, s.order[i].state(now))
	}
	return out
}

func (a *account) state(now time.Time) accountState {
	out := accountState{
		AppID: a.appid, Kind: a.kind.String(), Authorized: a.authorized, OwnSecret: a.secret != "", TokenAge: -1,
		Refresh: wechat.NewSecret(a.refresh).Fingerprint(),
	}
	for _, c := range []chain{a.authorizer, a.stable, a.own} {
		if t := c.current; t != nil {
			out.Token, out.TokenAge, out.Refused = wechat.NewSecret(t.value).Fingerprint(), int(now.Sub(t.issued)/time.Second), t.refusal(now)
			break
		}
	}
	return out
}

// withoutUser: a push URL may hold a password.
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

// shownCall is a Call fit to be shown.
type shownCall struct {
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

// credentialHeaders are shown by name only: a password in Basic is short.
var credentialHeaders = []string{"Authorization", "Proxy-Authorization", "Cookie", "X-Wxproxy-Key"}

// shown gives the last calls with all secrets cut.
func (s *WeChat) shown(limit int) []shownCall {
	chosen := s.chosenSecrets()
	out := []shownCall{}
	for _, c := range s.history.last(limit) {
		header := make(http.Header, len(c.Header))
		for name, values := range c.Header {
			for _, v := range values {
				if slices.Contains(credentialHeaders, name) {
					v = "…"
				}
				header[name] = append(header[name], mask(v, chosen))
			}
		}
		out = append(out, shownCall{
			Time: c.Time, Method: clip(c.Method), Path: mask(c.Path, chosen), Query: mask(c.RawQuery, chosen), Host: mask(c.Host, chosen), Header: header,
			Body: mask(strings.ToValidUTF8(string(c.Body), "\uFFFD"), chosen), SHA256: hex.EncodeToString(c.BodySHA256[:]), Length: c.Length,
			Status: c.Status, ErrCode: c.ErrCode, AppID: c.Appid, TokenKind: c.TokenKind, RID: c.RID, Answer: mask(string(c.Answer), chosen), Fault: c.Fault,
		})
	}
	return out
}
