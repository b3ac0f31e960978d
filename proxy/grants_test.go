package proxy_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"wxproxy/proxy"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// bearer is a way to present stand-ins and other tokens, for TestStandInGrants.
type bearer struct {
	name, query string
	account     string // of the valid stand-in of an account, or ""
	component   bool   // a valid stand-in of the component
	valid       bool   // every stand-in is valid, and for one account
}

// bearers returns every kind of token, in every position: none, of an
// authorizer, of another one, of an own account, of the component, each alone
// and together, expired, of another caller, of a removed one, issued while
// authentication was in the other state, forged, and a foreign token.
func bearers(caller, stranger string) []bearer {
	now := time.Now()
	later, earlier := now.Add(time.Hour), now.Add(-time.Hour)
	a, b := forge(1, 1, later, account, caller), forge(1, 1, later, other, caller)
	o, c := forge(1, 1, later, ownApp, caller), forge(1, 2, later, component, caller)
	short, long := "access_token=", "component_access_token="
	theirs := forge(1, 2, later, component, stranger)
	return []bearer{
		{"none", "", "", false, true},
		{"empty", short + "&" + long, "", false, true},
		{"foreign", short + "78_real", "", false, true},
		{"account", short + a, account, false, true},
		{"account, long name", long + a, account, false, true},
		{"account, odd name", "Access.Token[]=" + a, account, false, true},
		{"account and foreign", short + "78_real&" + long + a, account, false, true},
		{"other account", short + b, other, false, true},
		{"own account", short + o, ownApp, false, true},
		{"own account, long name", long + o, ownApp, false, true},
		{"component", long + c, "", true, true},
		{"component, short name", short + c, "", true, true},
		{"account and component", short + a + "&" + long + c, account, true, true},
		{"component and account", short + c + "&" + long + a, account, true, true},
		{"own account and component", short + o + "&" + long + c, ownApp, true, true},
		{"two accounts", short + a + "&" + long + b, "", false, false},
		{"account, expired", short + forge(1, 1, earlier, account, caller), "", false, false},
		{"component, expired", long + forge(1, 2, earlier, component, caller), "", false, false},
		{"account, of a stranger", short + forge(1, 1, later, account, stranger), "", false, false},
		{"component, of a stranger", long + theirs, "", false, false},
		{"component, of a stranger, and account", short + a + "&" + long + theirs, "", false, false},
		{"account as component", long + forge(1, 2, later, account, caller), "", false, false},
		{"component as account", short + forge(1, 1, later, component, caller), "", false, false},
		{"forged", short + a[:len(a)-4] + "AAAA", "", false, false},
	}
}

// grantRow is a request for a row of the table.
type grantRow struct {
	path, query string
	wechat.Endpoint
}

// spelling returns the path of r as it is written, with a slash behind it, or in
// capitals. They are the same.
func (r grantRow) spelling(n int) string {
	switch n % 3 {
	case 1:
		return withQuery(r.path+"/", r.query)
	case 2:
		return withQuery(strings.ToUpper(r.path), r.query)
	}
	return withQuery(r.path, r.query)
}

// grantRows returns a request for each row of the table, for each kind of
// [[route]], and for a path of neither. Logins are asked for each account, and
// for none.
func grantRows(routes []wechat.Endpoint) []grantRow {
	rows := []grantRow{{path: "/cgi-bin/user/info"}}
	for _, e := range append(routes, wechat.Endpoints...) {
		path, query, _ := strings.Cut(rowPath(e), "?")
		queries := []string{query}
		switch {
		case isLogin(e):
			queries = []string{
				"js_code=1", "appid=&js_code=1", "appid=" + account, "appid=" + other, "appid=" + ownApp,
			}
		case e.Path == wechat.PathAuthorizerToken:
			queries = append(queries, strings.Replace(query, account, ownApp, 1))
		}
		for _, query := range queries {
			rows = append(rows, grantRow{path, query, e})
		}
	}
	return rows
}

