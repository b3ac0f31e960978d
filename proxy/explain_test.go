package proxy_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"wxproxy/proxy"
)

// What is explained is what happens: each question is asked, and then the call is made.
func TestExplainSaysWhatHappens(t *testing.T) {
	seen := make(chan *url.URL, 1) // not told in the answer, where it would be masked
	upstream := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.URL
		io.WriteString(w, "{}")
	})
	p, addr := start(t, upstream, withRoutes)
	for _, appid := range []string{"", account, ownApp, component, "no appid"} {
		for _, path := range []string{
			"/cgi-bin/user/info?openid=1&access_token=theirs&component_access_token=theirs", "/cgi-bin/user/%69nfo", "/" + account + "/cgi-bin/user/info", "//" + account + "//cgi-bin/a",
			"/cgi-bin/component/api_start_push_ticket", "/cgi-bin/component/api_get_authorizer_info", "/cgi-bin/component/unheard_of", "/cgi-bin/component/api_confirm_authorization", "/cgi-bin/clear_quota/v2", "/cgi-bin/clear_quota",
			"/wxa/setdefaultamsinfo?action=set_share_ratio", "/wxa/setdefaultamsinfo?action=other", "/wxa/setdefaultamsinfo?action=a&action=b",
			"/sns/jscode2session?js_code=1&secret=theirs", "/sns/jscode2session?appid=" + account, "/sns/oauth2/access_token?component_appid=x", "/sns/component/jscode2session?appid=" + account, "/sns/userinfo?access_token=user",
			"/cgi-bin/new/thing", "/cgi-bin/hidden", "/cgi-bin/open?access_token=theirs", "/a/../b", "/a%2fb", "/", "/a?b%20c#d", "http://api.weixin.qq.com/cgi-bin/a", "https://evil.example/a",
		} {
			e, err := p.Explain(appid, "GET", path)
			if err != nil {
				t.Errorf("%s %s: %v", appid, path, err)
				continue
			}
			header := "Host: x\r\n"
			if appid != "" {
				header += "X-WX-APPID: " + appid + "\r\n"
			}
			resp, body := send(t, addr, "GET "+path+" HTTP/1.1\r\n"+header+"\r\n")
			var at *url.URL
			select {
			case at = <-seen:
			default: // WeChat was not called
			}
			if told, done := tell(e), happened(e, at, resp, body); told != done {
				t.Errorf("for %q, %s\ntold     %s\nhappened %s", appid, path, told, done)
			}
			if strings.Contains(fmt.Sprint(e), "hidden") && !strings.Contains(path, "hidden") {
				t.Errorf("for %q, %s: the secret is told: %+v", appid, path, e)
			}
		}
	}
}

// tell is what e says can be seen from outside.
func tell(e proxy.Explanation) string {
	if e.Status != 0 {
		return fmt.Sprint(e.Status, " wxproxy: ", e.Error, " ", e.Hint)
	}
	names := slices.Clone(e.Adds)
	credential := ""
	if e.Parameter != "" {
		names = append(names, e.Parameter)
		credential = "hidden"
		if e.Holder != "" {
			credential = "T-" + e.Holder
		}
	}
	slices.Sort(names)
	return fmt.Sprint(e.Forwarded, names, credential, " removed")
}

// happened reads the same from what WeChat saw, or else from the answer.
func happened(e proxy.Explanation, at *url.URL, resp *http.Response, body string) string {
	if at == nil {
		var a struct{ ErrMsg, Hint string }
		if err := json.Unmarshal([]byte(body), &a); err != nil {
			return body
		}
		return fmt.Sprint(resp.StatusCode, " ", a.ErrMsg, " ", a.Hint)
	}
	q := at.Query()
	asked := map[string]bool{"openid": true, "action": true, "js_code": true}
	var names []string
	for name, values := range q {
		if name == "appid" && !slices.Contains(e.Adds, "appid") || name == "component_appid" && !slices.Contains(e.Adds, name) {
			continue // the caller's own
		}
		if !asked[name] && values[0] != "user" {
			names = append(names, name)
		}
	}
	removed := " removed"
	for _, name := range e.Removes {
		if slices.Contains(q[name], "theirs") {
			removed = " " + name + " is still there"
		}
	}
	slices.Sort(names)
	return fmt.Sprint(at.EscapedPath(), names, q.Get(e.Parameter), removed)
}

func TestExplainNamesTheRule(t *testing.T) {
	p, _ := start(t, "http://127.0.0.1:1", withRoutes)
	f := func(path, want string) {
		t.Helper()
		e, err := p.Explain(account, "POST", path)
		if got := fmt.Sprint(e.Credential, " ", e.Parameter, " by ", e.Rule, " own ", e.RuleOwn, " guess ", e.RuleGuess, " masked ", e.Masked); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", path, got, err, want)
		}
	}
	f("/cgi-bin/user/info", "authorizer access_token by * own false guess false masked false")
	f("/cgi-bin/new/x", "component component_access_token by /cgi-bin/new/* own true guess false masked false")
	f("/cgi-bin/hidden", "refused  by /cgi-bin/hidden own true guess false masked false")
	f("/cgi-bin/clear_quota/v2", "refused  by /cgi-bin/clear_quota/v2 own false guess false masked false")
	f("/cgi-bin/component/x", "component access_token by /cgi-bin/component/* own false guess true masked true")
	f("/wxa/component/x", "component access_token by /wxa/component/* own false guess false masked true")
	f("/sns/userinfo", "none  by /sns/* own false guess false masked false")
	f("/sns/jscode2session", "component component_access_token by /sns/jscode2session own false guess false masked false")
	f("/a//b", "refused  by  own false guess false masked false")
	e, err := p.Explain(ownApp, "GET", "/sns/jscode2session?js_code=1")
	if got := fmt.Sprintf("%s %s %q %v %v %s %v", e.Credential, e.Parameter, e.Holder, e.Adds, e.Removes, e.Forwarded, err); got != `app secret "" [appid] [access_token component_access_token appid secret] /sns/jscode2session <nil>` {
		t.Error(got)
	}
}

func TestExplainRefusesNonsense(t *testing.T) {
	p, _ := start(t, "http://127.0.0.1:1", withRoutes)
	for _, c := range [][2]string{{"G T", "/a"}, {"GET\r\n", "/a"}, {"GET", ""}, {"GET", "a"}, {"GET", "*"}, {"GET", "ftp://api.weixin.qq.com/a"}} {
		if e, err := p.Explain(account, c[0], c[1]); !errors.Is(err, proxy.ErrQuestion) {
			t.Errorf("%q: %+v, %v", c, e, err)
		}
	}
	if e, err := p.Explain(account, "CONNECT", "/a"); err != nil || e.Status != http.StatusMethodNotAllowed {
		t.Errorf("CONNECT: %+v, %v", e, err)
	}
}
