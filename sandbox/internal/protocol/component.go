package protocol

import (
	"time"

	"wxproxy/sandbox/internal/state"
)

// component is the identity of the component, which many requests repeat.
type component struct{ appid, secret string }

// checkSecret returns the errcode of a request with that appid and secret, 0 if
// they are the component's.
func (c component) checkSecret(appid, secret string) int {
	switch {
	case appid == "":
		return 41018
	case appid != c.appid:
		return 40013
	case secret == "":
		return 41004
	case secret != c.secret:
		return 40125
	}
	return 0
}

// checkBody returns the errcode of a request whose body has to name the
// component.
func (c component) checkBody(r *Request) int {
	switch r.Field("component_appid") {
	case "":
		return 41018
	case c.appid:
		return 0
	}
	return 40013
}

// tokenHandler serves the component's tickets, codes and tokens
// (doc/oplatform/openApi/ticket-token).
type tokenHandler struct {
	component
	accounts  *state.Accounts
	tickets   *state.Tickets
	expiresIn int // seconds
	startPush func()
}

func (h *tokenHandler) endpoints() endpoints {
	return endpoints{
		"/cgi-bin/component/api_component_token":    {post, noToken, jsonBody, h.componentToken},
		"/cgi-bin/component/api_start_push_ticket":  {post, noToken, jsonBody, h.startPushTicket},
		"/cgi-bin/component/api_create_preauthcode": {post, componentToken, jsonBody, h.createPreAuthCode},
		"/cgi-bin/component/api_query_auth":         {post, componentToken, jsonBody, h.queryAuth},
		"/cgi-bin/component/api_authorizer_token":   {post, componentToken, jsonBody, h.authorizerToken},
	}
}

// componentToken requires appid, secret, and any ticket of the last twelve
// hours.
func (h *tokenHandler) componentToken(r *Request) Response {
	in, good := decode[struct {
		AppID  string `json:"component_appid"`
		Secret string `json:"component_appsecret"`
		Ticket string `json:"component_verify_ticket"`
	}](r)
	if !good {
		return fail(47001)
	}
	if code := h.checkSecret(in.AppID, in.Secret); code != 0 {
		return fail(code)
	}
	if code := h.tickets.Check(in.Ticket, r.Now); code != 0 {
		return fail(code)
	}
	token := h.accounts.IssueComponentToken(r.Now)
	return reply(fields{"component_access_token": token, "expires_in": h.expiresIn})
}

// startPushTicket restarts pushes that have stopped. WeChat starts with the
// next ticket; here it comes at once.
func (h *tokenHandler) startPushTicket(r *Request) Response {
	in, good := decode[struct {
		AppID  string `json:"component_appid"`
		Secret string `json:"component_secret"` // another name than everywhere else
	}](r)
	if !good {
		return fail(47001)
	}
	if code := h.checkSecret(in.AppID, in.Secret); code != 0 {
		return fail(code)
	}
	if h.tickets.Flowing(r.Now) {
		return reply(fields{"errcode": 0, "errmsg": "in a normal state"})
	}
	h.startPush()
	return ok()
}

// createPreAuthCode returns the code with which a consent page is opened, once.
func (h *tokenHandler) createPreAuthCode(r *Request) Response {
	if code := h.checkBody(r); code != 0 {
		return fail(code)
	}
	return reply(fields{
		"pre_auth_code": h.accounts.NewPreAuthCode(r.Now),
		"expires_in":    int(state.PreAuthCodeLife / time.Second),
	})
}

// queryAuth exchanges an authorization code, once.
func (h *tokenHandler) queryAuth(r *Request) Response {
	if code := h.checkBody(r); code != 0 {
		return fail(code)
	}
	grant, code := h.accounts.ExchangeCode(r.Field("authorization_code"), r.Now)
	if code != 0 {
		return fail(code)
	}
	info := fields{"authorizer_appid": grant.Account.AppID, "func_info": permissions(grant.Account.Kind)}
	if !grant.Account.NoAPI {
		info["authorizer_access_token"] = grant.AccessToken
		info["expires_in"] = h.expiresIn
		info["authorizer_refresh_token"] = grant.Account.RefreshToken
	}
	return reply(fields{"authorization_info": info})
}

// authorizerToken renews the token of an account.
func (h *tokenHandler) authorizerToken(r *Request) Response {
	if code := h.checkBody(r); code != 0 {
		return fail(code)
	}
	grant, code := h.accounts.Refresh(r.Field("authorizer_appid"), r.Field("authorizer_refresh_token"), r.Now)
	if code != 0 {
		return fail(code)
	}
	return reply(fields{
		"authorizer_access_token":  grant.AccessToken,
		"expires_in":               h.expiresIn,
		"authorizer_refresh_token": grant.Account.RefreshToken,
	})
}

// permissions returns the permission sets (权限集) that every account of that
// kind grants here.
func permissions(kind state.Kind) []fields {
	ids := []int{1, 2, 3, 4, 7, 11, 15}
	if kind == state.MiniProgram {
		ids = []int{17, 18, 19, 25, 30, 31, 37}
	}
	var out []fields
	for _, id := range ids {
		out = append(out, fields{"funcscope_category": fields{"id": id}})
	}
	return out
}
