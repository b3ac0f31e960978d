package wechat

import "slices"

// Need says which credential a call needs.
type Need uint8

const (
	// NeedAccount: the access token of the account that the call is for. Of some 1,550
	// known endpoints 1,456 are of this kind, so it is the zero value and the default.
	NeedAccount Need = iota
	// NeedComponent: the component_access_token.
	NeedComponent
	// NeedEither: works with both; the account that the call is for decides.
	NeedEither
	// NeedNothing: no token at all.
	NeedNothing
	// NeedUser: no credential of the platform. An access_token in such a call is an end
	// user's, which the caller holds rightly and must send himself.
	NeedUser
	// NeedSecret: the account's own appid and app secret, in the query. For an
	// authorizer the same answer comes from the twin under /component/.
	NeedSecret
	// NeedStandIn: answered here, with stand-ins in the place of tokens. SDKs call it before
	// anything else.
	NeedStandIn
	// NeedRefusal: must not be called through a proxy. It needs a secret that callers
	// do not have, or answers a credential.
	NeedRefusal
)

// Names of the query parameter in which a token travels.
const (
	AccessToken          = "access_token"
	ComponentAccessToken = "component_access_token"
)

// Paths on which SDKs fetch tokens.
const (
	PathToken           = "/cgi-bin/token"
	PathStableToken     = "/cgi-bin/stable_token"
	PathComponentToken  = "/cgi-bin/component/api_component_token"
	PathAuthorizerToken = "/cgi-bin/component/api_authorizer_token"
	PathQueryAuth       = "/cgi-bin/component/api_query_auth"
)

// Endpoint is a row of the table of paths.
type Endpoint struct {
	// Path is exact, or a prefix where it ends in "*".
	Path string
	// Actions, if any, limits the row to these values of the query parameter `action`.
	Actions []string
	Need    Need
	// Parameter is the name under which the token goes; "" stands for access_token.
	Parameter string
	// ComponentAppID: the query must name the component as component_appid.
	ComponentAppID bool
	// Twin is the path that answers the same for an authorizer (NeedSecret).
	Twin string
	// Guess: no source confirms the row. Calls by it are logged.
	Guess bool
	// Why tells callers the reason of a refusal.
	Why string
}

// Endpoints is the table of paths that are not of the default kind: first match wins,
// exact paths before the prefix that covers them. Sources: the pages of
// doc/oplatform/openApi and of doc/oplatform/Third-party_Platforms/2.0, read beside the
// parameters that the SDKs in production use send.
//
// The component token is given to these paths only: on any other it would be answered
// 61015, and an authorizer's token on one of these 61014.
var Endpoints = []Endpoint{
	// Calls that mint, rotate or reveal credentials.
	{Path: PathComponentToken, Need: NeedStandIn},
	{Path: PathQueryAuth, Need: NeedStandIn},
	{Path: PathAuthorizerToken, Need: NeedStandIn},
	{Path: PathToken, Need: NeedStandIn},
	{Path: PathStableToken, Need: NeedStandIn},
	{Path: "/cgi-bin/component/api_start_push_ticket", Need: NeedRefusal, Why: "needs the component's secret"},
	{Path: "/cgi-bin/component/clear_quota/v2", Need: NeedRefusal, Why: "needs the component's secret"},
	{Path: "/cgi-bin/clear_quota/v2", Need: NeedRefusal, Why: "needs the account's secret; /cgi-bin/clear_quota does the same with a token"},

	// Calls about the component and about authorizations.
	{Path: "/cgi-bin/component/api_create_preauthcode", Need: NeedComponent},
	{Path: "/cgi-bin/component/api_get_authorizer_info", Need: NeedComponent},
	{Path: "/cgi-bin/component/api_get_authorizer_list", Need: NeedComponent},
	{Path: "/cgi-bin/component/api_get_authorizer_option", Need: NeedComponent},
	{Path: "/cgi-bin/component/api_set_authorizer_option", Need: NeedComponent},
	// The new pair names no account in its body: only the account's token can say which.
	{Path: "/cgi-bin/component/get_authorizer_option", Need: NeedAccount},
	{Path: "/cgi-bin/component/set_authorizer_option", Need: NeedAccount},
	// Under /cgi-bin/component/ and yet the account's: with the component's token WeChat
	// answers 40001, as if the token had expired.
	{Path: "/cgi-bin/component/setprivacysetting", Need: NeedAccount},
	{Path: "/cgi-bin/component/getprivacysetting", Need: NeedAccount},
	{Path: "/cgi-bin/component/uploadprivacyextfile", Need: NeedAccount},
	{Path: "/cgi-bin/component/fastregisterweapp", Need: NeedComponent},
	{Path: "/cgi-bin/component/modify_wxa_server_domain", Need: NeedComponent},
	{Path: "/cgi-bin/component/modify_wxa_jump_domain", Need: NeedComponent},
	{Path: "/cgi-bin/component/get_domain_confirmfile", Need: NeedComponent},
	{Path: "/cgi-bin/component/api_confirm_authorization", Need: NeedComponent, Parameter: ComponentAccessToken},
	{Path: "/cgi-bin/component/*", Need: NeedComponent, Guess: true},
	{Path: "/wxa/component/*", Need: NeedComponent},

	// Template library, audit order, service market, revenue shares.
	{Path: "/wxa/gettemplatedraftlist", Need: NeedComponent},
	{Path: "/wxa/gettemplatelist", Need: NeedComponent},
	{Path: "/wxa/addtotemplate", Need: NeedComponent},
	{Path: "/wxa/deletetemplate", Need: NeedComponent},
	{Path: "/wxa/security/applysetorderpathinfo", Need: NeedComponent},
	{Path: "/wxa/servicemarket/get_paid_order_list", Need: NeedComponent},
	{Path: "/wxa/servicemarket/service/*", Need: NeedComponent},
	{Path: "/wxa/setdefaultamsinfo", Need: NeedComponent, Actions: []string{"set_share_ratio", "agency_set_custom_share_ratio"}},
	{Path: "/wxa/getdefaultamsinfo", Need: NeedComponent, Actions: []string{"get_share_ratio", "agency_get_custom_share_ratio", "agency_get_settled_revenue", "get_agency_settled_revenue"}},

	// Cloud development, shops.
	{Path: "/componenttcb/*", Need: NeedComponent},
	{Path: "/tcb/modifyenv", Need: NeedEither},
	{Path: "/tcb/usecloudaccesstoken", Need: NeedEither},
	{Path: "/tcb/invokecloudfunction", Need: NeedEither},
	{Path: "/wedata/wedata_get_login_config", Need: NeedComponent},
	{Path: "/wedata/wedata_set_login_config", Need: NeedComponent},
	{Path: "/product/register/register_shop", Need: NeedComponent, Parameter: ComponentAccessToken},

	// Logins. On /sns/ an access_token is an end user's unless the path says component.
	{Path: "/sns/component/*", Need: NeedComponent, Parameter: ComponentAccessToken, ComponentAppID: true},
	{Path: "/sns/oauth2/component/*", Need: NeedComponent, Parameter: ComponentAccessToken, ComponentAppID: true},
	{Path: "/sns/jscode2session", Need: NeedSecret, Twin: "/sns/component/jscode2session"},
	{Path: "/sns/oauth2/access_token", Need: NeedSecret, Twin: "/sns/oauth2/component/access_token"},
	{Path: "/sns/oauth2/refresh_token", Need: NeedSecret, Twin: "/sns/oauth2/component/refresh_token"},
	{Path: "/sns/*", Need: NeedUser},

	// Quota and diagnosis: of the account whose token goes in.
	{Path: "/cgi-bin/clear_quota", Need: NeedEither},
	{Path: "/cgi-bin/openapi/quota/get", Need: NeedEither},
	{Path: "/cgi-bin/openapi/quota/clear", Need: NeedEither},
	{Path: "/cgi-bin/openapi/rid/get", Need: NeedEither},
	{Path: "/cgi-bin/callback/check", Need: NeedEither},
	{Path: "/cgi-bin/get_api_domain_ip", Need: NeedEither},
	{Path: "/cgi-bin/getcallbackip", Need: NeedEither},
	{Path: "/cgi-bin/open/have", Need: NeedComponent, Guess: true},
}

