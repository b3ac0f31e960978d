package sandbox

import (
	"strings"
)

const (
	dailyLimit  = 1_000_000
	clearsMonth = 10
)

// count notes a call for the account's quota of the day.
func (a *account) count(c *call) {
	if today := day(c.now); a.usage == nil || a.usageDay != today {
		a.usage, a.usageDay = make(map[string]int), today
	}
	a.usage[c.path]++ // known paths only: no more of them than rows
}

// clear forgets the usage, ten times a month; 48006 afterwards.
func (a *account) clear(c *call) int {
	if m := month(c.now); a.clearMonth != m {
		a.clearMonth, a.cleared = m, 0
	}
	if a.cleared >= clearsMonth {
		return 48006
	}
	a.cleared++
	a.usage = nil
	return 0
}

// clearQuota wants the appid whose token it was given.
func (s *WeChat) clearQuota(c *call) answer {
	switch c.field("appid") {
	case "":
		return fail(41002)
	case c.account.appid:
	default:
		return fail(49001)
	}
	if code := c.account.clear(c); code != 0 {
		return fail(code)
	}
	return ok()
}

// clearQuotaBySecret is the way out when no token can be had because the quota of the token calls is used up
// (openapi/api_componentclearquota_v2).
func (s *WeChat) clearQuotaBySecret(c *call) answer {
	if code := s.checkSecret(c.field("component_appid"), c.field("appsecret")); code != 0 {
		return fail(code)
	}
	a := &s.component
	if appid := c.field("appid"); appid != "" {
		if a = s.accounts[appid]; a == nil || !a.authorized {
			return fail(61003)
		}
	}
	if code := a.clear(c); code != 0 {
		return fail(code)
	}
	return ok()
}

func (s *WeChat) quotaPath(c *call) (string, int) {
	path := c.field("cgi_path")
	if strings.HasPrefix(path, "/sns/") {
		return "", 76022
	}
	if _, known := s.endpoints[path]; !known {
		return "", 76003
	}
	return path, 0
}

func (s *WeChat) getQuota(c *call) answer {
	path, code := s.quotaPath(c)
	if code != 0 {
		return fail(code)
	}
	used := c.account.usage[path]
	return okWith(fields{
		"quota":                fields{"daily_limit": dailyLimit, "used": used, "remain": max(0, dailyLimit-used)},
		"rate_limit":           fields{"call_count": 5000, "refresh_second": 60},
		"component_rate_limit": fields{"call_count": 5000, "refresh_second": 60},
	})
}

func (s *WeChat) clearPathQuota(c *call) answer {
	path, code := s.quotaPath(c)
	if code != 0 {
		return fail(code)
	}
	delete(c.account.usage, path)
	return ok()
}

// getRID tells of a call that failed, token and all, as the real one does (openapi/getRidInfo). Calls that the
// history has forgotten, it does not find.
func (s *WeChat) getRID(c *call) answer {
	failed, known := s.history.find(c.field("rid"))
	switch {
	case !known:
		return fail(76001)
	case failed.Appid != c.account.appid:
		return fail(76002)
	}
	return okWith(fields{"request": fields{
		"invoke_time": failed.Time.Unix(), "cost_in_ms": 1, "request_url": failed.RawQuery,
		"request_body": string(failed.Body), "response_body": string(failed.Answer), "client_ip": "127.0.0.1",
	}})
}

func (s *WeChat) callbackIP(*call) answer { return reply(fields{"ip_list": []string{"127.0.0.1"}}) }
