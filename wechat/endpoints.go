package wechat

import "slices"

// Need is the credential that a request to an endpoint needs.
type Need uint8

const (
	// NeedAccount is the access token of the account that the request is for.
	// Of some 1,550 known endpoints, 1,456 need it, so it is the zero value.
	NeedAccount Need = iota

	// NeedComponent is the component_access_token.
	NeedComponent

	// NeedEither is one of both: the component's token if the request is for
	// the component, otherwise the account's.
	NeedEither

	// NeedNothing is no token at all.
	NeedNothing

	// NeedUser is no credential of the platform. An access_token in such a
	// request is an end user's: the caller has it and must send it.
	NeedUser

	// NeedSecret is the account's own appid and app secret, in the query. For
	// an authorizer, [Endpoint.Twin] under /component/ returns the same.
	NeedSecret

	// NeedStandIn marks endpoints that wxproxy answers itself, with stand-ins
	// in the place of tokens. SDKs call them before any other.
	NeedStandIn

	// NeedRefusal marks endpoints that must not be called through a proxy: they
	// need a secret that callers do not have, or return a credential.
	NeedRefusal
)

// Names of the query parameter that holds a token.
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

// Endpoint is a row of a [Table].
type Endpoint struct {
	// Path matches a decoded path exactly, or as a prefix if it ends in "*". A
	// trailing slash and the case of ASCII letters do not matter.
	Path string

	// Actions limits the row to these values of the query parameter `action`.
	// With none, the row is for all.
	Actions []string

	// Need is the credential that requests need.
	Need Need

	// Parameter is the query parameter for the token; default: access_token.
	Parameter string

	// ComponentAppID requires the query to name the component as
	// component_appid.
	ComponentAppID bool

	// Twin is the path that returns the same for an authorizer (NeedSecret).
	Twin string

	// Bodyless says that requests have everything in their query, and no body that
	// could contradict it.
	Bodyless bool

	// Guess says that no source confirms the row. Requests by it are logged.
	Guess bool

	// Why is the reason for a refusal, written for callers.
	Why string
}

