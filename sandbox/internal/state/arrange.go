package state

import "time"

// This file has what a test or a developer changes without a request of the
// program under test, and what the control page shows of the accounts.

// CurrentToken returns the newest access token of that appid, good or not: from
// the authorization, else from stable_token, else from /cgi-bin/token. It
// returns "" if there is none.
func (s *Accounts) CurrentToken(appid string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.find(appid); a != nil {
		if t := a.newestToken(); t != nil {
			return t.Value
		}
	}
	return ""
}

// newestToken returns the current token of the most important chain that has
// one. The caller holds the lock of Accounts.
func (a *account) newestToken() *Token {
	for _, c := range a.chains() {
		if c.current != nil {
			return c.current
		}
	}
	return nil
}

// Expire ends the lifetime of the account's current tokens now (42001), and
// reports whether there was one.
func (s *Accounts) Expire(appid string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, found := s.find(appid), false
	if a == nil {
		return false
	}
	for _, c := range a.chains() {
		if c.current != nil {
			c.current.Expires, found = now, true
		}
	}
	return found
}

// Supersede issues new tokens as another client would and invalidates the ones
// before without grace (40001). It reports whether there was one to supersede.
func (s *Accounts) Supersede(appid string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, found := s.find(appid), false
	if a == nil {
		return false
	}
	for _, c := range a.chains() {
		if c.current != nil {
			c.invalidate(now)
			s.issue(c, a.AppID, c.current.Kind, now, 0)
			found = true
		}
	}
	return found
}

// KillRefreshToken makes the account's refresh token invalid (61023) until the
// next consent, although it is still shown. It reports whether there was one.
func (s *Accounts) KillRefreshToken(appid string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.byAppID[appid]
	if a == nil || a.RefreshToken == "" {
		return false
	}
	a.refreshTokenInvalid = true
	a.oldRefreshToken = ""
	return true
}

// ReplaceRefreshToken gives the account another refresh token, which it
// returns. The old one gets 61023. It returns "" if there was none to replace.
func (s *Accounts) ReplaceRefreshToken(appid string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.byAppID[appid]
	if a == nil || a.RefreshToken == "" {
		return ""
	}
	a.RefreshToken = s.secrets.Add(newRefreshToken())
	a.oldRefreshToken, a.refreshTokenInvalid = "", false
	return a.RefreshToken
}

// Status is an account and its newest token.
type Status struct {
	Account
	Token   *Token // a copy; nil if there is none
	Refused int    // errcode that a request with the token gets now, 0 if it is good
}

// status copies the token, because others change it under the lock. The caller
// holds the lock of Accounts.
func (a *account) status(now time.Time) Status {
	out := Status{Account: a.Account}
	if t := a.newestToken(); t != nil {
		token := *t
		out.Token, out.Refused = &token, t.Refusal(now)
	}
	return out
}

// ComponentStatus returns the status of the component.
func (s *Accounts) ComponentStatus(now time.Time) Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.component.status(now)
}

// Statuses returns the status of at most limit accounts from offset on, and the
// number of all accounts.
func (s *Accounts) Statuses(offset, limit int, now time.Time) (page []Status, total int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := offset; i < len(s.order) && len(page) < limit; i++ {
		page = append(page, s.order[i].status(now))
	}
	return page, len(s.order)
}

// Select returns the first accounts, at most limit, for which keep returns
// true. keep is called with the lock held and must be a pure function.
func (s *Accounts) Select(limit int, keep func(appid string, kind Kind) bool) []Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Account
	for _, a := range s.order {
		if len(out) == limit {
			break
		}
		if keep(a.AppID, a.Kind) {
			out = append(out, a.Account)
		}
	}
	return out
}