// Table looks paths up. The zero value knows the default only.
type Table struct {
	own      []*Endpoint            // the operator's rows, in order
	exact    map[string][]*Endpoint // the fixed rows of a path, in order
	prefixes []*Endpoint            // Path without the star
}

var everythingElse = &Endpoint{Path: "*", Need: NeedAccount}

// NewTable joins the operator's own rows, which come first, and the fixed ones.
func NewTable(own, fixed []Endpoint) *Table {
	t := &Table{exact: make(map[string][]*Endpoint, len(fixed))}
	for i := range own {
		t.own = append(t.own, &own[i])
	}
	for i := range fixed {
		e := &fixed[i]
		if p, isPrefix := cutStar(e.Path); isPrefix {
			row := *e
			row.Path = p
			t.prefixes = append(t.prefixes, &row)
		} else {
			t.exact[e.Path] = append(t.exact[e.Path], e)
		}
	}
	return t
}

// Find returns the row of a decoded path; action is the value of the query parameter of
// that name, wanted only for paths with [Table.ByAction]. It never returns nil, and what it
// returns must not be changed.
func (t *Table) Find(path, action string) *Endpoint {
	for _, e := range t.own {
		if p, isPrefix := cutStar(e.Path); e.Path == path || isPrefix && hasPrefix(path, p) {
			return e
		}
	}
	// WeChat might take a path with a slash at its end for the one without: what is refused
	// there is refused here.
	bare := path
	for len(bare) > 1 && bare[len(bare)-1] == '/' {
		bare = bare[:len(bare)-1]
	}
	for _, e := range t.exact[bare] {
		if len(e.Actions) == 0 || slices.Contains(e.Actions, action) {
			return e
		}
	}
	for _, e := range t.prefixes {
		if hasPrefix(path, e.Path) {
			return e
		}
	}
	return everythingElse
}

// Origin names the row that Find returned: its path as it was written, and whether it is one of
// the operator's own. The default's path is "*".
func (t *Table) Origin(e *Endpoint) (path string, own bool) {
	switch {
	case slices.Contains(t.own, e):
		return e.Path, true
	case slices.Contains(t.prefixes, e):
		return e.Path + "*", false
	}
	return e.Path, false
}

// ByAction reports whether the action decides the row of path.
func (t *Table) ByAction(path string) bool {
	for _, e := range t.exact[path] {
		if len(e.Actions) > 0 {
			return true
		}
	}
	return false
}

func cutStar(path string) (string, bool) {
	if n := len(path) - 1; n >= 0 && path[n] == '*' {
		return path[:n], true
	}
	return path, false
}

func hasPrefix(s, p string) bool { return len(s) >= len(p) && s[:len(p)] == p }
