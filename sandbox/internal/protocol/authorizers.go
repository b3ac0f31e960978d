package protocol

import (
	"encoding/json"
	"slices"

	"wxproxy/sandbox/internal/state"
)

// authorizerHandler serves what the component asks and sets about the accounts
// that authorized it (doc/oplatform/openApi/authorization-management).
type authorizerHandler struct {
	component
	accounts *state.Accounts
	profiles *state.Profiles
}

func (h *authorizerHandler) endpoints() endpoints {
	return endpoints{
		"/cgi-bin/component/api_get_authorizer_info":   {post, componentToken, jsonBody, h.info},
		"/cgi-bin/component/api_get_authorizer_list":   {post, componentToken, jsonBody, h.list},
		"/cgi-bin/component/api_get_authorizer_option": {post, componentToken, jsonBody, h.getOptionByBody},
		"/cgi-bin/component/api_set_authorizer_option": {post, componentToken, jsonBody, h.setOptionByBody},
		// The newer pair names no account in its body: its token does.
		"/cgi-bin/component/get_authorizer_option": {post, accountToken, jsonBody, h.getOption},
		"/cgi-bin/component/set_authorizer_option": {post, accountToken, jsonBody, h.setOption},
		"/cgi-bin/component/setprivacysetting":     {post, privacyToken, jsonBody, h.setPrivacy},
		"/cgi-bin/component/getprivacysetting":     {post, privacyToken, jsonBody, h.getPrivacy},
	}
}

// authorized returns the account that the body names if it has authorized the
// component; otherwise an errcode.
func (h *authorizerHandler) authorized(r *Request) (state.Account, int) {
	if code := h.checkBody(r); code != 0 {
		return state.Account{}, code
	}
	a, known := h.accounts.FindAuthorizer(r.Field("authorizer_appid"))
	if !known || !a.Authorized {
		return state.Account{}, 61003
	}
	return a, 0
}

// info includes the refresh token, as WeChat's response does.
func (h *authorizerHandler) info(r *Request) Response {
	a, code := h.authorized(r)
	if code != 0 {
		return fail(code)
	}
	info := fields{
		"nick_name": "Sandbox " + a.AppID, "user_name": a.OriginalID(), "alias": "",
		"head_img":   "http://wx.qlogo.cn/mmopen/sandbox/0",
		"qrcode_url": "http://mmbiz.qpic.cn/sandbox/0",
		"idc":        1, "principal_name": "Sandbox", "signature": "", "account_status": 1,
		"service_type_info": fields{"id": 2}, "verify_type_info": fields{"id": 0},
		"business_info": fields{"open_pay": 0, "open_shake": 0, "open_scan": 0, "open_card": 0, "open_store": 0},
	}
	if a.Kind == state.MiniProgram {
		// Its presence is the official sign of a mini program.
		info["service_type_info"] = fields{"id": 0}
		info["MiniProgramInfo"] = fields{
			"network": fields{
				"RequestDomain": []string{}, "WsRequestDomain": []string{}, "UploadDomain": []string{},
				"DownloadDomain": []string{}, "BizDomain": []string{}, "UDPDomain": []string{},
			},
			"categories": []fields{{"first": "工具", "second": "效率"}}, "visit_status": 0,
		}
	}
	auth := fields{"authorizer_appid": a.AppID, "func_info": permissions(a.Kind)}
	if !a.NoAPI {
		auth["authorizer_refresh_token"] = a.RefreshToken // "" if the code was never exchanged
	}
	return reply(fields{"authorizer_info": info, "authorization_info": auth})
}

// maxPage is WeChat's limit for the length of a page.
const maxPage = 500

// list returns one page of the accounts that have authorized, in the order in
// which they were added.
func (h *authorizerHandler) list(r *Request) Response {
	in, good := decode[struct {
		Offset *int `json:"offset"`
		Count  *int `json:"count"`
	}](r)
	if !good || in.Offset == nil || in.Count == nil || *in.Offset < 0 || *in.Count < 0 {
		return fail(47001)
	}
	if code := h.checkBody(r); code != 0 {
		return fail(code)
	}
	if *in.Count > maxPage {
		return fail(40170)
	}
	page, total := h.accounts.Authorized(*in.Offset, *in.Count)
	list := []fields{}
	for _, a := range page {
		list = append(list, fields{
			"authorizer_appid": a.AppID, "refresh_token": a.RefreshToken, "auth_time": a.AuthTime.Unix(),
		})
	}
	return reply(fields{"total_count": total, "list": list})
}

// optionValues has the values that each option can have.
var optionValues = map[string][]string{
	"location_report":  {"0", "1", "2"},
	"voice_recognize":  {"0", "1"},
	"customer_service": {"0", "1"},
}

// option returns the value of the option that the request names.
func (h *authorizerHandler) option(r *Request, appid string) (name, value string, code int) {
	name = r.Field("option_name")
	if optionValues[name] == nil {
		return name, "", 61012
	}
	return name, h.profiles.Option(appid, name), 0
}

// changeOption sets the option that the request names.
func (h *authorizerHandler) changeOption(r *Request, appid string) Response {
	name, value := r.Field("option_name"), r.Field("option_value")
	switch {
	case optionValues[name] == nil:
		return fail(61012)
	case !slices.Contains(optionValues[name], value):
		return fail(61013)
	}
	h.profiles.SetOption(appid, name, value)
	return ok()
}

// getOptionByBody serves the older pair, in which the component names the
// account.
func (h *authorizerHandler) getOptionByBody(r *Request) Response {
	a, code := h.authorized(r)
	if code != 0 {
		return fail(code)
	}
	name, value, code := h.option(r, a.AppID)
	if code != 0 {
		return fail(code)
	}
	return reply(fields{"authorizer_appid": a.AppID, "option_name": name, "option_value": value})
}

func (h *authorizerHandler) setOptionByBody(r *Request) Response {
	a, code := h.authorized(r)
	if code != 0 {
		return fail(code)
	}
	return h.changeOption(r, a.AppID)
}

// getOption serves the newer pair, in which the token identifies the account.
func (h *authorizerHandler) getOption(r *Request) Response {
	name, value, code := h.option(r, r.account.AppID)
	if code != 0 {
		return fail(code)
	}
	return okWith(fields{"option_name": name, "option_value": value})
}

func (h *authorizerHandler) setOption(r *Request) Response {
	return h.changeOption(r, r.account.AppID)
}

// maxKept is how many bytes of a request are kept as a setting of an account.
const maxKept = 64 << 10

// setPrivacy and getPrivacy (miniprogram-management/privacy-management) keep
// one setting for each account, as it was sent.
func (h *authorizerHandler) setPrivacy(r *Request) Response {
	if len(r.Body) > maxKept {
		return fail(47001)
	}
	h.profiles.SetPrivacy(r.account.AppID, json.RawMessage(slices.Clone(r.Body)))
	return ok()
}

func (h *authorizerHandler) getPrivacy(r *Request) Response {
	setting := h.profiles.Privacy(r.account.AppID)
	if setting == nil {
		return okWith(fields{"code_exist": 0})
	}
	return okWith(fields{"code_exist": 1, "setting": setting})
}