// TestStandInGrants checks that a stand-in is the right to what it is bound to,
// and to nothing else: token (each of bearers) × key beside it (none, of the same
// caller, of another one) × account in the path (none, an authorizer, the
// component) × row of the table and [[route]] × account of a login × caller (all
// accounts, one account, authentication disabled), with methods and spellings of
// the path taking turns. What counts is which credential a fake WeChat receives,
// and which stand-in is issued. Explain and Permission must say the same, and so
// must the answer to "Expect: 100-continue".
func TestStandInGrants(t *testing.T) {
	for _, mode := range []struct{ name, caller, key, stranger string }{
		{"all accounts", "orders", ordersKey, "removed"},
		{"one account", "single", "single-key", "removed"},
		{"disabled", "", "", "orders"},
		{"issued while disabled", "orders", ordersKey, ""},
	} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			single := named("single", "single-key")
			single.AppIDs = []string{account}
			callers := []proxy.Caller{named("orders", ordersKey), named("stock", stockKey), single}
			if mode.caller == "" {
				callers = nil
			}
			w, forExpect := newWitness(t), newWitness(t)
			config := agreementConfig(w, callers)
			p, addr := start(t, w.upstream, func(c *proxy.Config) { *c = config })
			_, expectAddr := start(t, w.upstream, func(c *proxy.Config) {
				*c = agreementConfig(forExpect, callers)
			})
			g := grantTest{
				t: t, w: w, p: p, client: &rawClient{t: t, addr: addr}, expectAddr: expectAddr,
				caller: mode.caller,
			}
			keys := map[string]string{"": "", "same": mode.key, "another": stockKey}
			if mode.caller == "" {
				keys = map[string]string{"": "", "ignored": stockKey}
			}
			rows := grantRows(config.Routes)
			for _, b := range bearers(mode.caller, mode.stranger) {
				for beside, key := range keys {
					for _, prefix := range []string{"", "/" + account, "/" + component} {
						for _, row := range rows {
							g.check(b, beside, key, prefix, row)
							if t.Failed() {
								t.FailNow()
							}
						}
					}
				}
			}
			t.Logf("%d requests", g.requests)
		})
	}
}

type grantTest struct {
	t        *testing.T
	w        *witness
	p        *proxy.Proxy
	client   *rawClient
	caller   string // of the stand-ins; "" if authentication is disabled
	requests int

	expectAddr string // of a proxy of its own for "Expect: 100-continue"
}

// check sends one request and checks what it was given.
func (g *grantTest) check(b bearer, beside, key, prefix string, row grantRow) {
	q := question{
		caller: g.caller, method: []string{"GET", "POST"}[g.requests%2],
		path: prefix + withQuery(row.spelling(g.requests), b.query),
	}
	if key != "" {
		q.headers = []string{"X-Wxproxy-Key: " + key}
	}
	g.requests++
	got := g.client.do(g.w, q.raw())
	fail := func(format string, args ...any) {
		g.t.Errorf("%s, key %q: %s %s: got %d %.200s, forwarded as %q with %v; %s",
			b.name, beside, q.method, q.path, got.status, got.body, got.forwarded, got.query, fmt.Sprintf(format, args...))
	}
	hasStandIn := b.account != "" || b.component
	authenticated := g.caller == "" || beside == "same" ||
		hasStandIn && beside == "" && !takesSecret(row)
	if takesSecret(row) && beside == "another" && g.caller != "" {
		q.caller = "stock" // the tokens in the query of such a request are not looked at
		authenticated = true
	} else if beside == "another" && !hasStandIn && b.valid {
		q.caller, authenticated = "stock", true
	}
	if !authenticated || !b.valid && !takesSecret(row) {
		if got.forwarded != "" || strings.Contains(got.body, "wxp_") {
			fail("want a rejection")
		}
		if !authenticated {
			return
		}
	}
	g.checkArrived(b, q.caller, row, got, fail)
	g.checkIssued(b, q.caller, row, got, fail)
	agrees := prefix == "" || prefix == "/"+component || prefix == "/"+b.account
	odd := b.name == "account, odd name" && len(row.Actions) > 0 // that query is rejected
	if b.account != "" && !b.component && beside != "another" &&
		row.Need == wechat.NeedComponent && !isLogin(row.Endpoint) && agrees && !odd && !strings.Contains(got.body, `"errcode":61014`) {
		fail("want 61014")
	}
	if hasStandIn && b.valid && beside != "another" && !odd && prefix != "/"+account {
		g.checkAllowed(b, row, got, fail)
	}
	q.check(g.t, g.p, got)
	g.checkExpect(q, got, fail)
}

