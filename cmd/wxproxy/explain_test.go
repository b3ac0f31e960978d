package main

import (
	"strings"
	"testing"

	"wxproxy/console"
)

func TestExplain(t *testing.T) {
	a := newAdminTest(t, func(c *console.Config) {
		c.Explain = func(appid, method, path, caller string) (console.Explanation, error) {
			e, err := fakeExplain(appid, method, path, caller)
			if caller != "" {
				e.Caller = &console.Verdict{Name: caller, Reason: "its paths do not have this one"}
			}
			if appid == "" {
				refusal := &console.Refusal{Status: 400, Error: "wxproxy: no account given", Hint: "name one"}
				e = console.Explanation{Method: method, Credential: "refused", Refusal: refusal}
			}
			return e, err
		}
	})
	a.want("explain "+plainAccount+" get /cgi-bin/user/info?a=b", ran{
		out: `request     GET /cgi-bin/user/info?a=b, for wxd000000000000001
credential  the token of the authorizer wxd000000000000001
parameter   access_token
removed     access_token, if the caller sends them
rule        the default: no row names this path, so it takes the account's token
account     wxd000000000000001 (北京小面馆), active
token       11112222, issued 7m ago, expires in 1h52m
`})
	a.want("explain "+revokedAccount+" POST /a --caller orders", ran{
		out: `request     POST /a, for wxd000000000000002
response    410 from wxproxy, nothing is sent to WeChat
            wxproxy: account wxd000000000000002 has revoked its authorization
            the merchant has to authorize again
credential  the token of the authorizer wxd000000000000002
parameter   access_token
removed     access_token, if the caller sends them
rule        the default: no row names this path, so it takes the account's token
account     wxd000000000000002 (Tea & Co), revoked
token       none at the moment
caller      orders is not allowed to send this request: its paths do not have this one
`})
	a.want("explain - GET /a", ran{
		out: `request     GET (a path that cannot be parsed), for no account in particular
response    400 from wxproxy, nothing is sent to WeChat
            wxproxy: no account given
            name one
credential  none: the request is not forwarded
rule        none was reached
`})
	got := a.run("explain", plainAccount, "GET", "/a", "--json")
	if want := `{"appid":"` + plainAccount + `","method":"GET","path":"/a",`; got.code != exitDone ||
		!strings.HasPrefix(got.out, want) {
		t.Errorf("explain --json: got %+v, want JSON that starts with %s", got, want)
	}
	a.want("explain "+plainAccount+" GET", wrongUsage("explain", "explain needs APPID METHOD PATH"))
	a.want("explain orders GET /a", wrongUsage("explain", "APPID is not an appid: "+appIDForm+`, or "-" for none`))
	a.want("explain - GET cgi-bin/a", wrongUsage("explain", "PATH does not start with a slash"))
}
