package sandbox

import (
	"context"
	"strings"
)

// The component's own tokens (doc/oplatform/openApi/ticket-token).

// apiComponentToken wants appid, secret and any ticket of the last twelve hours.
func (s *WeChat) apiComponentToken(c *call) answer {
	in, good := decode[struct {
		AppID  string `json:"component_appid"`
		Secret string `json:"component_appsecret"`
		Ticket string `json:"component_verify_ticket"`
	}](c)
	if !good {
		return fail(47001)
	}
	if code := s.checkSecret(in.AppID, in.Secret); code != 0 {
		return fail(code)
	}
	made, known := s.tickets.get(in.Ticket)
	switch {
	case in.Ticket == "":
		return fail(41020)
	case !known:
		return fail(61006)
	case !c.now.Before(made.Add(s.cfg.TicketLife)):
		return fail(61005)
	}
	t := s.issue(&s.component.authorizer, s.cfg.ComponentAppID, ComponentToken, c.now, s.cfg.Grace)
	return reply(fields{"component_access_token": t.value, "expires_in": s.expiresIn()})
}

// checkSecret gives an errcode, 0 for good.
func (s *WeChat) checkSecret(appid, secret string) int {
	switch {
	case appid == "":
		return 41018
	case appid != s.cfg.ComponentAppID:
		return 40013
	case secret == "":
		return 41004
	case secret != s.cfg.ComponentSecret:
		return 40125
	}
	return 0
}

// apiStartPushTicket: a push that has stopped starts again, with the next ticket. Here it comes at once.
func (s *WeChat) apiStartPushTicket(c *call) answer {
	in, good := decode[struct {
		AppID  string `json:"component_appid"`
		Secret string `json:"component_secret"` // another name than everywhere else
	}](c)
	if !good {
		return fail(47001)
	}
	if code := s.checkSecret(in.AppID, in.Secret); code != 0 {
		return fail(code)
	}
	if !s.pushedAt.IsZero() && c.now.Before(s.pushedAt.Add(s.cfg.TicketLife)) {
		return reply(fields{"errcode": 0, "errmsg": "in a normal state"})
	}
	if s.pushURL != "" && !s.closed {
		// Its own context: the push comes whether or not the caller waits for this answer.
		s.pushes.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), pushTimeout)
			defer cancel()
			_ = s.PushTicket(ctx) // whoever wanted it sees that none came
		})
	}
	return ok()
}

func (s *WeChat) apiCreatePreAuthCode(c *call) answer {
	if code := s.checkComponent(c); code != 0 {
		return fail(code)
	}
	return reply(fields{"pre_auth_code": s.newPreAuth(c.now), "expires_in": int(preAuthCodeLife.Seconds())})
}

// checkComponent looks for the component's appid in the body.
func (s *WeChat) checkComponent(c *call) int {
	switch c.field("component_appid") {
	case "":
		return 41018
	case s.cfg.ComponentAppID:
		return 0
	}
	return 40013
}

// apiQueryAuth exchanges an authorization code, once.
func (s *WeChat) apiQueryAuth(c *call) answer {
	if code := s.checkComponent(c); code != 0 {
		return fail(code)
	}
	code, known := s.codes.get(c.field("authorization_code"))
	if !known || code.used {
		return fail(61009)
	}
	a := s.accounts[code.appid]
	switch {
	case a == nil || !a.authorized || code.consent != a.consent:
		return fail(61009) // a later consent, or its withdrawal, makes it void
	case !c.now.Before(code.expires):
		return fail(61010)
	}
	code.used = true
	info := fields{"authorizer_appid": a.appid, "func_info": permissions(a)}
	if !a.noAPI {
		if a.refresh == "" {
			a.refresh = s.remember(newRefresh())
		}
		t := s.issue(&a.authorizer, a.appid, AuthorizerToken, c.now, s.cfg.Grace)
		info["authorizer_access_token"], info["expires_in"], info["authorizer_refresh_token"] = t.value, s.expiresIn(), a.refresh
	}
	return reply(fields{"authorization_info": info})
}