// takesSecret reports whether requests by a row authenticate with a secret, and
// not with a token.
func takesSecret(row grantRow) bool {
	switch row.Endpoint.Path {
	case wechat.PathToken, wechat.PathStableToken, wechat.PathComponentToken:
		return true
	}
	return false
}

// checkArrived checks which credential of the platform WeChat received.
func (g *grantTest) checkArrived(
	b bearer, caller string, row grantRow, got outcome, fail func(string, ...any),
) {
	var owners []string
	for name, values := range got.query {
		for _, v := range values {
			switch {
			case strings.HasPrefix(v, "wxp_"):
				fail("want no stand-in at WeChat")
			case v == "hidden":
				owners = append(owners, ownApp)
			case strings.HasPrefix(v, "T-"):
				owners = append(owners, strings.TrimPrefix(v, "T-"))
			case strings.Contains(name, "token") && row.Need != wechat.NeedUser:
				fail("want no token of the caller's at WeChat")
			}
		}
	}
	if len(owners) == 0 {
		return
	}
	appid := got.query.Get("appid")
	login := isLogin(row.Endpoint) && appid == b.account && appid != ownApp
	switch owner := owners[0]; {
	case len(owners) > 1:
		fail("want one credential, got those of %q", owners)
	case isLogin(row.Endpoint) && (len(got.query["appid"]) != 1 || appid != got.appid):
		fail("want the account %q in the query once", got.appid)
	case owner == component && row.Need == wechat.NeedAccount:
		fail("want no component's token on an account's path")
	case caller == "single" && owner != account && !(isLogin(row.Endpoint) && appid == account):
		fail("want nothing of accounts that the caller is not allowed to use")
	case b.account == "" && !b.component: // the key is the right
	case owner == component && !b.component && !login:
		fail("want no component's token for an account's stand-in")
	case owner != component && owner != b.account:
		fail("want no credential of %s", owner)
	}
}

// checkAllowed checks that a stand-in is enough for what it is bound to.
func (g *grantTest) checkAllowed(b bearer, row grantRow, got outcome, fail func(string, ...any)) {
	want := "" // owner of the credential
	switch {
	case isLogin(row.Endpoint):
		if row.query == "appid="+account && (b.account == account || b.account == "") {
			want = component
		}
	case row.Need == wechat.NeedAccount, row.Need == wechat.NeedEither && b.account != "":
		want = b.account
	case row.Need == wechat.NeedComponent, row.Need == wechat.NeedEither:
		if b.component {
			want = component
		}
	}
	if want == "" || g.caller == "single" && want != account && !isLogin(row.Endpoint) {
		return
	}
	for _, values := range got.query {
		if len(values) == 1 && values[0] == "T-"+want {
			return
		}
	}
	if b.name != "account, odd name" || !isLogin(row.Endpoint) { // a login's query must be plain
		fail("want the credential of %s at WeChat", want)
	}
}

var issuedStandIn = regexp.MustCompile(`access_token":"wxp_([A-Za-z0-9_-]+)"`)

// checkIssued checks what an issued stand-in is bound to.
func (g *grantTest) checkIssued(
	b bearer, caller string, row grantRow, got outcome, fail func(string, ...any),
) {
	m := issuedStandIn.FindStringSubmatch(got.body)
	if m == nil {
		return
	}
	kind, appid := readStandIn(g.t, m[1])
	switch {
	case row.Need != wechat.NeedStandIn:
		fail("want no stand-in")
	case caller == "single" && appid != account:
		fail("want no stand-in of an account that the caller is not allowed to use")
	case takesSecret(row) || b.account == "" && !b.component: // the key is the right
	case !b.component:
		fail("want no stand-in for an account's stand-in")
	case kind != 1 || appid == ownApp && b.account != ownApp:
		fail("want a stand-in of an authorizer for the component's, got kind %d of %s", kind, appid)
	}
}

