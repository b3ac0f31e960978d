package callback_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/callback"
	"wxproxy/wechat"
)

// The whole way: what the service gets, and what the user is answered.
func TestMessageIsAnsweredByTheService(t *testing.T) {
	const passive = "<xml><ToUserName>a</ToUserName><MsgType>text</MsgType><Content>你好 <![CDATA[<b>]]></Content></xml>"
	s := newService(t, says(200, "\n"+passive+"\n"))
	l := start(t, callback.Config{Forwards: []callback.Forward{everything(withKey(s.URL))}})
	doc := text("hello")
	if got := l.unsealed(l.crypt, l.message(doc)); got != passive {
		t.Errorf("the user gets %q", got)
	}
	seen := s.got()
	if len(seen) != 1 || seen[0].body != doc || seen[0].path != "/wechat?key=SECRET" {
		t.Fatalf("the service got %q", seen)
	}
	h := seen[0].header
	if h.Get("Content-Type") != "text/xml" || h.Get("X-WX-APPID") != account || h.Get("X-WX-OPENID") != user || len(h.Get("X-Request-Id")) < 16 || h.Values("X-Idempotency-Key") != nil {
		t.Errorf("headers %v", h)
	}
	l.wants([]string{"message ok"})
	if !strings.Contains(l.logged(), h.Get("X-Request-Id")) {
		t.Error("the log does not name the delivery")
	}
	// An openid that cannot be one is not passed on; nor one that is there
	// twice.
	for _, more := range []string{"&openid=a%0d%0ab", "&openid=" + strings.Repeat("o", 65), "&openid=a&openid=b", "&openid=", ""} {
		p := toAccount(l.crypt, text("again"+more))
		if r := l.do(http.MethodPost, "/"+account+"/events?"+p.query()+more, strings.NewReader(string(p.body))); r.status != 200 {
			t.Errorf("%s: %d", more, r.status)
		}
		seen := s.got()
		if h := seen[len(seen)-1].header; h.Values("X-WX-OPENID") != nil {
			t.Errorf("%s: %v", more, h)
		}
	}
}

// What services answer, and what WeChat is told then.
func TestAnswersOfServices(t *testing.T) {
	for name, v := range map[string]struct {
		status  int
		text    string
		want    int
		counted string
	}{
		"success":             {200, "success", 200, "ok"},
		"any case and space":  {200, " \r\n SUCCESS\n", 200, "ok"},
		"in quotes":           {200, `"success"`, 200, "ok"},
		"empty":               {200, "", 200, "ok"},
		"blank":               {200, " \n", 200, "ok"},
		"no content":          {204, "", 200, "ok"},
		"created":             {201, "success", 200, "ok"},
		"JSON":                {200, `{"code":0}`, 200, "bad_reply"},
		"a page":              {200, "<html><body>ok</body></html>", 200, "bad_reply"},
		"XML cut off":         {200, "<xml><MsgType>text</MsgType>", 200, "bad_reply"},
		"two roots":           {200, "<xml/><xml/>", 200, "bad_reply"},
		"a document type":     {200, `<!DOCTYPE xml [<!ENTITY a "b">]><xml>&a;</xml>`, 200, "bad_reply"},
		"success and more":    {200, "successful", 200, "bad_reply"},
		"over 1 MiB":          {200, "<xml>" + strings.Repeat(" ", 1<<20) + "</xml>", 200, "bad_reply"},
		"redirect":            {302, "", 500, "undelivered"},
		"not found":           {404, "success", 500, "undelivered"},
		"busy":                {429, "", 500, "undelivered"},
		"broken":              {500, "success", 500, "undelivered"},
		"bad gateway":         {502, "<xml></xml>", 500, "undelivered"},
		"not even an answer":  {0, "", 500, "undelivered"},
		"the answer is short": {-1, "", 500, "undelivered"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, func(w http.ResponseWriter, r *http.Request) {
				switch v.status {
				case 0:
					panic(http.ErrAbortHandler)
				case -1:
					w.Header().Set("Content-Length", "100")
					_, _ = io.WriteString(w, "<xml>")
					panic(http.ErrAbortHandler)
				case 302:
					w.Header().Set("Location", "/elsewhere")
				}
				says(v.status, v.text)(w, r)
			})
			l := start(t, callback.Config{Forwards: []callback.Forward{everything(withKey(s.URL))}})
			l.is(l.message(text("hello SECRET")), v.want) // "SECRET" must not be in the log
			l.wants([]string{"message " + v.counted})
			if got := s.got(); len(got) != 1 {
				t.Errorf("the service was asked %d times", len(got))
			}
			if v.counted != "ok" && !strings.Contains(l.logged(), "forward[1]") {
				t.Errorf("the log does not say who:\n%s", l.logged())
			}
		})
	}
}

