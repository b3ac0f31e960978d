package sandbox_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"wxproxy/sandbox"
	"wxproxy/wechat"
)

// TestOwnPushes: what the sandbox pushes for an own account is signed and
// encrypted with the account's keys. Mode safe, compatible, plain × XML, JSON;
// in compatible mode the document stands beside Encrypt, too. The response
// comes back.
func TestOwnPushes(t *testing.T) {
	const token, key = "token123", sandbox.DefaultEncodingAESKey
	crypt, err := wechat.NewCrypt(wechat.NewSecret(token), wechat.NewSecret(key), shop)
	must(t, err)
	var query url.Values
	var body, contentType string
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		query, body, contentType = r.URL.Query(), string(b), r.Header.Get("Content-Type")
		io.WriteString(rw, r.Method+" "+r.URL.Path+query.Get("echostr"))
	}))
	t.Cleanup(srv.Close)
	wx := newEnv(t, sandbox.Config{PushURL: srv.URL})
	modes := []sandbox.PushMode{sandbox.SafeMode, sandbox.CompatibleMode, sandbox.PlainMode}
	for _, mode := range modes {
		for doc, wantType := range map[string]string{
			"<xml><MsgType>text</MsgType></xml>": "text/xml",
			`{"MsgType":"text"}`:                 "application/json",
		} {
			p := sandbox.OwnPush{AppID: shop, Token: token, Key: key, Mode: mode, Document: doc}
			response, err := p.Send(ctx(t), wx.WeChat)
			must(t, err)
			if string(response) != "POST /"+shop+"/events" || contentType != wantType {
				t.Errorf("%s: got response %q to type %q", mode, response, contentType)
			}
			timestamp, nonce := query.Get("timestamp"), query.Get("nonce")
			if query.Get("signature") != crypt.Signature(timestamp, nonce, "") ||
				query.Get("openid") == "" {
				t.Errorf("%s: got query %q", mode, query)
			}
			opened := []byte(body)
			if mode != sandbox.PlainMode {
				e, err := wechat.ParseOwnEnvelope(opened)
				must(t, err)
				opened, err = crypt.Open(query.Get("msg_signature"), timestamp, nonce, e.Encrypt)
				must(t, err)
			}
			hasBoth := strings.Contains(body, "Encrypt") && strings.Contains(body, "MsgType")
			if string(opened) != doc || hasBoth != (mode == sandbox.CompatibleMode) {
				t.Errorf("%s: got %q in %s, want %q", mode, opened, body, doc)
			}
		}
	}
	p := sandbox.OwnPush{AppID: shop, Token: token}
	if err := p.CheckURL(ctx(t), wx.WeChat); err == nil || query.Get("echostr") == "" {
		t.Errorf("URL check: got error %v and query %q, want an echostr that is missed", err, query)
	}
	srv.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		io.WriteString(rw, r.URL.Query().Get("echostr"))
	})
	must(t, p.CheckURL(ctx(t), wx.WeChat))

	control := func(mode, appid, token, key, doc string, status int) response {
		return wx.control("POST", "/sandbox/push", fmt.Sprintf(
			`{"appid":%q,"token":%q,"key":%q,"mode":%q,"document":%q}`,
			appid, token, key, mode, doc), status)
	}
	control("check", shop, token, "", "", 200)
	control("safe", shop, token, key, "<xml></xml>", 200)
	for name, g := range map[string]response{
		"mode":     control("other", shop, token, key, "<xml></xml>", 400),
		"appid":    control("safe", "../../x", token, key, "<xml></xml>", 400),
		"token":    control("plain", shop, "", key, "<xml></xml>", 400),
		"key":      control("safe", shop, token, "short", "<xml></xml>", 502),
		"document": control("compatible", shop, token, key, "text", 502),
	} {
		if strings.Contains(string(g.body), token) {
			t.Errorf("%s: got response %s with the token", name, g.body)
		}
	}
}
