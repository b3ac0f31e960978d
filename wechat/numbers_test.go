package wechat_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"wxproxy/wechat"
)

// respond returns a client of a WeChat that gives every request the same
// response. body returns it.
func respond(t testing.TB, date time.Time, body func() string) *wechat.Client {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", date.UTC().Format(http.TimeFormat))
		w.Write([]byte(body()))
	}))
	t.Cleanup(srv.Close)
	c := wechat.NewClient(srv.URL, nil)
	t.Cleanup(c.Close)
	return c
}

// expiries are values of expires_in in seconds, as JSON, "" if it is missing,
// and the lifetime that is used.
var expiries = map[string]time.Duration{
	"":                           2 * time.Hour,
	`7200`:                       2 * time.Hour,
	`"7200"`:                     2 * time.Hour,
	`" 7200 "`:                   2 * time.Hour,
	`7200.0`:                     2 * time.Hour,
	`"7200.0"`:                   2 * time.Hour,
	`7.2e3`:                      2 * time.Hour,
	`7200.9`:                     2 * time.Hour,
	`600`:                        10 * time.Minute,
	`0.5`:                        time.Second,
	`0`:                          2 * time.Hour,
	`-1`:                         2 * time.Hour,
	`-1e300`:                     2 * time.Hour,
	`null`:                       2 * time.Hour,
	`""`:                         2 * time.Hour,
	`"two"`:                      2 * time.Hour,
	`"NaN"`:                      2 * time.Hour,
	`true`:                       2 * time.Hour,
	`[7200]`:                     2 * time.Hour,
	`{"a":7200}`:                 2 * time.Hour,
	`86401`:                      24 * time.Hour,
	`1e300`:                      24 * time.Hour,
	`1e400`:                      24 * time.Hour,
	`"Inf"`:                      24 * time.Hour,
	`99999999999999999999999999`: 24 * time.Hour,
	`9223372036854775807`:        24 * time.Hour,
}

// TestOddExpiryKeepsToken checks that no value of expires_in discards a good
// token: of the component, an authorizer, an exchanged code, an own account.
// What is no number counts as the documented 7200 s, and a day is the longest.
func TestOddExpiryKeepsToken(t *testing.T) {
	body := ""
	c := respond(t, time.Now(), func() string { return body })
	secret, ctx := wechat.NewSecret("s"), t.Context()
	for in, want := range expiries {
		expires := ""
		if in != "" {
			expires = `,"expires_in":` + in
		}
		for name, call := range map[string]func() (wechat.Grant, error){
			`{"component_access_token":"T"%s}`: func() (wechat.Grant, error) {
				return c.ComponentToken(ctx, "wxcccccccccccccccc", secret, secret)
			},
			`{"authorizer_access_token":"T"%s}`: func() (wechat.Grant, error) {
				return c.AuthorizerToken(ctx, "wxcccccccccccccccc", secret, "wx1", secret)
			},
			`{"authorization_info":{"authorizer_appid":"a","authorizer_access_token":"T"%s}}`: func() (
				wechat.Grant, error,
			) {
				return c.QueryAuth(ctx, "wxcccccccccccccccc", secret, secret)
			},
			`{"access_token":"T"%s}`: func() (wechat.Grant, error) {
				return c.StableToken(ctx, "wx1", secret, false)
			},
		} {
			body = fmt.Sprintf(name, expires)
			if g, err := call(); err != nil || g.Access.Reveal() != "T" || g.Life != want {
				t.Errorf("%s: got token %q for %v, error %v, want T for %v",
					body, g.Access.Reveal(), g.Life, err, want)
			}
		}
		body = fmt.Sprintf(`{"pre_auth_code":"P"%s}`, expires)
		code, life, err := c.PreAuthCode(ctx, "wxcccccccccccccccc", secret)
		if err != nil || code.Reveal() != "P" || life <= 0 || life > time.Hour {
			t.Errorf("%s: got code %q for %v, error %v, want P for an hour at most",
				body, code.Reveal(), life, err)
		}
	}
}

