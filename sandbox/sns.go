package sandbox

import (
	"encoding/base64"
	"regexp"
	"strings"
	"time"
)

// End users: login of mini programs and web OAuth. Any code of six characters or more of the usual alphabet is
// good once; one that begins with "invalid" is not.
var loginCode = regexp.MustCompile(`^[0-9A-Za-z_-]{6,128}$`)

// spend uses up an end user's code of that account. The errcode for a bad one comes as a string, as in the
// official sample of thirdpartyCode2Session.
func (s *WeChat) spend(a *account, code string) (answer, bool) {
	switch {
	case code == "":
		return fail(41008), false
	case !loginCode.MatchString(code) || strings.HasPrefix(code, "invalid"):
		return answer{code: 40029, quoted: true}, false
	}
	if used, _ := s.spent.get(a.appid + " " + code); used {
		return fail(40163), false
	}
	s.spent.put(a.appid+" "+code, true)
	return answer{}, true
}

// ofComponent finds the account of a call that the component makes for it.
func (s *WeChat) ofComponent(c *call, grant string) (*account, int) {
	a := s.accounts[c.arg("appid")]
	switch component := c.arg("component_appid"); {
	case component == "":
		return nil, 41018
	case component != s.cfg.ComponentAppID:
		return nil, 40013
	case c.arg("appid") == "":
		return nil, 41002
	case a == nil || !a.authorized:
		return nil, 61003
	case c.arg("grant_type") != grant:
		return nil, 40002
	}
	return a, 0
}

// ofSecret finds the account of a call that it makes itself.
func (s *WeChat) ofSecret(c *call, grant string) (*account, int) {
	if c.arg("grant_type") != grant {
		return nil, 40002
	}
	return s.secretHolder(c.arg("appid"), c.arg("secret"))
}

func (s *WeChat) componentLogin(c *call) answer {
	a, code := s.ofComponent(c, "authorization_code")
	return s.session(a, code, c)
}

func (s *WeChat) login(c *call) answer {
	a, code := s.ofSecret(c, "authorization_code")
	return s.session(a, code, c)
}

func (s *WeChat) session(a *account, code int, c *call) answer {
	if code != 0 {
		return fail(code)
	}
	if refused, good := s.spend(a, c.arg("js_code")); !good {
		return refused
	}
	return reply(fields{"openid": a.openid(c.arg("js_code")), "session_key": s.rememberUser(base64.StdEncoding.EncodeToString([]byte(random(12)))), "unionid": unionid(c.arg("js_code"))})
}

// unionid is the same for all accounts of a component.
func unionid(seed string) string { return (&account{}).openid(seed) }

func (s *WeChat) componentOAuth(c *call) answer {
	a, code := s.ofComponent(c, "authorization_code")
	return s.grantUser(a, code, c)
}

func (s *WeChat) oauth(c *call) answer {
	a, code := s.ofSecret(c, "authorization_code")
	return s.grantUser(a, code, c)
}

func (s *WeChat) grantUser(a *account, code int, c *call) answer {
	if code != 0 {
		return fail(code)
	}
	if refused, good := s.spend(a, c.arg("code")); !good {
		return refused
	}
	return s.userTokens(a, a.openid(c.arg("code")), c)
}

// userTokens gives out an end user's pair; the refresh token is good for thirty days.
func (s *WeChat) userTokens(a *account, openid string, c *call) answer {
	life := 2 * time.Hour
	t := &token{value: newToken(), appid: a.appid, kind: UserToken, openid: openid, expires: c.now.Add(life)}
	s.tokens.put(t.value, t)
	refresh := newToken()
	s.userRefresh.put(refresh, &token{value: refresh, appid: a.appid, openid: openid, expires: c.now.Add(30 * 24 * time.Hour)})
	return reply(fields{
		"access_token": s.rememberUser(t.value), "expires_in": int(life.Seconds()), "refresh_token": s.rememberUser(refresh),
		"openid": openid, "scope": "snsapi_userinfo", "unionid": unionid(openid),
	})
}

func (s *WeChat) componentOAuthRefresh(c *call) answer {
	a, code := s.ofComponent(c, "refresh_token")
	return s.renewUser(a, code, c)
}

// oauthRefresh needs no secret, only the appid.
func (s *WeChat) oauthRefresh(c *call) answer {
	a, code := s.accounts[c.arg("appid")], 0
	switch {
	case a == nil:
		code = 40013
	case c.arg("grant_type") != "refresh_token":
		code = 40002
	}
	return s.renewUser(a, code, c)
}

func (s *WeChat) renewUser(a *account, code int, c *call) answer {
	if code != 0 {
		return fail(code)
	}
	t, known := s.userRefresh.get(c.arg("refresh_token"))
	switch {
	case !known || t.appid != a.appid:
		return fail(40030)
	case !c.now.Before(t.expires):
		return fail(42002)
	}
	return s.userTokens(a, t.openid, c)
}

func (s *WeChat) snsAuth(c *call) answer {
	if code := userOf(c); code != 0 {
		return fail(code)
	}
	return ok()
}

func (s *WeChat) snsUserInfo(c *call) answer {
	if code := userOf(c); code != 0 {
		return fail(code)
	}
	return reply(fields{
		"openid": c.token.openid, "nickname": "Sandbox", "sex": 0, "province": "", "city": "", "country": "",
		"headimgurl": "https://thirdwx.qlogo.cn/mmopen/sandbox/132", "privilege": []string{}, "unionid": unionid(c.token.openid),
	})
}

// userOf checks that token and openid belong together.
func userOf(c *call) int {
	switch c.arg("openid") {
	case "":
		return 41009
	case c.token.openid:
		return 0
	}
	return 40003
}
