package callback_test

import (
	"bytes"
	"encoding/xml"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"wxproxy/callback"
	"wxproxy/wechat"
)

const (
	user       = "o9AgO5Kd5ggOC-bXrbNODIiE3bGY"
	originalID = "gh_97417a04a28d"
)

// delivery is a request as a service received it.
type delivery struct {
	path, body string
	header     http.Header
}

// fakeService is what pushes are forwarded to, on its own TCP port. It responds
// with success unless a handler is set.
type fakeService struct {
	*httptest.Server
	mu      sync.Mutex
	seen    []delivery
	handler http.HandlerFunc
}

func newService(t *testing.T, handler http.HandlerFunc) *fakeService {
	t.Helper()
	s := &fakeService{handler: handler}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost {
			t.Errorf("service: got method %s and error %v, want POST and none", r.Method, err)
		}
		s.mu.Lock()
		s.seen = append(s.seen, delivery{r.URL.RequestURI(), string(body), r.Header})
		handler := s.handler
		s.mu.Unlock()
		if handler != nil {
			handler(w, r)
			return
		}
		_, _ = io.WriteString(w, "success")
	}))
	t.Cleanup(s.Close)
	return s
}

// respondWith returns a handler that responds with status and body.
func respondWith(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// setHandler replaces the handler; nil responds with success.
func (s *fakeService) setHandler(handler http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handler = handler
}

// deliveries returns what the service has received so far.
func (s *fakeService) deliveries() []delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

// wantDeliveries checks how many requests the service has received so far.
func (s *fakeService) wantDeliveries(t *testing.T, want int) {
	t.Helper()
	if got := s.deliveries(); len(got) != want {
		t.Errorf("service: got %d requests, want %d: %q", len(got), want, got)
	}
}

// forwardAll is a rule that sends everything to url.
func forwardAll(url string) callback.Forward {
	return callback.Forward{AppIDs: []string{"*"}, Events: []string{"*"}, URL: url}
}

// withKey returns a URL of a service whose query holds a key.
func withKey(base string) string { return base + "/wechat?" + url.Values{"key": {"SECRET"}}.Encode() }

// messageDoc is a decrypted message.
func messageDoc(msgType string, fields ...string) string {
	return "<xml><ToUserName><![CDATA[" + originalID + "]]></ToUserName>\n" +
		"<FromUserName><![CDATA[" + user + "]]></FromUserName>\n" +
		"<CreateTime>1715943329</CreateTime>\n<MsgType><![CDATA[" + msgType + "]]></MsgType>\n" +
		strings.Join(fields, "\n") + "\n</xml>"
}

func textDoc(content string) string {
	return messageDoc("text", "<Content><![CDATA["+content+"]]></Content>", "<MsgId>6054768590064713728</MsgId>")
}

// accountEventDoc is a decrypted event of an account.
func accountEventDoc(name string) string {
	return messageDoc("event", "<Event><![CDATA["+name+"]]></Event>")
}

// sealMessage makes a push for the path of an account, whose outer document has
// no AppId.
func sealMessage(c *wechat.Crypt, doc string) signed {
	s := seal(c, doc)
	s.body = bytes.Replace(s.body, []byte("<AppId><![CDATA["+component+"]]></AppId>"),
		[]byte("<ToUserName><![CDATA["+originalID+"]]></ToUserName>"), 1)
	return s
}

// sendTo sends a push to the path of an account.
func (w *env) sendTo(account string, s signed) response {
	w.t.Helper()
	return w.request(http.MethodPost, "/"+account+"/events?"+s.query()+"&openid="+user, bytes.NewReader(s.body))
}

// message sends a document to the path of the account.
func (w *env) message(doc string) response {
	w.t.Helper()
	return w.sendTo(account, sealMessage(w.crypt, doc))
}

// decryptReply does what WeChat does with a passive reply.
func (w *env) decryptReply(c *wechat.Crypt, r response) string {
	w.t.Helper()
	var x struct {
		XMLName      xml.Name `xml:"xml"`
		Encrypt      string
		MsgSignature string
		TimeStamp    string
		Nonce        string
	}
	if err := xml.Unmarshal([]byte(r.body), &x); err != nil || r.status != 200 {
		w.t.Fatalf("got response %d %q, error %v, want 200 and XML", r.status, r.body, err)
	}
	if len(x.Nonce) > 10 {
		w.t.Errorf("nonce of the reply: got %q, want ten digits at most, like WeChat's", x.Nonce)
	}
	doc, err := c.Open(x.MsgSignature, x.TimeStamp, x.Nonce, x.Encrypt)
	if err != nil {
		w.t.Fatal(err)
	}
	if got := r.header.Get("Content-Type"); got != "text/xml; charset=utf-8" {
		w.t.Errorf("Content-Type: got %q, want text/xml; charset=utf-8", got)
	}
	return string(doc)
}

// wantReply checks a passive reply.
func (w *env) wantReply(r response, want string) {
	w.t.Helper()
	if got := w.decryptReply(w.crypt, r); got != want {
		w.t.Errorf("got reply %q, want %q", got, want)
	}
}

// wantEmpty checks for a response without a body.
func (w *env) wantEmpty(r response) {
	w.t.Helper()
	if r.status != 200 || r.body != "" {
		w.t.Errorf("got response %d %q, want 200 and no body", r.status, r.body)
	}
}
