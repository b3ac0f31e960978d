package console_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"wxproxy/console"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

func TestStatus(t *testing.T) {
	o := newBackend()
	c := o.config()
	c.Ready = func(context.Context) error {
		return errors.Join(errors.New("one"),
			errors.New("two"))
	}
	address := start(t, c)
	got := ask(t, address, "GET", "/api/status", "").fields(t)
	if up := got["uptime"].(float64); up < 3600 || up > 4000 {
		t.Errorf("uptime: got %v, want about 3600", up)
	}
	delete(got, "uptime")
	delete(got, "started")
	b, _ := json.Marshal(got)
	const want = `{"accounts":{"active":10,"failing":1,"forgotten":4,"revoked":2},` +
		`"component":{"appid":"wxcccccccccccccccc","ticket_age":90,"token_expires_in":3600},` +
		`"events":null,"go_version":"go1","ready":false,"reasons":["one","two"],"store":"file",` +
		`"sync":{"age":60,"held":30,"of":400},"version":"v1"}`
	if string(b) != want {
		t.Errorf("status:\n got %s\nwant %s", b, want)
	}

	alone := newBackend()
	alone.noComponent = true
	got = ask(t, start(t, alone.config()), "GET", "/api/status", "").fields(t)
	if got["component"] != nil || got["ready"] != true || fmt.Sprint(got["reasons"]) != "[]" {
		t.Errorf("status without a component: got %v", got)
	}
}

func TestAccountAsJSON(t *testing.T) {
	address := start(t, newBackend().config())
	got := ask(t, address, "GET", "/api/accounts/"+accountA, "").fields(t)
	for name, want := range map[string]any{
		"appid": accountA, "kind": "authorizer", "state": "active", "name": "小店 <b>",
		"type":              "mini program",
		"token_fingerprint": "11112222", "refresh_token_fingerprint": "33334444",
		"authorized": "2026-05-03T19:02:01Z", "failures": 0.0,
	} {
		if got[name] != want {
			t.Errorf("%s: got %v, want %v", name, got[name], want)
		}
	}
	if left := got["expires_in"].(float64); left > 3600 || left < 3500 {
		t.Errorf("expires_in: got %v, want about 3600", left)
	}
	for _, name := range []string{"issued", "expires"} {
		if _, err := time.Parse(time.RFC3339, got[name].(string)); err != nil {
			t.Error(err)
		}
	}
	got = ask(t, address, "GET", "/api/accounts/"+accountB, "").fields(t)
	for _, absent := range []string{"expires_in", "expires", "issued", "age", "retry_at",
		"authorized", "token_fingerprint"} {
		if v, there := got[absent]; there {
			t.Errorf("%s: got %v, want none", absent, v)
		}
	}
	if got["state"] != "revoked" || got["failures"] != 3.0 || got["failure"] != "it has withdrawn" {
		t.Errorf("revoked account: got %v", got)
	}
}

func TestList(t *testing.T) {
	address := start(t, newBackend().config())
	f := func(query, want string) {
		t.Helper()
		got := ask(t, address, "GET", "/api/accounts"+query, "").fields(t)
		var appids []string
		for _, a := range got["accounts"].([]any) {
			appids = append(appids, a.(map[string]any)["appid"].(string)[2:3])
		}
		if have := fmt.Sprint(got["total"], got["offset"], got["limit"], appids); have != want {
			t.Errorf("list %s: got %s, want %s", query, have, want)
		}
	}
	f("", "3 0 50 [a b c]")
	f("?offset=1", "3 1 50 [b c]")
	f("?offset=1&limit=1", "3 1 1 [b]")
	f("?offset=99", "3 99 50 []")
	f("?limit=99999", "3 0 1000 [a b c]")
	f("?q=WXB", "1 0 50 [b]")
	f("?q=%E5%B0%8F%E5%BA%97", "1 0 50 [a]")
	f("?q=nothing", "0 0 50 []")
	f("?state=active", "2 0 50 [a c]")
	f("?state=revoked", "1 0 50 [b]")
	f("?state=failing", "0 0 50 []")
	f("?state=forgotten", "0 0 50 []")
	f("?state=active&q=wxc", "1 0 50 [c]")
	f("?state=", "3 0 50 [a b c]")
	f("?offset=&limit=&q=", "3 0 50 [a b c]")
}

