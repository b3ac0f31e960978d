// Command silenceper-server receives messages with the server of
// silenceper/wechat, which verifies, decrypts and replies: with TOKEN alone in
// plain mode, with APPID and KEY in safe mode too.
package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/silenceper/wechat/v2"
	"github.com/silenceper/wechat/v2/cache"
	"github.com/silenceper/wechat/v2/officialaccount/config"
	"github.com/silenceper/wechat/v2/officialaccount/message"
)

func main() {
	account := wechat.NewWechat().GetOfficialAccount(&config.Config{
		AppID: os.Getenv("APPID"), Token: os.Getenv("TOKEN"), EncodingAESKey: os.Getenv("KEY"),
		Cache: cache.NewMemory(),
	})
	handler := func(w http.ResponseWriter, r *http.Request) {
		server := account.GetServer(r, w)
		server.SetMessageHandler(func(m *message.MixMessage) *message.Reply {
			fmt.Println("handled", m.MsgID)
			// The SDK puts a reply into a CDATA section, as others do.
			content := strings.ReplaceAll(m.Content, "]]>", "...")
			text := fmt.Sprintf("%s from %s", content, m.FromUserName)
			return &message.Reply{MsgType: message.MsgTypeText, MsgData: message.NewText(text)}
		})
		err := server.Serve()
		if err == nil {
			err = server.Send()
		}
		if err != nil {
			fmt.Println(err)
			http.Error(w, "", http.StatusInternalServerError)
		}
	}
	fmt.Println(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), http.HandlerFunc(handler)))
}
