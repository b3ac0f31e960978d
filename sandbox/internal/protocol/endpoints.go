package protocol

import (
	"maps"
	"net/http"
	"time"

	"wxproxy/sandbox/internal/state"
)

// tokenUse says which token an endpoint takes.
type tokenUse int

const (
	accountToken   tokenUse = iota // an account's, from authorization or its own secret; the default, as at WeChat
	componentToken                 // the component's; 61014 for another
	eitherToken                    // one of the two: the request is about the owner of the token
	privacyToken                   // as accountToken, but the component's gets 40001
	userToken                      // an end user's, from OAuth
	noToken                        // none: the request has a secret instead
)

// bodyUse says which body an endpoint takes with POST.
type bodyUse int

const (
	noBody        bodyUse = iota
	jsonBody              // an object; 44002 if it is empty, 47001 if it is something else
	plainJSON             // the same without \uXXXX (40033)
	multipartBody         // a form with a file in the field "media"
)

const (
	get    = http.MethodGet
	post   = http.MethodPost
	either = "" // both GET and POST
)

// endpoint is one path of WeChat's API, as its documentation describes it.
type endpoint struct {
	method string
	token  tokenUse
	body   bodyUse
	serve  func(*Request) Response
}

// endpoints is a set of endpoints by path.
type endpoints map[string]endpoint

// newEndpoints returns all endpoints. Each handler gets the parts of the state
// that it needs. Any path that is not here gets 40066, as at WeChat.
func newEndpoints(st *state.State, c Config, hasEndpoint func(path string) bool) endpoints {
	id := component{appid: c.ComponentAppID, secret: c.ComponentSecret}
	expiresIn := max(1, int(c.TokenLife/time.Second)) // WeChat counts whole seconds
	all := simpleEndpoints()
	for _, handler := range []interface{ endpoints() endpoints }{
		&tokenHandler{id, st.Accounts, st.Tickets, expiresIn, c.StartTicketPush},
		&authorizerHandler{id, st.Accounts, st.Profiles},
		&registrationHandler{st.Domains},
		&templateHandler{st.Templates},
		&quotaHandler{id, st.Accounts, st.Quotas, hasEndpoint, c.FindFailed},
		&appSecretHandler{st.Accounts, expiresIn},
		&endUserHandler{id, st.Accounts, st.EndUsers, st.UserSecrets},
		&messageHandler{secrets: st.UserSecrets},
		&menuHandler{st.Profiles},
		&followerHandler{st.Profiles},
		&mediaHandler{st.Media},
		&miniProgramHandler{st.Profiles},
	} {
		maps.Copy(all, handler.endpoints())
	}
	return all
}

// simpleEndpoints returns the endpoints that answer ok to the right token and
// do nothing else.
func simpleEndpoints() endpoints {
	all := endpoints{}
	for _, group := range simplePaths {
		for _, path := range group.paths {
			all[path] = endpoint{group.method, group.token, group.body, func(*Request) Response { return ok() }}
		}
	}
	return all
}

var simplePaths = []struct {
	method string
	token  tokenUse
	body   bodyUse
	paths  []string
}{
	{post, accountToken, jsonBody, []string{
		"/card/create", "/card/get",
		"/cgi-bin/account/fastregister",
		"/cgi-bin/callback/check",
		"/cgi-bin/draft/add", "/cgi-bin/draft/batchget",
		"/cgi-bin/freepublish/submit",
		"/cgi-bin/material/batchget_material",
		"/cgi-bin/message/custom/typing",
		"/cgi-bin/message/mass/preview", "/cgi-bin/message/mass/send", "/cgi-bin/message/mass/sendall",
		"/cgi-bin/open/bind", "/cgi-bin/open/create", "/cgi-bin/open/get", "/cgi-bin/open/unbind",
		"/cgi-bin/tags/members/batchtagging", "/cgi-bin/tags/members/batchuntagging", "/cgi-bin/tags/update",
		"/cgi-bin/user/info/updateremark",
		"/cgi-bin/wxopen/getweappsupportversion", "/cgi-bin/wxopen/wxamplink",
		"/channels/ec/order/list/get",
		"/customservice/kfaccount/add",
		"/datacube/getusercumulate", "/datacube/getusersummary",
		"/product/limiteddiscount/add/", "/product/order/get_list",
		"/shop/order/get_list",
		"/tcb/databasequery",
		"/wxa/bind_tester", "/wxa/memberauth", "/wxa/unbind_tester",
		"/wxa/business/getuserphonenumber",
		"/wxa/change_visitstatus", "/wxa/getversioninfo", "/wxa/getvisitstatus", "/wxa/revertcoderelease",
		"/wxa/generate_urllink", "/wxa/generatescheme",
		"/wxa/getdefaultamsinfo", "/wxa/operationams", "/wxa/setdefaultamsinfo",
		"/wxa/modify_domain", "/wxa/modify_domain_directly", "/wxa/setwebviewdomain",
		"/wxa/servicemarket",
		"/wxa/setbetaweappnickname", "/wxa/verifybetaweapp",
		"/wxaapi/newtmpl/addtemplate",
		"/xpay/query_order", "/xpay/query_user_balance",
	}},
	{get, accountToken, noBody, []string{
		"/cgi-bin/account/getaccountbasicinfo",
		"/cgi-bin/customservice/getkflist",
		"/cgi-bin/get_current_selfmenu_info",
		"/cgi-bin/material/get_materialcount",
		"/cgi-bin/template/get_all_private_template",
		"/publisher/stat",
		"/wxa/get_category", "/wxa/get_page", "/wxa/get_prefetchdnsdomain", "/wxa/undocodeaudit",
		"/wxaapi/newtmpl/getcategory", "/wxaapi/newtmpl/gettemplate",
	}},
	{post, accountToken, multipartBody, []string{"/wxa/img_sec_check"}},
	{post, privacyToken, multipartBody, []string{"/cgi-bin/component/uploadprivacyextfile"}},
	{post, componentToken, jsonBody, []string{
		"/cgi-bin/component/api_confirm_authorization",
		"/cgi-bin/open/have",
		"/componenttcb/batchuploadscf", "/componenttcb/describeenvs",
		"/product/register/register_shop",
		"/wedata/wedata_get_login_config", "/wedata/wedata_set_login_config",
		"/wxa/security/applysetorderpathinfo",
		"/wxa/servicemarket/get_paid_order_list",
	}},
	{post, eitherToken, jsonBody, []string{"/tcb/invokecloudfunction", "/tcb/modifyenv", "/tcb/usecloudaccesstoken"}},
}
