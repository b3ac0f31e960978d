package callback_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"wxproxy/callback"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

func TestEventsReachTheAccounts(t *testing.T) {
	fastRegister := func(fields ...string) string {
		return document(component, "notify_third_fasteregister", append(fields, "<info><name>公司</name><appid>wx0</appid></info>")...)
	}
	for name, v := range map[string]struct{ doc, counted, told string }{
		"ticket":           {ticketDoc(), "component_verify_ticket ok", ticketTold},
		"authorized":       {authorizedDoc("authorized"), "authorized ok", "authorize " + account + " " + theCode + " 1512631134 1512627534"},
		"updateauthorized": {authorizedDoc("updateauthorized"), "updateauthorized ok", "authorize " + account + " " + theCode + " 1512631134 1512627534"},
		"unauthorized": {document(component, "unauthorized", "<AuthorizerAppid>"+account+"</AuthorizerAppid>"),
			"unauthorized ok", "withdraw " + account + " 1512627534"},
		"registered": {fastRegister("<status>0</status><msg>OK</msg>", "<appid>"+account+"</appid><auth_code>"+theCode+"</auth_code>"),
			"notify_third_fasteregister ok", "authorize " + account + " " + theCode + " 0 1512627534"},
		"not registered":          {fastRegister("<status>-1</status><msg>no</msg>"), "notify_third_fasteregister ok", ""},
		"not registered, code":    {fastRegister("<status>101</status><appid>" + account + "</appid><auth_code>" + theCode + "</auth_code>"), "notify_third_fasteregister ok", ""},
		"registered without code": {fastRegister("<status>0</status><appid>" + account + "</appid>"), "notify_third_fasteregister ok", ""},
		"known, nothing to do":    {document(component, "notify_icpfiling_verify_result", "<task_id>1</task_id>"), "notify_icpfiling_verify_result ignored", ""},
		"unknown":                 {document(component, "brand_new"), "other ignored", ""},
		"without CreateTime":      {"<xml><InfoType>unauthorized</InfoType><AuthorizerAppid>" + account + "</AuthorizerAppid><AppId>" + component + "</AppId></xml>", "unauthorized ok", "withdraw " + account + " 0"},
	} {
		t.Run(name, func(t *testing.T) {
			l := start(t, callback.Config{})
			l.is(l.push(v.doc), http.StatusOK)
			var told []string
			if v.told != "" {
				told = []string{v.told}
			}
			l.wants([]string{v.counted}, told...)
			event, result, _ := strings.Cut(v.counted, " ")
			if !slices.Contains(callback.Events, event) || !slices.Contains(callback.Results, result) {
				t.Error("counted under a word that is on no list")
			}
		})
	}
}

// An unknown type is logged by its name, and nobody can write lines of his own
// that way.
func TestUnknownTypeIsLoggedOnOneLine(t *testing.T) {
	l := start(t, callback.Config{})
	l.is(l.push(document(component, "brand\nlevel=ERROR msg=forged\x1b[2J"+strings.Repeat("x", 500))), http.StatusOK)
	out := l.logged()
	if !strings.Contains(out, "brand level=ERROR msg=forged") || strings.Contains(out, strings.Repeat("x", 64)) || strings.Contains(out, "\x1b") || strings.Contains(out, "\nlevel") {
		t.Errorf("logged as\n%s", out)
	}
}

