package callback_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"wxproxy/callback"
	"wxproxy/wechat"
)

func TestServiceRepliesToMessage(t *testing.T) {
	const passive = "<xml><ToUserName>a</ToUserName><MsgType>text</MsgType><Content>你好 <![CDATA[<b>]]></Content></xml>"
	s := newService(t, respondWith(200, "\n"+passive+"\n"))
	w := start(t, callback.Config{Forwards: []callback.Forward{forwardAll(withKey(s.URL))}})
	doc := textDoc("hello")
	w.wantReply(w.message(doc), passive)
	s.wantDeliveries(t, 1)
	d := s.deliveries()[0]
	if d.body != doc || d.path != "/wechat?key=SECRET" {
		t.Errorf("service: got %s %q, want /wechat?key=SECRET %q", d.path, d.body, doc)
	}
	for name, want := range map[string]string{
		"Content-Type": "text/xml", "X-WX-APPID": account, "X-WX-OPENID": user, "X-Idempotency-Key": "",
	} {
		if got := d.header.Get(name); got != want {
			t.Errorf("service: header %s: got %q, want %q", name, got, want)
		}
	}
	id := d.header.Get("X-Request-Id")
	if len(id) < 16 {
		t.Errorf("service: header X-Request-Id: got %q, want 16 characters or more", id)
	}
	w.wantCounted("message ok")
	w.wantLogged(id)
}

// The sender is the one in the document, which is signed. The openid in the
// query is not: it changes nothing, whether it is right, wrong, repeated or
// missing. A sender that cannot be an openid is not passed on.
func TestSenderComesFromTheDocument(t *testing.T) {
	s := newService(t, nil)
	w := start(t, callback.Config{Forwards: []callback.Forward{forwardAll(s.URL)}})
	long := strings.Repeat("o", 65)
	for i, tc := range []struct{ inside, param, want string }{
		{user, "", user},
		{user, "&openid=" + user, user},
		{user, "&openid=oSomebodyElse", user},
		{user, "&openid=a&openid=b", user},
		{user, "&openid=a%0d%0ab", user},
		{"", "&openid=" + user, ""},
		{"a\r\nb", "&openid=" + user, ""},
		{long, "&openid=" + user, ""},
		{"../x", "", ""},
	} {
		doc := strings.Replace(textDoc(fmt.Sprint("message ", i)), user, tc.inside, 1)
		p := sealMessage(w.crypt, doc)
		target := "/" + account + "/events?" + p.query() + tc.param
		w.wantResponse(w.request(http.MethodPost, target, strings.NewReader(string(p.body))), 200)
		s.wantDeliveries(t, i+1)
		got := strings.Join(s.deliveries()[i].header.Values("X-WX-OPENID"), " and ")
		if got != tc.want {
			t.Errorf("%q inside, query %q: got X-WX-OPENID %q, want %q",
				tc.inside, tc.param, got, tc.want)
		}
	}
}

// A service can close an idle connection just when wxproxy sends a message on
// it. The message is sent again on a new connection, within the same push.
func TestMessageOnConnectionThatTheServiceClosesIsSentAgain(t *testing.T) {
	s := newService(t, nil)
	w := start(t, callback.Config{Forwards: []callback.Forward{forwardAll(s.URL)}})
	w.wantResponse(w.message(textDoc("first")), 200) // leaves an idle connection
	s.setHandler(func(rw http.ResponseWriter, _ *http.Request) {
		s.setHandler(nil)
		conn, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_ = conn.Close()
	})
	w.wantResponse(w.message(textDoc("second")), 200)
	s.wantDeliveries(t, 3)
	w.wantCounted("message ok", "message ok")
}

