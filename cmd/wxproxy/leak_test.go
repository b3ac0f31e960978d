package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
	"wxproxy/wechat"
)

// The secrets of this test. None of them occurs anywhere by chance.
const (
	hostileKey = "wxk_Hostile0caller1Key2of3many4letters5Qz"
	narrowKey  = "wxk_Narrow9caller8Key7of6many5letters4Zq"
	hiddenKey  = "Admin_Key_That_Operators_Know_0192837465"
	appSecret  = "5ec2e7a11d0c0ffee5ec2e7b22d1d1ff"
	appAccount = "wx00000000000000ff"

	// Of a service, whose events stay in the queue.
	serviceSecret = "Service_Secret_That_Signs_Deliveries_5647382910"
	serviceToken  = "ServiceTokenOfPlain0918273645"
	servicePath   = "/hook/PathThatIsASecret1029384756"
)

var storeKey = base64.StdEncoding.EncodeToString([]byte("a store key is 32 bytes long, OK"))

// exchange sends raw bytes and records the response, also uncompressed if it
// was compressed. The status is 0 if there is no valid response.
func (w *testEnv) exchange(addr, raw string) (status int, body string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		w.t.Error(err)
		return 0, ""
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(proctest.Patience))
	io.WriteString(conn, raw)
	conn.(*net.TCPConn).CloseWrite()
	back, _ := io.ReadAll(conn)
	w.seen.Write(back)
	method, _, _ := strings.Cut(raw, " ")
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(back)), &http.Request{Method: method})
	if err != nil {
		return 0, ""
	}
	b, _ := io.ReadAll(resp.Body)
	if z, err := gzip.NewReader(bytes.NewReader(b)); err == nil {
		b, _ = io.ReadAll(z)
	}
	fmt.Fprintf(w.seen, "\n%s\n", b)
	return resp.StatusCode, string(b)
}

// hostileCalls returns requests that try to obtain credentials, for each row of
// the table of endpoints and some other paths.
func hostileCalls() (all []string) {
	paths := []string{"/cgi-bin/user/info", "/cgi-bin/nothing/of/the/kind", "/cgi-bin/media/get",
		"/sns/userinfo", "/cgi-bin/account/fastregister", "/", "/metrics", "/healthz", "/readyz", "/api/accounts",
		"/debug/pprof/", "/debug/pprof/heap", "/debug/vars", "/component/events", "/.env", "/config.toml",
		"/wxproxy.db", "/cgi-bin/user/../token", "/cgi-bin/component/%61pi_query_auth", "/cgi-bin/token/"}
	for _, e := range wechat.Endpoints {
		path, isPrefix := strings.CutSuffix(e.Path, "*")
		if isPrefix {
			path += "something"
		}
		if len(e.Actions) > 0 {
			path += "?action=" + e.Actions[0]
		}
		paths = append(paths, path)
	}
	body := fmt.Sprintf(`{"component_appid":%q,"authorizer_appid":%q,"appid":%[2]q,"secret":%[3]q,`+
		`"component_appsecret":%[3]q,"authorization_code":"x","authorizer_refresh_token":"x","offset":0,`+
		`"count":100,"option_name":"voice_recognize","cgi_path":"/cgi-bin/user/info"}`,
		sandbox.DefaultComponentAppID, accountA, narrowKey)
	for _, path := range paths {
		and := "?"
		if strings.Contains(path, "?") {
			and = "&"
		}
		for _, prefix := range []string{"/" + accountA, "/" + appAccount, "/" + sandbox.DefaultComponentAppID,
			"", "http://api.weixin.qq.com/" + accountA, "http://api.weixin.qq.com"} {
			for i, method := range []string{"GET", "POST", "HEAD", "PUT", "OPTIONS", "TRACE", "ODD"} {
				var b strings.Builder
				fmt.Fprintf(&b, "%s %s%s%sappid=%s&access_token=80_mine&debug=1 HTTP/1.1\r\nHost: x\r\n",
					method, prefix, path, and, accountA)
				// Every header is combined with every method.
				extra := []string{"Accept-Encoding: gzip", "Range: bytes=0-40",
					"Accept-Encoding: br, zstd, *;q=0", "X-WX-APPID: " + accountA, "Expect: 100-continue",
					"Accept-Encoding: gzip;q=0, identity",
					"If-None-Match: *", "X-Forwarded-For: 10.0.0.1\r\nCookie: a=" + hostileKey,
					"Cache-Control: no-cache", "Max-Forwards: 0", "X-HTTP-Method-Override: GET"}[(len(all)+i)%11]
				if method != "GET" {
					fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
				}
				b.WriteString(extra + "\r\nKEY\r\n\r\n")
				if method != "GET" {
					b.WriteString(body)
				}
				all = append(all, b.String())
			}
		}
	}
	return all
}