// Each refusal has its status and its word, and changes nothing.
func TestRefusals(t *testing.T) {
	right := crypt(t, messageToken, currentKey, component)
	foreign := crypt(t, messageToken, currentKey, "wx0000000000000000")
	otherKey := crypt(t, messageToken, previousKey, component)
	otherToken := crypt(t, "otherToken", currentKey, component)
	change := func(f func(*signed)) signed {
		s := sealed(right, ticketDoc())
		f(&s)
		return s
	}
	// resigned fits the signature to what has been changed in Encrypt.
	resigned := func(encrypted string) signed {
		return change(func(s *signed) {
			s.signature = right.Signature(s.timestamp, s.nonce, encrypted)
			s.body = []byte("<xml><Encrypt>" + encrypted + "</Encrypt></xml>")
		})
	}
	appid := func(s string) string { return "<AuthorizerAppid>" + s + "</AuthorizerAppid>" }
	const code = "<AuthorizationCode>" + theCode + "</AuthorizationCode>"

	for name, v := range map[string]struct {
		push    signed
		status  int
		counted string
	}{
		"no signature":         {change(func(s *signed) { s.signature = "" }), 400, "other bad_message"},
		"no timestamp":         {change(func(s *signed) { s.timestamp = "" }), 400, "other bad_message"},
		"no nonce":             {change(func(s *signed) { s.nonce = "" }), 400, "other bad_message"},
		"endless nonce":        {change(func(s *signed) { s.nonce = strings.Repeat("1", 129) }), 400, "other bad_message"},
		"endless signature":    {change(func(s *signed) { s.signature += strings.Repeat("0", 129) }), 400, "other bad_message"},
		"endless query":        {change(func(s *signed) { s.timestamp = strings.Repeat("1", 3000) }), 400, "other bad_message"},
		"empty body":           {change(func(s *signed) { s.body = nil }), 400, "other bad_message"},
		"no XML":               {change(func(s *signed) { s.body = []byte("hello") }), 400, "other bad_message"},
		"JSON":                 {change(func(s *signed) { s.body = []byte(`{"ToUserName":"gh_a","Encrypt":"a"}`) }), 400, "other bad_message"},
		"no Encrypt":           {change(func(s *signed) { s.body = []byte("<xml><AppId>" + component + "</AppId></xml>") }), 400, "other bad_message"},
		"not encrypted at all": {change(func(s *signed) { s.body = []byte(ticketDoc()) }), 400, "other bad_message"},
		"document type": {change(func(s *signed) { s.body = append([]byte("<!DOCTYPE xml>"), s.body...) }),
			400, "other bad_message"},
		"wrong signature": {change(func(s *signed) { s.signature = strings.Repeat("0", 40) }), 403, "other bad_signature"},
		"weak signature": {change(func(s *signed) { s.signature = right.Signature(s.timestamp, s.nonce, "") }),
			403, "other bad_signature"},
		"signature in capitals": {change(func(s *signed) { s.signature = strings.ToUpper(s.signature) }), 403, "other bad_signature"},
		"another time":          {change(func(s *signed) { s.timestamp = "1512627535" }), 403, "other bad_signature"},
		"another nonce":         {change(func(s *signed) { s.nonce = "1590219413" }), 403, "other bad_signature"},
		"another message token": {sealed(otherToken, ticketDoc()), 403, "other bad_signature"},
		"another key":           {sealed(otherKey, ticketDoc()), 400, "other undecryptable"},
		"no base64":             {resigned("%%%%"), 400, "other undecryptable"},
		"half a block":          {resigned("D7yzvUNAL930rd28"), 400, "other undecryptable"},
		"outer appid of another": {change(func(s *signed) { s.body = bytes.Replace(s.body, []byte(component), []byte("wx0000000000000000"), 1) }),
			403, "other wrong_appid"},
		"trailing appid of another": {sealed(foreign, ticketDoc()), 403, "other wrong_appid"},
		"inner AppId of another":    {sealed(right, strings.Replace(ticketDoc(), component, "wx0000000000000000", 1)), 403, "other wrong_appid"},
		"inner AppId missing":       {sealed(right, "<xml><InfoType>component_verify_ticket</InfoType><ComponentVerifyTicket>"+theTicket+"</ComponentVerifyTicket></xml>"), 403, "other wrong_appid"},
		"inner AppId in small":      {sealed(right, strings.ReplaceAll(ticketDoc(), "AppId", "appid")), 403, "other wrong_appid"},
		"inner no XML":              {sealed(right, theTicket), 400, "other bad_message"},
		"inner no InfoType":         {sealed(right, "<xml><AppId>"+component+"</AppId></xml>"), 400, "other bad_message"},
		"inner bad CreateTime":      {sealed(right, strings.Replace(ticketDoc(), "1512627534", "yesterday", 1)), 400, "other bad_message"},

		"ticket without ticket":   {sealed(right, document(component, "component_verify_ticket")), 400, "component_verify_ticket bad_message"},
		"ticket, empty":           {sealed(right, document(component, "component_verify_ticket", "<ComponentVerifyTicket/>")), 400, "component_verify_ticket bad_message"},
		"authorized, no code":     {sealed(right, document(component, "authorized", appid(account))), 400, "authorized bad_message"},
		"authorized, no account":  {sealed(right, document(component, "authorized", code)), 400, "authorized bad_message"},
		"updated, no code":        {sealed(right, document(component, "updateauthorized", appid(account))), 400, "updateauthorized bad_message"},
		"updated, bad account":    {sealed(right, document(component, "updateauthorized", appid("wx"), code)), 400, "updateauthorized bad_message"},
		"withdrawn, no account":   {sealed(right, document(component, "unauthorized")), 400, "unauthorized bad_message"},
		"registered, no account":  {sealed(right, document(component, "notify_third_fasteregister", "<status>0</status><auth_code>"+theCode+"</auth_code>")), 400, "notify_third_fasteregister bad_message"},
		"registered, bad status":  {sealed(right, document(component, "notify_third_fasteregister", "<status>fine</status><auth_code>"+theCode+"</auth_code>")), 400, "other bad_message"},
		"account in capitals":     {sealed(right, document(component, "unauthorized", appid(strings.ToUpper(account)))), 400, "unauthorized bad_message"},
		"account too long":        {sealed(right, document(component, "unauthorized", appid(account+"0"))), 400, "unauthorized bad_message"},
		"account with a slash":    {sealed(right, document(component, "unauthorized", appid("wx/../../../../etc"))), 400, "unauthorized bad_message"},
		"account of another kind": {sealed(right, document(component, "unauthorized", appid("gh_97417a04a28d000"))), 400, "unauthorized bad_message"},
	} {
		t.Run(name, func(t *testing.T) {
			l := start(t, callback.Config{})
			l.is(l.send(v.push), v.status)
			l.wants([]string{v.counted})
			// And WeChat's own push is taken afterwards as if nothing had been.
			l.is(l.push(ticketDoc()), http.StatusOK)
			l.wants([]string{v.counted, "component_verify_ticket ok"}, ticketTold)
		})
	}
}

