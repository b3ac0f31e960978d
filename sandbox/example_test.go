package sandbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"wxproxy/sandbox"
	"wxproxy/wechat"
)

// A sandbox is an HTTP handler. Point your program at the server's URL instead
// of https://api.weixin.qq.com. Here the client of package wechat is the
// program.
func Example() {
	wx, err := sandbox.New(sandbox.Config{})
	if err != nil {
		panic(err)
	}
	server := httptest.NewServer(wx)
	defer server.Close()

	client := wechat.NewClient(server.URL, nil)
	defer client.Close()
	ctx := context.Background()
	appSecret := wechat.NewSecret(sandbox.DefaultComponentSecret)
	component, err := client.ComponentToken(ctx, wx.ComponentAppID(), appSecret, wechat.NewSecret(wx.Ticket()))
	if err != nil {
		panic(err)
	}

	// A merchant authorizes the component; the program exchanges the code.
	code := wx.AuthorizationCode("wx00000000000000aa")
	grant, err := client.QueryAuth(ctx, wx.ComponentAppID(), component.Access, wechat.NewSecret(code))
	if err != nil {
		panic(err)
	}
	fmt.Println("authorized:", grant.AppID)
	fmt.Println("token is the newest:", grant.Access.Reveal() == wx.CurrentToken(grant.AppID))
	fmt.Println("exchanges:", wx.Count("/cgi-bin/component/api_query_auth"))
	fmt.Println("violations:", len(wx.Violations()))
	// Output:
	// authorized: wx00000000000000aa
	// token is the newest: true
	// exchanges: 1
	// violations: 0
}

// PushTicket sends an encrypted component_verify_ticket to a callback listener,
// which has to respond with "success".
func ExampleWeChat_PushTicket() {
	wx, err := sandbox.New(sandbox.Config{})
	if err != nil {
		panic(err)
	}
	crypt, err := wechat.NewCrypt(
		wechat.NewSecret(sandbox.DefaultMessageToken),
		wechat.NewSecret(sandbox.DefaultEncodingAESKey),
		wx.ComponentAppID())
	if err != nil {
		panic(err)
	}
	callback := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		envelope, err := wechat.ParseEnvelope(body)
		if err != nil {
			panic(err)
		}
		q := r.URL.Query()
		decrypted, err := crypt.Open(q.Get("msg_signature"), q.Get("timestamp"), q.Get("nonce"), envelope.Encrypt)
		if err != nil {
			panic(err)
		}
		document, err := wechat.ParseDocument(decrypted)
		if err != nil {
			panic(err)
		}
		event, err := document.Event()
		if err != nil {
			panic(err)
		}
		fmt.Println(r.URL.Path, event.InfoType, event.Ticket.Reveal() == wx.Ticket())
		io.WriteString(w, "success")
	}))
	defer callback.Close()

	if err := wx.SetPushURL(callback.URL); err != nil {
		panic(err)
	}
	fmt.Println("error:", wx.PushTicket(context.Background()))
	// Output:
	// /component/events component_verify_ticket true
	// error: <nil>
}

// History returns what arrived, byte for byte; Violations returns what should
// not have arrived.
func ExampleWeChat_History() {
	wx, err := sandbox.New(sandbox.Config{})
	if err != nil {
		panic(err)
	}
	server := httptest.NewServer(wx)
	defer server.Close()

	// A client that sends a header which is meant for a proxy, and no token.
	req, _ := http.NewRequest("GET", server.URL+"/cgi-bin/user/get?next_openid=o%2D1", nil)
	req.Header.Set("X-Forwarded-For", "192.0.2.1")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		panic(err)
	}
	resp.Body.Close()

	for _, call := range wx.History() {
		fmt.Println(call.Method, call.Path, call.RawQuery, call.ErrCode)
	}
	for _, v := range wx.Violations() {
		fmt.Println(v)
	}
	// Output:
	// GET /cgi-bin/user/get next_openid=o%2D1 41001
	// GET /cgi-bin/user/get: it has the header X-Forwarded-For
}

// A fault makes requests fail on purpose: here the next two to a path.
func ExampleWeChat_AddFault() {
	wx, err := sandbox.New(sandbox.Config{})
	if err != nil {
		panic(err)
	}
	server := httptest.NewServer(wx)
	defer server.Close()

	if _, err := wx.AddFault(sandbox.Fault{Path: "/cgi-bin/token", Times: 2, ErrCode: 45009}); err != nil {
		panic(err)
	}
	for range 3 {
		resp, err := http.Get(server.URL + "/cgi-bin/token")
		if err != nil {
			panic(err)
		}
		var body struct {
			ErrCode int `json:"errcode"`
		}
		json.NewDecoder(resp.Body).Decode(&body)
		resp.Body.Close()
		fmt.Println(body.ErrCode)
	}
	// Output:
	// 45009
	// 45009
	// 40002
}

// The control endpoints do over HTTP what the methods do, for programs that are
// not written in Go.
func ExampleWeChat_ServeHTTP() {
	wx, err := sandbox.New(sandbox.Config{})
	if err != nil {
		panic(err)
	}
	server := httptest.NewServer(wx)
	defer server.Close()

	account := `{"appid": "wx00000000000000bb", "kind": "mini", "secret": "its-own-secret"}`
	resp, err := http.Post(server.URL+"/sandbox/accounts", "application/json", strings.NewReader(account))
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	io.Copy(os.Stdout, resp.Body)
	fmt.Println(wx.Accounts())
	// Output:
	// {"done":true}
	// [wx00000000000000bb]
}

// Now moves the time by hand, so that a test of expiry does not have to wait.
func ExampleConfig() {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	wx, err := sandbox.New(sandbox.Config{Now: func() time.Time { return now }})
	if err != nil {
		panic(err)
	}
	first := wx.Ticket()
	now = now.Add(12 * time.Hour) // the lifetime of a ticket
	fmt.Println("same ticket:", wx.Ticket() == first)
	// Output:
	// same ticket: false
}
