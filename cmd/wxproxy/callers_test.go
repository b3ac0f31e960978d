package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

const (
	ordersKey = "orders-key-0123456789"
	stockKey  = "stock-key-9876543210"
)

// as sends a request with a key, or without one if key is "".
func (w *testEnv) as(key, method, path, body string) (int, string) {
	w.t.Helper()
	req, err := http.NewRequest(method, "http://"+w.proxy+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// reload appends blocks to the configuration and waits until it is applied.
func (w *testEnv) reload(blocks string) {
	w.t.Helper()
	base, err := os.ReadFile(w.config())
	if err != nil {
		w.t.Fatal(err)
	}
	w.file("config.toml", string(base)+blocks)
	const done = "configuration reloaded"
	before := strings.Count(w.out.String(), done)
	w.signal(syscall.SIGHUP)
	proctest.Eventually(w.t, func() bool { return strings.Count(w.out.String(), done) > before })
}

// block returns a [[caller]] block. more contains its other lines.
func block(name, key, more string) string {
	return fmt.Sprintf("\n[[caller]]\nname = %q\nkey_sha256 = "+
		"\"%x\"\n%s\n", name, sha256.Sum256([]byte(key)), more)
}

// With callers, keys and their limits are checked, an SDK works with the key as
// its secret, metrics have labels, and a reload can remove a caller.
func TestCallers(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{}).start().authorized(accountA, accountB)
	orders := block("orders", ordersKey, "")
	stock := block("stock", stockKey, fmt.Sprintf("appids = [%q]\npaths = "+
		"[\"/cgi-bin/user/*\"]\nmethods = [\"GET\"]", accountA))
	w.reload(orders + stock)
	for _, c := range []struct {
		key, path string
		want      int
	}{
		{"", "/" + accountA + userInfo, 401}, {"wrong", "/" + accountA + userInfo, 401},
		{ordersKey, "/" + accountA + userInfo, 200}, {stockKey, "/" + accountA + userInfo, 200},
		{stockKey, "/" + accountB + userInfo, 403}, {stockKey, "/wxeeeeeeeeeeeeeeee" + userInfo, 403},
		{ordersKey, "/wxeeeeeeeeeeeeeeee" + userInfo, 404},
		{stockKey, "/" + accountA + "/cgi-bin/tags/get", 403}, {stockKey, "/wxa/gettemplatelist", 403},
		{ordersKey, "/wxa/gettemplatelist", 200},
	} {
		if status, answer := w.as(c.key, "GET", c.path, ""); status != c.want || status == 200 &&
			strings.Contains(answer, `"errcode":4`) {
			t.Errorf("GET %s with key %q: got %d %s, want %d", c.path, c.key, status, answer, c.want)
		}
	}
	// An SDK in third-party mode, with the address of the proxy, an appid and a
	// "secret".
	base := "/" + sandbox.DefaultComponentAppID
	standIn := func(path, body string) string {
		t.Helper()
		status, answer := w.as("", "POST", base+path, body)
		m := regexp.MustCompile(`access_token":"(wxp_[A-Za-z0-9_-]+)",` +
			`"expires_in":7200`).FindStringSubmatch(answer)
		if status != 200 || m == nil {
			t.Fatalf("POST %s: got %d %s, want a stand-in token", path, status, answer)
		}
		return m[1]
	}
	component := standIn("/cgi-bin/component/api_component_token",
		fmt.Sprintf(`{"component_appid":%q,"component_appsecret":%q,"component_verify_ticket":"x"}`,
			sandbox.DefaultComponentAppID, ordersKey))
	authorizer := standIn("/cgi-bin/component/api_authorizer_token?component_access_token="+component,
		fmt.Sprintf(`{"component_appid":%q,"authorizer_appid":%q,"authorizer_refresh_token":null}`,
			sandbox.DefaultComponentAppID, accountB))
	sdk := func(want string) {
		t.Helper()
		status, answer := w.as("", "GET", base+userInfo+"&access_token="+authorizer, "")
		if status != 200 || !strings.Contains(answer, want) {
			t.Errorf("request with a stand-in: got %d %s, want %s", status, answer, want)
		}
	}
	sdk(`"openid"`)
	w.wx.Expire(accountB)
	sdk(`"openid"`) // the SDK does not notice the renewal
	if status, answer := w.as("", "POST", base+
		"/cgi-bin/component/api_authorizer_token?component_access_token="+component,
		`{"authorizer_appid":"wxeeeeeeeeeeeeeeee"}`); status != 503 || !strings.Contains(answer, "has not authorized") {
		t.Errorf("stand-in for an unknown account: got %d %s, want 503", status, answer)
	}
	if _, answer := w.as("", "GET", "/cgi-bin/token?appid="+accountA+"&secret=wrong",
		""); !strings.Contains(answer, `"errcode":40125`) {
		t.Errorf("stand-in with a wrong secret: got %s, want 40125", answer)
	}
	if _, answer := w.as("", "GET", "/cgi-bin/token?appid=wxeeeeeeeeeeeeeeee&secret="+ordersKey,
		""); !strings.Contains(answer, `"errcode":40013`) {
		t.Errorf("stand-in for an unknown appid: got %s, want 40013", answer)
	}
	_, metrics := w.get(w.admin, "/metrics")
	for _, series := range []string{`wxproxy_requests_total{caller="orders",credential="authorizer",` +
		`code="200"}`, `wxproxy_requests_total{caller="stock",credential="authorizer",code="403"}`,
		`wxproxy_requests_total{caller="unknown",credential="authorizer",code="401"}`} {
		name, labels, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
		found := false
		for line := range strings.Lines(metrics) {
			all := strings.HasPrefix(line, name)
			for label := range strings.SplitSeq(labels, ",") {
				all = all && strings.Contains(line, label)
			}
			found = found || all
		}
		if !found {
			t.Errorf("metrics: got no %s in\n%s", series, metrics)
		}
	}
	// The key and the stand-ins of a removed caller are invalid, and SDKs
	// receive an errcode that they know.
	w.reload(stock)
	if status, answer := w.as(ordersKey, "GET", "/"+accountA+userInfo, ""); status != 401 {
		t.Errorf("key of a removed caller: got %d %s, want 401", status, answer)
	}
	sdk(`"errcode":40001`)
	if status, answer := w.as(stockKey, "GET", "/"+accountA+userInfo, ""); status != 200 {
		t.Errorf("key of the other caller: got %d %s, want 200", status, answer)
	}
	if v := w.wx.Violations(); len(v) > 0 {
		t.Errorf("violations of WeChat's protocol: got %q, want none", v)
	}
	for _, key := range []string{ordersKey, stockKey, component, authorizer} {
		if strings.Contains(w.out.String(), key) {
			t.Errorf("the log contains %s", key)
		}
	}
}

// A key is replaced as the documentation says, through the running program:
// both keys, then the new one only, by SIGHUP and after a restart. The
// stand-ins of the removed key get an errcode that SDKs know, and those of the
// other stay valid: fetched with the key, by means of the component's
// stand-in, and sent to accounts and to the component.
func TestKeyRotation(t *testing.T) {
	const next = "orders-key-next-0123456789"
	w := newTestEnv(t, sandbox.Config{}).start().authorized(accountA)
	keys := func(keys ...string) string {
		list := ""
		for _, k := range keys {
			list += fmt.Sprintf("\"%x\", ", sha256.Sum256([]byte(k)))
		}
		return "\n[[caller]]\nname = \"orders\"\nkey_sha256 = [" + list + "]\n"
	}
	w.reload(keys(ordersKey, next))
	fetch := func(method, path, body string) string {
		t.Helper()
		status, answer := w.as("", method, path, body)
		st := regexp.MustCompile(`wxp_[A-Za-z0-9_-]+`).FindString(answer)
		if status != 200 || st == "" {
			t.Fatalf("%s %s: got %d %s, want a stand-in", method, path, status, answer)
		}
		return st
	}
	use := map[string][]string{} // requests with the stand-ins of a key
	for _, key := range []string{ordersKey, next} {
		direct := fetch("GET", "/cgi-bin/token?appid="+accountA+"&secret="+key, "")
		component := fetch("POST", "/cgi-bin/component/api_component_token", fmt.Sprintf(
			`{"component_appid":%q,"component_appsecret":%q}`, sandbox.DefaultComponentAppID, key))
		chained := fetch("POST",
			"/cgi-bin/component/api_authorizer_token?component_access_token="+component,
			fmt.Sprintf(`{"authorizer_appid":%q}`, accountA))
		use[key] = []string{userInfo + "&access_token=" + direct,
			userInfo + "&access_token=" + chained, "/wxa/gettemplatelist?access_token=" + component}
	}
	check := func(when string, valid ...string) {
		t.Helper()
		for key, paths := range use {
			for _, path := range paths {
				status, answer := w.as("", "GET", path, "")
				rejected := strings.Contains(answer, `"errcode":40001`)
				if want := slices.Contains(valid, key); status != 200 || rejected == want {
					t.Errorf("%s: stand-in of %s, %.30s: got %d %s, want accepted: %v",
						when, key, path, status, answer, want)
				}
			}
			want := 401
			if slices.Contains(valid, key) {
				want = 200
			}
			if status, answer := w.as(key, "GET", "/"+accountA+userInfo, ""); status != want {
				t.Errorf("%s: %s: got %d %s, want %d", when, key, status, answer, want)
			}
		}
	}
	check("both keys", ordersKey, next)
	w.reload(keys(next))
	check("the old key removed", next)
	if code := w.end(syscall.SIGTERM); code != 0 {
		t.Fatalf("SIGTERM: got exit code %d, want 0", code)
	}
	w.blocks = keys(next)
	w.start()
	check("after a restart", next)
	w.blocks = ""
	w.reload(keys(ordersKey))
	check("the new key removed, the old one added again", ordersKey)
}

// Guessing leaves a trace, on the proxy and on the admin listener: a metric,
// log lines with the address, and 429 after ten wrong keys. The right keys are
// accepted all the same.
func TestGuessingLeavesATrace(t *testing.T) {
	const adminKey = "admin-key-0123456789abcdef"
	w := newTestEnv(t, sandbox.Config{})
	w.adminExtra = fmt.Sprintf("key = %q", adminKey)
	w.start().authorized(accountA)
	w.reload(block("orders", ordersKey, ""))
	ask := func(addr, key, path string) int {
		t.Helper()
		req, err := http.NewRequest("GET", "http://"+addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+key)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		w.seen.Write(body)
		return resp.StatusCode
	}
	for _, c := range []struct{ listener, addr, key, path string }{
		{"proxy", w.proxy, ordersKey, "/" + accountA + userInfo},
		{"admin", w.admin, adminKey, "/metrics"},
	} {
		limited := 0
		for i := range 30 {
			switch status := ask(c.addr, fmt.Sprint("guess-", i), c.path); {
			case status == 429:
				limited++
			case status != 401:
				t.Errorf("%s: wrong key %d: got %d, want 401 or 429", c.listener, i, status)
			}
		}
		if limited < 10 { // 20, unless a minute ends in between
			t.Errorf("%s: got %d of 30 wrong keys limited, want 20", c.listener, limited)
		}
		if status := ask(c.addr, c.key, c.path); status != 200 {
			t.Errorf("%s: the right key: got %d, want 200", c.listener, status)
		}
		ask(w.admin, adminKey, "/metrics")
		series := fmt.Sprintf("wxproxy_rejected_keys_total{listener=%q} 30\n", c.listener)
		if !strings.Contains(w.seen.String(), series) {
			t.Errorf("metrics: got no %s", series)
		}
	}
	log := w.out.String()
	if n := strings.Count(log, "wrong_keys=1\n"); n != 2 ||
		!strings.Contains(log, "remote=127.0.0.1:") || strings.Contains(log, "guess-") {
		t.Errorf("log: got %d first wrong keys, want 2, with addresses and without keys", n)
	}
}

// Without callers SDKs can use any secret.
func TestStandInsWithoutCallers(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{}).start().authorized(accountA)
	_, answer := w.as("", "GET", "/cgi-bin/token?grant_type=client_credential&appid="+accountA+"&secret=anything", "")
	m := regexp.MustCompile(`^\{"access_token":"(wxp_[A-Za-z0-9_-]+)",` +
		`"expires_in":7200\}$`).FindStringSubmatch(answer)
	if m == nil {
		t.Fatalf("stand-in with any secret: got %s", answer)
	}
	w.call(userInfo+"&access_token="+m[1], "hit")
}

