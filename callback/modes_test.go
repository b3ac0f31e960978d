package callback_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/callback"
	"wxproxy/callback/queue"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// withMode returns rule with a mode.
func withMode(rule callback.Forward, mode callback.Mode) callback.Forward {
	rule.Mode = mode
	return rule
}

// The first rule that is no queue answers a message, and each queue that
// matches gets a copy: rules in any order × with and without an answer ×
// services that two rules name. An authorization event goes to all rules but
// those in mode raw, and a ticket to none.
func TestFanOut(t *testing.T) {
	type modes []callback.Mode
	const reply, queued, raw = callback.ModeReply, callback.ModeQueue, callback.ModeRaw
	for name, tc := range map[string]struct {
		modes         modes
		twice         bool // the last two rules have the same URL
		message       []int
		authorization []int
		result        string
	}{
		"none":             {nil, false, nil, nil, "ignored"},
		"default":          {modes{"", ""}, false, []int{1, 0}, []int{1, 1}, "ok"},
		"queues only":      {modes{queued, queued}, false, []int{1, 1}, []int{1, 1}, "ok"},
		"queue first":      {modes{queued, reply, reply}, false, []int{1, 1, 0}, []int{1, 1, 1}, "ok"},
		"reply first":      {modes{reply, queued, queued}, false, []int{1, 1, 1}, []int{1, 1, 1}, "ok"},
		"raw first":        {modes{raw, reply, queued}, false, []int{1, 0, 1}, []int{0, 1, 1}, "ok"},
		"raw last":         {modes{reply, raw}, false, []int{1, 0}, []int{1, 0}, "ok"},
		"raw only":         {modes{raw}, false, []int{1}, []int{0}, "ok"},
		"one service":      {modes{queued, queued}, true, []int{0, 1}, []int{0, 1}, "ok"},
		"reply and a copy": {modes{reply, queued}, true, []int{0, 2}, []int{0, 1}, "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			var rules []callback.Forward
			var services []*fakeService
			for _, mode := range tc.modes {
				s := newService(t, nil)
				services = append(services, s)
				rules = append(rules, withMode(forwardAll(s.URL), mode))
			}
			if n := len(rules); tc.twice {
				rules[n-2].URL = rules[n-1].URL
			}
			w := start(t, callback.Config{Forwards: rules})
			got := make([]int, len(services))
			check := func(what string, want []int) {
				t.Helper()
				eventually(t, "nothing waits", func() bool { return w.waiting() == 0 })
				for i, s := range services {
					n := len(s.deliveries())
					if n-got[i] != want[i] {
						t.Errorf("%s: service %d got %d requests, want %d",
							what, i, n-got[i], want[i])
					}
					got[i] = n
				}
			}
			w.wantResponse(w.message(textDoc("hello")), 200)
			check("message", append(tc.message, 0))
			w.wantResponse(w.push(authorizedDoc("authorized")), 200)
			check("authorization", append(tc.authorization, 0))
			w.wantResponse(w.push(ticketDoc()), 200)
			check("ticket", make([]int, len(services)))
			w.wantCounted("message "+tc.result, "authorized ok", "component_verify_ticket ok")
		})
	}
}

// faultyQueue fails to add while it has an error.
type faultyQueue struct {
	store.Queue
	mu  sync.Mutex
	err error
}

func (q *faultyQueue) set(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.err = err
}

func (q *faultyQueue) Add(
	ctx context.Context, known time.Duration, entries ...store.QueueEntry,
) (int, error) {
	q.mu.Lock()
	err := q.err
	q.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return q.Queue.Add(ctx, known, entries...)
}

