package callback_test

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"wxproxy/callback"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

const (
	ownAccount = "wxba5fad812f8e6fb9"
	ownToken   = "ownTokenSECRET"
	ownKey     = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)

// ownApp returns the own account of the tests; hasKey: with a message_key.
func ownApp(t testing.TB, hasKey bool) callback.App {
	t.Helper()
	a := callback.App{AppID: ownAccount, Token: wechat.NewSecret(ownToken)}
	if hasKey {
		a.Crypt = newCrypt(t, ownToken, ownKey, ownAccount)
	}
	return a
}

// ownDoc is a message of a user, as XML or JSON.
func ownDoc(isJSON bool) string {
	if isJSON {
		return `{"ToUserName":"` + originalID + `","FromUserName":"` + user + `","CreateTime":` +
			strconv.FormatInt(time.Now().Unix(), 10) + `,"MsgType":"text","Content":"hi <\"",` +
			`"MsgId":12345678901234567}`
	}
	return textDoc("hi <")
}

// ownPush is a push as it is sent to an own account's path.
type ownPush struct {
	query             url.Values
	body, contentType string
}

// newOwnPush makes a push of a document in plain, compatible or safe mode, with
// the token and key of c; token signs plain pushes.
func newOwnPush(mode, token string, c *wechat.Crypt, doc string, at time.Time) ownPush {
	timestamp, nonce := strconv.FormatInt(at.Unix(), 10), "1990219412"
	p := ownPush{body: doc, contentType: "text/xml", query: url.Values{
		"timestamp": {timestamp}, "nonce": {nonce}, "openid": {user},
		"signature": {wechat.Signature(wechat.NewSecret(token), timestamp, nonce)},
	}}
	isJSON := strings.HasPrefix(doc, "{")
	if isJSON {
		p.contentType = "application/json"
	}
	if mode == "plain" {
		return p
	}
	encrypted := c.Encrypt([]byte(doc))
	p.query.Set("encrypt_type", "aes")
	p.query.Set("msg_signature", c.Signature(timestamp, nonce, encrypted))
	// In compatible mode the fields beside Encrypt are not signed: here they
	// are a forger's.
	switch {
	case mode == "compatible" && isJSON:
		p.body = `{"ToUserName":"gh_forged","MsgType":"event","Content":"forged",` +
			`"Encrypt":"` + encrypted + `"}`
	case mode == "compatible":
		p.body = "<xml><ToUserName>gh_forged</ToUserName>\n<MsgType>event</MsgType>\n" +
			"<Content><![CDATA[]]></Content><Encrypt>QUJD</Encrypt>" +
			"<Content><![CDATA[]]></Content>\n" +
			"<Encrypt><![CDATA[" + encrypted + "]]></Encrypt>\n</xml>"
	case isJSON:
		p.body = `{"ToUserName":"` + originalID + `","Encrypt":"` + encrypted + `"}`
	default:
		p.body = "<xml><ToUserName><![CDATA[" + originalID + "]]></ToUserName>\n" +
			"<Encrypt><![CDATA[" + encrypted + "]]></Encrypt>\n</xml>"
	}
	return p
}

// sendOwn sends a push to the path of an account.
func (w *env) sendOwn(path string, p ownPush) response {
	w.t.Helper()
	target := "/" + path + "/events?" + p.query.Encode()
	return w.request(http.MethodPost, target, strings.NewReader(p.body))
}

