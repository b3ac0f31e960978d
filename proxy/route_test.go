package proxy

import (
	"net/http"
	"testing"

	"wxproxy/proxy/standin"
	"wxproxy/wechat"
)

// testSettings returns settings with a component, an own account and these
// routes.
func testSettings(routes ...wechat.Endpoint) *settings {
	signer, err := standin.NewSigner(nil)
	if err != nil {
		panic(err)
	}
	return &settings{
		component: []byte(comp), apps: map[string]wechat.Secret{own: wechat.NewSecret("s3cret")},
		table: wechat.NewTable(routes, wechat.Endpoints), signer: signer, anyHost: true,
	}
}

// headOf returns the head of a request for uri without any headers.
func headOf(tb testing.TB, uri string) requestHead {
	tb.Helper()
	target, err := parseTarget([]byte(uri))
	if err != nil {
		tb.Fatalf("%q: got error %v, want none", uri, err)
	}
	return requestHead{method: []byte("GET"), target: target}
}

// TestRoutes checks for every row of the table, and for the rules around it,
// which token is injected in which parameter.
func TestRoutes(t *testing.T) {
	s := testSettings(
		wechat.Endpoint{Path: "/cgi-bin/new/*", Need: wechat.NeedComponent},
		wechat.Endpoint{Path: "/cgi-bin/hidden", Need: wechat.NeedRefusal},
		wechat.Endpoint{Path: "/cgi-bin/open", Need: wechat.NeedNothing},
	)
	const refused, bad, answered = "Forbidden", "Bad Request", "answered with a stand-in"
	f := func(uri, want string) {
		t.Helper()
		h := headOf(t, uri)
		d, err := s.decide(&h)
		got := ""
		switch {
		case err != nil:
			got = http.StatusText(err.status)
		case d.tokenOwner != nil:
			got = d.parameter() + " of " + string(d.tokenOwner)
			if d.addComponentAppID {
				got += " +component_appid"
			}
		case d.endpoint.Need == wechat.NeedStandIn:
			got = answered
		case !d.secret.IsEmpty():
			got = "secret of " + string(d.account)
		case d.strip == paramStandIn|paramSecret:
			got = "unchanged"
		default:
			got = "no token"
		}
		if d.path != "" && err == nil {
			got += " at " + d.path
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", uri, got, want)
		}
	}
	account, component, long := "access_token of "+acc, "access_token of "+comp, "component_access_token of "+comp
	a := "/" + acc

	for _, path := range []string{"api_start_push_ticket", "clear_quota/v2", "%63lear_quota/v2/"} {
		f(a+"/cgi-bin/component/"+path, refused)
	}
	f(a+"/cgi-bin/clear_quota/v2", refused)
	for _, path := range []string{"/cgi-bin/component/api_component_token", "/cgi-bin/component/api_query_auth", "/cgi-bin/component/api_authorizer_token", "/cgi-bin/component/api_query_auth/",
		"/cgi-bin/component/%61pi_query_auth", "/cgi-bin/token", "/cgi-bin/stable_token", "/cgi-bin/token/"} {
		f(a+path, answered)
		f(path, answered)
	}
	for _, path := range []string{"api_create_preauthcode", "api_get_authorizer_info", "api_get_authorizer_list", "api_get_authorizer_option", "api_set_authorizer_option",
		"fastregisterweapp?action=create", "modify_wxa_server_domain", "modify_wxa_jump_domain", "get_domain_confirmfile", "something_new"} {
		f(a+"/cgi-bin/component/"+path, component)
		f("/"+comp+"/cgi-bin/component/"+path, component)
		f("/cgi-bin/component/"+path, component)
	}
	for _, path := range []string{"get_authorizer_option", "set_authorizer_option", "setprivacysetting", "getprivacysetting", "uploadprivacyextfile"} {
		f(a+"/cgi-bin/component/"+path, account)
		f("/"+comp+"/cgi-bin/component/"+path, bad)
	}
	f(a+"/cgi-bin/component/api_confirm_authorization", long)
	for _, path := range []string{"/wxa/component/fastregisterpersonalweapp?action=create", "/wxa/component/fastregisterbetaweapp", "/wxa/component/fastregisterenterpriseweapp",
		"/wxa/gettemplatedraftlist", "/wxa/gettemplatelist", "/wxa/addtotemplate", "/wxa/deletetemplate", "/wxa/security/applysetorderpathinfo",
		"/wxa/servicemarket/service/buy", "/wxa/servicemarket/get_paid_order_list", "/wxa/setdefaultamsinfo?action=set_share_ratio", "/wxa/setdefaultamsinfo?action=agency_set_custom_share_ratio",
		"/wxa/getdefaultamsinfo?action=get_share_ratio", "/wxa/getdefaultamsinfo?a=b&action=agency_get_custom_share_ratio", "/wxa/getdefaultamsinfo?action=get_agency_settled_revenue",
		"/componenttcb/describeenvs", "/wedata/wedata_get_login_config", "/wedata/wedata_set_login_config", "/cgi-bin/open/have", "/cgi-bin/new/thing"} {
		f(a+path, component)
	}
	f(a+"/product/register/register_shop", long)
	for _, path := range []string{"/tcb/modifyenv", "/tcb/usecloudaccesstoken", "/tcb/invokecloudfunction", "/cgi-bin/clear_quota", "/cgi-bin/openapi/quota/get", "/cgi-bin/openapi/quota/clear",
		"/cgi-bin/openapi/rid/get", "/cgi-bin/callback/check", "/cgi-bin/get_api_domain_ip", "/cgi-bin/getcallbackip"} {
		f(a+path, account)
		f("/"+comp+path, component)
		f(path, bad)
	}
	for _, path := range []string{"/cgi-bin/message/custom/send", "/wxa/commit", "/wxa/security/other", "/wxa/servicemarket", "/wxa/servicemarketretrieve", "/wxa/setdefaultamsinfo?action=other",
		"/wxa/getdefaultamsinfo", "/wxa/operationams?action=get_share_ratio", "/tcb/describeenvs", "/wedata/other", "/product/register/check_audit_status", "/cgi-bin/open/create", "/publisher/stat",
		"/xpay/query_user_balance", "/wxaapi/newtmpl/gettemplate", "/shop/img/upload", "/wxa/get_prefetchdnsdomain", "/wxa/modify_domain", "/anything/at/all"} {
		f(a+path, account)
		f("/"+own+path, "access_token of "+own)
		f("/"+comp+path, bad)
		f(path, bad)
	}
	f("/sns/userinfo?access_token=x", "unchanged")
	f("/sns/auth", "unchanged")
	f(a+"/sns/component/jscode2session?appid="+acc+"&js_code=1", long+" +component_appid")
	f("/sns/component/jscode2session?appid="+acc+"&component_appid="+comp, long)
	f("/"+comp+"/sns/oauth2/component/access_token?appid="+acc, long+" +component_appid")
	f(a+"/sns/oauth2/component/refresh_token?appid=wxbbbbbbbbbbbbbbbb", bad)
	f(a+"/sns/oauth2/component/refresh_token?appid="+acc+"&appid=wxbbbbbbbbbbbbbbbb", bad)
	f("/sns/jscode2session?appid="+acc, long+" +component_appid at /sns/component/jscode2session")
	f(a+"/sns/oauth2/access_token", long+" +component_appid at /sns/oauth2/component/access_token")
	f(a+"/sns/oauth2/refresh_token", long+" +component_appid at /sns/oauth2/component/refresh_token")
	f("/sns/jscode2session?appid="+own, "secret of "+own)
	f("/sns/jscode2session", bad)
	f("/"+comp+"/sns/jscode2session", bad)
	f(a+"/cgi-bin/hidden", refused)
	f(a+"/cgi-bin/open", "no token")
}