// A push whose copy cannot be queued gets 500, and uses up nothing: message,
// event × store fails, queue is full. The service that replies is asked once,
// and its reply kept for WeChat's repeat. The repeat is handled once, and what
// was queued is queued once, also if another process handles the repeat, or
// WeChat encrypts it anew.
func TestCopyIsQueuedBeforeSuccess(t *testing.T) {
	memory := store.NewMemory()
	q := &faultyQueue{Queue: memory.(store.Queuer).Queue()}
	answering, copied := newService(t, nil), newService(t, nil)
	config := func() callback.Config {
		return callback.Config{
			Queue: q, Claims: memory, ClaimTimeout: 2 * time.Minute,
			Forwards: []callback.Forward{
				{AppIDs: []string{"*"}, Events: []string{"text"}, URL: answering.URL},
				withMode(forwardAll(copied.URL), callback.ModeQueue),
			},
		}
	}
	w, other := start(t, config()), start(t, config())
	message, event := sealMessage(w.crypt, textDoc("hello")), seal(w.crypt, unauthorizedDoc())
	for _, err := range []error{errors.New("disk full"), queue.ErrFull} {
		q.set(err)
		w.wantResponse(w.sendTo(account, message), 500)
		w.wantResponse(w.send(event), 500)
	}
	answering.wantDeliveries(t, 1)
	copied.wantDeliveries(t, 0)
	w.wantCounted("message store", "unauthorized store",
		"message queue_full", "unauthorized queue_full")
	q.set(nil)
	for _, process := range []*env{w, other} {
		process.wantResponse(process.sendTo(account, message), 200)
		process.wantResponse(process.send(event), 200)
	}
	other.wantResponse(other.send(seal(w.crypt, unauthorizedDoc())), 200)
	eventually(t, "nothing waits", func() bool { return w.waiting() == 0 })
	answering.wantDeliveries(t, 1)
	copied.wantDeliveries(t, 2)
	other.wantCounted("message replayed", "unauthorized replayed", "unauthorized ok")
}

// What names a delivery: mode × message, event. The event is the same for all
// services, tries and repeats of WeChat, and another one for another account.
func TestHeadersOfDeliveries(t *testing.T) {
	services := map[callback.Mode]*fakeService{}
	w := start(t, callback.Config{})
	for _, mode := range []callback.Mode{callback.ModeReply, callback.ModeRaw, callback.ModeQueue} {
		s := newService(t, nil)
		services[mode] = s
		rule := withMode(forwardAll(s.URL), mode)
		rule.Secret = wechat.NewSecret("signing SECRET")
		w.handler.Reconfigure(callback.Config{
			ComponentAppID: component, Crypts: []*wechat.Crypt{w.crypt},
			Forwards: []callback.Forward{rule},
		})
		w.wantResponse(w.message(textDoc("hello")), 200)
		w.wantResponse(w.sendTo(otherAccount, sealMessage(w.crypt, textDoc("hello"))), 200)
		eventually(t, "both arrive", func() bool { return len(s.deliveries()) == 2 })
	}
	events := map[string]bool{}
	for mode, s := range services {
		for _, d := range s.deliveries() {
			appid := d.header.Get("X-WX-APPID")
			events[appid+" "+d.header.Get("X-Wxproxy-Event")] = true
			for name, want := range map[string]string{
				"X-WX-OPENID": user, "X-Wxproxy-Attempt": "1", "X-Wxproxy-Source": "",
				"X-Wxproxy-Signature": wantSignature(d),
			} {
				if got := d.header.Get(name); got != want {
					t.Errorf("%s: header %s: got %q, want %q", mode, name, got, want)
				}
			}
			if d.header.Get("X-Request-Id") == "" {
				t.Errorf("%s: got no X-Request-Id", mode)
			}
		}
	}
	if len(events) != 2 {
		t.Errorf("got accounts and events %v, want one event for each of 2 accounts", events)
	}
	for e := range events {
		if _, id, _ := strings.Cut(e, " "); len(id) != 64 || strings.ToLower(id) != id {
			t.Errorf("got event %q, want 64 lower-case digits", id)
		}
	}
}

// wantSignature returns the signature of a delivery with the time that its
// header names.
func wantSignature(d delivery) string {
	at, _, _ := strings.Cut(strings.TrimPrefix(d.header.Get("X-Wxproxy-Signature"), "t="), ",")
	h := hmac.New(sha256.New, []byte("signing SECRET"))
	h.Write([]byte(at + "." + d.body))
	return "t=" + at + ",v1=" + hex.EncodeToString(h.Sum(nil))
}

