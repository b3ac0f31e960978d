package callback_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"wxproxy/callback"
	"wxproxy/wechat"
)

// pushQuery is what WeChat's pushes have in their query.
const pushQuery = "?signature=SECRET&timestamp=1714036504&nonce=1514711492&encrypt_type=aes" +
	"&msg_signature=SECRET"

// TestWrongAddresses: a push to a path that is none of wxproxy's, or with
// another method, gets 404 or 405 without content, is counted, and is logged
// with the address that is right. Spelling (slashes, case, prefix, placeholder
// as it is and percent-encoded once and twice, guessed paths with and without
// an appid) × method × query of a push, of a plain push, of the URL check.
func TestWrongAddresses(t *testing.T) {
	const events, messages = "/component/events", "/" + account + "/events"
	for _, tc := range []struct {
		method, path string
		status       int
		log          []string
	}{
		{"POST", events + "/", 404, []string{"slashes", "address is /component/events,"}},
		{"POST", "//component//events", 404, []string{"slashes", "address is /component/events,"}},
		{"POST", messages + "/", 404, []string{"slashes", "address is " + messages}},
		{"POST", "/Component/Events", 404, []string{"case", "address is /component/events,"}},
		{"POST", "/" + strings.ToUpper(account) + "/events", 404, []string{"case", messages}},
		{"POST", "/wechat/component/events", 404, []string{"prefix", "is /component/events:"}},
		{"POST", "/wechat" + messages, 404, []string{"prefix", "address is " + messages + ":"}},
		{"POST", "/$APPID$/events", 404, []string{"placeholder", events, "$APPID$"}},
		{"POST", "/%24APPID%24/events", 404, []string{"placeholder", "path=/%24APPID%24/events"}},
		{"POST", "/%2524APPID%2524/events", 404, []string{"placeholder"}},
		{"POST", "/{appid}/events", 404, []string{"placeholder"}},
		{"POST", "/wechat/$APPID$/callback", 404, []string{"placeholder"}},
		{"POST", "/" + account + "/callback", 404, []string{"problem=path", "is " + messages}},
		{"POST", "/" + account, 404, []string{"problem=path", "is " + messages}},
		{"POST", "/events", 404, []string{"problem=path", events, "/$APPID$/events"}},
		{"POST", "/component/event", 404, []string{"problem=path", events}},
		{"POST", "/wechat/callback", 404, []string{"problem=path", events}},
		{"POST", "/", 404, []string{"problem=path", events}},
		{"GET", "/wechat", 404, []string{"problem=path", "method=GET"}},
		{"POST", "/healthz", 405, []string{"problem=path", events}},
		{"GET", events, 405, []string{"problem=method", "POST", "message_token"}},
		{"GET", messages, 405, []string{"problem=method", "message_token"}},
		{"PUT", messages, 405, []string{"problem=method", "method=PUT"}},
	} {
		for _, query := range []string{
			pushQuery, "?signature=SECRET&timestamp=1&nonce=2", pushQuery + "&echostr=SECRET",
		} {
			w := start(t, callback.Config{})
			r := w.request(tc.method, tc.path+query, strings.NewReader("<xml>SECRET</xml>"))
			w.wantResponse(r, tc.status)
			w.wantCounted("other wrong_address")
			w.wantLogged(append(tc.log, "push to a wrong address")...)
		}
	}
}

// TestOrdinaryNoiseLeavesNoTrace: requests of the internet's scanners are
// neither logged nor counted, whatever their path. Without a query × with one
// that has some of a push's parameters × longer than any push's.
func TestOrdinaryNoiseLeavesNoTrace(t *testing.T) {
	w := start(t, callback.Config{})
	for _, path := range []string{"/", "/wp-login.php", "/component/events/", "/$APPID$/events"} {
		for _, query := range []string{
			"", "?a=b", "?timestamp=1&nonce=2", "?signature=a&timestamp=1",
			"?%zz&nonce=1&signature=2",
			pushQuery + "&a=" + strings.Repeat("a", 2048),
		} {
			w.wantResponse(w.request(http.MethodPost, path+query, nil), 404)
		}
	}
	w.wantCounted()
	if log := w.logged(); log != "" {
		t.Errorf("got log %q, want none", log)
	}
}