// Endpoints are the paths that need something else than [NeedAccount]. The
// first match wins, and exact paths precede the prefix that covers them.
//
// The sources are the pages of doc/oplatform/openApi and of
// doc/oplatform/Third-party_Platforms/2.0, compared with the parameters that
// SDKs send in production.
//
// The component's token is used for these paths only. WeChat would answer 61015
// on any other path, and 61014 to an authorizer's token on one of these.
var Endpoints = []Endpoint{
	// Endpoints that issue, rotate or reveal credentials.
	{Path: PathComponentToken, Need: NeedStandIn},
	{Path: PathQueryAuth, Need: NeedStandIn},
	{Path: PathAuthorizerToken, Need: NeedStandIn},
	{Path: PathToken, Need: NeedStandIn},
	{Path: PathStableToken, Need: NeedStandIn},
	{Path: "/cgi-bin/component/api_start_push_ticket", Need: NeedRefusal,
		Why: "needs the component's secret"},
	{Path: "/cgi-bin/component/clear_quota/v2", Need: NeedRefusal, Why: "needs the component's secret"},
	{Path: "/cgi-bin/clear_quota/v2", Need: NeedRefusal,
		Why: "needs the account's secret; /cgi-bin/clear_quota does the same with a token"},

	// Endpoints about the component and about authorizations.
	{Path: "/cgi-bin/component/api_create_preauthcode", Need: NeedComponent},
	{Path: "/cgi-bin/component/api_get_authorizer_info", Need: NeedComponent},
	{Path: "/cgi-bin/component/api_get_authorizer_list", Need: NeedComponent},
	{Path: "/cgi-bin/component/api_get_authorizer_option", Need: NeedComponent},
	{Path: "/cgi-bin/component/api_set_authorizer_option", Need: NeedComponent},
	// The new pair has no appid in its body: only the account's token
	// identifies it.
	{Path: "/cgi-bin/component/get_authorizer_option", Need: NeedAccount},
	{Path: "/cgi-bin/component/set_authorizer_option", Need: NeedAccount},
	// Below /cgi-bin/component/, but for the account's token. WeChat answers
	// 40001 to the component's, as if it had expired.
	{Path: "/cgi-bin/component/setprivacysetting", Need: NeedAccount},
	{Path: "/cgi-bin/component/getprivacysetting", Need: NeedAccount},
	{Path: "/cgi-bin/component/uploadprivacyextfile", Need: NeedAccount},
	{Path: "/cgi-bin/component/fastregisterweapp", Need: NeedComponent},
	{Path: "/cgi-bin/component/modify_wxa_server_domain", Need: NeedComponent},
	{Path: "/cgi-bin/component/modify_wxa_jump_domain", Need: NeedComponent},
	{Path: "/cgi-bin/component/get_domain_confirmfile", Need: NeedComponent},
	{Path: "/cgi-bin/component/api_confirm_authorization", Need: NeedComponent,
		Parameter: ComponentAccessToken},
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
	{Path: "/wxa/setdefaultamsinfo", Need: NeedComponent,
		Actions: []string{"set_share_ratio", "agency_set_custom_share_ratio"}},
	{Path: "/wxa/getdefaultamsinfo", Need: NeedComponent,
		Actions: []string{"get_share_ratio", "agency_get_custom_share_ratio",
			"agency_get_settled_revenue", "get_agency_settled_revenue"}},

	// Cloud development, shops.
	{Path: "/componenttcb/*", Need: NeedComponent},
	{Path: "/tcb/modifyenv", Need: NeedEither},
	{Path: "/tcb/usecloudaccesstoken", Need: NeedEither},
	{Path: "/tcb/invokecloudfunction", Need: NeedEither},
	{Path: "/wedata/wedata_get_login_config", Need: NeedComponent},
	{Path: "/wedata/wedata_set_login_config", Need: NeedComponent},
	{Path: "/product/register/register_shop", Need: NeedComponent, Parameter: ComponentAccessToken},

	// Logins. Below /sns/, an access_token is an end user's unless the path
	// contains "component". They are GET requests without a body.
	{Path: "/sns/component/*", Need: NeedComponent, Parameter: ComponentAccessToken,
		ComponentAppID: true, Bodyless: true},
	{Path: "/sns/oauth2/component/*", Need: NeedComponent, Parameter: ComponentAccessToken,
		ComponentAppID: true, Bodyless: true},
	{Path: "/sns/jscode2session", Need: NeedSecret, Bodyless: true,
		Twin: "/sns/component/jscode2session"},
	{Path: "/sns/oauth2/access_token", Need: NeedSecret, Bodyless: true,
		Twin: "/sns/oauth2/component/access_token"},
	{Path: "/sns/oauth2/refresh_token", Need: NeedSecret, Bodyless: true,
		Twin: "/sns/oauth2/component/refresh_token"},
	{Path: "/sns/*", Need: NeedUser, Bodyless: true},

	// Quota and diagnosis, of the account whose token is sent.
	{Path: "/cgi-bin/clear_quota", Need: NeedEither},
	{Path: "/cgi-bin/openapi/quota/get", Need: NeedEither},
	{Path: "/cgi-bin/openapi/quota/clear", Need: NeedEither},
	{Path: "/cgi-bin/openapi/rid/get", Need: NeedEither},
	{Path: "/cgi-bin/callback/check", Need: NeedEither},
	{Path: "/cgi-bin/get_api_domain_ip", Need: NeedEither},
	{Path: "/cgi-bin/getcallbackip", Need: NeedEither},
	{Path: "/cgi-bin/open/have", Need: NeedComponent, Guess: true},
}

// Table finds the endpoint of a path. The zero value finds the default for
// every path. A Table is safe for concurrent use.
type Table struct {
	own      []row                  // the operator's, in order
	exact    map[string][]*Endpoint // the fixed rows of a pattern's text, in order
	prefixes []row                  // the fixed rows that end in a star, in order
}

// row is an endpoint with its parsed path.
type row struct {
	pattern
	endpoint *Endpoint
}

// everythingElse is the row of paths that are in no table.
var everythingElse = &Endpoint{Path: "*", Need: NeedAccount}

// NewTable returns a table of the operator's own rows, which come first, and of
// the fixed ones. It keeps own; do not change it afterwards.
func NewTable(own, fixed []Endpoint) *Table {
	t := &Table{exact: make(map[string][]*Endpoint, len(fixed))}
	for i := range own {
		t.own = append(t.own, row{parsePattern(own[i].Path), &own[i]})
	}
	for i := range fixed {
		r := row{parsePattern(fixed[i].Path), &fixed[i]}
		if r.isPrefix {
			t.prefixes = append(t.prefixes, r)
		} else {
			t.exact[r.text] = append(t.exact[r.text], r.endpoint)
		}
	}
	return t
}