func TestRulesOfForwards(t *testing.T) {
	const other = "wx0000000000000001"
	var services []*service
	rule := func(appids, events string) callback.Forward {
		s := newService(t, nil)
		services = append(services, s)
		return callback.Forward{AppIDs: strings.Fields(appids), Events: strings.Fields(events), URL: s.URL}
	}
	l := start(t, callback.Config{Forwards: []callback.Forward{
		rule(account, "text SUBSCRIBE"),
		rule("*", "weapp_audit_success authorized"),
		rule(account+" "+other, "event"),
		rule("", "*"), rule("*", ""),
		rule(other, "*"),
	}})
	f := func(account, doc string, want int) {
		t.Helper()
		before := make([]int, len(services))
		for i, s := range services {
			before[i] = len(s.got())
		}
		l.is(l.sendTo(account, toAccount(l.crypt, doc)), 200)
		for i, s := range services {
			n := 0
			if i+1 == want {
				n = 1
			}
			if got := len(s.got()) - before[i]; got != n {
				t.Errorf("%s: service %d got %d, want %d", doc, i+1, got, n)
			}
		}
		result := "message ok"
		if want == 0 {
			result = "message ignored"
		}
		if c := l.counted(); c[len(c)-1] != result {
			t.Errorf("counted %s", c[len(c)-1])
		}
	}
	f(account, text("a"), 1)
	f(account, message("TEXT", "<Content>a</Content>"), 1)
	f(account, event("subscribe"), 1)
	f(account, event("Subscribe"), 1)
	f(account, event("unsubscribe"), 3)
	f(account, event("weapp_audit_success"), 2)
	f(account, message("image"), 0)
	f(account, message("image", "<Event>subscribe</Event>"), 0) // no event
	f(account, event("text"), 1)                                // by either name
	f(account, event(""), 3)
	f(other, text("a"), 6)
	f(other, event("subscribe"), 3)
	f(other, message(""), 6)
	f("wx0000000000000002", text("a"), 0)
	f("wx0000000000000002", event("weapp_audit_success"), 2)
}

func TestNoRuleIsSuccess(t *testing.T) {
	l := start(t, callback.Config{})
	l.is(l.message(text("hello")), 200)
	l.wants([]string{"message ignored"})
}

// A slow service does not keep WeChat waiting, and WeChat repeats.
func TestSlowService(t *testing.T) {
	gone := make(chan struct{})
	s := newService(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
			close(gone)
		case <-time.After(20 * time.Second):
			t.Error("nobody hung up")
		}
	})
	l := start(t, callback.Config{MessageTimeout: 300 * time.Millisecond, Forwards: []callback.Forward{everything(s.URL)}})
	p := toAccount(l.crypt, text("hello"))
	l.is(l.sendTo(account, p), 500)
	<-gone
	s.change(says(200, "<xml><a>late</a></xml>"))
	// Generous from here on: 300 ms are short for a busy machine.
	eventually(t, "the repeat is answered", func() bool { return l.sendTo(account, p).status == 200 })
	if c := l.counted(); c[0] != "message undelivered" || c[len(c)-1] != "message ok" {
		t.Errorf("counted %q", c)
	}
}

// The service is down; WeChat's repeat, the very same push, finds it back.
// After success it is a replay.
func TestServiceDownAndBack(t *testing.T) {
	s := newService(t, nil)
	addr := s.URL
	l := start(t, callback.Config{Forwards: []callback.Forward{everything(addr + "/wechat?key=SECRET")}})
	s.Close()
	p := toAccount(l.crypt, text("hello"))
	l.is(l.sendTo(account, p), 500)
	l.is(l.sendTo(account, p), 500)
	if !strings.Contains(l.logged(), "connection refused") {
		t.Errorf("the log does not say why:\n%s", l.logged())
	}
	back := newService(t, nil)
	l.handler.Reconfigure(callback.Config{ComponentAppID: component, Crypts: []*wechat.Crypt{l.crypt}, Forwards: []callback.Forward{everything(back.URL)}})
	l.is(l.sendTo(account, p), 200)
	l.is(l.sendTo(account, p), 409)
	l.is(l.sendTo("wx0000000000000001", p), 409) // to another account's address either
	l.wants([]string{"message undelivered", "message undelivered", "message ok", "message replayed", "message replayed"})
	if n := len(back.got()); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// patiently tries with longer and longer pauses: when a server sees that
// somebody has hung up, or waits, nobody outside can tell.
func patiently(t *testing.T, try func(pause time.Duration) (problem string)) {
	t.Helper()
	problem := ""
	for _, pause := range []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second, 5 * time.Second} {
		if problem = try(pause); problem == "" {
			return
		}
	}
	t.Error(problem)
}