// A reload never disables the authentication of a listener, and neither does a
// start with an empty list, unless the file says that this is meant: the last
// caller or the admin key × removed, or an empty list × without and with
// allow_anonymous. What was rejected changes nothing: not the keys, not the
// stand-ins, not the other keys of the same file.
func TestAuthenticationIsNotDisabledByAccident(t *testing.T) {
	const adminKey = "admin-key-0123456789abcdef"
	w := newTestEnv(t, sandbox.Config{}).start().authorized(accountA) // without callers
	base, err := os.ReadFile(w.config())
	if err != nil {
		t.Fatal(err)
	}
	open, orders := string(base), block("orders", ordersKey, "")
	withAdminKey := func(file, key string) string {
		return strings.Replace(file, "[admin]\n", "[admin]\n"+key+"\n", 1)
	}
	withProxy := func(file, line string) string {
		return strings.Replace(file, "[proxy]\n", "[proxy]\n"+line+"\n", 1)
	}
	locked := withAdminKey(open, fmt.Sprintf("key = %q", adminKey)) + orders
	// reloads counts how often text is logged, and waits for once more.
	reload := func(file, logged string) {
		t.Helper()
		before := strings.Count(w.out.String(), logged)
		w.file("config.toml", file)
		w.signal(syscall.SIGHUP)
		proctest.Eventually(t, func() bool { return strings.Count(w.out.String(), logged) > before })
	}
	const applied, rejected = "configuration reloaded", "configuration rejected"
	admin := func() int { status, _ := w.get(w.admin, "/api/status"); return status }
	check := func(when string, proxyStatus, adminStatus int) {
		t.Helper()
		if status, answer := w.as("", "GET", "/"+accountA+userInfo, ""); status != proxyStatus {
			t.Errorf("%s: request without a key: got %d %s, want %d", when, status, answer, proxyStatus)
		}
		if status := admin(); status != adminStatus {
			t.Errorf("%s: admin request without a key: got %d, want %d", when, status, adminStatus)
		}
	}
	check("before the first caller", 200, 200)
	reload(locked, applied)
	check("with a caller and an admin key", 401, 401)
	_, answer := w.as("", "GET", "/cgi-bin/token?appid="+accountA+"&secret="+ordersKey, "")
	standIn := regexp.MustCompile(`wxp_[A-Za-z0-9_-]+`).FindString(answer)
	removed := strings.TrimSuffix(locked, orders)
	for name, file := range map[string]string{
		"last caller removed":                 removed,
		"empty list":                          "caller = []\n" + removed,
		"allow_anonymous of another listener": withAdminKey(removed, "allow_anonymous = true"),
		"admin key removed":                   open + orders,
		"admin key empty":                     withAdminKey(open, `key = ""`) + orders,
		"allow_anonymous, but not for admin":  withProxy(open, "allow_anonymous = true") + orders,
		"both removed":                        open,
	} {
		reload(withProxy(file, `default_appid = "`+accountA+`"`), rejected)
		check(name, 401, 401)
		if status, answer := w.as(ordersKey, "GET", userInfo, ""); status != 400 {
			t.Errorf("%s: request without an account: got %d %s, want 400 as before", name, status, answer)
		}
		if status, answer := w.as(ordersKey, "GET", "/"+accountA+userInfo, ""); status != 200 {
			t.Errorf("%s: request with the key: got %d %s, want 200", name, status, answer)
		}
		path := "/" + accountA + userInfo + "&access_token=" + standIn
		status, answer := w.as("", "GET", path, "")
		if status != 200 || !strings.Contains(answer, `"openid"`) {
			t.Errorf("%s: request with the stand-in: got %d %s, want 200", name, status, answer)
		}
	}
	for _, fault := range []string{
		"caller: the last", "caller: is an empty list", "admin.key: the key was removed",
	} {
		if !strings.Contains(w.out.String(), fault) {
			t.Errorf("log: got no line with %q, want one", fault)
		}
	}
	// A caller that replaces the last one is no reason to reject.
	reload(strings.TrimSuffix(locked, orders)+block("orders-2", stockKey, ""), applied)
	check("last caller replaced", 401, 401)
	if status, _ := w.as(ordersKey, "GET", "/"+accountA+userInfo, ""); status != 401 {
		t.Errorf("key of a replaced caller: got %d, want 401", status)
	}
	consent := withAdminKey(withProxy(open, "allow_anonymous = true"), "allow_anonymous = true")
	reload("caller = []\n"+consent, applied)
	check("with consent", 200, 200)

	w.end(syscall.SIGTERM)
	for _, command := range []string{"serve", "check"} {
		cmd := proctest.Command(t, command, "--config", w.file("config.toml", "caller = []\n"+open))
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "caller: is an empty list") {
			t.Errorf("%s with an empty list: got error %v and %s, want a fault", command, err, out)
		}
	}
}

