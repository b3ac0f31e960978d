package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
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