// With a token deliveries carry signature, timestamp and nonce as in WeChat's
// plain mode, after the query of the address: mode × query.
func TestTokenSignsTheQuery(t *testing.T) {
	for _, mode := range []callback.Mode{callback.ModeReply, callback.ModeQueue} {
		for _, query := range []string{"", "?", "?a=b&c=%41%20d", "?a"} {
			s := newService(t, nil)
			rule := withMode(forwardAll(s.URL+"/wechat"+query), mode)
			rule.Token = wechat.NewSecret("plainSECRET")
			w := start(t, callback.Config{Forwards: []callback.Forward{rule}})
			w.wantResponse(w.message(textDoc("hello")), 200)
			eventually(t, "it arrives", func() bool { return len(s.deliveries()) > 0 })
			path := s.deliveries()[0].path
			own := strings.TrimPrefix(query, "?")
			_, got, _ := strings.Cut(path, "?")
			if own != "" && !strings.HasPrefix(got, own+"&") {
				t.Errorf("got path %q, want the query %q first", path, own)
			}
			q, err := url.ParseQuery(got)
			if err != nil {
				t.Fatal(err)
			}
			parts := []string{"plainSECRET", q.Get("timestamp"), q.Get("nonce")}
			slices.Sort(parts)
			sum := sha1.Sum([]byte(strings.Join(parts, "")))
			want := hex.EncodeToString(sum[:])
			if q.Get("signature") != want || q.Get("nonce") == "" {
				t.Errorf("got query %q, want signature %s", got, want)
			}
		}
	}
}

// In mode raw the push arrives byte for byte, with WeChat's query after the
// rule's own, and the response goes back byte for byte: Content-Type × body.
// What cannot go back is bad_reply, and what was not accepted is repeated.
func TestRawPushIsPassedOn(t *testing.T) {
	const plain, textXML = "text/plain; charset=utf-8", "text/xml; charset=utf-8"
	const appXML, appJSON = "application/xml", "application/json"
	const failed = "Internal Server Error\n"
	long := strings.Repeat("a", 1<<20+1)
	for name, tc := range map[string]struct {
		status          int
		kind, body      string
		want            int
		wantKind, bytes string
		result          string
	}{
		"XML":        {200, appXML, " <xml>\x01</xml>\n", 200, appXML, " <xml>\x01</xml>\n", "ok"},
		"JSON":       {200, appJSON, `{"Encrypt":"a"}`, 200, appJSON, `{"Encrypt":"a"}`, "ok"},
		"text":       {201, textXML, "success", 200, textXML, "success", "ok"},
		"empty":      {200, "", "", 200, plain, "", "ok"},
		"HTML":       {200, "text/html", "<xml></xml>", 200, plain, "<xml></xml>", "ok"},
		"over 1 MiB": {200, textXML, long, 200, plain, "success", "bad_reply"},
		"redirect":   {302, textXML, "success", 500, plain, failed, "undelivered"},
		"overloaded": {503, textXML, "success", 500, plain, failed, "undelivered"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", tc.kind)
				respondWith(tc.status, tc.body)(w, r)
			})
			rule := withMode(forwardAll(s.URL+"/wechat?a=%41"), callback.ModeRaw)
			w := start(t, callback.Config{Forwards: []callback.Forward{rule}})
			p := sealMessage(w.crypt, textDoc("hello"))
			r := w.sendTo(account, p)
			if r.status != tc.want || r.body != tc.bytes ||
				r.header.Get("Content-Type") != tc.wantKind {
				t.Errorf("got response %d %q %.99q, want %d %q %.99q", r.status,
					r.header.Get("Content-Type"), r.body, tc.want, tc.wantKind, tc.bytes)
			}
			w.wantCounted("message " + tc.result)
			d := s.deliveries()[0]
			wantPath := "/wechat?a=%41&" + p.query() + "&openid=" + user
			if d.path != wantPath || d.body != string(p.body) ||
				d.header.Get("Content-Type") != "text/xml" {
				t.Errorf("service: got %s %q, want %s %q", d.path, d.body, wantPath, p.body)
			}
		})
	}
}