// held is a service that answers when it is released.
func held(t *testing.T) (s *service, l *listener, release func()) {
	hold := make(chan struct{})
	s = newService(t, func(w http.ResponseWriter, r *http.Request) {
		<-hold
		says(200, "<xml><a>answer</a></xml>")(w, r)
	})
	release = sync.OnceFunc(func() { close(hold) })
	t.Cleanup(release)
	return s, start(t, callback.Config{MessageTimeout: 20 * time.Second, Forwards: []callback.Forward{everything(s.URL)}}), release
}

// WeChat gives up on a push and repeats it: one that was signed anew, and the
// very same one. The service is asked once, and the user gets its answer.
func TestRepeatWhileTheFirstIsUnderWay(t *testing.T) {
	for name, again := range map[string]func(*listener, signed) signed{
		"signed anew":   func(l *listener, _ signed) signed { return toAccount(l.crypt, text("hello")) },
		"the very same": func(_ *listener, s signed) signed { return s },
	} {
		t.Run(name, func(t *testing.T) {
			patiently(t, func(pause time.Duration) string {
				s, l, release := held(t)
				first := toAccount(l.crypt, text("hello"))
				l.hangUp(account, first, func() bool { return len(s.got()) == 1 })
				var r reply
				var wg sync.WaitGroup
				wg.Go(func() { r = l.sendTo(account, again(l, first)) })
				time.Sleep(pause)
				release()
				wg.Wait()
				if r.status != 200 || len(s.got()) != 1 {
					return fmt.Sprintf("answered %d, the service was asked %d times", r.status, len(s.got()))
				}
				if got := l.unsealed(l.crypt, r); got != "<xml><a>answer</a></xml>" {
					t.Errorf("%q", got)
				}
				return ""
			})
		})
	}
}

// The answer came when WeChat had gone: it is kept for the repeat, once.
func TestAnswerThatReachedNobody(t *testing.T) {
	patiently(t, func(pause time.Duration) string {
		s, l, release := held(t)
		l.hangUp(account, toAccount(l.crypt, text("hello")), func() bool { return len(s.got()) == 1 })
		time.Sleep(pause)
		release()
		eventually(t, "the answer is there", func() bool { return len(l.counted()) == 1 })
		for n := range 2 {
			if got := l.unsealed(l.crypt, l.message(text("hello"))); got != "<xml><a>answer</a></xml>" {
				t.Errorf("%q", got)
			}
			if len(s.got()) != 1+n {
				return fmt.Sprintf("at repeat %d the service was asked %d times", n+1, len(s.got()))
			}
		}
		return ""
	})
}

// Equal messages one after the other are two messages: users write the same
// twice.
func TestEqualMessagesInTurn(t *testing.T) {
	s := newService(t, nil)
	l := start(t, callback.Config{Forwards: []callback.Forward{everything(s.URL)}})
	for n := range 20 {
		l.is(l.message(text("hello")), 200)
		if got := len(s.got()); got != n+1 {
			t.Fatalf("%d of %d", got, n+1)
		}
	}
}

func TestMessagesAtOnce(t *testing.T) {
	s := newService(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "<xml><a>"+r.Header.Get("X-WX-APPID")+"</a></xml>")
	})
	l := start(t, callback.Config{MessageTimeout: 20 * time.Second, Forwards: []callback.Forward{everything(s.URL)}})
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			appid := fmt.Sprintf("wx%016d", i)
			if got := l.unsealed(l.crypt, l.sendTo(appid, toAccount(l.crypt, text("hello")))); got != "<xml><a>"+appid+"</a></xml>" {
				t.Errorf("%s: %s", appid, got)
			}
		})
	}
	wg.Wait()
}

