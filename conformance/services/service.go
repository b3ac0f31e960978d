//go:build ignore

package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

type push struct {
	XMLName                           xml.Name `xml:"xml"`
	ToUserName, FromUserName, MsgType string
	CreateTime                        int64
	Content                           string `xml:",omitempty"`
	MsgId                             string `xml:",omitempty"`
}

// replies has a function for each event, which handles it once. In production,
// use a table with a unique key.
var replies sync.Map

func isSigned(header string, body []byte) bool {
	t, v1, _ := strings.Cut(strings.TrimPrefix(header, "t="), ",v1=")
	h := hmac.New(sha256.New, []byte(os.Getenv("SECRET")))
	fmt.Fprintf(h, "%s.%s", t, body)
	at, _ := strconv.ParseInt(t, 10, 64)
	return hmac.Equal([]byte(hex.EncodeToString(h.Sum(nil))), []byte(v1)) &&
		math.Abs(time.Since(time.Unix(at, 0)).Minutes()) < 5
}

func handle(body []byte) []byte {
	var p push
	if err := xml.Unmarshal(body, &p); err != nil || p.MsgType != "text" {
		return []byte("success")
	}
	fmt.Println("handled", p.MsgId)
	p.ToUserName, p.FromUserName = p.FromUserName, p.ToUserName
	p.CreateTime, p.MsgId = time.Now().Unix(), ""
	reply, _ := xml.Marshal(p)
	return reply
}

func serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || !isSigned(r.Header.Get("X-Wxproxy-Signature"), body) {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	once := sync.OnceValue(func() []byte { return handle(body) })
	reply, _ := replies.LoadOrStore(r.Header.Get("X-Wxproxy-Event"), once)
	w.Write(reply.(func() []byte)())
}

func main() {
	fmt.Println(http.ListenAndServe("127.0.0.1:"+os.Args[1], http.HandlerFunc(serve)))
}
