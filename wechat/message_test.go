package wechat_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"wxproxy/wechat"
)

func TestDocumentAsMessage(t *testing.T) {
	// The document of WeChat's own example.
	m, err := parseMessage([]byte(docMessage))
	if want := (wechat.Message{MsgType: "event", Event: "debug_demo",
		FromUserName: "o9AgO5Kd5ggOC-bXrbNODIiE3bGY", ToUserName: "gh_97417a04a28d"}); err != nil || m != want {
		t.Errorf("message: got %+v, %v", m, err)
	}
	m, err = parseMessage(
		[]byte("<xml><MsgType>text</MsgType><Content> a&lt;b\x01 </Content><list><Content>c</Content></list></xml>"))
	if err != nil || m.Content != "a<b" {
		t.Errorf("message: got %+v, %v", m, err)
	}
	for _, bad := range []string{"", "a", "<xml>", "<XML/>",
		"<xml><InfoType>authorized</InfoType></xml>",
		"<xml><MsgType>a</MsgType><MsgType>b</MsgType></xml>", "<xml><Event><a/></Event></xml>",
		"<!DOCTYPE a><xml/>"} {
		if _, err := parseMessage([]byte(bad)); !errors.Is(err, wechat.ErrMalformed) {
			t.Errorf("message of %q: got error %v, want ErrMalformed", bad, err)
		}
	}
}

// parseMessage parses a document and returns it as a message.
func parseMessage(doc []byte) (wechat.Message, error) {
	d, err := wechat.ParseDocument(doc)
	if err != nil {
		return wechat.Message{}, err
	}
	return d.Message()
}

func TestMaskCodes(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		d, err := wechat.ParseDocument([]byte(in))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			return
		}
		got := d.MaskCodes(wechat.Event{AuthorizationCode: wechat.NewSecret("queryauthcode@@@1")})
		if string(got) != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
	f("<xml/>", "<xml/>")
	f("<xml><a>b</a></xml>", "<xml><a>b</a></xml>")
	f("<xml><AuthorizationCode><![CDATA[a]]></AuthorizationCode><PreAuthCode>b</PreAuthCode><auth_code> c </auth_code></xml>",
		"<xml><AuthorizationCode>***</AuthorizationCode><PreAuthCode>***</PreAuthCode><auth_code>***</auth_code></xml>")
	f("<xml><AUTH_CODE a='b'>c</AUTH_CODE><pre_auth_code>d</pre_auth_code><authorization_code>e</authorization_code></xml>",
		"<xml><AUTH_CODE a='b'>***</AUTH_CODE><pre_auth_code>***</pre_auth_code><authorization_code>***</authorization_code></xml>")
	f("<xml><ComponentVerifyTicket>a</ComponentVerifyTicket>\n</xml>\n",
		"<xml><ComponentVerifyTicket>***</ComponentVerifyTicket>\n</xml>\n")
	f("<xml><auth_code/><auth_code></auth_code></xml>", "<xml><auth_code/><auth_code></auth_code></xml>")
	f("<xml><auth_code>a<auth_code>b</auth_code>c</auth_code></xml>", "<xml><auth_code>***</auth_code></xml>")
	f("<xml><list><n:auth_code>b</n:auth_code></list></xml>",
		"<xml><list><n_auth_code>***</n_auth_code></list></xml>")
	f("<xml><AuthorizationCodeExpiredTime>1</AuthorizationCodeExpiredTime><code>c</code></xml>",
		"<xml><AuthorizationCodeExpiredTime>1</AuthorizationCodeExpiredTime><code>c</code></xml>")
	f("<xml><msg>see queryauthcode@@@1!</msg></xml>", "<xml><msg>see ***!</msg></xml>")
	f(`<?xml version="1.0" encoding="GBK"?><xml>`+"\x01\xff<auth_code>\x02\xfe</auth_code>\xff</xml>",
		"<xml><auth_code>***</auth_code></xml>")
	f("<xml><a>&nothing;</a><auth_code>&nothing;</auth_code></xml>",
		"<xml><a>&amp;nothing;</a><auth_code>***</auth_code></xml>")
	// A text that swallows a code, by pretending to end somewhere behind it.
	f("<xml><msg><![CDATA[a]]></msg><auth_code>b</auth_code><info><name><![CDATA[]]></msg>"+
		"<info><name><![CDATA[c]]></name></info></xml>",
		"<xml><msg>a]]&gt;&lt;/msg&gt;***auth_code&gt;&lt;info&gt;&lt;name&gt;&lt;![CDATA[</msg>"+
			"<info><name><![CDATA[c]]></name></info></xml>")
	for _, bad := range []string{"<xml><auth_code>a</xml>", "<xml><auth_code>a"} {
		if _, err := wechat.ParseDocument([]byte(bad)); !errors.Is(err, wechat.ErrMalformed) {
			t.Errorf("%q: got error %v, want ErrMalformed", bad, err)
		}
	}
}

// No document makes the code appear in the result.
func FuzzMaskCodes(f *testing.F) {
	f.Add("<xml><auth_code>", "</auth_code></xml>")
	f.Add("<xml><a><![CDATA[", "]]></a></xml>")
	f.Add("<xml><!--", "--></xml>")
	const code = "queryauthcode@@@y-s2Y"
	f.Fuzz(func(t *testing.T, before, after string) {
		d, err := wechat.ParseDocument([]byte(before + code + after))
		if err != nil {
			return
		}
		if got := d.MaskCodes(wechat.Event{AuthCode: wechat.NewSecret(code)}); strings.Contains(string(got), code) {
			t.Errorf("got the code in %q", got)
		}
	})
}

func TestAccountOfDocument(t *testing.T) {
	for doc, want := range map[string]string{
		"<xml><AppId>c</AppId><AuthorizerAppid>a</AuthorizerAppid></xml>":                   "a",
		"<xml><AppId>c</AppId><appid>a</appid></xml>":                                       "a",
		"<xml><authorizer_appid>a</authorizer_appid></xml>":                                 "a",
		"<xml><verify_appid>a</verify_appid></xml>":                                         "a",
		"<xml><AppId>c</AppId><info><appid>a</appid></info></xml>":                          "",
		"<xml><appid>a</appid><appid>b</appid></xml>":                                       "",
		"<xml><verify_appid>a<b/></verify_appid></xml>":                                     "",
		"<xml><authorizer_appid>a</authorizer_appid><appid>b</appid><appid>b</appid></xml>": "",
	} {
		d, err := wechat.ParseDocument([]byte(doc))
		if err != nil {
			t.Errorf("%s: %v", doc, err)
		} else if got := d.Account(); got != want {
			t.Errorf("%s: got account %q, want %q", doc, got, want)
		}
	}
}

// WeChat rejects escaped HTML in messages. No error quotes the token.
func TestSendText(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if got, want := strings.TrimSpace(
			string(b)), `{"msgtype":"text","text":{"content":"<a>&"},"touser":"o1"}`; got != want ||
			r.URL.Path != "/cgi-bin/message/custom/send" {
			t.Errorf("SendText: got path %s and body %s, want body %s", r.URL.Path, got, want)
		}
		_, _ = io.WriteString(w, `{"errcode":40001,"errmsg":"invalid `+r.URL.Query().Get("access_token")+`"}`)
	}))
	defer srv.Close()
	err := wechat.NewClient(srv.URL, nil).SendText(context.Background(), wechat.NewSecret("TOKEN"), "o1", "<a>&")
	if wechat.Code(err) != 40001 || strings.Contains(err.Error(), "TOKEN") {
		t.Errorf("SendText with a rejected token: got error %v, want 40001 without the token", err)
	}
}