// TestHostileWrongAddress: a wrong path is logged as one short line of ASCII,
// whatever it holds: line breaks, control and other characters, 6,000 bytes,
// thousands of segments. Its query is not logged. Of 30 such requests ten are
// logged, and all are counted.
func TestHostileWrongAddress(t *testing.T) {
	for _, path := range []string{
		"/a%0d%0alevel=ERROR msg=forged", "/a\x1b[31m%1b[31m", "/%ff%fe%e2%80%ae",
		"/" + strings.Repeat("a", 6_000), strings.Repeat("/a", 3_000),
		"/" + strings.Repeat("%24", 2_000),
	} {
		w := start(t, callback.Config{})
		request := "POST " + strings.ReplaceAll(path, " ", "%20") + pushQuery +
			" HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
		for range 30 {
			r := w.raw(w.dial(), http.MethodPost, request)
			if r.status == http.StatusBadRequest && strings.Contains(path, "\x1b") {
				break // rejected by net/http
			}
			w.wantResponse(r, 404)
		}
		log := w.logged()
		for line := range strings.Lines(log) {
			if len(line) > 1200 || strings.ContainsAny(line[:len(line)-1], "\r\n\x1b") ||
				strings.HasPrefix(line, "level=") {
				t.Errorf("got line of %d bytes in the log: %.300q", len(line), line)
			}
		}
		counted := w.counted()
		if len(counted) > 0 && (len(counted) != 30 || strings.Count(log, "\n") != 10) {
			t.Errorf("%.20q: got %d counted and %d logged of 30, want 30 and 10",
				path, len(counted), strings.Count(log, "\n"))
		}
		isOther := func(c string) bool { return c != "other wrong_address" }
		if i := slices.IndexFunc(counted, isOther); i >= 0 {
			t.Errorf("counted: got %q", counted[i])
		}
	}
}

// TestPushOfTheOtherKind: a message on the path of authorization events and an
// authorization event on that of messages are rejected, counted, and logged
// with the right address. Nothing is stored, and no service gets them. Signed
// by the component × by an own account.
func TestPushOfTheOtherKind(t *testing.T) {
	s := newService(t, nil)
	app := ownApp(t, true)
	c := callback.Config{
		Apps: []callback.App{app}, Forwards: []callback.Forward{forwardAll(s.URL)},
	}
	event := eventDoc(component, "unauthorized", "<AuthorizerAppid>"+account+"</AuthorizerAppid>")
	for name, tc := range map[string]struct {
		path, event string
		crypt       *wechat.Crypt
		doc, log    string
	}{
		"message": {"component", "other", nil, textDoc("hello"), "/$APPID$/events"},
		"event":   {account, "message", nil, event, "/component/events"},
		"event at an own account": {ownAccount, "message", app.Crypt, event,
			"/component/events"},
		"JSON at an own account": {ownAccount, "message", app.Crypt,
			`{"AppId":"` + component + `","InfoType":"unauthorized"}`, "/component/events"},
	} {
		w := start(t, c)
		if tc.crypt == nil {
			tc.crypt = w.crypt
		}
		p := newOwnPush("safe", ownToken, tc.crypt, tc.doc, time.Now())
		w.wantResponse(w.sendOwn(tc.path, p), 400)
		w.wantCounted(tc.event + " wrong_address")
		w.wantLogged("push rejected", tc.log)
		w.wantStored()
		if n := len(s.deliveries()); n != 0 {
			t.Errorf("%s: got %d deliveries, want none", name, n)
		}
	}
}

// TestPushesToUnconfiguredAccount: without a component, pushes to its path and
// to those of accounts without keys leave a trace that says so.
func TestPushesToUnconfiguredAccount(t *testing.T) {
	for _, path := range []string{"/component/events", "/" + account + "/events"} {
		w := start(t, callback.Config{})
		w.handler.Reconfigure(callback.Config{Apps: []callback.App{ownApp(t, true)}})
		w.wantResponse(w.request(http.MethodPost, path+pushQuery, nil), 404)
		w.wantCounted("other wrong_address")
		w.wantLogged("unconfigured", "message_token")
	}
}
