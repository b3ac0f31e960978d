package wechat_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"wxproxy/wechat"
)

// Verify and decrypt a push that arrived on the callback listener. The example is
// the one of WeChat's documentation.
func ExampleCrypt_Open() {
	crypt, err := wechat.NewCrypt(
		wechat.NewSecret("AAAAA"), // message token
		wechat.NewSecret("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), // EncodingAESKey
		"wx134c8103faa5a59e", // the component's appid
	)
	if err != nil {
		log.Fatal(err)
	}

	// The body of the request, and the parameters of its query.
	body := []byte("<xml><ToUserName>gh_97417a04a28d</ToUserName><Encrypt>" + docEncrypt + "</Encrypt></xml>")
	msgSignature, timestamp, nonce := docSignature, "1715943329", "1590219412"

	envelope, err := wechat.ParseEnvelope(body)
	if err != nil {
		log.Fatal(err)
	}
	decrypted, err := crypt.Open(msgSignature, timestamp, nonce, envelope.Encrypt)
	if err != nil {
		log.Fatal(err)
	}
	document, err := wechat.ParseDocument(decrypted)
	if err != nil {
		log.Fatal(err)
	}
	message, err := document.Message()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(message.MsgType, message.Event, "to", message.ToUserName)
	// Output: event debug_demo to gh_97417a04a28d
}

// A push that was changed, or was not sent by WeChat, is not decrypted.
func ExampleCrypt_Open_forged() {
	crypt, err := wechat.NewCrypt(wechat.NewSecret("another token"),
		wechat.NewSecret("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), "wx134c8103faa5a59e")
	if err != nil {
		log.Fatal(err)
	}
	_, err = crypt.Open(docSignature, "1715943329", "1590219412", docEncrypt)
	fmt.Println(err)
	// Output: wrong msg_signature: another message token, or not sent by WeChat
}

// Only the errcode of the response itself counts, not one inside of its data. The
// number may be a string, and the rest of the response may be missing.
func ExampleFindErrCode() {
	for _, body := range []string{
		`{"errcode":0,"errmsg":"ok"}`,
		`{"errcode":"40001","errmsg":"invalid credential`,
		`{"list":[{"errcode":40001}],"total":1}`,
	} {
		code := wechat.FindErrCode([]byte(body))
		fmt.Println(code, wechat.TokenRefused(code, false))
	}
	// Output:
	// 0 false
	// 40001 true
	// 0 false
}

// Find the credential that a request needs. Rows of your own precede the built-in
// ones.
func ExampleTable_Find() {
	own := []wechat.Endpoint{{Path: "/wxa/beta/*", Need: wechat.NeedComponent}}
	table := wechat.NewTable(own, wechat.Endpoints)
	for _, path := range []string{
		"/cgi-bin/message/custom/send",
		"/cgi-bin/component/api_get_authorizer_info",
		"/wxa/beta/new",
		"/cgi-bin/component/api_start_push_ticket",
	} {
		switch e := table.Find(path, ""); e.Need {
		case wechat.NeedAccount:
			fmt.Println(path, "needs the account's token")
		case wechat.NeedComponent:
			fmt.Println(path, "needs the component's token")
		case wechat.NeedRefusal:
			fmt.Println(path, "is refused:", e.Why)
		}
	}
	// Output:
	// /cgi-bin/message/custom/send needs the account's token
	// /cgi-bin/component/api_get_authorizer_info needs the component's token
	// /wxa/beta/new needs the component's token
	// /cgi-bin/component/api_start_push_ticket is refused: needs the component's secret
}

// Fetch a token. Here, a test server takes the place of https://api.weixin.qq.com.
// A token that is printed by mistake shows as "***".
func ExampleClient() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"access_token":"78_secret","expires_in":7200}`)
	}))
	defer server.Close()

	client := wechat.NewClient(server.URL, nil)
	defer client.Close()
	grant, err := client.StableToken(context.Background(),
		"wx0123456789abcdef", wechat.NewSecret("app secret"), false)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(grant.Access, "is valid for", grant.Life)
	fmt.Println("revealed:", grant.Access.Reveal())
	// Output:
	// *** is valid for 2h0m0s
	// revealed: 78_secret
}

// A rejection by WeChat is an error with its errcode.
func ExampleCode() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"errcode":61005,"errmsg":"component ticket is expired"}`)
	}))
	defer server.Close()

	client := wechat.NewClient(server.URL, nil)
	defer client.Close()
	_, err := client.ComponentToken(context.Background(), "wxcccccccccccccccc",
		wechat.NewSecret("app secret"), wechat.NewSecret("ticket@@@1"))
	if wechat.Code(err) == wechat.CodeTicketExpired {
		fmt.Println("waiting for the next ticket:", err)
	}
	// Output: waiting for the next ticket: WeChat answered 61005 component ticket is expired
}

// Text from outside is cleaned before it is logged.
func ExampleSanitize() {
	fmt.Println(wechat.Sanitize("first line\nlevel=ERROR \x1b[31mforged", 64))
	fmt.Println(wechat.Sanitize("小店的名字很长", 4))
	// Output:
	// first line level=ERROR ?[31mforged
	// 小店的名…
}
