// Command prime prepares a running wxproxy for a benchmark: it pushes a ticket
// and an authorization to the callback listener, encrypted and signed in the
// way of WeChat.
//
//	prime -callback http://127.0.0.1:8081 -component wx… -token T -key K -account wx…
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"wxproxy/wechat"
)

func main() {
	callback := flag.String("callback", "http://127.0.0.1:8081", "base URL of the callback listener")
	component := flag.String("component", "", "appid of the component")
	token := flag.String("token", "", "message token")
	key := flag.String("key", "", "EncodingAESKey")
	account := flag.String("account", "", "appid that authorizes the component")
	flag.Parse()
	crypt, err := wechat.NewCrypt(wechat.NewSecret(*token), wechat.NewSecret(*key), *component)
	if err != nil {
		log.Fatal(err)
	}
	now := strconv.FormatInt(time.Now().Unix(), 10)
	head := "<xml><AppId>" + *component + "</AppId><CreateTime>" + now + "</CreateTime>"
	push(crypt, *callback, *component, now, head+"<InfoType>component_verify_ticket</InfoType>"+
		"<ComponentVerifyTicket>ticket@@@bench</ComponentVerifyTicket></xml>")
	push(crypt, *callback, *component, now, head+"<InfoType>authorized</InfoType>"+
		"<AuthorizerAppid>"+*account+"</AuthorizerAppid>"+
		"<AuthorizationCode>queryauthcode@@@bench"+now+"</AuthorizationCode></xml>")
}

// push sends one event and ends the program unless wxproxy acknowledges it.
func push(crypt *wechat.Crypt, callback, component, now, event string) {
	sealed, nonce := crypt.Encrypt([]byte(event)), strconv.Itoa(len(event))
	q := url.Values{
		"timestamp":     {now},
		"nonce":         {nonce},
		"encrypt_type":  {"aes"},
		"signature":     {crypt.Signature(now, nonce, "")},
		"msg_signature": {crypt.Signature(now, nonce, sealed)},
	}
	body := "<xml><AppId>" + component + "</AppId><Encrypt>" + sealed + "</Encrypt></xml>"
	resp, err := http.Post(callback+"/component/events?"+q.Encode(), "text/xml",
		strings.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	if string(answer) != "success" {
		log.Fatalf("pushing an event: got %s %q, want success", resp.Status, answer)
	}
	fmt.Println("pushed")
}