// forEach calls do with each of all, several at the same time.
func forEach[T any](all []T, do func(T)) {
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 6 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(all)); i = next.Add(1) - 1 {
				do(all[i])
			}
		})
	}
	wg.Wait()
}

// No secret leaves wxproxy: not in the responses of any listener, in the log at
// level debug, in metrics, on the console, in the output of commands, or in the
// file of the store.
func TestNothingSecretLeaves(t *testing.T) {
	for format, end := range map[string]syscall.Signal{"text": syscall.SIGTERM, "json": syscall.SIGQUIT} { // SIGQUIT prints all goroutines
		t.Run(format, func(t *testing.T) { t.Parallel(); nothingLeaves(t, format, end) })
	}
}

func nothingLeaves(t *testing.T, format string, end syscall.Signal) {
	w := newTestEnv(t, sandbox.Config{RotateRefreshTokens: true})
	if err := w.wx.AddAccount(appAccount, sandbox.OfficialAccount, sandbox.WithSecret(appSecret)); err != nil {
		t.Fatal(err)
	}
	w.format = format
	w.callbackExtra = fmt.Sprintf("public_url = \"http://%s\"\nreturn_to = "+
		"[\"http://127.0.0.1:1/back\"]", w.callback)
	w.adminExtra, w.storeExtra = fmt.Sprintf("key = %q", hiddenKey), fmt.Sprintf("key = %q", storeKey)
	w.blocks = block("hostile", hostileKey, "") +
		block("narrow", narrowKey, fmt.Sprintf("appids = [%q]\npaths = [\"/cgi-bin/user/*\"]", accountB)) +
		fmt.Sprintf("\n[[app]]\nappid = %q\nappsecret = %q\n", appAccount, appSecret) +
		fmt.Sprintf("\n[[forward]]\nname = \"shop\"\nmode = \"queue\"\nevents = [\"*\"]\n"+
			"secret = %q\ntoken = %q\nurl = \"http://127.0.0.1:1%s\"\n",
			serviceSecret, serviceToken, servicePath)
	w.start()
	ask := func(key, method, path, body string) (int, string) {
		header := "X-A: b"
		if key != "" {
			header = "Authorization: Bearer " + key
		}
		return w.exchange(w.proxy, fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\n%s\r\nContent-Length: "+
			"%d\r\n\r\n%s", method, path, header, len(body), body))
	}
	ask(hostileKey, "GET", "/wxa/gettemplatelist", "") // before the first ticket
	ctx := context.Background()
	if err := w.wx.PushTicket(ctx); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{accountA, accountB} {
		if _, err := w.wx.Authorize(ctx, a); err != nil {
			t.Fatal(err)
		}
		proctest.Eventually(t, func() bool {
			status, _ := ask(hostileKey, "GET", "/"+a+userInfo, "")
			return status == 200
		})
	}

	// Callers with all permissions, with few, with none, and with a wrong key.
	calls := hostileCalls()
	shown := []string{"Authorization: Bearer " + hostileKey, "X-Wxproxy-Key: " + hostileKey,
		"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("x:"+hostileKey)),
		"X-Wxproxy-Key: " + narrowKey, "X-A: b", "Authorization: Bearer wrong-" + narrowKey,
		"Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(hostileKey+":"+narrowKey))}
	var sent atomic.Int64
	forEach(calls, func(call string) {
		key := shown[0] // every other request has all permissions
		if n := sent.Add(1); n%2 == 0 {
			key = shown[int(n/2)%len(shown)]
		}
		w.exchange(w.proxy, strings.Replace(call, "KEY", key, 1))
	})

	// Tokens are rejected, renewed and not available. WeChat's record of a
	// failed request contains its URL.
	w.wx.Expire(accountA)
	ask(hostileKey, "GET", "/"+accountA+userInfo, "")
	_, answer := ask(hostileKey, "GET", "/"+accountA+"/cgi-bin/user/info?openid=unknown", "")
	if rid := regexp.MustCompile(`rid: ([0-9a-f-]+)`).FindStringSubmatch(answer); rid == nil {
		t.Errorf("failed request: got no rid in %s", answer)
	} else if status, answer := ask(hostileKey, "POST", "/"+accountA+"/cgi-bin/openapi/rid/get",
		fmt.Sprintf(`{"rid":%q}`, rid[1])); status != 200 || !strings.Contains(answer, "access_token=") {
		t.Errorf("record of a failed request: got %d %s, want its URL", status, answer)
	}
	for _, f := range []sandbox.Fault{{Path: refreshPath, Break: sandbox.BreakBefore},
		{Path: refreshPath, Status: 502}, {Path: refreshPath, ErrCode: -1}, {Path: refreshPath, Empty: true},
		{Path: refreshPath, Body: "<html>"}, {Path: refreshPath, ErrCode: 61023}} {
		id := w.fault(f)
		w.wx.Expire(accountB)
		ask(hostileKey, "GET", "/"+accountB+userInfo, "")
		w.wx.RemoveFault(id)
	}
	for _, f := range []sandbox.Fault{{Path: "/cgi-bin/user", Break: sandbox.BreakBefore},
		{Path: "/cgi-bin/user", Break: sandbox.BreakMiddle}, {Path: "/cgi-bin/user", Status: 500},
		{Path: "/cgi-bin/user", ErrCode: 40001}, {Path: "/cgi-bin/user", ErrCode: 61003}} {
		id := w.fault(f)
		for range 2 {
			ask(hostileKey, "GET", "/"+accountA+userInfo, "")
		}
		w.wx.RemoveFault(id)
	}
	// SDKs: real codes and stand-ins.
	_, answer = ask("", "POST", "/cgi-bin/component/api_component_token",
		fmt.Sprintf(`{"component_appid":%q,"component_appsecret":%q,"component_verify_ticket":%q}`,
			sandbox.DefaultComponentAppID, hostileKey, w.wx.Ticket()))
	standIn := regexp.MustCompile(`wxp_[A-Za-z0-9_-]+`).FindString(answer)
	if standIn == "" {
		t.Fatal(answer)
	}
	for _, code := range []string{w.wx.AuthorizationCode(accountA), "queryauthcode@@@an-unknown-authorization-code"} {
		ask("", "POST", "/cgi-bin/component/api_query_auth?component_access_token="+standIn,
			fmt.Sprintf(`{"component_appid":%q,"authorization_code":%q}`, sandbox.DefaultComponentAppID, code))
	}
	for _, path := range []string{"api_get_authorizer_list", "api_get_authorizer_info", "api_create_preauthcode"} {
		ask("", "POST", "/cgi-bin/component/"+path+"?component_access_token="+standIn,
			fmt.Sprintf(`{"component_appid":%q,"authorizer_appid":%q,"offset":0,"count":100}`,
				sandbox.DefaultComponentAppID, accountA))
	}
	ask("", "GET", "/sns/jscode2session?js_code=x&appid="+appAccount+"&secret="+hostileKey, "")
	ask(hostileKey, "GET", "/sns/jscode2session?js_code=x&appid="+accountA, "")

	// The internet: pushes, pages, and paths that do not exist.
	missing := []string{"/debug/pprof/", "/debug/pprof/cmdline", "/debug/vars", "/metrics", "/api/status",
		"/readyz", "/", "/config.toml", "/../config.toml", "/" + accountA + "/event"}
	for _, path := range missing {
		if status, _ := w.exchange(w.callback, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); status != 404 {
			t.Errorf("GET %s on the callback listener: got %d, want 404", path, status)
		}
	}
	for _, path := range missing[:3] {
		for _, key := range []string{hiddenKey, "wrong"} {
			want := map[bool]int{true: 404, false: 401}[key == hiddenKey]
			if status, _ := w.exchange(w.admin, "GET "+path+" HTTP/1.1\r\nHost: "+w.admin+
				"\r\nAuthorization: Bearer "+key+"\r\n\r\n"); status != want {
				t.Errorf("GET %s on the admin listener: got %d, want %d", path, status, want)
			}
		}
		if status, _ := ask(hostileKey, "GET", path, ""); status != 400 {
			t.Errorf("GET %s on the proxy listener: got %d, want 400", path, status)
		}
		// For an account it is an ordinary path, which WeChat does not know.
		if _, answer := ask(hostileKey, "GET", "/"+accountA+path, ""); !strings.Contains(answer, `"errcode":40066`) {
			t.Errorf("GET %s for an account: got %s, want errcode 40066", path, answer)
		}
	}
	w.push(event("component_verify_ticket", "<ComponentVerifyTicket><![CDATA["+w.wx.Ticket()+
		"]]></ComponentVerifyTicket>"), nil)
	for _, spoil := range []func(url.Values, *string){nil,
		func(q url.Values, _ *string) { q.Set("msg_signature", strings.Repeat("0", 40)) },
		func(_ url.Values, b *string) { *b = strings.Replace(*b, "A", "B", 1) }} {
		w.push(event("authorized", "<AuthorizerAppid>"+accountA+"</AuthorizerAppid><AuthorizationCode>"+
			w.wx.AuthorizationCode(accountA)+"</AuthorizationCode>"), spoil)
		w.push("<xml>"+w.wx.Ticket(), spoil)
	}
	for _, method := range []string{"GET", "HEAD", "POST", "TRACE", "ODD"} {
		for _, path := range []string{"/authorize", "/authorize?return_to=http://127.0.0.1:1/back",
			"/authorized?auth_code=" + url.QueryEscape(w.wx.AuthorizationCode(accountA)) + "&expires_in=600",
			"/authorized?auth_code=x", "/component/events", "/" + accountA + "/events", "/healthz"} {
			w.exchange(w.callback, method+" "+path+" HTTP/1.1\r\nHost: "+w.callback+"\r\n\r\n")
		}
	}

	// Operators, with and without the key.
	_, queued := w.exchange(w.admin, "GET /api/events HTTP/1.1\r\nHost: "+w.admin+
		"\r\nAuthorization: Bearer "+hiddenKey+"\r\n\r\n")
	id := regexp.MustCompile(`"id":"([0-9a-z]+)"`).FindStringSubmatch(queued)
	if id == nil {
		t.Fatalf("events: got %s, want some", queued)
	}
	for _, path := range []string{"/api/events", "/api/events?state=waiting&service=shop&limit=1",
		"/api/events/" + id[1], "/api/events/" + id[1] + "/retry", "/api/events/retry?state=dead",
		"/", "/console.js", "/console.css", "/metrics", "/healthz", "/readyz",
		"/api/status", "/api/accounts", "/api/accounts?limit=1&q=a", "/api/accounts/" + accountA,
		"/api/accounts/" + sandbox.DefaultComponentAppID,
		"/api/accounts/" + appAccount, "/api/accounts/x", "/api/accounts/" + accountB + "/refresh",
		"/api/sync", "/api/explain?appid=" + accountA + "&method=GET&path=/cgi-bin/user/info&caller=hostile",
		"/api/explain?appid=" + appAccount + "&method=GET&path=/sns/jscode2session%3Fsecret=" + hostileKey} {
		for _, method := range []string{"GET", "POST", "HEAD", "OPTIONS", "TRACE"} {
			for _, header := range []string{"Authorization: Bearer " + hiddenKey, "Authorization: Basic " +
				base64.StdEncoding.EncodeToString([]byte("x:"+hiddenKey)) + "\r\nAccept-Encoding: gzip",
				"X-A: b", "Authorization: Bearer wrong-" + hiddenKey,
				"Origin: http://evil.example\r\nAuthorization: Bearer " + hiddenKey} {
				w.exchange(w.admin, method+" "+path+" HTTP/1.1\r\nHost: "+w.admin+"\r\nContent-Length: 0\r\n"+
					header+"\r\n\r\n")
			}
		}
	}
	w.exchange(w.admin, "DELETE /api/accounts/"+accountB+" HTTP/1.1\r\nHost: "+w.admin+
		"\r\nAuthorization: Bearer "+hiddenKey+"\r\n\r\n")
	// Imports with swapped columns and broken lines.
	for _, lines := range []string{fmt.Sprintf(`{"appid":%q,"refresh_token":%q}`,
		w.wx.AuthorizerRefreshToken(accountA), accountA),
		fmt.Sprintf(`{"appid":%q,"refresh_token":%q}`, accountA, w.wx.AuthorizerRefreshToken(accountA)),
		fmt.Sprintf(`{"appid":%q,%q:1}`, accountA, w.wx.AuthorizerRefreshToken(accountA)),
		w.wx.AuthorizerRefreshToken(accountA), fmt.Sprintf(`{"appid":"wx`+"\n"+`%s`, w.wx.Ticket())} {
		w.exchange(w.admin, fmt.Sprintf("POST /api/accounts/import HTTP/1.1\r\nHost: "+
			"%s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: "+
			"%d\r\n\r\n%s", w.admin, hiddenKey, len(lines), lines))
		cmd := proctest.Command(t, "accounts", "import", "--admin", "http://"+w.admin, w.file("import", lines))
		cmd.Env = append(os.Environ(), adminKeyVariable+"="+hiddenKey)
		out, _ := cmd.CombinedOutput()
		w.seen.Write(out)
	}
	for _, args := range [][]string{{"accounts", "list"}, {"accounts", "list", "--json"},
		{"accounts", "show", accountA}, {"accounts", "show", appAccount, "--json"},
		{"accounts", "refresh", accountA}, {"accounts", "sync"}, {"events", "list"},
		{"events", "list", "--json"}, {"events", "show", id[1]}, {"events", "retry", id[1]},
		{"events", "retry", "--all"}, {"events", "drop", id[1], "--json"},
		{"explain", accountA, "GET", "/cgi-bin/user/info?access_token=x"}, {"accounts", "list", "--key", "wrong"}} {
		cmd := proctest.Command(t, append(append([]string{}, args...), "--admin", "http://"+w.admin)...)
		cmd.Env = append(os.Environ(), adminKeyVariable+"="+hiddenKey)
		out, _ := cmd.CombinedOutput()
		w.seen.Write(out)
	}
	out, _ := proctest.Command(t, "check", "--config", filepath.Join(w.dir, "config.toml")).CombinedOutput()
	w.seen.Write(out)
	w.file("config.toml", strings.Replace(w.blocks+"\nnonsense = \""+hiddenKey, "name", "nome", 1))
	w.signal(syscall.SIGHUP)
	proctest.Eventually(t, func() bool { return strings.Contains(w.out.String(), "configuration rejected") })
	w.end(end)

	log, answers := []byte(w.out.String()), []byte(w.seen.String())
	if len(log) < 100_000 || len(answers) < 100_000 || len(w.wx.Secrets()) < 30 || len(w.wx.UserSecrets()) < 3 {
		t.Fatalf("got %d bytes of log, %d of responses, %d and %d secrets: the test has not tried enough",
			len(log), len(answers), len(w.wx.Secrets()), len(w.wx.UserSecrets()))
	}
	t.Logf("%d requests, %d KiB of log, %d KiB of responses, %d secrets", len(calls), len(log)>>10,
		len(answers)>>10, len(w.wx.Secrets()))
	s := newSeeker()
	for _, secret := range w.wx.Secrets() {
		if secret != "" {
			s.add("WeChat's", secret)
		}
	}
	for kind, secret := range map[string]string{"caller's key": hostileKey, "narrow caller's key": narrowKey,
		"admin key": hiddenKey, "store key": storeKey, "app secret": appSecret,
		"secret of a service": serviceSecret, "token of a service": serviceToken,
		"address of a service": servicePath} {
		s.add(kind, secret)
	}
	for _, found := range s.in(answers) {
		t.Errorf("a response contains %s", found)
	}
	// The file of the store is encrypted. Users' secrets and stand-ins, which
	// may be in responses, must not be in the log either.
	store, err := os.ReadFile(filepath.Join(w.dir, "wxproxy.db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range w.wx.UserSecrets() {
		s.add("user's", secret)
	}
	s.add("stand-in", standIn)
	for _, found := range s.in(store) {
		t.Errorf("the store contains %s", found)
	}
	for _, found := range s.in(log) {
		t.Errorf("the log contains %s", found)
	}
	if at := regexp.MustCompile(`wxp_[A-Za-z0-9_-]{40}`).FindIndex(log); at != nil {
		t.Errorf("the log contains a stand-in: …%s", log[max(0, at[0]-150):at[1]])
	}
	// Keys of callers and operators are not sent to WeChat.
	ours := newSeeker()
	for kind, secret := range map[string]string{"caller's key": hostileKey, "narrow caller's key": narrowKey,
		"admin key": hiddenKey, "store key": storeKey, "stand-in": standIn} {
		ours.add(kind, secret)
	}
	for _, c := range w.wx.History() {
		if found := ours.in(fmt.Appendf(nil, "%s %s?%s %v", c.Method, c.Path, c.RawQuery, c.Header)); len(found) > 0 {
			t.Errorf("a request to WeChat contains %s", found)
		}
	}
}
