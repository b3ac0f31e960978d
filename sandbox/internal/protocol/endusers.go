package protocol

import (
	"encoding/base64"
	"regexp"
	"strings"
	"time"

	"wxproxy/sandbox/internal/random"
	"wxproxy/sandbox/internal/state"
)

// loginCode is the form of an end user's code. Every one works once, except
// those that begin with "invalid".
var loginCode = regexp.MustCompile(`^[0-9A-Za-z_-]{6,128}$`)

// endUserHandler serves end users: the login of mini programs and web OAuth
// (…/miniprogram-management/login/thirdpartyCode2Session,
// official_account_website_authorization). Each exists twice: for the
// component, and for accounts with a secret of their own.
type endUserHandler struct {
	component
	accounts *state.Accounts
	users    *state.EndUsers
	secrets  *state.SecretList
}

func (h *endUserHandler) endpoints() endpoints {
	return endpoints{
		"/sns/component/jscode2session":       {get, componentToken, noBody, h.componentLogin},
		"/sns/oauth2/component/access_token":  {get, componentToken, noBody, h.componentOAuth},
		"/sns/oauth2/component/refresh_token": {get, componentToken, noBody, h.componentOAuthRefresh},

		"/sns/jscode2session":       {get, noToken, noBody, h.login},
		"/sns/oauth2/access_token":  {get, noToken, noBody, h.oauth},
		"/sns/oauth2/refresh_token": {get, noToken, noBody, h.oauthRefresh},

		"/sns/userinfo": {get, userToken, noBody, h.userInfo},
		"/sns/auth":     {get, userToken, noBody, h.auth},
	}
}

// byComponent finds the account of a request that the component makes for it.
// It returns an errcode, 0 if the request is good.
func (h *endUserHandler) byComponent(r *Request, grant string) (state.Account, int) {
	a, known := h.accounts.FindAuthorizer(r.Arg("appid"))
	switch component := r.Arg("component_appid"); {
	case component == "":
		return a, 41018
	case component != h.appid:
		return a, 40013
	case r.Arg("appid") == "":
		return a, 41002
	case !known || !a.Authorized:
		return a, 61003
	case r.Arg("grant_type") != grant:
		return a, 40002
	}
	return a, 0
}

// bySecret finds the account that makes a request itself.
func (h *endUserHandler) bySecret(r *Request, grant string) (state.Account, int) {
	if r.Arg("grant_type") != grant {
		return state.Account{}, 40002
	}
	return h.accounts.BySecret(r.Arg("appid"), r.Arg("secret"))
}

// useCode uses up an end user's code of that account. If it is not good,
// refused is true and the response has the errcode.
func (h *endUserHandler) useCode(a state.Account, code string) (resp Response, refused bool) {
	switch {
	case code == "":
		return fail(41008), true
	case !loginCode.MatchString(code) || strings.HasPrefix(code, "invalid"):
		// A string, as in the official sample of thirdpartyCode2Session.
		return Response{ErrCode: 40029, ErrCodeString: true}, true
	case !h.users.UseCode(a.AppID, code):
		return fail(40163), true
	}
	return Response{}, false
}

// componentLogin exchanges the code of wx.login for a session, for the
// component.
func (h *endUserHandler) componentLogin(r *Request) Response {
	a, code := h.byComponent(r, "authorization_code")
	return h.session(r, a, code)
}

// login does the same for an account that shows its own secret.
func (h *endUserHandler) login(r *Request) Response {
	a, code := h.bySecret(r, "authorization_code")
	return h.session(r, a, code)
}

// session answers a mini program's login, if code is 0.
func (h *endUserHandler) session(r *Request, a state.Account, code int) Response {
	if code != 0 {
		return fail(code)
	}
	jsCode := r.Arg("js_code")
	if resp, refused := h.useCode(a, jsCode); refused {
		return resp
	}
	key := base64.StdEncoding.EncodeToString([]byte(random.Base64(12)))
	return reply(fields{
		"openid": a.OpenID(jsCode), "unionid": state.UnionID(jsCode), "session_key": h.secrets.Add(key),
	})
}

// componentOAuth exchanges the code of a web page (网页授权) for tokens, for
// the component.
func (h *endUserHandler) componentOAuth(r *Request) Response {
	a, code := h.byComponent(r, "authorization_code")
	return h.issue(r, a, code)
}

// oauth does the same for an account that shows its own secret.
func (h *endUserHandler) oauth(r *Request) Response {
	a, code := h.bySecret(r, "authorization_code")
	return h.issue(r, a, code)
}

// issue answers an OAuth request with a login code, if code is 0.
func (h *endUserHandler) issue(r *Request, a state.Account, code int) Response {
	if code != 0 {
		return fail(code)
	}
	if resp, refused := h.useCode(a, r.Arg("code")); refused {
		return resp
	}
	return userTokens(h.users.Issue(a.AppID, a.OpenID(r.Arg("code")), r.Now))
}

// userTokens is the response to both an exchange and a renewal.
func userTokens(g state.UserGrant) Response {
	return reply(fields{
		"access_token": g.AccessToken, "expires_in": int(state.UserTokenLife / time.Second),
		"refresh_token": g.RefreshToken, "openid": g.OpenID, "unionid": state.UnionID(g.OpenID),
		"scope": "snsapi_userinfo",
	})
}

// componentOAuthRefresh renews an end user's token, for the component.
func (h *endUserHandler) componentOAuthRefresh(r *Request) Response {
	a, code := h.byComponent(r, "refresh_token")
	return h.refresh(r, a, code)
}

// oauthRefresh requires no secret, only the appid, as at WeChat.
func (h *endUserHandler) oauthRefresh(r *Request) Response {
	a, known := h.accounts.FindAuthorizer(r.Arg("appid"))
	code := 0
	switch {
	case !known:
		code = 40013
	case r.Arg("grant_type") != "refresh_token":
		code = 40002
	}
	return h.refresh(r, a, code)
}

// refresh answers an OAuth request with a refresh token, if code is 0.
func (h *endUserHandler) refresh(r *Request, a state.Account, code int) Response {
	if code != 0 {
		return fail(code)
	}
	g, code := h.users.Refresh(a.AppID, r.Arg("refresh_token"), r.Now)
	if code != 0 {
		return fail(code)
	}
	return userTokens(g)
}

// auth checks whether an end user's token is still good; admission has done so.
func (h *endUserHandler) auth(r *Request) Response { return result(checkOpenID(r)) }

// userInfo returns the same person for every user, except for the openid.
func (h *endUserHandler) userInfo(r *Request) Response {
	if code := checkOpenID(r); code != 0 {
		return fail(code)
	}
	return reply(fields{
		"openid": r.user.OpenID, "unionid": state.UnionID(r.user.OpenID), "nickname": "Sandbox", "sex": 0,
		"province": "", "city": "", "country": "", "privilege": []string{},
		"headimgurl": "https://thirdwx.qlogo.cn/mmopen/sandbox/132",
	})
}

// checkOpenID returns an errcode if the openid is not that of the token's user.
func checkOpenID(r *Request) int {
	switch r.Arg("openid") {
	case "":
		return 41009
	case r.user.OpenID:
		return 0
	}
	return 40003
}
