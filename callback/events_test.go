package callback_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"wxproxy/callback"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

func TestEventsAreStored(t *testing.T) {
	const (
		ok       = "notify_third_fasteregister ok"
		newCode  = "<auth_code>" + authCode + "</auth_code>"
		newAppID = "<appid>" + account + "</appid>"
	)
	changed := strings.Replace(authorizeStored, "authorize", "update", 1)
	for name, tc := range map[string]struct{ doc, counted, stored string }{
		"ticket":           {ticketDoc(), "component_verify_ticket ok", ticketStored},
		"authorized":       {authorizedDoc("authorized"), "authorized ok", authorizeStored},
		"updateauthorized": {authorizedDoc("updateauthorized"), "updateauthorized ok", changed},
		"unauthorized":     {unauthorizedDoc(), "unauthorized ok", "revoke " + account + " 1512627534"},
		"registered": {
			registeredDoc("<status>0</status><msg>OK</msg>" + newAppID + newCode),
			ok, "authorize " + account + " " + authCode + " 0 1512627534",
		},
		"registration failed":            {registeredDoc("<status>-1</status><msg>no</msg>"), ok, ""},
		"registration failed, with code": {registeredDoc("<status>101</status>" + newAppID + newCode), ok, ""},
		"registered, without code":       {registeredDoc("<status>0</status>" + newAppID), ok, ""},
		"known InfoType without action": {
			eventDoc(component, "notify_icpfiling_verify_result", "<task_id>1</task_id>"),
			"notify_icpfiling_verify_result ignored", "",
		},
		"unknown InfoType": {eventDoc(component, "brand_new"), "other ignored", ""},
		"unknown InfoType, fields repeated": {
			eventDoc(component, "brand_new", "<appid>a</appid><appid>b</appid>",
				"<status>a</status><status/><CreateTime>b</CreateTime>"),
			"other ignored", "",
		},
		"unknown InfoType, fields nested": {
			eventDoc(component, "brand_new", "<auth_code><a>b</a></auth_code>",
				"<list><appid>a</appid></list><list><appid>b</appid></list>"),
			"other ignored", "",
		},
		"verification and filing": {
			eventDoc(component, "notify_3rd_wxa_auth_and_icp",
				"<procedure_id>1</procedure_id><procedure_status>9</procedure_status>"),
			"notify_3rd_wxa_auth_and_icp ignored", "",
		},
		"results of a batch": {
			"<xml><List><Appid>" + account + "</Appid><AuditId>1</AuditId></List>" +
				"<List><Appid>" + otherAccount + "</Appid><RetCode>0</RetCode></List></xml>",
			"other ignored", "",
		},
		"hostile name of a company": {
			eventDoc(component, "notify_third_fasteregister",
				"<status>0</status><msg>OK</msg><info><name><![CDATA["+
					"]]></name></info><appid>"+otherAccount+"</appid><info><name><![CDATA["+
					"]]></name></info>"+newAppID+newCode),
			ok, "authorize " + account + " " + authCode + " 0 1512627534",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, callback.Config{})
			w.wantResponse(w.push(tc.doc), http.StatusOK)
			w.wantCounted(tc.counted)
			var stored []string
			if tc.stored != "" {
				stored = []string{tc.stored}
			}
			w.wantStored(stored...)
			event, result, _ := strings.Cut(tc.counted, " ")
			if !slices.Contains(callback.Events, event) || !slices.Contains(callback.Results, result) {
				t.Errorf("got label %q, want one of Events and Results", tc.counted)
			}
		})
	}
}

