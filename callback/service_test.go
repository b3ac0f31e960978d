package callback_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/callback"
	"wxproxy/wechat"
)

const (
	user     = "o9AgO5Kd5ggOC-bXrbNODIiE3bGY"
	original = "gh_97417a04a28d"
)

// got is a request as a service saw it.
type got struct {
	path, body string
	header     http.Header
}

// service is what messages are forwarded to, on a TCP port of its own. What
// answer writes is its answer; nil: success.
type service struct {
	*httptest.Server
	mu     sync.Mutex
	seen   []got
	answer http.HandlerFunc
}

func newService(t *testing.T, answer http.HandlerFunc) *service {
	t.Helper()
	s := &service{answer: answer}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost {
			t.Errorf("%s: %v", r.Method, err)
		}
		s.mu.Lock()
		s.seen = append(s.seen, got{r.URL.RequestURI(), string(body), r.Header})
		answer := s.answer
		s.mu.Unlock()
		if answer != nil {
			answer(w, r)
			return
		}
		_, _ = io.WriteString(w, "success")
	}))
	t.Cleanup(s.Close)
	return s
}

// says makes a service that answers with status and text.
func says(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

func (s *service) change(answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *service) got() []got {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]got(nil), s.seen...)
}

// everything is a rule for all, to url.
func everything(url string) callback.Forward {
	return callback.Forward{AppIDs: []string{"*"}, Events: []string{"*"}, URL: url}
}

// messages is a decrypted message as WeChat makes it.
func message(msgType string, fields ...string) string {
	return "<xml><ToUserName><![CDATA[" + original + "]]></ToUserName>\n<FromUserName><![CDATA[" + user + "]]></FromUserName>\n" +
		"<CreateTime>1715943329</CreateTime>\n<MsgType><![CDATA[" + msgType + "]]></MsgType>\n" + strings.Join(fields, "\n") + "\n</xml>"
}

func text(content string) string {
	return message("text", "<Content><![CDATA["+content+"]]></Content>", "<MsgId>6054768590064713728</MsgId>")
}

func event(name string) string { return message("event", "<Event><![CDATA["+name+"]]></Event>") }

// toAccount makes a push as it comes to an account's address: the outer
// document has no AppId.
func toAccount(c *wechat.Crypt, doc string) signed {
	s := sealed(c, doc)
	s.body = bytes.Replace(s.body, []byte("<AppId><![CDATA["+component+"]]></AppId>"), []byte("<ToUserName><![CDATA["+original+"]]></ToUserName>"), 1)
	return s
}

func (l *listener) sendTo(account string, s signed) reply {
	l.t.Helper()
	return l.do(http.MethodPost, "/"+account+"/events?"+s.query()+"&openid="+user, bytes.NewReader(s.body))
}

func (l *listener) message(doc string) reply {
	l.t.Helper()
	return l.sendTo(account, toAccount(l.crypt, doc))
}

// unsealed does what WeChat does with a passive reply.
func (l *listener) unsealed(c *wechat.Crypt, r reply) string {
	l.t.Helper()
	var x struct {
		XMLName      xml.Name `xml:"xml"`
		Encrypt      string
		MsgSignature string
		TimeStamp    string
		Nonce        string
	}
	if err := xml.Unmarshal([]byte(r.body), &x); err != nil || r.status != 200 {
		l.t.Fatalf("%d %q: %v", r.status, r.body, err)
	}
	doc, err := c.Open(x.MsgSignature, x.TimeStamp, x.Nonce, x.Encrypt)
	if err != nil {
		l.t.Fatal(err)
	}
	if got := r.header.Get("Content-Type"); got != "text/xml; charset=utf-8" {
		l.t.Errorf("Content-Type %q", got)
	}
	return string(doc)
}

// empty wants an empty answer.
func (l *listener) empty(r reply) {
	l.t.Helper()
	if r.status != 200 || r.body != "" {
		l.t.Errorf("%d %q", r.status, r.body)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came true: %s", what)
		}
	}
}

// hangUp sends a push and goes away without waiting for an answer, once came
// says that it has arrived.
func (l *listener) hangUp(account string, s signed, came func() bool) {
	l.t.Helper()
	ctx, cancel := context.WithCancel(l.t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+l.addr+"/"+account+"/events?"+s.query(), bytes.NewReader(s.body))
	if err != nil {
		l.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req); err == nil {
			resp.Body.Close()
			l.t.Error("answered before the sender went")
		}
	}()
	eventually(l.t, "the push arrives", came)
	cancel()
	<-done
}

func withKey(base string) string { return base + "/wechat?" + url.Values{"key": {"SECRET"}}.Encode() }
