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

// A code is really exchanged, once for each request; what WeChat says of it goes back, except that its token was refused.
func TestExchange(t *testing.T) {
	up, _ := recordingServer(t)
	var asked []string
	limited := named("limited", stockKey)
	limited.AppIDs, limited.Paths = []string{component}, []string{"/cgi-bin/component/api_query_auth"}
	narrow := named("narrow", "narrow-key")
	narrow.Paths = []string{"/cgi-bin/user/*"}
	single := named("single", "single-key")
	single.AppIDs = []string{account}
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Callers = []proxy.Caller{named("orders", ordersKey), limited, narrow, single}
		c.Exchange = func(_ context.Context, code wechat.Secret) (tokens.Authorization, error) {
			asked = append(asked, code.Reveal())
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
	swap := func(code string, headers ...string) (*http.Response, string) {
		return send(t, addr, post("/"+component+path+"?component_access_token="+c, `{"component_appid":"`+component+`","authorization_code":"`+code+`"}`, headers...))
	}
	resp, body := swap("good")
	m := regexp.MustCompile(`^\{"authorization_info":\{"authorizer_appid":"` + account + `","authorizer_access_token":"(wxp_[A-Za-z0-9_-]+)","expires_in":7200,"authorizer_refresh_token":"` + placeholderRefresh +
		`","func_info":\[\{"funcscope_category":\{"id":1\}\}\]\}\}$`).FindStringSubmatch(body)
	if resp.StatusCode != 200 || m == nil {
		t.Fatalf("%s %s", resp.Status, body)
	}
	if resp, body := send(t, addr, get("/cgi-bin/user/info?access_token="+m[1])); resp.StatusCode != 200 || !strings.Contains(body, "T0") {
		t.Errorf("%s %s", resp.Status, body)
	}
	if _, body := swap("bare"); !strings.Contains(body, `"func_info":[]`) {
		t.Errorf("%s", body)
	}
	for code, want := range map[string]struct {
		status int
		body   string
	}{
		"61009": {200, `{"errcode":61009,"errmsg":"as WeChat says"}`}, "61010": {200, `{"errcode":61010,"errmsg":"as WeChat says"}`}, "-1": {200, `{"errcode":-1,`},
		"40001": {503, `{"errcode":-503,`}, "40014": {503, `{"errcode":-503,`}, "42001": {503, `{"errcode":-503,`},
		"down": {503, `{"errcode":-503,`}, "unreachable": {502, `{"errcode":-502,`}, "odd": {500, `{"errcode":-500,`}, "": {200, `{"errcode":61009,`},
	} {
		if resp, body := swap(code); resp.StatusCode != want.status || !strings.HasPrefix(body, want.body) || strings.Contains(body, "detail") {
			t.Errorf("%s: %s %s", code, resp.Status, body)
		}
	}
	asked = nil
	request := `{"authorization_code":"good"}`
	for name, q := range map[string]struct {
		raw    string
		status int
	}{
		"nobody":          {post(path, request), 401},
		"forged":          {post(path+"?access_token=wxp_x", request), 503},
		"foreign":         {post(path+"?access_token=80_x", request), 503},
		"an account's":    {post(path+"?access_token="+m[1], request), 503},
		"narrow":          {post(path, request, "X-Wxproxy-Key: narrow-key"), 403},
		"one account":     {post(path, request, "X-Wxproxy-Key: single-key"), 403},
		"other platform":  {post(path, `{"component_appid":"`+other+`","authorization_code":"good"}`, "X-Wxproxy-Key: "+ordersKey), 200},
		"code's type":     {post(path, `{"authorization_code":{"a":1}}`, "X-Wxproxy-Key: "+ordersKey), 200},
		"too large":       {post(path, strings.Repeat(" ", 70_000)+request, "X-Wxproxy-Key: "+ordersKey), 413},
		"for one account": {post(path+"/", request, "X-Wxproxy-Key: "+stockKey), 403}, // the path is not quite the one allowed
	} {
		resp, body := send(t, addr, q.raw)
		if resp.StatusCode != q.status || strings.Contains(body, "wxp_") || regexp.MustCompile(`"errcode":4(0001|0014|2001)`).MatchString(body) {
			t.Errorf("%s: %s %s", name, resp.Status, body)
		}
	}
	if len(asked) != 0 {
		t.Errorf("exchanged: %q", asked)
	}
	// The exchange may be made by one who may not call for the account; he does not get its stand-in.
	if resp, body := send(t, addr, post(path, request, "X-Wxproxy-Key: "+stockKey)); resp.StatusCode != 403 || strings.Contains(body, "wxp_") || len(asked) != 1 {
		t.Errorf("%s %s, exchanged %q", resp.Status, body, asked)
	}
}