// Find returns the row for a decoded path. action is the value of the query
// parameter of that name; it matters only if [Table.ByAction] is true for the
// path. Find never returns nil. Do not change the row.
//
// WeChat may treat a path with a trailing slash, or in another case, like the
// one that it documents. What one spelling needs, every spelling needs: a
// refused path must not be reached through another.
func (t *Table) Find(path, action string) *Endpoint {
	path = trimSlashes(path)
	fold := hasCapital(path)
	for i := range t.own {
		if t.own[i].matches(path, fold) {
			return t.own[i].endpoint
		}
	}
	for _, e := range t.exactRows(path, fold) {
		if len(e.Actions) == 0 || slices.Contains(e.Actions, action) {
			return e
		}
	}
	for i := range t.prefixes {
		if t.prefixes[i].matches(path, fold) {
			return t.prefixes[i].endpoint
		}
	}
	return everythingElse
}

// exactRows returns the fixed rows of a path without a trailing slash. fold
// says that it has capital letters. It does not allocate, except for long paths
// with capital letters.
func (t *Table) exactRows(path string, fold bool) []*Endpoint {
	if !fold {
		return t.exact[path]
	}
	var buf [128]byte
	return t.exact[string(appendLower(buf[:0], path))]
}

// IsOwn reports whether a row that Find returned is one of the operator's own.
func (t *Table) IsOwn(e *Endpoint) bool {
	return slices.ContainsFunc(t.own, func(r row) bool { return r.endpoint == e })
}

// ByAction reports whether the row of path depends on the action.
func (t *Table) ByAction(path string) bool {
	for _, e := range t.exactRows(trimSlashes(path), hasCapital(path)) {
		if len(e.Actions) > 0 {
			return true
		}
	}
	return false
}

// Covers reports whether the path of one row matches every path that the path
// of the other row matches.
func Covers(path, other string) bool {
	p, o := parsePattern(path), parsePattern(other)
	if o.isPrefix {
		return p.isPrefix && hasPrefix(o.text, p.text, false)
	}
	return p.matches(o.text, false)
}

// pattern is a row's path in the form in which paths are compared with it.
type pattern struct {
	text     string // in lower case, without the star, and unless isPrefix without a trailing slash
	isPrefix bool
}

func parsePattern(path string) pattern {
	path = string(appendLower(nil, path))
	if n := len(path) - 1; n >= 0 && path[n] == '*' {
		return pattern{text: path[:n], isPrefix: true}
	}
	return pattern{text: trimSlashes(path)}
}

// matches reports whether a path, which has no trailing slash, or the same path
// with one, is what the row is for. fold says that it has capital letters.
func (p *pattern) matches(path string, fold bool) bool {
	text := p.text
	if !p.isPrefix {
		return len(path) == len(text) && hasPrefix(path, text, fold)
	}
	if n := len(text) - 1; n == len(path) && text[n] == '/' {
		text = text[:n]
	}
	return hasPrefix(path, text, fold)
}

// trimSlashes returns path without the slashes at its end.
func trimSlashes(path string) string {
	for len(path) > 1 && path[len(path)-1] == '/' {
		path = path[:len(path)-1]
	}
	return path
}

// hasPrefix reports whether s begins with prefix, which is in lower case. With
// fold the case of s does not matter. Only ASCII letters have a case here.
func hasPrefix(s, prefix string, fold bool) bool {
	switch {
	case len(s) < len(prefix):
		return false
	case !fold:
		return s[:len(prefix)] == prefix
	}
	for i := range len(prefix) {
		if lower(s[i]) != prefix[i] {
			return false
		}
	}
	return true
}

// hasCapital reports whether s contains an ASCII capital letter.
func hasCapital(s string) bool {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return true
		}
	}
	return false
}

func appendLower(dst []byte, s string) []byte {
	for i := range len(s) {
		dst = append(dst, lower(s[i]))
	}
	return dst
}

func lower(ch byte) byte {
	if 'A' <= ch && ch <= 'Z' {
		ch += 'a' - 'A'
	}
	return ch
}
