package proxy

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"wxproxy/proxy/standin"
	"wxproxy/wechat"
)

const (
	acc  = "wxaaaaaaaaaaaaaaaa"
	own  = "wx00000000000000ff"
	comp = "wxcccccccccccccccc"
)

func TestReadTarget(t *testing.T) {
	ok := func(uri, prefix, path, query string) {
		t.Helper()
		got, p := parseTarget([]byte(uri))
		if p != nil || string(got.prefix) != prefix || string(got.path) != path || string(got.query) != query {
			t.Errorf("%q: %q %q %q, problem %v", uri, got.prefix, got.path, got.query, p)
		}
	}
	ok("/cgi-bin/user/info", "", "/cgi-bin/user/info", "")
	ok("/cgi-bin/user/info?openid=1?2", "", "/cgi-bin/user/info", "openid=1?2")
	ok("/"+acc+"/cgi-bin/a", acc, "/cgi-bin/a", "")
	ok("//"+acc+"/cgi-bin/a", acc, "/cgi-bin/a", "")
	ok("/"+acc+"//cgi-bin/a?b", acc, "/cgi-bin/a", "b")
	ok("//cgi-bin/token", "", "/cgi-bin/token", "")
	ok("/wxa/commit", "", "/wxa/commit", "")
	ok("/wxaapi/newtmpl/gettemplate", "", "/wxaapi/newtmpl/gettemplate", "")
	ok("/wxAAAAAAAAAAAAAAAA/cgi-bin/a", "", "/wxAAAAAAAAAAAAAAAA/cgi-bin/a", "")
	ok("/"+acc+"a/cgi-bin/a", "", "/"+acc+"a/cgi-bin/a", "")
	ok("/product/limiteddiscount/add/", "", "/product/limiteddiscount/add/", "")
	ok("/cgi-bin/%E4%BD%A0+~a", "", "/cgi-bin/%E4%BD%A0+~a", "")
	ok("/cgi-bin/\xe4\xbd\xa0", "", "/cgi-bin/\xe4\xbd\xa0", "")
	ok("/a/..b/.c", "", "/a/..b/.c", "")
	ok("http://api.weixin.qq.com/cgi-bin/a?b", "", "/cgi-bin/a", "b")
	ok("HTTP://API2.weixin.qq.com/cgi-bin/a"[:0]+"http://API2.weixin.qq.com/cgi-bin/a", "", "/cgi-bin/a", "")
	ok("/cgi-bin/a?u=http://x/../y", "", "/cgi-bin/a", "u=http://x/../y")

	bad := func(uri string, want *apiError) {
		t.Helper()
		if _, p := parseTarget([]byte(uri)); p != want {
			t.Errorf("%q: %v, want %v", uri, p, want)
		}
	}
	for _, uri := range []string{"/", "//", "/" + acc, "/" + acc + "/", "///cgi-bin/a", "/" + acc + "///cgi-bin/a", "/cgi-bin//a", "/cgi-bin/../a", "/./a", "/a/..", "/a/.", "/cgi-bin/a//",
		"/a\\b", "/a/%2e%2e/b", "/a/%2E/b", "/a%2fb", "/a%2Fb", "/a%5cb", "/a%5Cb", "/a%00", "/a%0d%0aHost:x", "/a%7f", "/a%25b", "/a%2", "/a%zz", "/a%", "/a;b", "/a%3bb", "/a%3Fb", "/a%23b", "/a\x01b", "/a\x7f", "/a/%c0%ae%c0%ae/b", "/a%C0%AFb", "/a/\xc0\xae./b", "/a%e0%80%ae", "/a%ff", "/a b", "/a#b"} {
		bad(uri, errPath)
	}
	for _, uri := range []string{"/a?b c", "/a?b\tc", "/a?b#c", "/a?\x00", "/a?b\x7f"} {
		bad(uri, errQuery)
	}
	for _, uri := range []string{"", "*", "cgi-bin/a", "http://evil.example/cgi-bin/a", "http://api.weixin.qq.com.evil.example/a", "http://u@api.weixin.qq.com/a", "http://api.weixin.qq.com:80@evil/a",
		"http://api.weixin.qq.com", "http://api.weixin.qq.com?x", "ftp://api.weixin.qq.com/a", "https://mp.weixin.qq.com/a", "http:///a"} {
		bad(uri, errForeignHost)
	}
}

