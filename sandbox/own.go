package sandbox

import "time"

// Accounts that have a secret of their own ([WithSecret]).

// secretHolder gives the account, or an errcode. The component has a secret, and yet is none (61024). s.mu is held.
func (s *WeChat) secretHolder(appid, secret string) (*account, int) {
	a := s.accounts[appid]
	switch {
	case appid == "":
		return nil, 41002
	case appid == s.cfg.ComponentAppID:
		return nil, 61024
	case a == nil:
		return nil, 40013
	case secret == "":
		return nil, 41004
	case a.secret == "" || a.secret != secret:
		return nil, 40125
	}
	return a, 0
}

// ownToken is /cgi-bin/token: each call replaces the token of the last.
func (s *WeChat) ownToken(c *call) answer {
	if c.arg("grant_type") != "client_credential" {
		return fail(40002)
	}
	a, code := s.secretHolder(c.arg("appid"), c.arg("secret"))
	if code != 0 {
		return fail(code)
	}
	t := s.issue(&a.own, a.appid, AppToken, c.now, s.cfg.Grace)
	return reply(fields{"access_token": t.value, "expires_in": s.expiresIn()})
}

const (
	// A stable token is answered again until this long before its end, or half its life if that is shorter.
	stableMargin = 5 * time.Minute
	// Forcing a new one works once in this time, and so many times a day.
	forcePause = 30 * time.Second
	forceLimit = 20
)

// stableToken (getStableAccessToken): the same token until shortly before its end, unless a new one is forced;
// then the old one is dead at once.
func (s *WeChat) stableToken(c *call) answer {
	in, good := decode[struct {
		GrantType string `json:"grant_type"`
		AppID     string `json:"appid"`
		Secret    string `json:"secret"`
		Force     bool   `json:"force_refresh"`
	}](c)
	switch {
	case !good:
		return fail(47001)
	case in.GrantType != "client_credential":
		return fail(40002)
	}
	a, code := s.secretHolder(in.AppID, in.Secret)
	if code != 0 {
		return fail(code)
	}
	if in.Force {
		if a.forcedDay != day(c.now) {
			a.forcedDay, a.forced = day(c.now), 0
		}
		if a.forced >= forceLimit {
			return fail(45009)
		}
	}
	t := a.stable.current
	switch margin := min(stableMargin, s.cfg.TokenLife/2); {
	case in.Force && (t == nil || t.refusal(c.now) != 0 || !c.now.Before(a.forcedAt.Add(forcePause))):
		a.forcedAt = c.now
		a.forced++
		t = s.issue(&a.stable, a.appid, AppToken, c.now, 0)
	case t == nil || !c.now.Before(t.expires.Add(-margin)):
		t = s.issue(&a.stable, a.appid, AppToken, c.now, s.cfg.Grace)
	}
	left := max(1, int(t.expires.Sub(c.now)/time.Second))
	return reply(fields{"access_token": t.value, "expires_in": left})
}