// What is rejected reaches no service in mode raw either.
func TestRawPushIsVerified(t *testing.T) {
	s := newService(t, nil)
	w := start(t, callback.Config{Forwards: []callback.Forward{
		withMode(forwardAll(s.URL), callback.ModeRaw),
	}})
	forged := sealMessage(w.crypt, textDoc("hello"))
	forged.signature = strings.Repeat("0", 40)
	w.wantResponse(w.sendTo(account, forged), 403)
	old := sealAt(w.crypt, textDoc("hello"), time.Now().Add(-time.Hour))
	w.wantResponse(w.sendTo(account, old), 403)
	w.wantResponse(w.sendTo(account, sealMessage(w.crypt, ticketDoc())), 400)
	s.wantDeliveries(t, 0)
}

// Ten copies of a push at once, and one later: each mode. The service gets one,
// and all get the same response. In mode raw the same message in another push
// is asked for again, because the response belongs to the push, and has the
// same event.
func TestIdenticalPushesGetTheSameReply(t *testing.T) {
	for _, mode := range []callback.Mode{callback.ModeReply, callback.ModeRaw, callback.ModeQueue} {
		t.Run(string(mode), func(t *testing.T) {
			n := 0
			var mu sync.Mutex
			s := newService(t, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				n++
				w.Header().Set("Content-Type", "text/xml")
				_, _ = fmt.Fprintf(w, "<xml><a>%d</a></xml>", n)
			})
			rule := withMode(forwardAll(s.URL), mode)
			w := start(t, callback.Config{Forwards: []callback.Forward{rule}})
			p := sealMessage(w.crypt, textDoc("hello"))
			responses := make([]response, 10)
			var all sync.WaitGroup
			for i := range responses {
				all.Go(func() { responses[i] = w.sendTo(account, p) })
			}
			all.Wait()
			for _, r := range append(responses, w.sendTo(account, p)) {
				if r.status != 200 || r.body != responses[0].body {
					t.Errorf("got response %d %q, want 200 %q", r.status, r.body, responses[0].body)
				}
			}
			eventually(t, "nothing waits", func() bool { return w.waiting() == 0 })
			s.wantDeliveries(t, 1)
			again := w.message(textDoc("hello"))
			if mode != callback.ModeRaw {
				return
			}
			d := s.deliveries()
			if again.body != "<xml><a>2</a></xml>" || len(d) != 2 ||
				d[0].header.Get("X-Wxproxy-Event") != d[1].header.Get("X-Wxproxy-Event") {
				t.Errorf("another push: got %q and requests %q, want its own reply "+
					"and the same event", again.body, d)
			}
		})
	}
}

// WeChat's test passes by itself with rules that match everything: each mode.
// Its texts reach no service: one of them is an authorization code. Its events
// are copied for a rule that names the account.
func TestReleaseCheckPassesWithEveryMode(t *testing.T) {
	s, named := newService(t, nil), newService(t, nil)
	var rules []callback.Forward
	for _, mode := range []callback.Mode{callback.ModeQueue, callback.ModeRaw, callback.ModeReply} {
		rules = append(rules, withMode(forwardAll(s.URL+"/"+string(mode)), mode))
	}
	rules = append(rules, callback.Forward{
		AppIDs: []string{checkerAccount}, Events: []string{"*"}, URL: named.URL,
		Mode: callback.ModeQueue,
	})
	var x fakeExchanger
	var sender fakeSender
	w := start(t, callback.Config{Forwards: rules, ExchangeCode: x.exchange, SendText: sender.send})
	to := func(doc string) response { return w.sendTo(checkerAccount, sealMessage(w.crypt, doc)) }
	const text = "TESTCOMPONENT_MSG_TYPE_TEXT"
	w.wantTextReply(to(textDoc(text)), text+"_callback")
	w.wantEmpty(to(textDoc("QUERY_AUTH_CODE:" + authCode)))
	w.wantTextReply(to(accountEventDoc("LOCATION")), "LOCATIONfrom_callback")
	eventually(t, "the text is sent", func() bool { return len(sender.sent()) > 0 })
	eventually(t, "nothing waits", func() bool { return w.waiting() == 0 })
	s.wantDeliveries(t, 0)
	named.wantDeliveries(t, 1)
}