// The caller of New can go on to use the slices of its Config.
func TestConfigIsCopied(t *testing.T) {
	s := newService(t, nil)
	c := callback.Config{
		Crypts:   []*wechat.Crypt{newCrypt(t, messageToken, currentKey, component)},
		Forwards: []callback.Forward{forwardAll(s.URL)},
	}
	w := start(t, c)
	c.Crypts[0] = nil
	c.Forwards[0].URL, c.Forwards[0].AppIDs[0], c.Forwards[0].Events[0] = "", "", ""
	w.wantResponse(w.message(textDoc("hello")), 200)
	s.wantDeliveries(t, 1)
}

func TestResponsesOfServices(t *testing.T) {
	const noResponse, shortBody, longHead = 0, -1, -2 // in place of a status
	manyElements := strings.Repeat("<a/>", 2000)
	const sealedReply = "<xml><Encrypt>a</Encrypt><MsgSignature>b</MsgSignature></xml>"
	for name, tc := range map[string]struct {
		status int
		body   string
		want   int    // status of the response to WeChat
		result string // result label
	}{
		"success":               {200, "success", 200, "ok"},
		"upper case and spaces": {200, " \r\n SUCCESS\n", 200, "ok"},
		"success in quotes":     {200, `"success"`, 200, "ok"},
		"empty":                 {200, "", 200, "ok"},
		"blank":                 {200, " \n", 200, "ok"},
		"no content":            {204, "", 200, "ok"},
		"created":               {201, "success", 200, "ok"},
		"JSON":                  {200, `{"code":0}`, 200, "bad_reply"},
		"HTML":                  {200, "<html><body>ok</body></html>", 200, "bad_reply"},
		"truncated XML":         {200, "<xml><MsgType>text</MsgType>", 200, "bad_reply"},
		"two roots":             {200, "<xml/><xml/>", 200, "bad_reply"},
		"document type":         {200, `<!DOCTYPE xml [<!ENTITY a "b">]><xml>&a;</xml>`, 200, "bad_reply"},
		"success and more":      {200, "successful", 200, "bad_reply"},
		"control character":     {200, "<xml><a>\x01</a></xml>", 200, "bad_reply"},
		"text after the root":   {200, "<xml></xml>PHP Warning", 200, "bad_reply"},
		"too deep":              {200, deepDoc(20), 200, "bad_reply"},
		"too many elements":     {200, "<xml>" + manyElements + "</xml>", 200, "bad_reply"},
		"encrypted already":     {200, sealedReply, 200, "bad_reply"},
		"encrypted JSON":        {200, `{"Encrypt":"a","Nonce":"1"}`, 200, "bad_reply"},
		"over 1 MiB":            {200, "<xml>" + strings.Repeat(" ", 1<<20) + "</xml>", 200, "bad_reply"},
		"redirect":              {302, "", 500, "undelivered"},
		"not found":             {404, "success", 500, "undelivered"},
		"too many requests":     {429, "", 500, "undelivered"},
		"internal error":        {500, "success", 500, "undelivered"},
		"bad gateway":           {502, "<xml></xml>", 500, "undelivered"},
		"no response":           {noResponse, "", 500, "undelivered"},
		"truncated body":        {shortBody, "", 500, "undelivered"},
		"head over 64 KiB":      {longHead, "success", 500, "undelivered"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, func(w http.ResponseWriter, r *http.Request) {
				switch tc.status {
				case noResponse:
					panic(http.ErrAbortHandler)
				case shortBody:
					w.Header().Set("Content-Length", "100")
					_, _ = io.WriteString(w, "<xml>")
					panic(http.ErrAbortHandler)
				case longHead:
					w.Header().Set("X-Long", strings.Repeat("a", 65<<10))
				case 302:
					w.Header().Set("Location", "/elsewhere")
				}
				respondWith(max(tc.status, 200), tc.body)(w, r)
			})
			w := start(t, callback.Config{Forwards: []callback.Forward{forwardAll(withKey(s.URL))}})
			w.wantResponse(w.message(textDoc("hello SECRET")), tc.want) // the log must not hold SECRET
			w.wantCounted("message " + tc.result)
			s.wantDeliveries(t, 1)
			if tc.result != "ok" {
				w.wantLogged("forward[1]")
			}
			if strings.Contains(tc.body, "Encrypt") {
				w.wantLogged(`mode = \"raw\"`)
			}
		})
	}
}