// openReply returns the passive reply in a response, and checks its form.
func openReply(t *testing.T, r response, c *wechat.Crypt, mode string, isJSON bool) string {
	t.Helper()
	wantType := "text/xml; charset=utf-8"
	if isJSON {
		wantType = "application/json; charset=utf-8"
	}
	if got := r.header.Get("Content-Type"); r.status != http.StatusOK || got != wantType ||
		r.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Fatalf("got response %d of type %q, want 200 and %q", r.status, got, wantType)
	}
	if mode == "plain" {
		return r.body
	}
	var sealed struct {
		Encrypt, MsgSignature, Nonce string
		TimeStamp                    int64
	}
	parse := xml.Unmarshal
	if isJSON {
		parse = json.Unmarshal
	}
	if err := parse([]byte(r.body), &sealed); err != nil {
		t.Fatalf("got reply %q (%v), want JSON: %v", r.body, err, isJSON)
	}
	timestamp := strconv.FormatInt(sealed.TimeStamp, 10)
	doc, err := c.Open(sealed.MsgSignature, timestamp, sealed.Nonce, sealed.Encrypt)
	if err != nil {
		t.Fatalf("opening the reply: %v", err)
	}
	return string(doc)
}

// TestOwnAccountPushes: an own account's pushes reach the service byte for byte
// and are answered in their own form. Mode plain, compatible, safe × XML, JSON
// × with a component configured, without.
func TestOwnAccountPushes(t *testing.T) {
	for _, mode := range []string{"plain", "compatible", "safe"} {
		for _, isJSON := range []bool{false, true} {
			for _, hasComponent := range []bool{false, true} {
				name := fmt.Sprint(mode, " JSON ", isJSON, " component ", hasComponent)
				t.Run(name, func(t *testing.T) {
					testOwnAccountPush(t, mode, isJSON, hasComponent)
				})
			}
		}
	}
}

func testOwnAccountPush(t *testing.T, mode string, isJSON, hasComponent bool) {
	reply, contentType := "<xml><MsgType>text</MsgType></xml>", "text/xml"
	if isJSON {
		reply, contentType = `{"demo_resp":"good luck"}`, "application/json"
	}
	s := newService(t, respondWith(200, reply))
	app := ownApp(t, mode != "plain")
	c := callback.Config{Apps: []callback.App{app}, Forwards: []callback.Forward{forwardAll(s.URL)}}
	w := start(t, c)
	if !hasComponent {
		w.handler.Reconfigure(c) // start adds a component
	}
	doc := ownDoc(isJSON)
	p := newOwnPush(mode, ownToken, app.Crypt, doc, time.Now())
	for range 2 { // the second one is a repeat
		r := w.sendOwn(ownAccount, p)
		if got := openReply(t, r, app.Crypt, mode, isJSON); got != reply {
			t.Errorf("got reply %q, want %q", got, reply)
		}
	}
	seen := s.deliveries()
	if len(seen) != 1 || seen[0].body != doc {
		t.Fatalf("got deliveries %q, want one of %q", seen, doc)
	}
	for name, want := range map[string]string{
		"Content-Type": contentType, "X-WX-APPID": ownAccount, "X-WX-OPENID": user,
	} {
		if got := seen[0].header.Get(name); got != want {
			t.Errorf("header %s: got %q, want %q", name, got, want)
		}
	}
	w.wantCounted("message ok", "message replayed")
}

