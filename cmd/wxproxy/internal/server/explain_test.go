package server

import (
	"encoding/json"
	"errors"
	"testing"

	"wxproxy/console"
	"wxproxy/proxy"
	"wxproxy/wechat"
)

const accountA = "wxaaaaaaaaaaaaaaaa"

// The console shows what the proxy would decide.
func TestServerExplains(t *testing.T) {
	p, err := proxy.New(proxy.Config{Component: "wxcccccccccccccccc", Upstream: "http://127.0.0.1:1",
		Routes: []wechat.Endpoint{{Path: "/cgi-bin/new/*", Need: wechat.NeedComponent,
			Parameter: wechat.ComponentAccessToken}}})
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{proxy: p}
	f := func(appid, path, caller, want string) {
		t.Helper()
		e, err := s.explain(appid, "GET", path, caller)
		b, _ := json.Marshal(e)
		if err != nil || string(b) != want {
			t.Errorf("explain %s: got %v\n%s\nwant\n%s", path, err, b, want)
		}
	}
	f(accountA, "/cgi-bin/user/info", "", `{"appid":"wxaaaaaaaaaaaaaaaa","method":"GET",`+
		`"path":"/cgi-bin/user/info","forwarded_path":"/cgi-bin/user/info","credential":"authorizer",`+
		`"parameter":"access_token",`+
		`"holder":"wxaaaaaaaaaaaaaaaa","rule":{"path":"*","source":"default"},"removes":["access_token",`+
		`"component_access_token","secret"]}`)
	f("", "/cgi-bin/new/x?a=b", "orders", `{"appid":"","method":"GET","path":"/cgi-bin/new/x",`+
		`"forwarded_path":"/cgi-bin/new/x","credential":"component","parameter":"component_access_token",`+
		`"holder":"wxcccccccccccccccc","rule":{"path":"/cgi-bin/new/*","source":"route"},`+
		`"removes":["access_token","component_access_token","secret"],"masked":true,`+
		`"caller":{"name":"orders","allowed":true,"reason":"authentication is disabled: no caller is `+
		`configured"}}`)
	f(accountA, "/sns/jscode2session", "", `{"appid":"wxaaaaaaaaaaaaaaaa","method":"GET",`+
		`"path":"/sns/jscode2session","forwarded_path":"/sns/component/jscode2session",`+
		`"credential":"component","parameter":"component_access_token",`+
		`"holder":"wxcccccccccccccccc","rule":{"path":"/sns/jscode2session","source":"table"},`+
		`"adds":["appid","component_appid"],"removes":["access_token","component_access_token",`+
		`"component_appid","secret"],"masked":true}`)
	f(accountA, "/cgi-bin/clear_quota/v2", "",
		`{"appid":"wxaaaaaaaaaaaaaaaa","method":"GET","path":"/cgi-bin/clear_quota/v2",`+
			`"credential":"refused","rule":{"path":"/cgi-bin/clear_quota/v2","source":"table"},`+
			`"refusal":{"status":403,"error":"wxproxy: path is not forwarded: needs the account's `+
			`secret; /cgi-bin/clear_quota does the same with a token","hint":"callers do not need it"}}`)
	f("", "/sns/userinfo", "", `{"appid":"","method":"GET","path":"/sns/userinfo",`+
		`"forwarded_path":"/sns/userinfo","credential":"none","rule":{"path":"/sns/*","source":"table"},`+
		`"removes":["secret"],`+
		`"note":"a token in the request belongs to an end user, and is forwarded as it is"}`)
	if _, err := s.explain("", "G T", "/a", ""); !errors.Is(err, console.ErrQuestion) {
		t.Errorf("explain with an invalid method: got %v, want %v", err, console.ErrQuestion)
	}
}
