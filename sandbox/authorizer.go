package sandbox

import (
	"encoding/json"
	"slices"
)

// What the component asks and tells of its accounts (doc/oplatform/openApi/authorization-management).

// authorized gives the account that the body names, if it has authorized; otherwise an errcode. s.mu is held.
func (s *WeChat) authorized(c *call) (*account, int) {
	if code := s.checkComponent(c); code != 0 {
		return nil, code
	}
	a := s.accounts[c.field("authorizer_appid")]
	if a == nil || !a.authorized {
		return nil, 61003
	}
	return a, 0
}

// apiGetAuthorizerInfo shows the refresh token, as the real one does.
func (s *WeChat) apiGetAuthorizerInfo(c *call) answer {
	a, code := s.authorized(c)
	if code != 0 {
		return fail(code)
	}
	info := fields{
		"nick_name": "Sandbox " + a.appid, "head_img": "http://wx.qlogo.cn/mmopen/sandbox/0", "alias": "", "user_name": a.originalID(),
		"qrcode_url": "http://mmbiz.qpic.cn/sandbox/0", "idc": 1, "principal_name": "Sandbox", "signature": "",
		"service_type_info": fields{"id": 2}, "verify_type_info": fields{"id": 0}, "account_status": 1,
		"business_info": fields{"open_pay": 0, "open_shake": 0, "open_scan": 0, "open_card": 0, "open_store": 0},
	}
	if a.kind == MiniProgram {
		// Its presence is the official sign of a mini program.
		info["service_type_info"] = fields{"id": 0}
		info["MiniProgramInfo"] = fields{
			"network":    fields{"RequestDomain": []string{}, "WsRequestDomain": []string{}, "UploadDomain": []string{}, "DownloadDomain": []string{}, "BizDomain": []string{}, "UDPDomain": []string{}},
			"categories": []fields{{"first": "工具", "second": "效率"}}, "visit_status": 0,
		}
	}
	auth := fields{"authorizer_appid": a.appid, "func_info": permissions(a)}
	if !a.noAPI {
		auth["authorizer_refresh_token"] = a.refresh // "" where the code was never exchanged
	}
	return reply(fields{"authorizer_info": info, "authorization_info": auth})
}

// apiGetAuthorizerList pages through those that have authorized, the earliest added first.
func (s *WeChat) apiGetAuthorizerList(c *call) answer {
	in, good := decode[struct {
		Offset *int `json:"offset"`
		Count  *int `json:"count"`
	}](c)
	if !good || in.Offset == nil || in.Count == nil || *in.Offset < 0 || *in.Count < 0 {
		return fail(47001)
	}
	if code := s.checkComponent(c); code != 0 {
		return fail(code)
	}
	if *in.Count > 500 {
		return fail(40170)
	}
	total, list := 0, []fields{}
	for _, a := range s.order {
		if !a.authorized {
			continue
		}
		if total >= *in.Offset && len(list) < *in.Count {
			list = append(list, fields{"authorizer_appid": a.appid, "refresh_token": a.refresh, "auth_time": a.authTime.Unix()})
		}
		total++
	}
	return reply(fields{"total_count": total, "list": list})
}

// optionValues are the options there are, and what each may be.
var optionValues = map[string][]string{
	"location_report":  {"0", "1", "2"},
	"voice_recognize":  {"0", "1"},
	"customer_service": {"0", "1"},
}

func (a *account) option(name string) (string, int) {
	if optionValues[name] == nil {
		return "", 61012
	}
	if v, set := a.options[name]; set {
		return v, 0
	}
	return "0", 0
}

func (a *account) setOption(name, value string) answer {
	switch {
	case optionValues[name] == nil:
		return fail(61012)
	case !slices.Contains(optionValues[name], value):
		return fail(61013)
	}
	if a.options == nil {
		a.options = make(map[string]string)
	}
	a.options[name] = value
	return ok()
}

func (s *WeChat) getOptionOld(c *call) answer {
	a, code := s.authorized(c)
	if code != 0 {
		return fail(code)
	}
	name := c.field("option_name")
	value, code := a.option(name)
	if code != 0 {
		return fail(code)
	}
	return reply(fields{"authorizer_appid": a.appid, "option_name": name, "option_value": value})
}

func (s *WeChat) setOptionOld(c *call) answer {
	a, code := s.authorized(c)
	if code != 0 {
		return fail(code)
	}
	return a.setOption(c.field("option_name"), c.field("option_value"))
}

func (s *WeChat) getOption(c *call) answer {
	name := c.field("option_name")
	value, code := c.account.option(name)
	if code != 0 {
		return fail(code)
	}
	return okWith(fields{"option_name": name, "option_value": value})
}

func (s *WeChat) setOption(c *call) answer {
	return c.account.setOption(c.field("option_name"), c.field("option_value"))
}

// setPrivacy and getPrivacy (miniprogram-management/privacy-management) remember one setting, of 64 KiB at most.
func (s *WeChat) setPrivacy(c *call) answer {
	if len(c.body) > maxKept {
		return fail(47001)
	}
	c.account.privacy = json.RawMessage(slices.Clone(c.body))
	return ok()
}

func (s *WeChat) getPrivacy(c *call) answer {
	if c.account.privacy == nil {
		return okWith(fields{"code_exist": 0})
	}
	return okWith(fields{"code_exist": 1, "setting": c.account.privacy})
}

// maxKept is the most that is kept of what an account is told, in bytes.
const maxKept = 64 << 10