// deepDoc returns a document with n elements inside each other.
func deepDoc(n int) string {
	return "<xml>" + strings.Repeat("<a>", n) + strings.Repeat("</a>", n) + "</xml>"
}

func TestFirstMatchingForwardDecides(t *testing.T) {
	var services []*fakeService
	rule := func(appids, events string) callback.Forward {
		s := newService(t, nil)
		services = append(services, s)
		return callback.Forward{AppIDs: strings.Fields(appids), Events: strings.Fields(events), URL: s.URL}
	}
	w := start(t, callback.Config{Forwards: []callback.Forward{
		rule(account, "text SUBSCRIBE"),
		rule("*", "weapp_audit_success authorized"),
		rule(account+" "+otherAccount, "event"),
		rule("", "*"), rule("*", ""),
		rule(otherAccount, "*"),
	}})
	for _, tc := range []struct {
		account, doc string
		rule         int // 0: none
	}{
		{account, textDoc("a"), 1},
		{account, messageDoc("TEXT", "<Content>a</Content>"), 1},
		{account, accountEventDoc("subscribe"), 1},
		{account, accountEventDoc("Subscribe"), 1},
		{account, accountEventDoc("unsubscribe"), 3},
		{account, accountEventDoc("weapp_audit_success"), 2},
		{account, messageDoc("image"), 0},
		{account, messageDoc("image", "<Event>subscribe</Event>"), 0}, // not an event
		{account, accountEventDoc("text"), 1},                         // MsgTypes and Events are not distinguished
		{account, accountEventDoc(""), 3},
		{otherAccount, textDoc("a"), 6},
		{otherAccount, accountEventDoc("subscribe"), 3},
		{otherAccount, messageDoc(""), 6},
		{thirdAccount, textDoc("a"), 0},
		{thirdAccount, accountEventDoc("weapp_audit_success"), 2},
	} {
		before := make([]int, len(services))
		for i, s := range services {
			before[i] = len(s.deliveries())
		}
		w.wantResponse(w.sendTo(tc.account, sealMessage(w.crypt, tc.doc)), 200)
		for i, s := range services {
			want := before[i]
			if i+1 == tc.rule {
				want++
			}
			if got := len(s.deliveries()); got != want {
				t.Errorf("%s for %s: service %d got %d requests, want %d", tc.doc, tc.account, i+1, got, want)
			}
		}
		want := "message ok"
		if tc.rule == 0 {
			want = "message ignored"
		}
		if counts := w.counted(); counts[len(counts)-1] != want {
			t.Errorf("%s for %s: counted %q, want %q", tc.doc, tc.account, counts[len(counts)-1], want)
		}
	}
}

func TestMessageWithoutForwardIsAnsweredWithSuccess(t *testing.T) {
	w := start(t, callback.Config{})
	w.wantResponse(w.message(textDoc("hello")), 200)
	w.wantCounted("message ignored")
}

// While the service is down, WeChat repeats the very same push. After success
// the push is a replay, and on the path of another account it is rejected.
func TestRepeatAfterServiceWasDown(t *testing.T) {
	down := newService(t, nil)
	w := start(t, callback.Config{Forwards: []callback.Forward{forwardAll(withKey(down.URL))}})
	down.Close()
	p := sealMessage(w.crypt, textDoc("hello"))
	w.wantResponse(w.sendTo(account, p), 500)
	w.wantResponse(w.sendTo(account, p), 500)
	w.wantLogged("connection refused")
	up := newService(t, nil)
	w.handler.Reconfigure(callback.Config{
		ComponentAppID: component, Crypts: []*wechat.Crypt{w.crypt}, Forwards: []callback.Forward{forwardAll(up.URL)},
	})
	w.wantResponse(w.sendTo(account, p), 200)
	w.wantResponse(w.sendTo(account, p), 200)
	w.wantResponse(w.sendTo(otherAccount, p), 403)
	w.wantCounted("message undelivered", "message undelivered", "message ok", "message replayed",
		"message wrong_account")
	up.wantDeliveries(t, 1)
}