// A push counts as made when its document says, by WeChat's clock, but no later
// than it was signed, by the same clock: 0 s to 80 years ahead. Otherwise it
// would be newer than all that follow. Without a CreateTime it counts as made
// when it was signed. A ticket counts as made when its document says, whenever
// it was signed.
func TestCreateTimeIsNoLaterThanSignature(t *testing.T) {
	signed := time.Now().Add(-time.Minute)
	at := func(d time.Duration) string { return strconv.FormatInt(signed.Add(d).Unix(), 10) }
	for created, want := range map[string]string{
		"1512627534":      "1512627534",
		at(-time.Second):  at(-time.Second),
		at(0):             at(0),
		at(time.Second):   at(0),
		at(6 * time.Hour): at(0),
		"4102444800":      at(0),
		"253402300799":    at(0),
		"0":               at(0),
		"":                at(0),
	} {
		for doc, stored := range map[string]string{
			ticketDoc():       "ticket " + ticket + " ",
			unauthorizedDoc(): "revoke " + account + " ",
		} {
			w := start(t, callback.Config{})
			doc = strings.Replace(doc, "<CreateTime>1512627534", "<CreateTime>"+created, 1)
			w.wantResponse(w.send(sealAt(w.crypt, doc, signed)), http.StatusOK)
			if strings.HasPrefix(stored, "ticket") && created != "" && created != "0" {
				w.wantStored(stored + created)
				continue
			}
			w.wantStored(stored + want)
		}
	}
}

// WeChat's text does not take the place of the log message.
func TestFailedRegistrationIsLogged(t *testing.T) {
	w := start(t, callback.Config{})
	w.wantResponse(w.push(registeredDoc("<status>-1</status><msg>no</msg>")), http.StatusOK)
	w.wantLogged(`msg="fast registration failed"`, "errmsg=no")
	if log := w.logged(); strings.Contains(log, " msg=no") {
		t.Errorf("got a second msg in the log:\n%s", log)
	}
}

// An unknown InfoType is logged by its name, which cannot add lines to the log.
func TestUnknownInfoTypeIsLoggedOnOneLine(t *testing.T) {
	w := start(t, callback.Config{})
	long := strings.Repeat("x", 500)
	w.wantResponse(w.push(eventDoc(component, "brand\nlevel=ERROR msg=forged\x1b[2J"+long)), http.StatusOK)
	w.wantLogged("brand level=ERROR msg=forged")
	for _, bad := range []string{long[:64], "\x1b", "\nlevel"} {
		if log := w.logged(); strings.Contains(log, bad) {
			t.Errorf("got %q in the log:\n%s", bad, log)
		}
	}
}

// rejectedPush is a push and how it must be rejected.
type rejectedPush struct {
	push   signed
	status int
	result string // result label; for events, with the event label before it
}

// rejectedWireFormats returns pushes that are rejected before they are
// decrypted, or because they cannot be. sealed makes a valid push.
func rejectedWireFormats(t *testing.T, sealed func(c *wechat.Crypt) signed) map[string]rejectedPush {
	right := newCrypt(t, messageToken, currentKey, component)
	change := func(f func(*signed)) signed {
		s := sealed(right)
		f(&s)
		return s
	}
	body := func(b string) signed { return change(func(s *signed) { s.body = []byte(b) }) }
	// resigned returns a push with another Encrypt and a valid signature.
	resigned := func(encrypted string) signed {
		return change(func(s *signed) {
			s.signature = right.Signature(s.timestamp, s.nonce, encrypted)
			s.body = []byte("<xml><Encrypt>" + encrypted + "</Encrypt></xml>")
		})
	}
	with := func(token, key, appid string) signed { return sealed(newCrypt(t, token, key, appid)) }
	long := strings.Repeat("1", 64)
	zeros := strings.Repeat("0", 40)
	return map[string]rejectedPush{
		"no signature":       {change(func(s *signed) { s.signature = "" }), 400, "bad_message"},
		"no timestamp":       {change(func(s *signed) { s.timestamp = "" }), 400, "bad_message"},
		"no nonce":           {change(func(s *signed) { s.nonce = "" }), 400, "bad_message"},
		"timestamp in words": {change(func(s *signed) { s.timestamp += "s" }), 400, "bad_message"},
		"signed timestamp": {
			change(func(s *signed) { s.timestamp = "+" + s.timestamp }), 400, "bad_message",
		},
		"zero in front": {
			change(func(s *signed) { s.timestamp = "0" + s.timestamp }), 400, "bad_message",
		},
		"nonce too long":     {change(func(s *signed) { s.nonce = long }), 400, "bad_message"},
		"signature too long": {change(func(s *signed) { s.signature += long }), 400, "bad_message"},
		"query too long":     {change(func(s *signed) { s.timestamp = strings.Repeat("1", 3000) }), 400, "bad_message"},
		"empty body":         {body(""), 400, "bad_message"},
		"not XML":            {body("hello"), 400, "bad_message"},
		"JSON":               {body(`{"ToUserName":"gh_a","Encrypt":"a"}`), 400, "bad_message"},
		"no Encrypt":         {body("<xml><AppId>" + component + "</AppId></xml>"), 400, "bad_message"},
		"not encrypted":      {body(ticketDoc()), 400, "bad_message"},
		"document type": {
			change(func(s *signed) { s.body = append([]byte("<!DOCTYPE xml>"), s.body...) }), 400, "bad_message",
		},
		"wrong signature": {change(func(s *signed) { s.signature = zeros }), 403, "bad_signature"},
		"signature without Encrypt": {
			change(func(s *signed) { s.signature = right.Signature(s.timestamp, s.nonce, "") }), 403, "bad_signature",
		},
		"signature in upper case": {
			change(func(s *signed) { s.signature = strings.ToUpper(s.signature) }), 403, "bad_signature",
		},
		"another timestamp":     {change(func(s *signed) { s.timestamp = "1512627534" }), 403, "bad_signature"},
		"another nonce":         {change(func(s *signed) { s.nonce = "1590219413" }), 403, "bad_signature"},
		"another message token": {with("otherToken", currentKey, component), 403, "bad_signature"},
		"another key":           {with(messageToken, previousKey, component), 400, "undecryptable"},
		"not base64":            {resigned("%%%%"), 400, "undecryptable"},
		"half a block":          {resigned("D7yzvUNAL930rd28"), 400, "undecryptable"},
		"outer AppId of another component": {
			change(func(s *signed) {
				s.body = append([]byte("<xml><AppId>"+foreign+"</AppId><Encrypt>"), "a</Encrypt></xml>"...)
			}), 403, "wrong_appid",
		},
		"trailing appid of another component": {with(messageToken, currentKey, foreign), 403, "wrong_appid"},
	}
}