// Every error is JSON, with a text and the right status.
func TestInvalidAPIRequests(t *testing.T) {
	address := start(t, newBackend().config())
	f := func(method, path string, status int) {
		t.Helper()
		got := ask(t, address, method, path, "")
		if got.status != status {
			t.Errorf("%s %s: got %d, want %d: %s", method, path, got.status, status, got.body)
		}
		if allow := got.header.Get("Allow"); (status == 405) != (allow != "") {
			t.Errorf("%s %s: got Allow %q with status %d", method, path, allow, status)
		}
		if method != "HEAD" && (got.fields(t)["error"] == "" || strings.Contains(got.body,
			"hostile")) {
			t.Errorf("%s %s: got %s, want an error that quotes nothing", method, path, got.body)
		}
	}
	for _, q := range []string{"offset=-1", "offset=x", "offset=1.5", "offset=99999999999999999999",
		"limit=0", "limit=-5", "limit=hostile", "limit=1;offset=2", "offset=%zz",
		"offset=1&offset=2", "q=" + strings.Repeat("x", 300), "state=hostile", "state=Active",
		"state=active,revoked", "state=active&state=revoked"} {
		f("GET", "/api/accounts?"+q, 400)
	}
	for _, q := range []string{"restore=hostile", "restore=1", "restore=%zz",
		"restore=true&restore=true", "confirm=yes", "confirm=true&confirm=true"} {
		f("POST", "/api/sync?"+q, 400)
	}
	for _, appid := range []string{"wx", "WXAAAAAAAAAAAAAAAA", "wxaaaaaaaaaaaaaaa",
		"wxaaaaaaaaaaaaaaaaa", "hostile", "%2e%2e", "..", "wxaaaaaaaaaaaaaaa%41",
		"wxaaaaaaaaaaaaaaa%00", ""} {
		f("GET", "/api/accounts/"+appid, 400)
		f("DELETE", "/api/accounts/"+appid, 400)
		f("POST", "/api/accounts/"+appid+"/refresh", 400)
	}
	f("GET", "/api/accounts/"+unknown, 404)
	f("HEAD", "/api/accounts/"+unknown, 404)
	f("POST", "/api/accounts/"+unknown+"/refresh", 404)
	for _, path := range []string{"/api/", "/api/hostile", "/api/accounts/" + accountA + "/",
		"/api/accounts/" + accountA + "/hostile", "/api/accounts/" + accountA + "/refresh/",
		"/api//status", "/api/status/"} {
		f("GET", path, 404)
	}
	// An escaped slash does not separate segments.
	f("POST", "/api/accounts/"+accountA+"%2Frefresh", 405)
	f("GET", "/api/accounts/"+accountA+"%2Frefresh", 400)
	for _, c := range []string{"POST /api/status", "DELETE /api/accounts", "POST /api/accounts",
		"PUT /api/accounts/" + accountA, "POST /api/accounts/" + accountA,
		"GET /api/accounts/" + accountA + "/refresh",
		"GET /api/sync", "HEAD /api/sync", "GET /api/accounts/import", "POST /api/explain",
		"OPTIONS /api/sync"} {
		method, path, _ := strings.Cut(c, " ")
		f(method, path, 405)
	}
	for _, q := range []string{"", "path=", "path=cgi-bin/a", "path=/a&appid=hostile",
		"path=/a&path=/b", "path=/" + strings.Repeat("x", 9000), "path=/a&method=" +
			strings.Repeat("x", 300)} {
		f("GET", "/api/explain?"+q, 400)
	}
}

// Errors of the broker become statuses, with Retry-After where another try
// makes sense.
func TestBrokerErrorsBecomeStatuses(t *testing.T) {
	var logged logBuffer
	f := func(err error, status int, retryAfter, words string) {
		t.Helper()
		o := newBackend()
		o.fails[accountA], o.fails[""] = err, err
		c := o.config()
		c.Log = logged.logger()
		address := start(t, c)
		for _, request := range []string{"GET /api/accounts/" + accountA, "DELETE /api/accounts/" +
			accountA, "POST /api/accounts/" + accountA + "/refresh", "GET /api/accounts",
			"POST /api/sync"} {
			method, path, _ := strings.Cut(request, " ")
			got := ask(t, address, method, path, "")
			if text := got.fields(t)["error"].(string); got.status != status ||
				!strings.Contains(text, words) ||
				got.header.Get("Retry-After") != retryAfter {
				t.Errorf("%v, %s: got %d %q, Retry-After %q", err, request, got.status, text,
					got.header.Get("Retry-After"))
			}
		}
	}
	f(tokens.ErrUnknownAccount, 404, "", "unknown account")
	f(fmt.Errorf("refresh: %w", tokens.ErrRevoked), 410, "", "revoked")
	f(tokens.ErrForgotten, 410, "", "forgotten by an operator")
	f(tokens.ErrThrottled, 429, "60", "one a minute")
	f(fmt.Errorf("%w: i/o timeout", tokens.ErrUnavailable), 503, "1", "i/o timeout")
	f(tokens.ErrNoTicket, 503, "1", "ticket")
	f(tokens.ErrClosed, 503, "1", "stopping")
	f(fmt.Errorf("%w: no route to host", wechat.ErrUnreachable), 502, "", "no route to host")
	f(&wechat.Error{Code: 45009, Msg: "reach max api daily quota limit"}, 502, "", "45009")
	f(context.DeadlineExceeded, 503, "1", "timeout")
	if logged.String() != "" {
		t.Errorf("log: got %s, want nothing for known errors", logged.String())
	}
	// The text of an unknown error is only logged.
	f(errors.New("unexpected thing"), 500, "", "the log of wxproxy has the details")
	if !strings.Contains(logged.String(), "unexpected thing") {
		t.Errorf("log: got %s, want the unknown error in it", logged.String())
	}
}

