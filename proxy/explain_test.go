package proxy_test

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"wxproxy/proxy"
)

// TestExplainNamesTheRule checks which row of which table Explain names.
func TestExplainNamesTheRule(t *testing.T) {
	p, _ := start(t, "http://127.0.0.1:1", withRoutes)
	f := func(path, want string) {
		t.Helper()
		e, err := p.Explain(account, "POST", path)
		got := fmt.Sprint(e.Credential, " ", e.Parameter, " by ", e.Rule,
			" own ", e.RuleOwn, " guess ", e.RuleGuess, " masked ", e.Masked)
		if err != nil || got != want {
			t.Errorf("%s: got %s, error %v, want %s", path, got, err, want)
		}
	}
	f("/cgi-bin/user/info", "authorizer access_token by * own false guess false masked false")
	f("/cgi-bin/new/x", "component component_access_token by /cgi-bin/new/* own true guess false masked true")
	f("/cgi-bin/hidden", "refused  by /cgi-bin/hidden own true guess false masked false")
	f("/cgi-bin/clear_quota/v2", "refused  by /cgi-bin/clear_quota/v2 own false guess false masked false")
	f("/cgi-bin/component/x", "component access_token by /cgi-bin/component/* own false guess true masked true")
	f("/wxa/component/x", "component access_token by /wxa/component/* own false guess false masked true")
	f("/sns/userinfo", "none  by /sns/* own false guess false masked false")
	f("/sns/jscode2session", "component component_access_token by /sns/jscode2session own false guess false masked true")
	f("/a//b", "refused  by  own false guess false masked false")
	e, err := p.Explain(ownApp, "GET", "/sns/jscode2session?js_code=1")
	got := fmt.Sprintf("%s %s %q %v %v %s %v", e.Credential, e.Parameter, e.Holder, e.Adds, e.Removes, e.Forwarded, err)
	want := `app secret "" [appid] [access_token component_access_token appid secret] /sns/jscode2session <nil>`
	if got != want {
		t.Errorf("login of an own account: got %s, want %s", got, want)
	}
}

// TestExplainRejectsImpossibleRequests checks the error for what is no request.
func TestExplainRejectsImpossibleRequests(t *testing.T) {
	p, _ := start(t, "http://127.0.0.1:1", withRoutes)
	for _, c := range [][2]string{
		{"G T", "/a"}, {"GET\r\n", "/a"}, {"GET", ""}, {"GET", "a"}, {"GET", "*"}, {"GET", "ftp://api.weixin.qq.com/a"},
	} {
		if e, err := p.Explain(account, c[0], c[1]); !errors.Is(err, proxy.ErrQuestion) {
			t.Errorf("%q: got %+v, error %v, want error %v", c, e, err, proxy.ErrQuestion)
		}
	}
	if e, err := p.Explain(account, "CONNECT", "/a"); err != nil || e.Status != http.StatusMethodNotAllowed {
		t.Errorf("CONNECT: got %+v, error %v, want status 405", e, err)
	}
}