// Equal messages one after the other are two messages: users write the same
// twice.
func TestEqualMessagesInTurnAreDelivered(t *testing.T) {
	s := newService(t, nil)
	w := start(t, callback.Config{Forwards: []callback.Forward{forwardAll(s.URL)}})
	for n := range 20 {
		w.wantResponse(w.message(textDoc("hello")), 200)
		s.wantDeliveries(t, n+1)
	}
}

func TestConcurrentMessagesGetTheirOwnReplies(t *testing.T) {
	s := newService(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "<xml><a>"+r.Header.Get("X-WX-APPID")+"</a></xml>")
	})
	w := start(t, callback.Config{Forwards: []callback.Forward{forwardAll(s.URL)}})
	var messages sync.WaitGroup
	for i := range 100 {
		messages.Go(func() {
			appid := fmt.Sprintf("wx%016d", i)
			w.wantReply(w.sendTo(appid, sealMessage(w.crypt, textDoc("hello"))), "<xml><a>"+appid+"</a></xml>")
		})
	}
	messages.Wait()
}

// What is rejected on the path of events is rejected here, too, and reaches no
// service.
func TestInvalidMessagesAreRejected(t *testing.T) {
	right := newCrypt(t, messageToken, currentKey, component)
	tests := rejectedWireFormats(t, func(c *wechat.Crypt) signed { return sealMessage(c, textDoc("hello")) })
	bomb := strings.Repeat("<a>", 2000) + strings.Repeat("</a>", 2000)
	for name, doc := range map[string]string{
		"document not XML":        "hello",
		"two MsgTypes":            "<xml><MsgType>text</MsgType><MsgType>event</MsgType></xml>",
		"too deep":                "<xml>" + bomb + "</xml>",
		"document with a DOCTYPE": `<!DOCTYPE xml><xml><MsgType>text</MsgType></xml>`,
	} {
		tests[name] = rejectedPush{sealMessage(right, doc), 400, "bad_message"}
	}
	for _, doc := range []string{ticketDoc(), authorizedDoc("authorized")} {
		tests[doc] = rejectedPush{sealMessage(right, doc), 400, "wrong_address"}
	}
	forAccount := sealMessage(newCrypt(t, messageToken, currentKey, account), textDoc("hello"))
	tests["trailing appid of the account"] = rejectedPush{forAccount, 403, "wrong_appid"}

	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s := newService(t, nil)
			w := start(t, callback.Config{Forwards: []callback.Forward{forwardAll(s.URL)}})
			w.wantResponse(w.sendTo(account, tc.push), tc.status)
			w.wantCounted("message " + tc.result)
			if !slices.Contains(callback.Events, "message") || !slices.Contains(callback.Results, tc.result) {
				t.Errorf("got labels message and %q, want them in Events and Results", tc.result)
			}
			s.wantDeliveries(t, 0)
		})
	}
}

// While the key is being changed, pushes arrive with both keys. The reply to
// each is made with its key, the only one that its sender surely has.
func TestReplyUsesKeyOfPush(t *testing.T) {
	const passive = "<xml><a>b</a></xml>"
	s := newService(t, respondWith(200, passive))
	current := newCrypt(t, messageToken, currentKey, component)
	previous := newCrypt(t, messageToken, previousKey, component)
	w := start(t, callback.Config{
		Crypts: []*wechat.Crypt{current, previous}, Forwards: []callback.Forward{forwardAll(s.URL)},
	})
	for _, c := range []*wechat.Crypt{current, previous} {
		r := w.sendTo(account, sealMessage(c, textDoc("hello")))
		if got := w.decryptReply(c, r); got != passive {
			t.Errorf("got reply %q, want %q", got, passive)
		}
	}
}
