package proxy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"wxproxy/proxy"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// TestCodeExchange checks that api_query_auth exchanges the code, once per
// request, and answers with a stand-in. WeChat's errors are passed on, except
// those about the component's token.
func TestCodeExchange(t *testing.T) {
	up, _ := recordingServer(t)
	var exchanged []string
	limited := named("limited", stockKey)
	limited.AppIDs, limited.Paths = []string{component}, []string{"/cgi-bin/component/api_query_auth"}
	narrow := named("narrow", "narrow-key")
	narrow.Paths = []string{"/cgi-bin/user/*"}
	single := named("single", "single-key")
	single.AppIDs = []string{account}
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Callers = []proxy.Caller{named("orders", ordersKey), limited, narrow, single}
		c.Exchange = func(_ context.Context, code wechat.Secret) (tokens.Authorization, error) {
			exchanged = append(exchanged, code.Reveal())
			switch code.Reveal() {
			case "good":
				return tokens.Authorization{AppID: account, FuncInfo: json.RawMessage(`[{"funcscope_category":{"id":1}}]`)}, nil
			case "bare":
				return tokens.Authorization{AppID: account}, nil
			case "down":
				return tokens.Authorization{}, fmt.Errorf("%w: no ticket", tokens.ErrUnavailable)
			case "unreachable":
				return tokens.Authorization{}, wechat.ErrUnreachable
			case "odd":
				return tokens.Authorization{}, errors.New("secret detail")
			}
			var n int
			fmt.Sscan(code.Reveal(), &n)
			return tokens.Authorization{}, &wechat.Error{Code: n, Msg: "as WeChat says"}
		}
	})
	c := fetchComponent(t, addr, ordersKey)
	path := "/cgi-bin/component/api_query_auth"
	exchange := func(code string, headers ...string) (*http.Response, string) {
		return send(t, addr, post("/"+component+path+"?component_access_token="+c,
			`{"component_appid":"`+component+`","authorization_code":"`+code+`"}`, headers...))
	}
	resp, body := exchange("good")
	want := regexp.MustCompile(`^\{"authorization_info":\{"authorizer_appid":"` + account + `",` +
		`"authorizer_access_token":"(wxp_[A-Za-z0-9_-]+)","expires_in":7200,` +
		`"authorizer_refresh_token":"` + placeholderRefresh + `",` +
		`"func_info":\[\{"funcscope_category":\{"id":1\}\}\]\}\}$`)
	m := want.FindStringSubmatch(body)
	if resp.StatusCode != 200 || m == nil {
		t.Fatalf("got %s %s, want 200 %s", resp.Status, body, want)
	}
	resp, body = send(t, addr, get("/cgi-bin/user/info?access_token="+m[1]))
	checkResponse(t, "request with the stand-in", resp, body, 200, "T0")
	resp, body = exchange("bare")
	checkResponse(t, "authorization without permissions", resp, body, 200, `"func_info":[]`)
	for code, want := range map[string]struct {
		status int
		body   string
	}{
		"61009": {200, `{"errcode":61009,"errmsg":"as WeChat says"}`},
		"61010": {200, `{"errcode":61010,"errmsg":"as WeChat says"}`},
		"-1":    {200, `{"errcode":-1,`},
		"40001": {503, `{"errcode":-503,`}, "40014": {503, `{"errcode":-503,`}, "42001": {503, `{"errcode":-503,`},
		"down": {503, `{"errcode":-503,`}, "unreachable": {502, `{"errcode":-502,`}, "odd": {500, `{"errcode":-500,`},
		"": {200, `{"errcode":61009,`},
	} {
		resp, body := exchange(code)
		checkResponse(t, "code "+code, resp, body, want.status, want.body)
		if strings.Contains(body, "detail") {
			t.Errorf("code %s: got %s, want no details of an internal error", code, body)
		}
	}
	exchanged = nil
	request := `{"authorization_code":"good"}`
	for name, q := range map[string]struct {
		raw    string
		status int
	}{
		"no key":          {post(path, request), 401},
		"forged":          {post(path+"?access_token=wxp_x", request), 503},
		"foreign":         {post(path+"?access_token=80_x", request), 503},
		"an account's":    {post(path+"?access_token="+m[1], request), 200}, // 61014
		"and the key":     {post(path+"?access_token="+m[1], request, "X-Wxproxy-Key: "+ordersKey), 200},
		"narrow":          {post(path, request, "X-Wxproxy-Key: narrow-key"), 403},
		"one account":     {post(path, request, "X-Wxproxy-Key: single-key"), 403},
		"other platform":  {post(path, `{"component_appid":"`+other+`","authorization_code":"good"}`, "X-Wxproxy-Key: "+ordersKey), 200},
		"code's type":     {post(path, `{"authorization_code":{"a":1}}`, "X-Wxproxy-Key: "+ordersKey), 200},
		"too large":       {post(path, strings.Repeat(" ", 70_000)+request, "X-Wxproxy-Key: "+ordersKey), 413},
		"for one account": {post(path+"/", request, "X-Wxproxy-Key: "+stockKey), 403}, // another path than the one allowed
	} {
		resp, body := send(t, addr, q.raw)
		checkResponse(t, name, resp, body, q.status, "")
		if strings.Contains(body, "wxp_") || regexp.MustCompile(`"errcode":4(0001|0014|2001)`).MatchString(body) {
			t.Errorf("%s: got %s, want no stand-in, and no code on which SDKs fetch again", name, body)
		}
	}
	if len(exchanged) != 0 {
		t.Errorf("got %q exchanged, want nothing", exchanged)
	}
	// A caller without permission for the account can exchange its code, but
	// does not receive its stand-in.
	resp, body = send(t, addr, post(path, request, "X-Wxproxy-Key: "+stockKey))
	checkResponse(t, "no permission for the account", resp, body, 403, "")
	if strings.Contains(body, "wxp_") || len(exchanged) != 1 {
		t.Errorf("no permission for the account: got %s, exchanged %q, want no stand-in and one exchange", body, exchanged)
	}
}