func permissions(a *account) []fields {
	ids := []int{1, 2, 3, 4, 7, 11, 15}
	if a.kind == MiniProgram {
		ids = []int{17, 18, 19, 25, 30, 31, 37}
	}
	var out []fields
	for _, id := range ids {
		out = append(out, fields{"funcscope_category": fields{"id": id}})
	}
	return out
}

// apiAuthorizerToken renews an account's token.
func (s *WeChat) apiAuthorizerToken(c *call) answer {
	if code := s.checkComponent(c); code != 0 {
		return fail(code)
	}
	a, refresh := s.accounts[c.field("authorizer_appid")], c.field("authorizer_refresh_token")
	switch {
	case a == nil || !a.authorized:
		return fail(61003)
	case a.noAPI:
		return fail(61007)
	case !a.takes(refresh, c):
		return fail(61023)
	}
	if s.cfg.RotateRefreshTokens {
		a.oldRefresh, a.oldRefreshUntil = a.refresh, c.now.Add(s.cfg.Grace)
		a.refresh = s.remember(newRefresh())
	}
	t := s.issue(&a.authorizer, a.appid, AuthorizerToken, c.now, s.cfg.Grace)
	return reply(fields{"authorizer_access_token": t.value, "expires_in": s.expiresIn(), "authorizer_refresh_token": a.refresh})
}

func (a *account) takes(refresh string, c *call) bool {
	if refresh == "" || a.refreshDead {
		return false
	}
	return refresh == a.refresh || refresh == a.oldRefresh && c.now.Before(a.oldRefreshUntil)
}

// fastRegisterWeapp accepts every company; [WeChat.FastRegister] is how it ends.
func (s *WeChat) fastRegisterWeapp(c *call) answer {
	switch action := c.arg("action"); {
	case action != "create" && action != "search":
		return fail(47001)
	case c.field("name") == "" || c.field("legal_persona_wechat") == "" || c.field("legal_persona_name") == "":
		return fail(47001)
	}
	return reply(fields{"errcode": 0, "errmsg": "OK"})
}

func (s *WeChat) fastRegisterPersonal(c *call) answer {
	switch c.arg("action") {
	case "create":
		return okWith(fields{"taskid": randomHex(16), "authorize_url": "https://open.weixin.qq.com/wxaopen/sandbox", "status": 0})
	case "query":
		return okWith(fields{"taskid": c.field("taskid"), "authorize_url": "https://open.weixin.qq.com/wxaopen/sandbox", "status": 1})
	}
	return fail(47001)
}

func (s *WeChat) fastRegisterBeta(c *call) answer {
	if c.field("name") == "" || c.field("openid") == "" {
		return fail(47001)
	}
	return okWith(fields{"unique_id": randomHex(8), "authorize_url": "https://open.weixin.qq.com/wxaopen/sandbox"})
}

// domains serves the component-wide lists, joined by semicolons (thirdparty-management/domain-mgnt).
func domains(kind string) func(*WeChat, *call) answer {
	return func(s *WeChat, c *call) answer {
		have := strings.FieldsFunc(s.domains[kind], func(r rune) bool { return r == ';' })
		given := strings.FieldsFunc(c.field(kind), func(r rune) bool { return r == ';' })
		switch c.field("action") {
		case "get":
		case "set":
			have = given
		case "add":
			have = append(without(have, given), given...)
		case "delete":
			have = without(have, given)
		default:
			return fail(47001)
		}
		if len(have) > 1000 {
			return fail(40170)
		}
		if s.domains == nil {
			s.domains = make(map[string]string)
		}
		s.domains[kind] = strings.Join(have, ";")
		return okWith(fields{"published_" + kind: s.domains[kind], "testing_" + kind: s.domains[kind], "invalid_" + kind: ""})
	}
}

func without(list, gone []string) []string {
	var out []string
	for _, v := range list {
		keep := true
		for _, g := range gone {
			keep = keep && v != g
		}
		if keep {
			out = append(out, v)
		}
	}
	return out
}

func (s *WeChat) confirmFile(*call) answer {
	return okWith(fields{"file_name": "sandbox.txt", "file_content": "sandbox"})
}