func TestQueryMustBeClear(t *testing.T) {
	l := start(t, callback.Config{})
	s := sealed(l.crypt, ticketDoc())
	targets := []string{
		"/component/events", "/component/events?",
		"/component/events?" + s.query() + "&nonce=" + s.nonce, // twice: two readers might take different ones
		"/component/events?" + s.query() + "&a=%zz",
		"/component/events?" + s.query() + ";a=b",
	}
	var counted []string
	for _, target := range targets {
		l.is(l.do(http.MethodPost, target, bytes.NewReader(s.body)), http.StatusBadRequest)
		counted = append(counted, "other bad_message")
	}
	l.wants(counted)
	// Others may be there: WeChat adds some now and then.
	l.is(l.do(http.MethodPost, "/component/events?openid=o1&"+s.query(), bytes.NewReader(s.body)), http.StatusOK)
}

// While a key is being changed, pushes come with either.
func TestPreviousKey(t *testing.T) {
	current, previous := crypt(t, messageToken, currentKey, component), crypt(t, messageToken, previousKey, component)
	for name, crypts := range map[string][]*wechat.Crypt{"current first": {current, previous}, "previous first": {previous, current}} {
		t.Run(name, func(t *testing.T) {
			l := start(t, callback.Config{Crypts: crypts})
			l.is(l.send(sealed(current, ticketDoc())), http.StatusOK)
			l.is(l.send(sealed(previous, authorizedDoc("authorized"))), http.StatusOK)
			l.wants([]string{"component_verify_ticket ok", "authorized ok"}, ticketTold, "authorize "+account+" "+theCode+" 1512631134 1512627534")

			// The word for what is wrong does not depend on the order.
			l.is(l.send(sealed(crypt(t, messageToken, previousKey, "wx0000000000000000"), ticketDoc())), http.StatusForbidden)
			l.is(l.send(sealed(crypt(t, messageToken, currentKey, "wx0000000000000000"), ticketDoc())), http.StatusForbidden)
			l.is(l.send(sealed(crypt(t, messageToken, strings.Repeat("x", 43), component), ticketDoc())), http.StatusBadRequest)
			l.is(l.send(sealed(crypt(t, "otherToken", previousKey, component), ticketDoc())), http.StatusForbidden)
			if got := l.counted()[2:]; !slices.Equal(got, []string{"other wrong_appid", "other wrong_appid", "other undecryptable", "other bad_signature"}) {
				t.Errorf("counted %q", got)
			}
		})
	}
}

