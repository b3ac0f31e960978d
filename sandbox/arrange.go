package sandbox

import "time"

// What a test asks and arranges past the protocol.

// Ticket gives the newest component_verify_ticket, and makes one where there is none that can be used; nothing is
// pushed.
func (s *WeChat) Ticket() string {
	now := s.cfg.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if made, known := s.tickets.get(s.ticket); !known || !now.Before(made.Add(s.cfg.TicketLife)) {
		s.newTicket(now)
	}
	return s.ticket
}

func (s *WeChat) newTicket(now time.Time) string {
	s.ticket = s.remember(newTicket())
	s.tickets.put(s.ticket, now)
	return s.ticket
}

// ExpireTickets makes all tickets older than their life (61005), as if nothing had been pushed for half a day.
func (s *WeChat) ExpireTickets() {
	old := s.cfg.Now().Add(-s.cfg.TicketLife)
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range s.tickets.m {
		s.tickets.m[t] = old
	}
	s.pushedAt = time.Time{}
}

// CurrentToken gives the access token that is the newest of that appid, be it still good or not: the component's,
// the authorizer's, or for an account with its own secret and no authorization the one of stable_token, then of
// /cgi-bin/token. "" if there is none.
func (s *WeChat) CurrentToken(appid string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.account(appid); a != nil {
		for _, c := range []chain{a.authorizer, a.stable, a.own} {
			if c.current != nil {
				return c.current.value
			}
		}
	}
	return ""
}

// AuthorizerRefreshToken gives the refresh token that is good for that account; "" where its code has not been
// exchanged, or it has withdrawn.
func (s *WeChat) AuthorizerRefreshToken(appid string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[appid]; a != nil {
		return a.refresh
	}
	return ""
}

// Expire ends the life of the current token of that account, or of the component, now: 42001. It reports whether
// there was one.
func (s *WeChat) Expire(appid string) bool {
	now := s.cfg.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	a, any := s.account(appid), false
	if a == nil {
		return false
	}
	for _, c := range []chain{a.authorizer, a.stable, a.own} {
		if c.current != nil {
			c.current.expires, any = now, true
		}
	}
	return any
}

// Supersede is somebody else who renews: there is a new token, and the ones before get 40001, without grace. It
// reports whether there was one to supersede.
func (s *WeChat) Supersede(appid string) bool {
	now := s.cfg.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	a, any := s.account(appid), false
	if a == nil {
		return false
	}
	for _, c := range []*chain{&a.authorizer, &a.stable, &a.own} {
		if c.current != nil {
			c.kill(now)
			s.issue(c, a.appid, c.current.kind, now, 0)
			any = true
		}
	}
	return any
}

// KillRefreshToken makes the account's refresh token invalid (61023) until its merchant consents again, although
// WeChat still shows it in api_get_authorizer_info: reading it again does not help. It reports whether there was one.
func (s *WeChat) KillRefreshToken(appid string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[appid]
	if a == nil || a.refresh == "" {
		return false
	}
	a.refreshDead = true
	a.oldRefresh = ""
	return true
}

// ReplaceRefreshToken gives the account another refresh token; the old one gets 61023, and the new one is to be
// had from api_get_authorizer_info and api_get_authorizer_list: reading it again helps. "" if there was none to
// replace.
func (s *WeChat) ReplaceRefreshToken(appid string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[appid]
	if a == nil || a.refresh == "" {
		return ""
	}
	a.refresh, a.oldRefresh, a.refreshDead = s.remember(newRefresh()), "", false
	return a.refresh
}

// Accounts gives the appids of all accounts, the component aside, in the order in which they were added.
func (s *WeChat) Accounts() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]string, len(s.order))
	for i, a := range s.order {
		out[i] = a.appid
	}
	return out
}