func TestRefreshForgetSync(t *testing.T) {
	o := newBackend()
	address := start(t, o.config())
	got := ask(t, address, "POST", "/api/accounts/"+accountA+"/refresh", "")
	if got.status != 200 || got.fields(t)["token_fingerprint"] != "77778888" {
		t.Errorf("refresh: got %d %s", got.status, got.body)
	}
	got = ask(t, address, "DELETE", "/api/accounts/"+accountA, "")
	if got.status != 200 || got.body != `{"appid":"`+accountA+`","forgotten":true}`+"\n" {
		t.Errorf("forget: got %d %s", got.status, got.body)
	}
	for _, appid := range []string{accountA, unknown} { // twice, and without a record
		if got := ask(t, address, "DELETE", "/api/accounts/"+appid, ""); got.status != 200 {
			t.Errorf("forgetting %s: got %d, want 200", appid, got.status)
		}
	}
	got = ask(t, address, "GET", "/api/accounts?state=forgotten", "")
	if got.fields(t)["total"] != 2.0 ||
		!strings.Contains(got.body, `"forgotten":"2026-05-06T07:08:09Z"`) {
		t.Errorf("forgotten accounts: got %s, want two, with the time", got.body)
	}
	got = ask(t, address, "GET", "/api/explain?path=/cgi-bin/a&appid="+accountA, "")
	explained := got.fields(t)
	if refusal, _ := explained["refusal"].(map[string]any); refusal["status"] != 410.0 ||
		!strings.Contains(fmt.Sprint(refusal["error"]), "forgotten") {
		t.Errorf("explain of a forgotten account: got %v, want 410", explained)
	}
	got = ask(t, address, "POST", "/api/sync?restore=true", "")
	if got.status != 200 || got.fields(t)["recovered"] != 12.0 {
		t.Errorf("sync with restore: got %d %s, want 12 recovered", got.status, got.body)
	}
	if got := ask(t, address, "POST", "/api/sync", ""); got.status != 200 ||
		got.body != `{"listed":9,"added":1,"recovered":2,"revoked":0,"unchanged":6,"held":30,"took":1.235}`+"\n" {
		t.Errorf("sync: got %d %s", got.status, got.body)
	}
	got = ask(t, address, "POST", "/api/sync?confirm=true", "")
	if got.status != 200 || got.fields(t)["revoked"] != 30.0 || strings.Contains(got.body, "held") {
		t.Errorf("sync with confirm: got %d %s, want 30 revoked", got.status, got.body)
	}
	got = ask(t, address, "GET", "/api/status", "")
	if !strings.Contains(got.body, `"sync":{"age":60,"held":30,"of":400}`) {
		t.Errorf("status: got %s, want the age of the comparison and the accounts held", got.body)
	}
	o.noComponent = true
	for _, path := range []string{"/api/sync", "/api/accounts/import"} {
		if got := ask(t, address, "POST", path, ""); got.status != 409 {
			t.Errorf("%s without a component: got %d %s, want 409", path, got.status, got.body)
		}
	}
}

// Comparing many accounts, and a renewal, outlive the usual deadlines of the
// listener. net/http cancels the context of a request at its read deadline.
func TestSlowRequestsExtendDeadlines(t *testing.T) {
	o := newBackend()
	address, conns := serveWithDeadlines(t, console.NewServer(console.New(o.config()), nil))
	for path, want := range map[string]time.Duration{
		"/api/sync":                              25 * time.Minute,
		"/api/accounts/" + accountA + "/refresh": 50 * time.Second,
	} {
		o.wait = func(ctx context.Context) error {
			end, ok := ctx.Deadline()
			if r, w := conns.remaining(); !ok || time.Until(end) < want || r < want || w < want {
				t.Errorf(
					"%s: got deadlines in %v for the context, %v for reading, %v for writing, want at least %v",
					path, time.Until(end), r, w, want)
			}
			return nil
		}
		if got := ask(t, address, "POST", path, ""); got.status != 200 {
			t.Errorf("%s: got %d %s, want 200", path, got.status, got.body)
		}
	}
}