// TestOddFieldsKeepResponse checks that a field of an unexpected type counts as
// absent and costs no other field, that one which is needed is missed, and that
// a response which is no JSON object is none.
func TestOddFieldsKeepResponse(t *testing.T) {
	body := ""
	c := respond(t, time.Unix(2000, 0), func() string { return body })
	secret, ctx := wechat.NewSecret("s"), t.Context()
	token := func(in string, ok bool) {
		t.Helper()
		body = in
		g, err := c.StableToken(ctx, "wx1", secret, false)
		if got := err == nil && g.Access.Reveal() == "T"; got != ok ||
			!ok && !errors.Is(err, wechat.ErrUnreachable) {
			t.Errorf("%s: got token %q, error %v, want a token: %v", in, g.Access.Reveal(), err, ok)
		}
	}
	for _, field := range []string{
		`"errmsg":7`, `"errcode":null`, `"errcode":"0"`, `"errcode":0.0`, `"authorization_info":[]`,
		`"authorizer_info":"x"`, `"authorizer_info":{"nick_name":{}}`, `"list":{}`, `"list":[7]`,
		`"total_count":"many"`, `"pre_auth_code":null`,
	} {
		token(`{`+field+`,"access_token":"T"}`, true)
		token(`{"access_token":"T",`+field+`}`, true)
	}
	for _, in := range []string{
		`{"access_token":7}`, `{"access_token":null}`, `{}`, `[]`, `7`, `"T"`, `null`, ``,
		`{"access_token":"T"`, `["access_token","T"]`,
	} {
		token(in, false)
	}

	list := func(in string, names string, total int, ok bool) {
		t.Helper()
		body = in
		page, n, err := c.Authorizers(ctx, "wxcccccccccccccccc", secret, 10, 2)
		got := ""
		for _, a := range page {
			got += fmt.Sprintf("%s %s %d;", a.AppID, a.Refresh.Reveal(), max(a.Time.Unix(), 0))
		}
		if (err == nil) != ok || got != names || ok && n != total {
			t.Errorf("%s: got %q of %d, error %v, want %q of %d", in, got, n, err, names, total)
		}
	}
	const one = `{"authorizer_appid":"a","refresh_token":"R","auth_time":`
	for in, want := range map[string]string{
		`1000`: "1000", `"1000"`: "1000", `1e3`: "1000", `null`: "0", `"x"`: "0", `-5`: "0",
		// A time ahead of the response would be newer than all that follows.
		`2001`: "2000", `99999999999`: "2000", `1e300`: "2000",
	} {
		list(`{"total_count":33,"list":[`+one+in+`}]}`, "a R "+want+";", 33, true)
	}
	list(`{"total_count":"33","list":[{"authorizer_appid":7},`+one+`1}]}`, "a R 1;", 33, true)
	list(`{"total_count":33,"list":[{"authorizer_appid":"a","refresh_token":7}]}`, "a  0;", 33, true)
	list(`{"list":[`+one+`1}]}`, "a R 1;", 11, true)                       // the last page
	list(`{"total_count":null,"list":[{},`+one+`1}]}`, "a R 1;", 13, true) // a full page: ask on
	list(`{"total_count":0}`, "", 10, true)
	list(`{"total_count":33}`, "", 0, false)
	list(`{"total_count":33,"list":{}}`, "", 0, false)
	list(`{}`, "", 0, false)
}

// FuzzExpiry checks that any JSON value as expires_in leaves a token that is
// valid for more than no time and a day at most.
func FuzzExpiry(f *testing.F) {
	for in := range expiries {
		f.Add(in)
	}
	body := ""
	c := respond(f, time.Now(), func() string { return body })
	f.Fuzz(func(t *testing.T, in string) {
		body = `{"access_token":"T","expires_in":` + in + `}`
		if !json.Valid([]byte(body)) || strings.Contains(in, "errcode") ||
			strings.Contains(in, "access_token") {
			return
		}
		g, err := c.StableToken(t.Context(), "wx1", wechat.NewSecret("s"), false)
		if err != nil || g.Access.Reveal() != "T" || g.Life <= 0 || g.Life > 24*time.Hour {
			t.Errorf("%q: got token %q for %v, error %v, want T for a day at most",
				in, g.Access.Reveal(), g.Life, err)
		}
	})
}

// Each kind of account is told by its own object, and official accounts by
// their service type.
func TestAccountTypes(t *testing.T) {
	for info, want := range map[string]string{
		`"MiniProgramInfo":{}`:         "mini program",
		`"channels_info":{}`:           "Channels account",
		`"store_info":{}`:              "shop",
		`"talent_info":{}`:             "promoter",
		`"supplier_info":{}`:           "supplier",
		`"service_type_info":{"id":2}`: "service account",
		`"service_type_info":{"id":0}`: "subscription account",
		`"nick_name":""`:               "subscription account",
	} {
		c := respond(t, time.Now(), func() string { return `{"authorizer_info":{` + info + `}}` })
		a, err := c.Authorizer(t.Context(), "wxcccccccccccccccc", wechat.Secret{}, "wxaaaaaaaaaaaaaaaa")
		if err != nil || a.Type != want {
			t.Errorf("%s: got type %q, error %v, want %q", info, a.Type, err, want)
		}
	}
}