// Everything that is refused on the other address is refused here, and reaches
// no service.
func TestMessageRefusals(t *testing.T) {
	right := crypt(t, messageToken, currentKey, component)
	change := func(f func(*signed)) signed {
		s := toAccount(right, text("hello"))
		f(&s)
		return s
	}
	for name, v := range map[string]struct {
		push   signed
		status int
		result string
	}{
		"no signature":           {change(func(s *signed) { s.signature = "" }), 400, "bad_message"},
		"wrong signature":        {change(func(s *signed) { s.signature = strings.Repeat("0", 40) }), 403, "bad_signature"},
		"weak signature":         {change(func(s *signed) { s.signature = right.Signature(s.timestamp, s.nonce, "") }), 403, "bad_signature"},
		"another time":           {change(func(s *signed) { s.timestamp = "1512627535" }), 403, "bad_signature"},
		"another key":            {toAccount(crypt(t, messageToken, previousKey, component), text("a")), 400, "undecryptable"},
		"another token":          {toAccount(crypt(t, "otherToken", currentKey, component), text("a")), 403, "bad_signature"},
		"for another component":  {toAccount(crypt(t, messageToken, currentKey, "wx0000000000000000"), text("a")), 403, "wrong_appid"},
		"for the account itself": {toAccount(crypt(t, messageToken, currentKey, account), text("a")), 403, "wrong_appid"},
		"plain":                  {change(func(s *signed) { s.body = []byte(text("hello")) }), 400, "bad_message"},
		"JSON":                   {change(func(s *signed) { s.body = []byte(`{"Encrypt":"a"}`) }), 400, "bad_message"},
		"empty":                  {change(func(s *signed) { s.body = nil }), 400, "bad_message"},
		"inside no XML":          {toAccount(right, "hello"), 400, "bad_message"},
		"two types":              {toAccount(right, "<xml><MsgType>text</MsgType><MsgType>event</MsgType></xml>"), 400, "bad_message"},
		"bomb":                   {toAccount(right, "<xml>"+strings.Repeat("<a>", 2000)+strings.Repeat("</a>", 2000)+"</xml>"), 400, "bad_message"},
		"document type":          {toAccount(right, `<!DOCTYPE xml><xml><MsgType>text</MsgType></xml>`), 400, "bad_message"},
		"a ticket":               {toAccount(right, ticketDoc()), 400, "bad_message"},
		"an authorization":       {toAccount(right, authorizedDoc("authorized")), 400, "bad_message"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, nil)
			l := start(t, callback.Config{Forwards: []callback.Forward{everything(s.URL)}})
			l.is(l.sendTo(account, v.push), v.status)
			l.wants([]string{"message " + v.result})
			if !slices.Contains(callback.Events, "message") || !slices.Contains(callback.Results, v.result) {
				t.Error("counted under a word that is on no list")
			}
			if got := s.got(); len(got) != 0 {
				t.Errorf("the service got %q", got)
			}
		})
	}
}

func TestTooLongMessageIsNotWaitedFor(t *testing.T) {
	l := start(t, callback.Config{})
	l.is(l.raw(l.dial(), "POST", "POST /"+account+"/events?"+toAccount(l.crypt, text("a")).query()+" HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n"), http.StatusRequestEntityTooLarge)
	l.wants([]string{"message too_large"})
}

// While the key is being changed pushes come with either; the reply is made
// with the current one.
func TestReplyHasTheCurrentKey(t *testing.T) {
	s := newService(t, says(200, "<xml><a>b</a></xml>"))
	current, previous := crypt(t, messageToken, currentKey, component), crypt(t, messageToken, previousKey, component)
	l := start(t, callback.Config{Crypts: []*wechat.Crypt{current, previous}, Forwards: []callback.Forward{everything(s.URL)}})
	for _, c := range []*wechat.Crypt{current, previous} {
		if got := l.unsealed(current, l.sendTo(account, toAccount(c, text("hello")))); got != "<xml><a>b</a></xml>" {
			t.Errorf("%q", got)
		}
	}
}

// A panic in what answers lets the repeat through.
func TestPanicInTheChecker(t *testing.T) {
	x := exchanger{do: func(int) error { panic("SECRET") }}
	v := start(t, callback.Config{ExchangeCode: x.exchange, SendText: func(context.Context, string, string, string) error { panic("SECRET") }})
	v.empty(v.sendTo(checker, toAccount(v.crypt, text("QUERY_AUTH_CODE:"+theCode))))
	eventually(t, "the panic is logged", func() bool { return strings.Contains(v.logged(), "BUG: panic") })
	if err := v.handler.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