// TestOwnAccountRejections: pushes on an own account's path that are not what
// WeChat made for it get 4xx, reach no service and use up nothing: the genuine
// push that follows is handled. With a message_key × without.
func TestOwnAccountRejections(t *testing.T) {
	now := time.Now()
	crypt := ownApp(t, true).Crypt
	plain := func(change func(*ownPush)) ownPush {
		p := newOwnPush("plain", ownToken, nil, ownDoc(false), now)
		change(&p)
		return p
	}
	safe := func(change func(*ownPush)) ownPush {
		p := newOwnPush("safe", ownToken, crypt, ownDoc(true), now)
		change(&p)
		return p
	}
	same := func(*ownPush) {}
	otherToken := newOwnPush("plain", "anotherToken", nil, ownDoc(false), now)
	safeWith := func(key, appid string) ownPush {
		return newOwnPush("safe", ownToken, newCrypt(t, ownToken, key, appid), ownDoc(false), now)
	}
	at := func(signed time.Time) ownPush {
		return newOwnPush("plain", ownToken, nil, ownDoc(true), signed)
	}
	body := func(body string) ownPush { return plain(func(p *ownPush) { p.body = body }) }
	safeSet := func(values ...string) ownPush {
		return safe(func(p *ownPush) { p.query["msg_signature"] = values })
	}
	signature := safe(same).query.Get("signature")
	deep := `{"MsgType":"text","a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "}"
	for name, tc := range map[string]struct {
		hasKey bool
		push   ownPush
		status int
		result string
		log    string
	}{
		"plain, key": {true, plain(same), 403, "bad_signature", "safe mode"},
		"plain, key, wrong token": {
			true, otherToken, 403, "bad_signature", "another message token",
		},
		"plain, wrong token": {
			false, otherToken, 403, "bad_signature", "another message token",
		},
		"plain, no signature": {false, plain(func(p *ownPush) {
			p.query.Del("signature")
		}), 400, "bad_message", ""},
		"plain, two signatures": {false, plain(func(p *ownPush) { p.query.Add("signature", "a") }),
			400, "bad_message", ""},
		"plain, two timestamps": {false, plain(func(p *ownPush) { p.query.Add("timestamp", "1") }),
			400, "bad_message", ""},
		"plain, old": {false, at(now.Add(-time.Hour)),
			403, "wrong_time", "signed"},
		"plain, ahead": {false, at(now.Add(time.Hour)),
			403, "wrong_time", "ahead"},
		"plain, no document": {false, body("hello"), 400, "bad_message", ""},
		"plain, deep JSON":   {false, body(deep), 400, "bad_message", ""},
		"plain, cut off JSON": {false, body(`{"MsgType":"text"`),
			400, "bad_message", ""},
		"plain, name twice": {false, body(`{"MsgType":"text","MsgType":"event"}`),
			400, "bad_message", "twice"},
		"plain, XML behind JSON": {false, body(ownDoc(true) + ownDoc(false)),
			400, "bad_message", ""},
		"encrypted, no key": {false, safe(same), 400, "undecryptable", "no message_key"},
		"encrypted, Encrypt twice": {true, safe(func(p *ownPush) {
			p.body = strings.Replace(p.body, "{", `{"Encrypt":"QUJD",`, 1)
		}),
			400, "bad_message", "twice"},
		"encrypted, plain beside": {true, safe(func(p *ownPush) {
			p.body = ownDoc(true)
		}), 400, "bad_message", "no Encrypt"},
		"encrypted, two msg_signatures": {true, safeSet("a", "b"),
			400, "bad_message", ""},
		"encrypted, empty msg_signature": {true, safeSet(""),
			400, "bad_message", ""},
		"encrypted, wrong msg_signature": {true, safeSet(strings.Repeat("0", 40)),
			403, "bad_signature", ""},
		"encrypted, signature as msg_signature": {
			true, safeSet(signature), 403, "bad_signature", "",
		},
		"encrypted, another account's": {
			true, safeWith(ownKey, otherAccount), 403, "wrong_appid", "",
		},
		"encrypted, another key": {
			true, safeWith(currentKey, ownAccount), 400, "undecryptable", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, nil)
			w := start(t, callback.Config{
				Apps:     []callback.App{ownApp(t, tc.hasKey)},
				Forwards: []callback.Forward{forwardAll(s.URL)},
			})
			w.wantResponse(w.sendOwn(ownAccount, tc.push), tc.status)
			w.wantCounted("message " + tc.result)
			w.wantLogged(tc.log)
			genuine := plain(same)
			if tc.hasKey {
				genuine = safe(same)
			}
			w.wantResponse(w.sendOwn(ownAccount, genuine), 200)
			if n := len(s.deliveries()); n != 1 {
				t.Errorf("got %d deliveries, want that of the genuine push", n)
			}
		})
	}
}

// TestLargeOwnPush: a body over 1 MiB is rejected before it arrives, and one
// that takes too long. Declared length × chunked × a body that does not come.
func TestLargeOwnPush(t *testing.T) {
	p := newOwnPush("plain", ownToken, nil, ownDoc(true), time.Now())
	head := "POST /" + ownAccount + "/events?" + p.query.Encode() + " HTTP/1.1\r\nHost: a\r\n"
	large := strings.Repeat("a", 1<<20+1)
	for name, tc := range map[string]struct {
		rest    string
		timeout time.Duration
		status  int
	}{
		"declared": {"Content-Length: 1048577\r\n\r\n", 0, 413},
		"chunked":  {"Transfer-Encoding: chunked\r\n\r\n100001\r\n" + large, 0, 413},
		"slow":     {"Content-Length: 100\r\n\r\n{", 50 * time.Millisecond, 408},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, callback.Config{
				Apps: []callback.App{ownApp(t, false)}, MessageTimeout: tc.timeout,
			})
			w.wantResponse(w.raw(w.dial(), http.MethodPost, head+tc.rest), tc.status)
		})
	}
}

// TestCapturedPlainSignature: the signature of a push in plain mode does not
// cover its body. With another body, at another account with the same token,
// and with timestamp and nonce exchanged, it is rejected, and the service gets
// nothing. In the process that handled the push; another process
// answers success and does nothing.
func TestCapturedPlainSignature(t *testing.T) {
	s := newService(t, respondWith(200, "<xml><Content>for the user alone</Content></xml>"))
	twin := callback.App{AppID: otherAccount, Token: wechat.NewSecret(ownToken)}
	c := callback.Config{
		Apps:     []callback.App{ownApp(t, false), twin},
		Forwards: []callback.Forward{forwardAll(s.URL)}, Claims: store.NewMemory(),
	}
	w := start(t, c)
	p := newOwnPush("plain", ownToken, nil, ownDoc(false), time.Now())
	if r := w.sendOwn(ownAccount, p); r.status != 200 || !strings.Contains(r.body, "alone") {
		t.Fatalf("got response %d %q, want the reply", r.status, r.body)
	}
	forged := p
	forged.body = strings.Replace(p.body, "hi", "forged", 1)
	w.wantResponse(w.sendOwn(ownAccount, forged), 403)
	w.wantResponse(w.sendOwn(otherAccount, p), 403)
	exchanged := forged
	exchanged.query = url.Values{
		"signature": p.query["signature"],
		"timestamp": p.query["nonce"], "nonce": p.query["timestamp"],
	}
	w.wantResponse(w.sendOwn(ownAccount, exchanged), 403)
	w.wantCounted("message ok", "message bad_signature", "message wrong_account",
		"message wrong_time")

	another := start(t, c)
	another.wantResponse(another.sendOwn(ownAccount, forged), 200)
	another.wantCounted("message replayed")

	// A signature is used up by a push that no rule matches, too.
	p = newOwnPush("plain", ownToken, nil, ownDoc(false), time.Now().Add(-time.Minute))
	forged = p
	p.body = strings.ReplaceAll(p.body, "text", "voice")
	c.Forwards[0].Events = []string{"text"}
	w.handler.Reconfigure(c)
	w.wantResponse(w.sendOwn(ownAccount, p), 200)
	another.wantResponse(another.sendOwn(ownAccount, forged), 200)
	another.wantCounted("message replayed", "message replayed")
	if n := len(s.deliveries()); n != 1 {
		t.Errorf("got %d deliveries, want 1", n)
	}
}

// TestPlainPushAfterAKill: a process that was killed after it had claimed a
// push in plain mode, and before it queued the copy, loses nothing: WeChat's
// repeat queues it, once. After that, or after a push that was not interrupted,
// its signature queues no other body, in no process.
func TestPlainPushAfterAKill(t *testing.T) {
	for _, killed := range []bool{true, false} {
		s, memory := newService(t, nil), store.NewMemory()
		c := callback.Config{
			Apps: []callback.App{ownApp(t, false)}, Claims: memory,
			Queue: memory.(store.Queuer).Queue(), ClaimTimeout: 2 * time.Minute,
			Forwards: []callback.Forward{withMode(forwardAll(s.URL), callback.ModeQueue)},
		}
		p := newOwnPush("plain", ownToken, nil, ownDoc(false), time.Now())
		if killed {
			_, err := memory.Claim(t.Context(), "push/"+p.query.Get("signature"),
				time.Now().Add(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
		}
		forged := p
		forged.body = strings.Replace(p.body, "hi", "forged", 1)
		for _, next := range []ownPush{p, forged, p, forged} {
			w := start(t, c) // another process
			w.wantResponse(w.sendOwn(ownAccount, next), 200)
		}
		eventually(t, "the queue is empty", func() bool {
			waiting := 0
			err := c.Queue.Scan(t.Context(), func(store.QueueEntry) bool { waiting++; return true })
			return err == nil && waiting == 0
		})
		s.wantDeliveries(t, 1)
		if d := s.deliveries(); len(d) > 0 && d[0].body != p.body {
			t.Errorf("killed %v: got %q queued, want %q", killed, d[0].body, p.body)
		}
	}
}

// TestAccountWithTwoKeys: an own account that is authorized to the component,
// too, gets both kinds of pushes on its path, and each is answered with the key
// of the push. A push with the own key is accepted on no other path. The own
// account in safe mode × in plain mode.
func TestAccountWithTwoKeys(t *testing.T) {
	const reply = "<xml><MsgType>text</MsgType></xml>"
	for _, mode := range []string{"safe", "plain"} {
		s := newService(t, respondWith(200, reply))
		app := ownApp(t, mode == "safe")
		w := start(t, callback.Config{
			Apps: []callback.App{app}, Forwards: []callback.Forward{forwardAll(s.URL)},
		})
		own := newOwnPush(mode, ownToken, app.Crypt, ownDoc(false), time.Now())
		if got := openReply(t, w.sendOwn(ownAccount, own), app.Crypt, mode, false); got != reply {
			t.Errorf("%s: got reply %q to the own push", mode, got)
		}
		authorized := newOwnPush("safe", messageToken, w.crypt, textDoc("other"), time.Now())
		got := openReply(t, w.sendOwn(ownAccount, authorized), w.crypt, "safe", false)
		if got != reply {
			t.Errorf("%s: got reply %q to the component's push", mode, got)
		}
		own = newOwnPush(mode, ownToken, app.Crypt, ownDoc(false), time.Now().Add(-time.Minute))
		status := map[string]int{"safe": 403, "plain": 400}[mode]
		w.wantResponse(w.sendOwn(account, own), status)
		w.wantResponse(w.request(http.MethodPost, "/component/events?"+own.query.Encode(),
			strings.NewReader(own.body)), status)
		if n := len(s.deliveries()); n != 2 {
			t.Errorf("%s: got %d deliveries, want 2", mode, n)
		}
	}
}

// TestOwnAccountAddressee: a message whose ToUserName is known to be another
// account's is rejected. Known, another's × unknown × store unavailable, safe ×
// plain. IsFor, which draws conclusions from messages, is not asked.
func TestOwnAccountAddressee(t *testing.T) {
	for _, mode := range []string{"safe", "plain"} {
		for name, tc := range map[string]struct {
			is     bool
			err    error
			status int
		}{
			"another's":   {true, nil, 403},
			"unknown":     {false, nil, 200},
			"unavailable": {true, context.DeadlineExceeded, 200},
		} {
			app := ownApp(t, mode == "safe")
			w := start(t, callback.Config{
				Apps: []callback.App{app},
				IsFor: func(context.Context, string, string) (bool, error) {
					t.Errorf("%s, %s: IsFor was asked", mode, name)
					return true, nil
				},
				IsAnothers: func(_ context.Context, appid, userName string) (bool, error) {
					if appid != ownAccount || userName != originalID {
						t.Errorf("got question about %s and %s", appid, userName)
					}
					return tc.is, tc.err
				},
			})
			p := newOwnPush(mode, ownToken, app.Crypt, ownDoc(true), time.Now())
			w.wantResponse(w.sendOwn(ownAccount, p), tc.status)
		}
	}
}

// TestReconfiguredOwnAccount: accounts and keys that a reload adds, changes and
// removes count from the next push on.
func TestReconfiguredOwnAccount(t *testing.T) {
	c := callback.Config{}
	w := start(t, c)
	send := func(mode string) response {
		crypt := ownApp(t, true).Crypt
		return w.sendOwn(ownAccount, newOwnPush(mode, ownToken, crypt, ownDoc(true), time.Now()))
	}
	w.handler.Reconfigure(c)
	w.wantResponse(send("safe"), 404)
	c.Apps = []callback.App{ownApp(t, true)}
	w.handler.Reconfigure(c)
	c.Apps[0] = callback.App{} // the configuration is copied
	w.wantResponse(send("safe"), 200)
	w.wantResponse(send("plain"), 403)
	c.Apps[0] = ownApp(t, false)
	w.handler.Reconfigure(c)
	w.wantResponse(send("plain"), 200)
	w.wantResponse(send("safe"), 400)
	c.Apps[0].Token = wechat.Secret{}
	w.handler.Reconfigure(c)
	w.wantResponse(send("plain"), 404)
}

// TestURLCheck: WeChat's check of the URL of an own account is answered with
// its echostr and nothing else, at any age, with a message_key × without.
// Rejected: a wrong or repeated signature, an echostr that is missing or
// repeated, too long, or of characters that mean something to a browser, and
// accounts without keys.
func TestURLCheck(t *testing.T) {
	check := func(at string, echo ...string) url.Values {
		return url.Values{"timestamp": {at}, "nonce": {"1514711492"}, "echostr": echo,
			"signature": {wechat.Signature(wechat.NewSecret(ownToken), at, "1514711492")}}
	}
	now := strconv.FormatInt(time.Now().Unix(), 10)
	set := func(q url.Values, name string, values ...string) url.Values {
		q[name] = values
		return q
	}
	const echo = "4375120948345356249"
	for name, tc := range map[string]struct {
		path   string
		query  url.Values
		status int
	}{
		"now":  {ownAccount, check(now, echo), 200},
		"old":  {ownAccount, check("1714036504", echo), 200},
		"word": {ownAccount, check(now, "a_B-9"), 200},
		// Base64, and what a browser must not take for a page; see wantHeaders.
		"base64": {ownAccount, check(now, "A+/9=="), 200},
		"markup": {ownAccount, check(now, "<script>alert(1)</script>"), 200},
		"wrong signature": {
			ownAccount, set(check(now, echo), "signature", strings.Repeat("0", 40)), 403,
		},
		"two signatures": {ownAccount, set(check(now, echo), "signature", "a", "b"), 400},
		"no signature":   {ownAccount, set(check(now, echo), "signature"), 400},
		"only another": {
			ownAccount, set(set(check(now, echo), "signature"), "msg_signature", "a"), 400,
		},
		"no timestamp":     {ownAccount, set(check(now, echo), "timestamp"), 400},
		"empty echostr":    {ownAccount, check(now, ""), 400},
		"two echostrs":     {ownAccount, check(now, echo, echo), 400},
		"long echostr":     {ownAccount, check(now, strings.Repeat("1", 129)), 400},
		"huge echostr":     {ownAccount, check(now, strings.Repeat("1", 4000)), 400},
		"line break":       {ownAccount, check(now, "1\r\n1"), 400},
		"no ASCII":         {ownAccount, check(now, "你好"), 400},
		"without echostr":  {ownAccount, check(now), 405},
		"without keys":     {account, check(now, echo), 405},
		"component's path": {"component", check(now, echo), 405},
	} {
		for _, hasKey := range []bool{true, false} {
			w := start(t, callback.Config{Apps: []callback.App{ownApp(t, hasKey)}})
			r := w.request(http.MethodGet, "/"+tc.path+"/events?"+tc.query.Encode(), nil)
			if tc.status != http.StatusOK {
				w.wantResponse(r, tc.status)
				continue
			}
			if r.status != http.StatusOK || r.body != tc.query.Get("echostr") {
				t.Errorf("%s: got response %d %q, want the echostr", name, r.status, r.body)
			}
			w.wantHeaders(r)
			w.wantCounted("message ok")
			for _, logged := range []string{tc.query.Get("echostr"), tc.query.Get("signature")} {
				if strings.Contains(w.logged(), logged) {
					t.Errorf("%s: got %q in the log:\n%s", name, logged, w.logged())
				}
			}
		}
	}
	// WeChat's example (doc/oplatform/Website_App/WeChat_Login/message_push).
	app := callback.App{AppID: ownAccount, Token: wechat.NewSecret("AAAAA")}
	w := start(t, callback.Config{Apps: []callback.App{app}})
	r := w.request(http.MethodGet, "/"+ownAccount+"/events"+
		"?signature=f464b24fc39322e44b38aa78f5edd27bd1441696&echostr=4375120948345356249"+
		"&timestamp=1714036504&nonce=1514711492", nil)
	if r.body != echo {
		t.Errorf("got %q for WeChat's example, want %q", r.body, echo)
	}
	methods := []string{http.MethodHead, http.MethodPut, http.MethodOptions}
	if i := slices.IndexFunc(methods, func(method string) bool {
		r := w.request(method, "/"+ownAccount+"/events?"+check(now, echo).Encode(), nil)
		return r.status != http.StatusMethodNotAllowed
	}); i >= 0 {
		t.Errorf("%s was not rejected with 405", methods[i])
	}
}

// TestOwnAccountRawAndQueue: in mode raw a service gets an own account's push
// and its query as they are, and WeChat the service's response; in mode queue
// it gets the document later. Mode plain, compatible, safe × XML, JSON.
func TestOwnAccountRawAndQueue(t *testing.T) {
	raw := newService(t, respondWith(200, "<xml><Encrypt>by the service</Encrypt></xml>"))
	queued := newService(t, nil)
	for _, mode := range []string{"plain", "compatible", "safe"} {
		for _, isJSON := range []bool{false, true} {
			app := ownApp(t, mode != "plain")
			rule := forwardAll(raw.URL)
			rule.Mode = callback.ModeRaw
			later := forwardAll(queued.URL)
			later.Name, later.Mode = "later", callback.ModeQueue
			w := start(t, callback.Config{
				Apps: []callback.App{app}, Forwards: []callback.Forward{rule, later},
			})
			before := len(queued.deliveries())
			doc := ownDoc(isJSON)
			p := newOwnPush(mode, ownToken, app.Crypt, doc, time.Now())
			r := w.sendOwn(ownAccount, p)
			if r.status != 200 || !strings.Contains(r.body, "by the service") {
				t.Errorf("%s: got response %d %q, want the service's", mode, r.status, r.body)
			}
			seen := raw.deliveries()
			last := seen[len(seen)-1]
			if last.body != p.body || !strings.HasSuffix(last.path, "?"+p.query.Encode()) {
				t.Errorf("%s: got raw delivery %s %q, want %q", mode, last.path, last.body, p.body)
			}
			isQueued := func() bool { return len(queued.deliveries()) > before }
			eventually(t, "the queued copy", isQueued)
			copied := queued.deliveries()[before]
			wantType := map[bool]string{false: wechat.TypeXML, true: wechat.TypeJSON}[isJSON]
			if copied.body != doc || copied.header.Get("Content-Type") != wantType {
				t.Errorf("%s: got copy %q of type %s, want %q as %s",
					mode, copied.body, copied.header.Get("Content-Type"), doc, wantType)
			}
		}
	}
}