// rejectedEvents returns pushes whose documents are rejected on the path of
// authorization events.
func rejectedEvents(t *testing.T) map[string]rejectedPush {
	right := newCrypt(t, messageToken, currentKey, component)
	doc := func(doc string) signed { return seal(right, doc) }
	event := func(infoType string, fields ...string) signed { return doc(eventDoc(component, infoType, fields...)) }
	appid := func(s string) string { return "<AuthorizerAppid>" + s + "</AuthorizerAppid>" }
	const (
		code          = "<AuthorizationCode>" + authCode + "</AuthorizationCode>"
		newCode       = "<auth_code>" + authCode + "</auth_code>"
		ticketElement = "<ComponentVerifyTicket>" + ticket + "</ComponentVerifyTicket>"
		register      = "notify_third_fasteregister"
	)
	return map[string]rejectedPush{
		"inner AppId of another component": {
			doc(strings.Replace(ticketDoc(), component, foreign, 1)), 403, "other wrong_appid",
		},
		"inner AppId missing": {
			doc("<xml><InfoType>component_verify_ticket</InfoType>" + ticketElement + "</xml>"),
			403, "other wrong_appid",
		},
		"inner AppId in lower case": {doc(strings.ReplaceAll(ticketDoc(), "AppId", "appid")), 403, "other wrong_appid"},
		"document not XML":          {doc(ticket), 400, "other bad_message"},
		"results without any":       {doc("<xml></xml>"), 400, "other bad_message"},
		"results of a component": {
			doc("<xml><AppId>" + component + "</AppId><List/></xml>"), 400, "other bad_message",
		},
		"results of another component": {
			doc("<xml><AppId>" + foreign + "</AppId><List/></xml>"), 400, "other bad_message",
		},
		"no InfoType": {doc("<xml><AppId>" + component + "</AppId></xml>"), 400, "other bad_message"},
		"bad CreateTime": {
			doc(strings.Replace(ticketDoc(), "1512627534", "yesterday", 1)), 400, "other bad_message",
		},
		"bad status of registration": {event(register, "<status>fine</status>"+newCode), 400, "other bad_message"},

		"ticket missing": {event("component_verify_ticket"), 400, "component_verify_ticket bad_message"},
		"ticket empty": {
			event("component_verify_ticket", "<ComponentVerifyTicket/>"), 400, "component_verify_ticket bad_message",
		},
		"authorized without code":    {event("authorized", appid(account)), 400, "authorized bad_message"},
		"authorized without account": {event("authorized", code), 400, "authorized bad_message"},
		"updated without code":       {event("updateauthorized", appid(account)), 400, "updateauthorized bad_message"},
		"updated with bad account": {
			event("updateauthorized", appid("wx"), code), 400, "updateauthorized bad_message",
		},
		"revoked without account":    {event("unauthorized"), 400, "unauthorized bad_message"},
		"registered without account": {event(register, "<status>0</status>"+newCode), 400, register + " bad_message"},
		"account in upper case": {
			event("unauthorized", appid(strings.ToUpper(account))), 400, "unauthorized bad_message",
		},
		"account too long": {event("unauthorized", appid(account+"0")), 400, "unauthorized bad_message"},
		"account with slashes": {
			event("unauthorized", appid("wx/../../../../etc")), 400, "unauthorized bad_message",
		},
		"account of another kind": {
			event("unauthorized", appid("gh_97417a04a28d000")), 400, "unauthorized bad_message",
		},
	}
}