func TestExplain(t *testing.T) {
	o := newBackend()
	address := start(t, o.config())
	f := func(query string, check func(map[string]any) bool) {
		t.Helper()
		got := ask(t, address, "GET", "/api/explain?"+query, "")
		if fields := got.fields(t); got.status != 200 || !check(fields) {
			t.Errorf("explain %s: got %d %s", query, got.status, got.body)
		}
	}
	f("appid="+accountA+"&path=%2Fcgi-bin%2Fuser%2Finfo", func(m map[string]any) bool {
		a, _ := m["account"].(map[string]any)
		return m["method"] == "GET" && m["path"] == "/cgi-bin/user/info" &&
			m["holder"] == accountA && a["token_fingerprint"] == "11112222" &&
			m["refusal"] == nil && m["caller"] == nil
	})
	f("appid="+accountA+"&path=/a&caller=orders&method=POST", func(m map[string]any) bool {
		return m["method"] == "POST" &&
			fmt.Sprint(m["caller"]) == "map[allowed:true name:orders reason:it may]"
	})
	f("appid="+unknown+"&path=/a", func(m map[string]any) bool {
		return m["account"] == nil && m["refusal"].(map[string]any)["status"] == 404.0
	})
	f("appid="+accountB+"&path=/a",
		func(m map[string]any) bool { return m["refusal"].(map[string]any)["status"] == 410.0 })
	f("path=/a", func(m map[string]any) bool { return m["account"] == nil && m["refusal"] == nil })
	o.fails[accountA] = tokens.ErrUnavailable
	if got := ask(t, address, "GET", "/api/explain?path=/a&appid="+accountA,
		""); got.status != 503 {
		t.Errorf("explain without a store: got %d %s, want 503", got.status, got.body)
	}
}

// Nothing below /api/ works without the key, or on behalf of another site.
func TestAPIRequiresKeyAndSameSite(t *testing.T) {
	o := newBackend()
	c := o.config()
	c.Key, c.Loopback = wechat.NewSecret(key), true
	address := start(t, c)
	requests := []string{"GET /api/status", "GET /api/accounts", "GET /api/accounts/" + accountA,
		"DELETE /api/accounts/" + accountA, "POST /api/accounts/" + accountA + "/refresh",
		"POST /api/sync", "POST /api/accounts/import", "GET /api/explain?path=/a",
		"GET /api/nothing", "BREW /api/status"}
	for _, request := range requests {
		method, path, _ := strings.Cut(request, " ")
		f := func(status int, headers ...string) {
			t.Helper()
			got := ask(t, address, method, path, "", headers...)
			if got.status != status || got.fields(t)["error"] == nil {
				t.Errorf("%s with %v: got %d %s", request, headers, got.status, got.body)
			}
		}
		f(401)
		f(401, "Authorization: Bearer wrong")
		f(403, "Authorization: Bearer "+key, "Sec-Fetch-Site: cross-site")
		f(403, "Authorization: Bearer "+key, "Sec-Fetch-Site: same-site")
		f(403, "Authorization: Bearer "+key, "Origin: https://evil.example")
		f(403, "Authorization: Bearer "+key, "Origin: null")
		if got := send(t, address, request+" HTTP/1.1", "Host: evil.example",
			"Authorization: Bearer "+key); got.status != 403 {
			t.Errorf("%s for another host: got %d, want 403", request, got.status)
		}
	}
	if _, err := o.Account(t.Context(), accountA); err != nil {
		t.Errorf("account after denied requests: got %v, want it unchanged", err)
	}
	for _, headers := range [][]string{{"Authorization: Bearer " + key},
		{basic("me", key), "Sec-Fetch-Site: same-origin", "Origin: http://" + address}} {
		if got := ask(t, address, "POST", "/api/accounts/"+accountA+"/refresh", "",
			headers...); got.status != 200 {
			t.Errorf("refresh with %v: got %d, want 200", headers, got.status)
		}
	}
}

func TestNoAPIWithoutAccounts(t *testing.T) {
	address := start(t, console.Config{Metrics: counted})
	for _, path := range []string{"/api/status", "/api/accounts", "/api/accounts/" + accountA,
		"/api/explain?path=/a", "/"} {
		if got := ask(t, address, http.MethodGet, path, ""); got.status != 404 {
			t.Errorf("%s without accounts: got %d, want 404", path, got.status)
		}
	}
}
