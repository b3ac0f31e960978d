package main

import (
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"wxproxy/sandbox"
)

// curl runs a command line in a shell and returns its output.
func (w *testEnv) curl(line string) string {
	w.t.Helper()
	cmd := exec.Command("sh", "-c", line)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir, "PROXY=" + w.proxy, "KEY=" + ordersKey,
		"A=" + accountA, "DIR=" + w.dir}
	b, err := cmd.CombinedOutput()
	if err != nil {
		if _, missing := exec.LookPath("curl"); missing != nil {
			w.t.Fatal("the tests need curl: .ci/tools.sh installs it")
		}
		return string(b) + err.Error()
	}
	return string(b)
}

// Programs can use wxproxy as their HTTP proxy: curl with -x and with
// http_proxy, and Go's client. Their requests are addressed to WeChat, and the
// key is the password of the proxy.
func TestCurl(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{}).start().authorized(accountA)
	w.reload(block("orders", ordersKey, ""))
	const silent = `curl -sS --max-time 20 `
	user := `'http://api.weixin.qq.com/cgi-bin/user/info?openid=oSandboxUser0000000000000001&lang=zh_CN'`
	prefixed := strings.Replace(user, ".com/", ".com/'$A'/", 1)
	w.file("form.json", `{"button":[{"type":"view","name":"今日","url":"http://example.com/?a=1&b=2"}]}`)
	w.file("picture.jpg", strings.Repeat("\xff\xd8\x00\r\n", 400_000)) // over 1 MiB, so that curl sends Expect
	for name, c := range map[string]struct{ line, want string }{
		"-x": {silent + `-x http://x:$KEY@$PROXY -H "X-WX-APPID: $A" ` + user,
			`"openid":"oSandboxUser0000000000000001"`},
		"-x, prefix": {silent + `-x http://x:$KEY@$PROXY ` + prefixed,
			`"openid":"oSandboxUser0000000000000001"`},
		"--proxy-user": {silent + `-x $PROXY -U x:$KEY ` + prefixed,
			`"openid":"oSandboxUser0000000000000001"`},
		"the key in a header": {silent + `-x $PROXY -H "X-Wxproxy-Key: $KEY" ` + prefixed,
			`"openid":"oSandboxUser0000000000000001"`},
		"http_proxy": {`http_proxy=http://x:$KEY@$PROXY ` + silent + prefixed,
			`"openid":"oSandboxUser0000000000000001"`},
		"the component": {`http_proxy=http://x:$KEY@$PROXY ` + silent +
			`http://api.weixin.qq.com/wxa/gettemplatelist`, `"template_list"`},
		"another name of WeChat's": {silent + `-x http://x:$KEY@$PROXY ` +
			strings.Replace(prefixed, "api.", "sh.api.", 1), `"openid":"oSandboxUser0000000000000001"`},
		"JSON": {silent +
			`-x http://x:$KEY@$PROXY -d @$DIR/form.json http://api.weixin.qq.com/$A/cgi-bin/menu/create`,
			`"errcode":0`},
		"an upload": {silent +
			`-x http://x:$KEY@$PROXY -F media=@$DIR/picture.jpg ` +
			`"http://api.weixin.qq.com/$A/cgi-bin/media/upload?type=image"`, `"media_id":"`},
		"chunked": {silent +
			`-x http://x:$KEY@$PROXY -H 'Transfer-Encoding: chunked' -d @$DIR/form.json ` +
			`http://api.weixin.qq.com/$A/cgi-bin/menu/create`, `"errcode":0`},
		"Bearer": {silent +
			`-H "Authorization: Bearer $KEY" "http://$PROXY/$A/cgi-bin/user/get"`, `"total":3`},
		"the base URL": {silent +
			`"http://x:$KEY@$PROXY/$A/cgi-bin/user/info?openid=oSandboxUser0000000000000001&lang=zh_CN"`,
			`"openid":"oSandboxUser0000000000000001"`},
		"no key":      {silent + `-x $PROXY ` + prefixed, `{"errcode":-401,`},
		"a wrong key": {silent + `-x http://x:wrong@$PROXY ` + prefixed, `{"errcode":-401,`},
		"no account":  {silent + `-x http://x:$KEY@$PROXY ` + user, `{"errcode":-400,`},
		"another host": {silent +
			`-x http://x:$KEY@$PROXY -w 'code=%{http_code}' http://example.com/cgi-bin/a`, `code=403`},
		"another host that ends so": {silent +
			`-x http://x:$KEY@$PROXY -w 'code=%{http_code}' http://api.weixin.qq.com.example.com/cgi-bin/a`,
			`code=403`},
		"CONNECT": {silent + `-x http://x:$KEY@$PROXY -w 'code=%{http_connect}' ` +
			`https://api.weixin.qq.com/$A/cgi-bin/get_api_domain_ip`, `code=405`},
	} {
		if got := w.curl(c.line); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s\ngot %s\nwant %s in it", name, c.line, got, c.want)
		}
	}
	// Go's client with a proxy.
	via := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http",
		User: url.UserPassword("x", ordersKey), Host: w.proxy})}}
	resp, err := via.Post("http://api.weixin.qq.com/"+accountA+"/cgi-bin/menu/create", "application/json",
		strings.NewReader(`{"button":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("X-Wxproxy-Token") != "hit" {
		t.Errorf("POST through the proxy: got %s %s, want 200 and a cached token", resp.Status, resp.Header)
	}
	if v := w.wx.Violations(); len(v) > 0 {
		t.Errorf("violations of WeChat's protocol: got %q, want none", v)
	}
	if strings.Contains(w.out.String(), ordersKey) {
		t.Error("the log contains the key")
	}
}

// SDKs keep a stand-in for two hours, so a restart must not invalidate it.
func TestStandInsSurviveRestart(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{}).start().authorized(accountA)
	callers := block("orders", ordersKey, "")
	w.reload(callers)
	_, answer := w.as("", "GET", "/cgi-bin/token?grant_type=client_credential&appid="+accountA+"&secret="+ordersKey, "")
	m := regexp.MustCompile(`^\{"access_token":"(wxp_[A-Za-z0-9_-]+)",` +
		`"expires_in":7200\}$`).FindStringSubmatch(answer)
	if m == nil {
		t.Fatalf("GET /cgi-bin/token: got %s, want a stand-in", answer)
	}
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		w.end(s)
		w.start()
		w.reload(callers)
		w.call(userInfo+"&access_token="+m[1], "")
	}
}