// Each rejection has its status and label and changes nothing.
func TestInvalidEventsAreRejected(t *testing.T) {
	tests := rejectedEvents(t)
	for name, tc := range rejectedWireFormats(t, func(c *wechat.Crypt) signed { return seal(c, ticketDoc()) }) {
		tc.result = "other " + tc.result
		tests[name] = tc
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := start(t, callback.Config{})
			w.wantResponse(w.send(tc.push), tc.status)
			w.wantCounted(tc.result)
			w.wantStored()
			// WeChat's own push is accepted afterwards.
			w.wantResponse(w.push(ticketDoc()), http.StatusOK)
			w.wantCounted(tc.result, "component_verify_ticket ok")
			w.wantStored(ticketStored)
		})
	}
}

func TestAmbiguousQueryIsRejected(t *testing.T) {
	w := start(t, callback.Config{})
	s := seal(w.crypt, ticketDoc())
	var counts []string
	for _, target := range []string{
		"/component/events",
		"/component/events?",
		"/component/events?" + s.query() + "&nonce=" + s.nonce, // two readers could use different ones
		"/component/events?" + s.query() + "&a=%zz",
		"/component/events?" + s.query() + ";a=b",
	} {
		w.wantResponse(w.request(http.MethodPost, target, bytes.NewReader(s.body)), http.StatusBadRequest)
		counts = append(counts, "other bad_message")
		w.wantCounted(counts...)
	}
	// Other parameters are ignored: WeChat sometimes adds some.
	r := w.request(http.MethodPost, "/component/events?openid=o1&"+s.query(), bytes.NewReader(s.body))
	w.wantResponse(r, http.StatusOK)
}

// While the key is being changed, pushes arrive with both keys.
func TestPreviousKeyIsAccepted(t *testing.T) {
	current := newCrypt(t, messageToken, currentKey, component)
	previous := newCrypt(t, messageToken, previousKey, component)
	for name, crypts := range map[string][]*wechat.Crypt{
		"current first": {current, previous}, "previous first": {previous, current},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, callback.Config{Crypts: crypts})
			w.wantResponse(w.send(seal(current, ticketDoc())), http.StatusOK)
			w.wantResponse(w.send(seal(previous, authorizedDoc("authorized"))), http.StatusOK)
			w.wantStored(ticketStored, authorizeStored)

			// The result label does not depend on the order of the keys.
			for _, tc := range []struct {
				token, key, appid string
				status            int
			}{
				{messageToken, previousKey, foreign, http.StatusForbidden},
				{messageToken, currentKey, foreign, http.StatusForbidden},
				{messageToken, strings.Repeat("x", 43), component, http.StatusBadRequest},
				{"otherToken", previousKey, component, http.StatusForbidden},
			} {
				w.wantResponse(w.send(seal(newCrypt(t, tc.token, tc.key, tc.appid), ticketDoc())), tc.status)
			}
			w.wantCounted("component_verify_ticket ok", "authorized ok",
				"other wrong_appid", "other wrong_appid", "other undecryptable", "other bad_signature")
		})
	}
}