// Whatever a path is, the one that the rules saw is the one that a server would see.
func FuzzTarget(f *testing.F) {
	f.Add("/" + acc + "//cgi-bin/%63omponent/api_query_auth?x=1")
	f.Add("/a/%2e%2e/%252e/b;c\\d")
	f.Add("http://api.weixin.qq.com/cgi-bin/a")
	f.Fuzz(func(t *testing.T, uri string) {
		got, p := parseTarget([]byte(uri))
		if p != nil {
			return
		}
		u, err := url.ParseRequestURI(string(got.path) + "?" + string(got.query))
		if err != nil {
			return // net/url is stricter here and there, which is no harm
		}
		if u.Path != string(got.decodedPath) || u.RawQuery != string(got.query) {
			t.Fatalf("%q: the rules see %q %q, a server %q %q", uri, got.decodedPath, got.query, u.Path, u.RawQuery)
		}
		for _, seg := range strings.Split(u.Path[1:], "/") {
			if seg == "." || seg == ".." {
				t.Fatalf("%q: dot segment in %q", uri, u.Path)
			}
		}
		if !bytes.HasSuffix([]byte(uri), append(got.path, uri[len(uri)-len(got.query)-boolInt(strings.Contains(uri, "?")):]...)) {
			t.Fatalf("%q: path %q is not the caller's own", uri, got.path)
		}
	})
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func testSettings(routes ...wechat.Endpoint) *settings {
	signer, err := standin.NewSigner(nil)
	if err != nil {
		panic(err)
	}
	return &settings{
		component: []byte(comp), apps: map[string]wechat.Secret{own: wechat.NewSecret("s3cret")},
		table: wechat.NewTable(routes, wechat.Endpoints), signer: signer,
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

// Every row of the table, and the rules around it: which appid's token goes in, under which name.
func TestDecide(t *testing.T) {
	s := testSettings(
		wechat.Endpoint{Path: "/cgi-bin/new/*", Need: wechat.NeedComponent},
		wechat.Endpoint{Path: "/cgi-bin/hidden", Need: wechat.NeedRefusal},
		wechat.Endpoint{Path: "/cgi-bin/open", Need: wechat.NeedNothing},
	)
	const refused, bad, here = "Forbidden", "Bad Request", "answered here"
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
			got = here
		case !d.secret.IsEmpty():
			got = "secret of " + string(d.account)
		case d.strip == paramStandIn|paramSecret:
			got = "as it is"
		default:
			got = "no token"
		}
		if d.path != "" && err == nil {
			got += " at " + d.path
		}
		if got != want {
			t.Errorf("%s: %s, want %s", uri, got, want)
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
		f(a+path, here)
		f(path, here)
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
	f("/sns/userinfo?access_token=x", "as it is")
	f("/sns/auth", "as it is")
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

func TestAppendQuery(t *testing.T) {
	s := testSettings()
	f := func(uri, want string) {
		t.Helper()
		h := headOf(t, uri)
		d, err := s.decide(&h)
		if err != nil {
			t.Fatalf("%s: got error %v, want none", uri, err)
		}
		if got := string(appendQuery(nil, h.target.query, &d.route, s.component, testToken)); got != want {
			t.Errorf("%s: got %s, want %s", uri, got, want)
		}
	}
	a := "/" + acc
	f(a+"/cgi-bin/a", "?access_token=T%40")
	f(a+"/cgi-bin/a?", "?access_token=T%40")
	f(a+"/cgi-bin/a?b=%20&access_token=x&c", "?access_token=T%40&b=%20&c")
	f(a+"/cgi-bin/a?secret=s&b", "?access_token=T%40&b")
	f("/sns/userinfo?access_token=x&s%65cret=s", "?access_token=x")
	f(a+"/sns/component/jscode2session?appid="+acc+"&component_access_token=x", "?component_appid="+comp+"&component_access_token=T%40&appid="+acc)
	f("/sns/component/jscode2session?secret=s&appid="+acc+"&component_appid="+comp, "?component_access_token=T%40&appid="+acc+"&component_appid="+comp)
	f(a+"/sns/jscode2session?secret=s&js_code=1&access_token=x", "?appid="+acc+"&component_appid="+comp+"&component_access_token=T%40&js_code=1")
	f("/sns/jscode2session?appid="+own+"&secret=mine&js_code=1", "?appid="+own+"&secret=s3cret&js_code=1")
	f("/sns/userinfo?access_token=x", "?access_token=x")
	f("/sns/userinfo", "")
	f("/sns/userinfo?", "?")
}
