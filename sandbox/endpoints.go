package sandbox

import "net/http"

// wanted says what token an endpoint takes.
type wanted int

const (
	accountToken   wanted = iota // an authorizer's, or the one of the account's own secret; the default, as at WeChat
	componentToken               // the component's: 61014 for another
	eitherToken                  // whose quota, addresses or numbers are asked for
	privacyToken                 // as accountToken, but the component's is answered 40001
	userToken                    // an end user's, from OAuth
	noToken                      // none: a secret in its place
)

// bodyKind says what body an endpoint takes with POST.
type bodyKind int

const (
	noBody        bodyKind = iota
	jsonBody               // an object; 44002 if empty, 47001 if it is none
	plainJSON              // the same, and no \uXXXX in it (40033)
	multipartBody          // a form with the file in the field "media"
)

// endpoint is one row: one path of WeChat's. serve runs under s.mu.
type endpoint struct {
	method string // "": GET and POST
	token  wanted
	body   bodyKind
	serve  func(*WeChat, *call) answer
}

const (
	get  = http.MethodGet
	post = http.MethodPost
)

// table gives the rows. A row says what the documentation of its path says; what is not here is 40066.
func table() map[string]endpoint {
	t := map[string]endpoint{
		// the component: tokens (doc/oplatform/openApi/ticket-token)
		"/cgi-bin/component/api_component_token":    {post, noToken, jsonBody, (*WeChat).apiComponentToken},
		"/cgi-bin/component/api_start_push_ticket":  {post, noToken, jsonBody, (*WeChat).apiStartPushTicket},
		"/cgi-bin/component/api_create_preauthcode": {post, componentToken, jsonBody, (*WeChat).apiCreatePreAuthCode},
		"/cgi-bin/component/api_query_auth":         {post, componentToken, jsonBody, (*WeChat).apiQueryAuth},
		"/cgi-bin/component/api_authorizer_token":   {post, componentToken, jsonBody, (*WeChat).apiAuthorizerToken},

		// the component: its accounts (doc/oplatform/openApi/authorization-management)
		"/cgi-bin/component/api_get_authorizer_info":   {post, componentToken, jsonBody, (*WeChat).apiGetAuthorizerInfo},
		"/cgi-bin/component/api_get_authorizer_list":   {post, componentToken, jsonBody, (*WeChat).apiGetAuthorizerList},
		"/cgi-bin/component/api_get_authorizer_option": {post, componentToken, jsonBody, (*WeChat).getOptionOld},
		"/cgi-bin/component/api_set_authorizer_option": {post, componentToken, jsonBody, (*WeChat).setOptionOld},
		// The newer pair names no account in its body: only the account's token can tell.
		"/cgi-bin/component/get_authorizer_option": {post, accountToken, jsonBody, (*WeChat).getOption},
		"/cgi-bin/component/set_authorizer_option": {post, accountToken, jsonBody, (*WeChat).setOption},
		"/cgi-bin/component/setprivacysetting":     {post, privacyToken, jsonBody, (*WeChat).setPrivacy},
		"/cgi-bin/component/getprivacysetting":     {post, privacyToken, jsonBody, (*WeChat).getPrivacy},

		// the component: registration, domains, templates (doc/oplatform/openApi/…/register-management,
		// thirdparty-management)
		"/cgi-bin/component/fastregisterweapp":        {post, componentToken, jsonBody, (*WeChat).fastRegisterWeapp},
		"/wxa/component/fastregisterpersonalweapp":    {post, componentToken, jsonBody, (*WeChat).fastRegisterPersonal},
		"/wxa/component/fastregisterbetaweapp":        {post, componentToken, jsonBody, (*WeChat).fastRegisterBeta},
		"/wxa/component/fastregisterenterpriseweapp":  {post, componentToken, jsonBody, (*WeChat).fastRegisterPersonal},
		"/cgi-bin/component/modify_wxa_server_domain": {post, componentToken, jsonBody, domains("wxa_server_domain")},
		"/cgi-bin/component/modify_wxa_jump_domain":   {post, componentToken, jsonBody, domains("wxa_jump_h5_domain")},
		"/cgi-bin/component/get_domain_confirmfile":   {post, componentToken, jsonBody, (*WeChat).confirmFile},
		"/wxa/gettemplatedraftlist":                   {get, componentToken, noBody, (*WeChat).templateDrafts},
		"/wxa/gettemplatelist":                        {get, componentToken, noBody, (*WeChat).templateList},
		"/wxa/addtotemplate":                          {post, componentToken, jsonBody, (*WeChat).addTemplate},
		"/wxa/deletetemplate":                         {post, componentToken, jsonBody, (*WeChat).deleteTemplate},

		// quota and numbers of calls (doc/oplatform/openApi/openapi)
		"/cgi-bin/clear_quota":              {post, eitherToken, jsonBody, (*WeChat).clearQuota},
		"/cgi-bin/component/clear_quota/v2": {post, noToken, jsonBody, (*WeChat).clearQuotaBySecret},
		"/cgi-bin/openapi/quota/get":        {post, eitherToken, jsonBody, (*WeChat).getQuota},
		"/cgi-bin/openapi/quota/clear":      {post, eitherToken, jsonBody, (*WeChat).clearPathQuota},
		"/cgi-bin/openapi/rid/get":          {post, eitherToken, jsonBody, (*WeChat).getRID},
		"/cgi-bin/getcallbackip":            {get, eitherToken, noBody, (*WeChat).callbackIP},
		"/cgi-bin/get_api_domain_ip":        {get, eitherToken, noBody, (*WeChat).callbackIP},

		// accounts that call with their own secret
		"/cgi-bin/token":            {"", noToken, noBody, (*WeChat).ownToken},
		"/cgi-bin/stable_token":     {post, noToken, jsonBody, (*WeChat).stableToken},
		"/sns/jscode2session":       {get, noToken, noBody, (*WeChat).login},
		"/sns/oauth2/access_token":  {get, noToken, noBody, (*WeChat).oauth},
		"/sns/oauth2/refresh_token": {get, noToken, noBody, (*WeChat).oauthRefresh},

		// end users (…/miniprogram-management/login/thirdpartyCode2Session, official_account_website_authorization)
		"/sns/component/jscode2session":       {get, componentToken, noBody, (*WeChat).componentLogin},
		"/sns/oauth2/component/access_token":  {get, componentToken, noBody, (*WeChat).componentOAuth},
		"/sns/oauth2/component/refresh_token": {get, componentToken, noBody, (*WeChat).componentOAuthRefresh},
		"/sns/userinfo":                       {get, userToken, noBody, (*WeChat).snsUserInfo},
		"/sns/auth":                           {get, userToken, noBody, (*WeChat).snsAuth},

		// messages, menus, users
		"/cgi-bin/message/custom/send":       {post, accountToken, plainJSON, (*WeChat).sendCustom},
		"/cgi-bin/message/template/send":     {post, accountToken, plainJSON, (*WeChat).sendTemplate},
		"/cgi-bin/message/subscribe/send":    {post, accountToken, plainJSON, (*WeChat).sendSubscribe},
		"/cgi-bin/template/api_add_template": {post, accountToken, jsonBody, (*WeChat).addMessageTemplate},
		"/cgi-bin/menu/create":               {post, accountToken, plainJSON, (*WeChat).createMenu},
		"/cgi-bin/menu/get":                  {get, accountToken, noBody, (*WeChat).getMenu},
		"/cgi-bin/menu/delete":               {get, accountToken, noBody, (*WeChat).deleteMenu},
		"/cgi-bin/user/get":                  {get, accountToken, noBody, (*WeChat).userList},
		"/cgi-bin/user/info":                 {get, accountToken, noBody, (*WeChat).userInfo},
		"/cgi-bin/user/info/batchget":        {post, accountToken, jsonBody, (*WeChat).userInfoBatch},
		"/cgi-bin/tags/create":               {post, accountToken, plainJSON, (*WeChat).createTag},
		"/cgi-bin/tags/get":                  {get, accountToken, noBody, (*WeChat).getTags},
		"/cgi-bin/tags/delete":               {post, accountToken, jsonBody, (*WeChat).deleteTag},
		"/cgi-bin/ticket/getticket":          {get, accountToken, noBody, (*WeChat).getTicket},
		"/cgi-bin/qrcode/create":             {post, accountToken, jsonBody, (*WeChat).createQRCode},

		// media
		"/cgi-bin/media/upload":          {post, accountToken, multipartBody, (*WeChat).uploadMedia},
		"/cgi-bin/media/get":             {get, accountToken, noBody, (*WeChat).getMedia},
		"/cgi-bin/media/uploadimg":       {post, accountToken, multipartBody, (*WeChat).uploadImage},
		"/cgi-bin/material/add_material": {post, accountToken, multipartBody, (*WeChat).addMaterial},
		"/cgi-bin/material/get_material": {post, accountToken, jsonBody, (*WeChat).getMaterial},
		"/cgi-bin/material/del_material": {post, accountToken, jsonBody, (*WeChat).deleteMaterial},

		// mini programs
		"/wxa/getwxacodeunlimit":          {post, accountToken, jsonBody, (*WeChat).codeUnlimited},
		"/wxa/getwxacode":                 {post, accountToken, jsonBody, (*WeChat).codeForPath},
		"/cgi-bin/wxaapp/createwxaqrcode": {post, accountToken, jsonBody, (*WeChat).codeForPath},
		"/wxa/get_qrcode":                 {get, accountToken, noBody, (*WeChat).trialCode},
		"/wxa/msg_sec_check":              {post, accountToken, plainJSON, (*WeChat).checkMessage},
		"/wxa/img_sec_check":              {post, accountToken, multipartBody, plain},
		"/wxa/commit":                     {post, accountToken, jsonBody, (*WeChat).commit},
		"/wxa/submit_audit":               {post, accountToken, jsonBody, (*WeChat).submitAudit},
		"/wxa/get_latest_auditstatus":     {get, accountToken, noBody, (*WeChat).latestAudit},
		"/wxa/release":                    {post, accountToken, jsonBody, (*WeChat).release},
	}
	for _, p := range []struct {
		method string
		token  wanted
		body   bodyKind
		paths  []string
	}{
		{post, accountToken, jsonBody, []string{
			"/cgi-bin/message/mass/send", "/cgi-bin/message/mass/sendall", "/cgi-bin/message/mass/preview", "/cgi-bin/message/custom/typing",
			"/cgi-bin/user/info/updateremark", "/cgi-bin/tags/update", "/cgi-bin/tags/members/batchtagging", "/cgi-bin/tags/members/batchuntagging",
			"/cgi-bin/draft/add", "/cgi-bin/draft/batchget", "/cgi-bin/freepublish/submit", "/cgi-bin/material/batchget_material",
			"/cgi-bin/callback/check", "/cgi-bin/open/create", "/cgi-bin/open/bind", "/cgi-bin/open/unbind", "/cgi-bin/open/get",
			"/cgi-bin/account/fastregister", "/cgi-bin/wxopen/getweappsupportversion", "/cgi-bin/wxopen/wxamplink",
			"/wxa/modify_domain", "/wxa/modify_domain_directly", "/wxa/setwebviewdomain", "/wxa/getversioninfo", "/wxa/getvisitstatus",
			"/wxa/bind_tester", "/wxa/unbind_tester", "/wxa/memberauth", "/wxa/change_visitstatus", "/wxa/revertcoderelease", "/wxa/generatescheme",
			"/wxa/generate_urllink", "/wxa/business/getuserphonenumber", "/wxa/servicemarket", "/wxa/operationams", "/wxa/verifybetaweapp",
			"/wxa/setbetaweappnickname", "/wxa/getdefaultamsinfo", "/wxa/setdefaultamsinfo", "/wxaapi/newtmpl/addtemplate", "/datacube/getusersummary",
			"/datacube/getusercumulate", "/card/create", "/card/get", "/channels/ec/order/list/get", "/product/order/get_list", "/product/limiteddiscount/add/",
			"/xpay/query_user_balance", "/xpay/query_order", "/tcb/databasequery", "/shop/order/get_list", "/customservice/kfaccount/add",
		}},
		{get, accountToken, noBody, []string{
			"/cgi-bin/get_current_selfmenu_info", "/cgi-bin/material/get_materialcount", "/cgi-bin/template/get_all_private_template",
			"/cgi-bin/customservice/getkflist", "/cgi-bin/account/getaccountbasicinfo", "/wxa/get_category", "/wxa/get_page", "/wxa/undocodeaudit", "/wxa/get_prefetchdnsdomain",
			"/wxaapi/newtmpl/gettemplate", "/wxaapi/newtmpl/getcategory", "/publisher/stat",
		}},
		{post, privacyToken, multipartBody, []string{"/cgi-bin/component/uploadprivacyextfile"}},
		{post, componentToken, jsonBody, []string{
			"/cgi-bin/component/api_confirm_authorization", "/wxa/security/applysetorderpathinfo", "/wxa/servicemarket/get_paid_order_list",
			"/componenttcb/describeenvs", "/componenttcb/batchuploadscf", "/wedata/wedata_get_login_config", "/wedata/wedata_set_login_config",
			"/product/register/register_shop", "/cgi-bin/open/have",
		}},
		{post, eitherToken, jsonBody, []string{"/tcb/modifyenv", "/tcb/usecloudaccesstoken", "/tcb/invokecloudfunction"}},
	} {
		for _, path := range p.paths {
			t[path] = endpoint{p.method, p.token, p.body, plain}
		}
	}
	return t
}

// plain answers ok and does nothing.
func plain(*WeChat, *call) answer { return ok() }