func TestReconfigureReplacesComponentAndKeys(t *testing.T) {
	const newComponent = "wx00000000000000aa"
	w := start(t, callback.Config{})
	oldCrypt, newCrypt := w.crypt, newCrypt(t, "nextToken", previousKey, newComponent)
	w.handler.Reconfigure(callback.Config{ComponentAppID: newComponent, Crypts: []*wechat.Crypt{newCrypt}})

	w.wantResponse(w.send(seal(oldCrypt, ticketDoc())), http.StatusForbidden)
	s := seal(newCrypt, strings.Replace(ticketDoc(), component, newComponent, 1))
	s.body = bytes.ReplaceAll(s.body, []byte(component), []byte(newComponent))
	w.wantResponse(w.send(s), http.StatusOK)
	// Accounts and Observe are not replaced.
	w.wantCounted("other wrong_appid", "component_verify_ticket ok")
	w.wantStored(ticketStored)

	w.handler.Reconfigure(callback.Config{})
	w.wantResponse(w.send(seal(oldCrypt, ticketDoc())), http.StatusNotFound)
	w.wantCounted(
		"other wrong_appid", "component_verify_ticket ok", "other wrong_address")
}

// For the race detector: each push is verified with one set of settings.
func TestReconfigureIsConcurrentWithPushes(t *testing.T) {
	w := start(t, callback.Config{})
	c := callback.Config{ComponentAppID: component, Crypts: []*wechat.Crypt{w.crypt}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 1000 {
			w.handler.Reconfigure(c)
		}
	}()
	for range 20 {
		w.wantResponse(w.push(ticketDoc()), http.StatusOK)
	}
	<-done
}

// One byte more is rejected: TestTooLargeBodyIsRejectedEarly.
func TestBodyOfOneMebibyteIsAccepted(t *testing.T) {
	w := start(t, callback.Config{})
	padded := func() signed {
		s := seal(w.crypt, ticketDoc())
		s.body = append(s.body, bytes.Repeat([]byte("\n"), 1<<20-len(s.body))...)
		return s
	}
	w.wantResponse(w.send(padded()), http.StatusOK)
	s := padded()
	chunked := io.MultiReader(bytes.NewReader(s.body)) // has no length that net/http knows
	w.wantResponse(w.request(http.MethodPost, "/component/events?"+s.query(), chunked), http.StatusOK)
	w.wantStored(ticketStored, ticketStored)
}

func TestPushInSmallChunksIsAccepted(t *testing.T) {
	w := start(t, callback.Config{})
	s := seal(w.crypt, ticketDoc())
	body, chunks := io.Pipe()
	go func() {
		for _, b := range s.body { // one byte each
			if _, err := chunks.Write([]byte{b}); err != nil {
				return
			}
		}
		_ = chunks.Close()
	}()
	w.wantResponse(w.request(http.MethodPost, "/component/events?"+s.query(), body), http.StatusOK)
	w.wantStored(ticketStored)
}

func TestStaleEventIsAnsweredWithSuccess(t *testing.T) {
	w := start(t, callback.Config{})
	w.accounts.setResult(func(context.Context) error { return fmt.Errorf("account: %w", tokens.ErrStale) })
	for _, doc := range []string{ticketDoc(), authorizedDoc("authorized"), unauthorizedDoc()} {
		w.wantResponse(w.push(doc), http.StatusOK)
	}
	w.wantCounted("component_verify_ticket stale", "authorized stale", "unauthorized stale")
}

// WeChat gets success only when the event is stored. Otherwise it repeats the
// very same push.
func TestRepeatAfterStoreFailureIsAccepted(t *testing.T) {
	w := start(t, callback.Config{})
	s := seal(w.crypt, ticketDoc())
	w.accounts.setResult(func(context.Context) error { return errors.New("disk full") })
	w.wantResponse(w.send(s), http.StatusInternalServerError)
	w.wantResponse(w.send(s), http.StatusInternalServerError)
	w.accounts.setResult(nil)
	w.wantResponse(w.send(s), http.StatusOK)
	w.wantResponse(w.send(s), http.StatusOK)
	w.wantCounted("component_verify_ticket store", "component_verify_ticket store",
		"component_verify_ticket ok", "component_verify_ticket replayed")
	w.wantStored(ticketStored, ticketStored, ticketStored)
	w.wantLogged("disk full")
}