// checkExpect checks that "Expect: 100-continue" is answered with the same
// rejection. Requests for stand-ins can be rejected later, by their body.
func (g *grantTest) checkExpect(q question, want outcome, fail func(string, ...any)) {
	if g.requests%7 != 0 || !strings.HasPrefix(want.body, `{"errcode"`) {
		return
	}
	const expect = "Expect: 100-continue\r\nContent-Length: 2"
	raw := strings.Replace(q.raw(), "Content-Length: 0", expect, 1)
	got, body := send(g.t, g.expectAddr, strings.Replace(raw, "GET ", "POST ", 1))
	if got.StatusCode == http.StatusContinue && strings.Contains(want.body, `"errcode":61014`) {
		fail("Expect: got 100, want 61014")
	}
	if strings.Contains(body, "wxp_") {
		fail("Expect: got %s", body)
	}
}

// TestStandInsInResponses checks that a response, which may be anything, yields
// only stand-ins that the stand-ins of the request grant: credential of the
// request (key, account's, own account's, component's) × token in the response
// (of an authorizer, of an own account, of the component) × forwarded request,
// exchange of a code.
func TestStandInsInResponses(t *testing.T) {
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `[{"authorizer_appid":"`+account+`","authorizer_access_token":"A"},`+
			`{"authorizer_appid":"`+ownApp+`","authorizer_access_token":"O"},{"component_access_token":"C"}]`)
	})
	authorized := account
	_, addr := start(t, up, func(c *proxy.Config) {
		withRoutes(c)
		c.Callers, c.StandInKey = []proxy.Caller{named("orders", ordersKey)}, key
		c.Exchange = func(context.Context, wechat.Secret) (tokens.Authorization, error) {
			return tokens.Authorization{AppID: authorized}, nil
		}
	})
	later := time.Now().Add(time.Hour)
	for credential, want := range map[string]string{
		"": "1 " + account + ", 1 " + ownApp + ", 2 " + component,
		"access_token=" + forge(1, 1, later, account, "orders"):             "1 " + account,
		"access_token=" + forge(1, 1, later, ownApp, "orders"):              "1 " + ownApp,
		"component_access_token=" + forge(1, 2, later, component, "orders"): "1 " + account + ", 2 " + component,
	} {
		var headers []string
		path := "/cgi-bin/account/fastregister"
		if credential == "" {
			headers, path = []string{"X-Wxproxy-Key: " + ordersKey}, "/"+account+path
		} else if strings.HasPrefix(credential, "component") {
			path = "/wxa/gettemplatelist"
		}
		resp, body := send(t, addr, post(withQuery(path, credential), "{}", headers...))
		var got []string
		for _, m := range issuedStandIn.FindAllStringSubmatch(body, -1) {
			kind, appid := readStandIn(t, m[1])
			got = append(got, fmt.Sprint(kind, " ", appid))
		}
		if s := strings.Join(got, ", "); resp.StatusCode != 200 || s != want {
			t.Errorf("%s: got %s %s, stand-ins %q, want %q", credential, resp.Status, body, s, want)
		}
	}
	exchange := post("/cgi-bin/component/api_query_auth?access_token="+
		forge(1, 2, later, component, "orders"), `{"authorization_code":"c"}`)
	resp, body := send(t, addr, exchange)
	checkResponse(t, "code of an authorizer", resp, body, 200, `authorizer_access_token":"wxp_`)
	authorized = ownApp
	resp, body = send(t, addr, exchange)
	checkResponse(t, "code of an own account", resp, body, 403, `{"errcode":-403,`)
}

// readStandIn returns kind and appid of a stand-in without its prefix.
func readStandIn(t *testing.T, s string) (kind byte, appid string) {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(raw) < 24 {
		t.Fatalf("%q: got error %v, want a stand-in", s, err)
	}
	return raw[1], string(raw[6:24])
}