// What callers send besides a WeChat request stays inside: only headers of the
// list and of forward_headers reach WeChat, which a reload can change, and the
// trace id of a request is in the log.
func TestForwardHeaders(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{})
	received := make(chan http.Header, 1)
	relay := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(userInfo, r.URL.Path) {
			select {
			case received <- r.Header.Clone():
			default: // not a request of this test
			}
		}
		w.wx.ServeHTTP(rw, r)
	}))
	t.Cleanup(relay.Close)
	w.wxURL = relay.URL
	w.start().authorized(accountA)
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	call := func() (header http.Header) {
		t.Helper()
		for len(received) > 0 {
			<-received
		}
		req, err := http.NewRequest("GET", "http://"+w.proxy+"/"+accountA+userInfo, nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{
			"Accept": "application/json", "Wechatmp-Signature": "s", "Cookie": "a=b",
			"X-Api-Key": "internal", "X-Gateway-Key": "g", "Baggage": "user=17",
			"Traceparent": "00-" + trace + "-00f067aa0ba902b7-01",
		} {
			req.Header.Set(name, value)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("got %s, want 200", resp.Status)
		}
		return <-received
	}
	names := func(h http.Header) string { return strings.Join(slices.Sorted(maps.Keys(h)), " ") }
	want := "Accept Accept-Encoding User-Agent Wechatmp-Signature"
	if got := names(call()); got != want {
		t.Errorf("headers at WeChat: got %s, want %s", got, want)
	}
	w.extra = `forward_headers = ["x-gateway-key"]`
	w.reload("")
	want += " X-Gateway-Key"
	if got := names(call()); got != want {
		t.Errorf("headers at WeChat after a reload: got %s, want %s", got, want)
	}
	proctest.Eventually(t, func() bool { return strings.Contains(w.out.String(), "trace_id="+trace) })
	if v := w.wx.Violations(); len(v) > 0 {
		t.Errorf("violations of WeChat's protocol: got %q, want none", v)
	}
}