func TestReconfigure(t *testing.T) {
	const newComponent = "wx00000000000000aa"
	l := start(t, callback.Config{})
	old, next := l.crypt, crypt(t, "nextToken", previousKey, newComponent)
	l.handler.Reconfigure(callback.Config{ComponentAppID: newComponent, Crypts: []*wechat.Crypt{next}})

	outer := func(s signed) signed {
		s.body = bytes.ReplaceAll(s.body, []byte(component), []byte(newComponent))
		return s
	}
	l.is(l.send(sealed(old, ticketDoc())), http.StatusForbidden)
	l.is(l.send(outer(sealed(next, strings.Replace(ticketDoc(), component, newComponent, 1)))), http.StatusOK)
	// What Reconfigure does not take stays: the accounts, and who is counting.
	l.wants([]string{"other wrong_appid", "component_verify_ticket ok"}, ticketTold)

	l.handler.Reconfigure(callback.Config{})
	l.is(l.send(sealed(old, ticketDoc())), http.StatusNotFound)
	l.wants([]string{"other wrong_appid", "component_verify_ticket ok"}, ticketTold)
}

// Pushes and changes of the keys at the same time: for the race detector, and
// each push is judged by one set of keys.
func TestReconfigureUnderLoad(t *testing.T) {
	l := start(t, callback.Config{})
	c := callback.Config{ComponentAppID: component, Crypts: []*wechat.Crypt{l.crypt}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 1000 {
			l.handler.Reconfigure(c)
		}
	}()
	for range 20 {
		l.is(l.push(ticketDoc()), http.StatusOK)
	}
	<-done
}

// One byte more: TestTooLongBodyIsNotWaitedFor.
func TestOneMebibyteIsTaken(t *testing.T) {
	l := start(t, callback.Config{})
	padded := func(n int) signed {
		s := sealed(l.crypt, ticketDoc())
		s.body = append(s.body, bytes.Repeat([]byte("\n"), n-len(s.body))...)
		return s
	}
	chunked := func(s signed) reply {
		return l.do(http.MethodPost, "/component/events?"+s.query(), io.MultiReader(bytes.NewReader(s.body)))
	}
	l.is(l.send(padded(1<<20)), http.StatusOK)
	l.is(chunked(padded(1<<20)), http.StatusOK)
	l.wants([]string{"component_verify_ticket ok", "component_verify_ticket ok"}, ticketTold, ticketTold)
}

func TestChunkedPush(t *testing.T) {
	l := start(t, callback.Config{})
	s := sealed(l.crypt, ticketDoc())
	r, w := io.Pipe()
	go func() {
		for _, b := range s.body { // a chunk for each byte
			if _, err := w.Write([]byte{b}); err != nil {
				return
			}
		}
		_ = w.Close()
	}()
	l.is(l.do(http.MethodPost, "/component/events?"+s.query(), r), http.StatusOK)
	l.wants([]string{"component_verify_ticket ok"}, ticketTold)
}

func TestStaleIsSuccess(t *testing.T) {
	l := start(t, callback.Config{})
	l.accounts.answer(func(context.Context) error { return fmt.Errorf("account: %w", tokens.ErrStale) })
	for _, doc := range []string{ticketDoc(), authorizedDoc("authorized"), document(component, "unauthorized", "<AuthorizerAppid>"+account+"</AuthorizerAppid>")} {
		l.is(l.push(doc), http.StatusOK)
	}
	if got := l.counted(); !slices.Equal(got, []string{"component_verify_ticket stale", "authorized stale", "unauthorized stale"}) {
		t.Errorf("counted %q", got)
	}
}

// WeChat is told success only after the store has it, and otherwise repeats the
// very same push.
func TestStoreFailsAndWeChatRepeats(t *testing.T) {
	l := start(t, callback.Config{})
	s := sealed(l.crypt, ticketDoc())
	l.accounts.answer(func(context.Context) error { return errors.New("disk full") })
	l.is(l.send(s), http.StatusInternalServerError)
	l.is(l.send(s), http.StatusInternalServerError)
	l.accounts.answer(nil)
	l.is(l.send(s), http.StatusOK)
	l.is(l.send(s), http.StatusConflict)
	l.wants([]string{"component_verify_ticket store", "component_verify_ticket store", "component_verify_ticket ok", "component_verify_ticket replayed"},
		ticketTold, ticketTold, ticketTold)
	if !strings.Contains(l.logged(), "disk full") {
		t.Error("nobody is told why")
	}
}
