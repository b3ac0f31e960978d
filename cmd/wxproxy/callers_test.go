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

	"wxproxy/sandbox"
)

const (
	ordersKey = "orders-key-0123456789"
	stockKey  = "stock-key-9876543210"
)

// as makes a call that shows a key, or none where key is empty.
func (w *world) as(key, method, path, body string) (int, string) {
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

// reload writes the configuration with more blocks behind it and waits until it is taken over.
func (w *world) reload(blocks string) {
	w.t.Helper()
	base, err := os.ReadFile(w.config())
	if err != nil {
		w.t.Fatal(err)
	}
	w.file("config.toml", string(base)+blocks)
	const done = "configuration reloaded"
	before := strings.Count(w.out.String(), done)
	w.signal(syscall.SIGHUP)
	eventually(w.t, func() bool { return strings.Count(w.out.String(), done) > before })
}

func block(name, key, more string) string {
	return fmt.Sprintf("\n[[caller]]\nname = %q\nkey_sha256 = \"%x\"\n%s\n", name, sha256.Sum256([]byte(key)), more)
}

// The program with callers: an SDK's way from its secret to a call, limits, the labels of the metrics, and a reload that
// takes a caller away.
func TestCallers(t *testing.T) {
	w := newWorld(t, sandbox.Config{}).start().authorized(accountA, accountB)
	orders := block("orders", ordersKey, "")
	stock := block("stock", stockKey, fmt.Sprintf("appids = [%q]\npaths = [\"/cgi-bin/user/*\"]\nmethods = [\"GET\"]", accountA))
	w.reload(orders + stock)
	for _, c := range []struct {
		key, path string
		want      int
	}{
		{"", "/" + accountA + userInfo, 401}, {"wrong", "/" + accountA + userInfo, 401}, {ordersKey, "/" + accountA + userInfo, 200}, {stockKey, "/" + accountA + userInfo, 200},
		{stockKey, "/" + accountB + userInfo, 403}, {stockKey, "/wxeeeeeeeeeeeeeeee" + userInfo, 403}, {ordersKey, "/wxeeeeeeeeeeeeeeee" + userInfo, 404},
		{stockKey, "/" + accountA + "/cgi-bin/tags/get", 403}, {stockKey, "/wxa/gettemplatelist", 403}, {ordersKey, "/wxa/gettemplatelist", 200},
	} {
		if status, answer := w.as(c.key, "GET", c.path, ""); status != c.want || status == 200 && strings.Contains(answer, `"errcode":4`) {
			t.Errorf("%s %s: %d %s, want %d", c.key, c.path, status, answer, c.want)
		}
	}
	// An SDK in third-party mode, which knows the proxy's address, an appid and a "secret".
	base := "/" + sandbox.DefaultComponentAppID
	standIn := func(path, body string) string {
		t.Helper()
		status, answer := w.as("", "POST", base+path, body)
		m := regexp.MustCompile(`access_token":"(wxp_[A-Za-z0-9_-]+)","expires_in":7200`).FindStringSubmatch(answer)
		if status != 200 || m == nil {
			t.Fatalf("%s: %d %s", path, status, answer)
		}
		return m[1]
	}
	component := standIn("/cgi-bin/component/api_component_token", fmt.Sprintf(`{"component_appid":%q,"component_appsecret":%q,"component_verify_ticket":"x"}`, sandbox.DefaultComponentAppID, ordersKey))
	authorizer := standIn("/cgi-bin/component/api_authorizer_token?component_access_token="+component, fmt.Sprintf(`{"component_appid":%q,"authorizer_appid":%q,"authorizer_refresh_token":null}`, sandbox.DefaultComponentAppID, accountB))
	sdk := func(want string) {
		t.Helper()
		status, answer := w.as("", "GET", base+userInfo+"&access_token="+authorizer, "")
		if status != 200 || !strings.Contains(answer, want) {
			t.Errorf("%d %s, want %s", status, answer, want)
		}
	}
	sdk(`"openid"`)
	w.wx.Expire(accountB)
	sdk(`"openid"`) // renewed, without the SDK seeing anything of it
	if status, answer := w.as("", "POST", base+"/cgi-bin/component/api_authorizer_token?component_access_token="+component, `{"authorizer_appid":"wxeeeeeeeeeeeeeeee"}`); status != 503 || !strings.Contains(answer, "has not authorized") {
		t.Errorf("%d %s", status, answer)
	}
	if _, answer := w.as("", "GET", "/cgi-bin/token?appid="+accountA+"&secret=wrong", ""); !strings.Contains(answer, `"errcode":40125`) {
		t.Errorf("%s", answer)
	}
	if _, answer := w.as("", "GET", "/cgi-bin/token?appid=wxeeeeeeeeeeeeeeee&secret="+ordersKey, ""); !strings.Contains(answer, `"errcode":40013`) {
		t.Errorf("%s", answer)
	}
	_, metrics := w.get(w.admin, "/metrics")
	for _, series := range []string{`wxproxy_requests_total{caller="orders",credential="authorizer",code="200"}`, `wxproxy_requests_total{caller="stock",credential="authorizer",code="403"}`,
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
			t.Errorf("no %s in\n%s", series, metrics)
		}
	}
	// Removed: its key and its stand-ins are worth nothing any more, and SDKs are told in their language.
	w.reload(stock)
	if status, answer := w.as(ordersKey, "GET", "/"+accountA+userInfo, ""); status != 401 {
		t.Errorf("%d %s", status, answer)
	}
	sdk(`"errcode":40001`)
	if status, answer := w.as(stockKey, "GET", "/"+accountA+userInfo, ""); status != 200 {
		t.Errorf("%d %s", status, answer)
	}
	if v := w.wx.Violations(); len(v) > 0 {
		t.Errorf("WeChat saw what it must not see: %q", v)
	}
	for _, key := range []string{ordersKey, stockKey, component, authorizer} {
		if strings.Contains(w.out.String(), key) {
			t.Errorf("%s is in the log", key)
		}
	}
}

// Without callers SDKs get along with any secret.
func TestStandInsWithoutCallers(t *testing.T) {
	w := newWorld(t, sandbox.Config{}).start().authorized(accountA)
	_, answer := w.as("", "GET", "/cgi-bin/token?grant_type=client_credential&appid="+accountA+"&secret=anything", "")
	m := regexp.MustCompile(`^\{"access_token":"(wxp_[A-Za-z0-9_-]+)","expires_in":7200\}$`).FindStringSubmatch(answer)
	if m == nil {
		t.Fatal(answer)
	}
	w.call(userInfo+"&access_token="+m[1], "hit")
}
