package console_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/callback/queue"
	"wxproxy/console"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// fakeEvents is a queue in memory whose operations fail if fail is set.
type fakeEvents struct {
	*queue.Queue
	store store.Queue
	mu    sync.Mutex
	fail  error
	size  queue.Totals
}

// newEvents returns an empty queue that delivers nothing: none of its services
// is configured.
func newEvents(t *testing.T) *fakeEvents {
	t.Helper()
	q := store.NewMemory().(store.Queuer).Queue()
	e := &fakeEvents{store: q, Queue: queue.New(queue.Config{
		Store:   q,
		Deliver: func(context.Context, queue.Delivery) error { return errors.New("not configured") },
		Service: func(string) (time.Duration, bool) { return 0, false },
	})}
	t.Cleanup(func() { e.Close(context.Background()) })
	return e
}

func (e *fakeEvents) err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.fail
}

func (e *fakeEvents) setErr(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fail = err
}

func (e *fakeEvents) Totals() (queue.Totals, bool) { return e.size, e.err() == nil }

func (e *fakeEvents) List(
	ctx context.Context, f store.QueueFilter, offset, limit int,
) (int, []store.QueueEntry, error) {
	if err := e.err(); err != nil {
		return 0, nil, err
	}
	return e.Queue.List(ctx, f, offset, limit)
}

func (e *fakeEvents) Find(ctx context.Context, id string) ([]queue.Stored, error) {
	if err := e.err(); err != nil {
		return nil, err
	}
	return e.Queue.Find(ctx, id)
}

func (e *fakeEvents) Retry(ctx context.Context, id, service string) (int, error) {
	if err := e.err(); err != nil {
		return 0, err
	}
	return e.Queue.Retry(ctx, id, service)
}

func (e *fakeEvents) Drop(ctx context.Context, id, service string) (int, error) {
	if err := e.err(); err != nil {
		return 0, err
	}
	return e.Queue.Drop(ctx, id, service)
}

func (e *fakeEvents) RetryAll(ctx context.Context, f store.QueueFilter) (n int, err error) {
	if err := e.err(); err != nil {
		return 0, err
	}
	return e.Queue.RetryAll(ctx, f)
}

// add adds an event for services.
func (e *fakeEvents) add(t *testing.T, id, appid, document string, services ...string) {
	t.Helper()
	err := e.Add(t.Context(), time.Hour, queue.Event{
		ID: id, AppID: appid, OpenID: "o-user", Kind: "message", Document: []byte(document),
		Created: time.Date(2026, 5, 4, 3, 2, 1, 987e6, time.FixedZone("CST", 8*3600)),
	}, services...)
	if err != nil {
		t.Fatal(err)
	}
}

// kill makes an entry of a service dead, after a failed try, and returns the
// account.
func (e *fakeEvents) kill(t *testing.T, service, why string) (appid string) {
	t.Helper()
	taken, err := e.store.Take(t.Context(), map[string]int{service: 1}, time.Minute)
	if err == nil && len(taken) == 1 {
		err = e.store.Settle(t.Context(), taken[0],
			store.QueueOutcome{Result: store.QueueDead, Error: why})
	}
	if err != nil || len(taken) != 1 {
		t.Fatalf("a dead entry: got %d taken, %v", len(taken), err)
	}
	return taken[0].AppID
}

// newEventTest starts a console whose queue has three events: one for two
// services of which one is dead, and one each for another account and with
// JSON.
func newEventTest(t *testing.T, change func(*console.Config)) (*fakeEvents, string) {
	t.Helper()
	e := newEvents(t)
	e.add(t, "aaa1", accountA, hostileDocument, "crm", "orders")
	e.kill(t, "crm", "HTTP 500")
	e.add(t, "bbb2", accountA, "<xml/>", "orders")
	e.add(t, "ccc3", accountB, "<xml/>", "orders")
	c := newBackend().config()
	c.Events = e
	if change != nil {
		change(&c)
	}
	return e, start(t, c)
}

// hostileDocument is text of a user that a page must not interpret.
const hostileDocument = "<xml>" +
	"<Content></pre><script>alert(1)</script>\u2028\x1b[31m\xff</Content></xml>"

// entries describes the entries in a response as ID/SERVICE/STATE.
func entries(t *testing.T, got answer, member string) (all []string) {
	t.Helper()
	list, ok := got.fields(t)[member].([]any)
	if !ok {
		t.Fatalf("got %d %s, want %s", got.status, got.body, member)
	}
	for _, one := range list {
		m := one.(map[string]any)
		all = append(all, fmt.Sprintf("%v/%v/%v", m["id"], m["service"], m["state"]))
	}
	return all
}

// An entry has all eight fields, whatever its state: waiting × first or later
// of its lane × dead. The list takes state, service, appid, offset and limit.
func TestEventList(t *testing.T) {
	_, address := newEventTest(t, nil)
	got := ask(t, address, "GET", "/api/events", "")
	if got.status != 200 || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("list: got %d %v, want 200 and no-store", got.status, got.header)
	}
	for _, one := range got.fields(t)["events"].([]any) {
		m := one.(map[string]any)
		next, _ := m["next"].(string)
		_, err := time.Parse(time.RFC3339, next)
		first := m["id"] != "bbb2" && m["state"] == "waiting"
		if len(m) != 8 || m["created"] != "2026-05-03T19:02:01Z" || (err == nil) != first ||
			(m["error"] == "HTTP 500") != (m["state"] == "dead") ||
			m["attempts"] != map[any]float64{"dead": 1, "waiting": 0}[m["state"]] {
			t.Errorf("entry: got %v", m)
		}
	}
	const all = "[aaa1/orders/waiting bbb2/orders/waiting ccc3/orders/waiting aaa1/crm/dead]"
	for query, want := range map[string]string{
		"":                                       "4 0 50 " + all,
		"?state=&service=&appid=&offset=&limit=": "4 0 50 " + all,
		"?state=waiting": "3 0 50 " +
			all[:len(all)-len(" aaa1/crm/dead]")] + "]",
		"?state=dead":                "1 0 50 [aaa1/crm/dead]",
		"?service=crm":               "1 0 50 [aaa1/crm/dead]",
		"?service=nothing":           "0 0 50 []",
		"?appid=" + accountB:         "1 0 50 [ccc3/orders/waiting]",
		"?appid=" + unknown:          "0 0 50 []",
		"?offset=3&limit=9999":       "4 3 1000 [aaa1/crm/dead]",
		"?offset=99":                 "4 99 50 []",
		"?limit=1":                   "4 0 1 [aaa1/orders/waiting]",
		"?state=dead&service=orders": "0 0 50 []",
		"?state=waiting&service=orders&appid=" + accountA +
			"&limit=1": "2 0 1 [aaa1/orders/waiting]",
	} {
		got := ask(t, address, "GET", "/api/events"+query, "")
		m := got.fields(t)
		have := fmt.Sprint(m["total"], m["offset"], m["limit"], entries(t, got, "events"))
		if strings.ReplaceAll(have, " ", "") != strings.ReplaceAll(want, " ", "") {
			t.Errorf("list %s: got %s, want %s", query, have, want)
		}
	}
}

// The response about one event has the fields of an entry, its document
// unchanged apart from what is no UTF-8, and the entries of all services.
func TestEventDocument(t *testing.T) {
	var logged logBuffer
	_, address := newEventTest(t, func(c *console.Config) { c.Log = logged.logger() })
	got := ask(t, address, "GET", "/api/events/aaa1", "")
	m := got.fields(t)
	if got.status != 200 || got.header.Get("Cache-Control") != "no-store" ||
		strings.Contains(got.body, "<script") {
		t.Errorf("document: got %d %v %s, want 200, no-store and no markup", got.status, got.header,
			got.body)
	}
	if m["document"] != strings.ToValidUTF8(hostileDocument, "\ufffd") ||
		m["content_type"] != "text/xml" ||
		m["openid"] != "o-user" || m["appid"] != accountA || m["service"] != "crm" ||
		m["state"] != "dead" {
		t.Errorf("document: got %v", m)
	}
	if all := fmt.Sprint(entries(t, got,
		"deliveries")); all != "[aaa1/crm/dead aaa1/orders/waiting]" {
		t.Errorf("deliveries: got %s", all)
	}
	got = ask(t, address, "GET", "/api/events/aaa1?service=orders", "")
	if m := got.fields(t); m["service"] != "orders" || m["state"] != "waiting" ||
		len(m["deliveries"].([]any)) != 2 {
		t.Errorf("document for a service: got %s", got.body)
	}
	if n := strings.Count(logged.String(), "event shown to operator"); n != 2 ||
		strings.Contains(logged.String(), "alert") {
		t.Errorf("log: got %s, want two lines without the document", logged.String())
	}
}

// An entry whose event cannot be read is shown without a document.
func TestUnreadableEvent(t *testing.T) {
	e, address := newEventTest(t, nil)
	_, err := e.store.Add(t.Context(), time.Hour, store.QueueEntry{
		QueueKey: store.QueueKey{Service: "crm", AppID: accountB, ID: "ddd4"},
		Payload:  []byte("no JSON"), Created: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	m := ask(t, address, "GET", "/api/events/ddd4", "").fields(t)
	if document, has := m["document"]; !has || document != nil || m["service"] != "crm" {
		t.Errorf("unreadable event: got %v, want a document that is null", m)
	}
}

// Retry and drop are about the event for one service or for all, and each is
// logged.
func TestEventRetryAndDrop(t *testing.T) {
	var logged logBuffer
	e, address := newEventTest(t, func(c *console.Config) { c.Log = logged.logger() })
	do := func(method, path, want string) {
		t.Helper()
		if got := ask(t, address, method, path, ""); got.status != 200 || got.body != want+"\n" {
			t.Errorf("%s %s: got %d %s, want %s", method, path, got.status, got.body, want)
		}
	}
	dead := func(want string) {
		t.Helper()
		if got := fmt.Sprint(entries(t, ask(t, address, "GET", "/api/events?state=dead", ""),
			"events")); got != want {
			t.Errorf("dead events: got %s, want %s", got, want)
		}
	}
	do("POST", "/api/events/aaa1/retry?service=orders", `{"retried":1}`)
	dead("[aaa1/crm/dead]")
	do("POST", "/api/events/aaa1/retry?service=crm", `{"retried":1}`)
	dead("[]")
	do("POST", "/api/events/aaa1/retry", `{"retried":2}`)
	e.kill(t, "crm", "HTTP 500")
	killed, other := e.kill(t, "orders", "timeout"), accountA
	if killed == accountA {
		other = accountB
	}
	do("POST", "/api/events/retry?state=dead&service=nothing", `{"retried":0}`)
	do("POST", "/api/events/retry?state=dead&service=crm", `{"retried":1}`)
	do("POST", "/api/events/retry?state=dead&appid="+other, `{"retried":0}`)
	do("POST", "/api/events/retry?state=dead&appid="+killed, `{"retried":1}`)
	dead("[]")
	do("POST", "/api/events/retry", `{"retried":4}`)
	do("DELETE", "/api/events/aaa1?service=crm", `{"dropped":1}`)
	do("DELETE", "/api/events/aaa1", `{"dropped":1}`)
	for _, line := range []string{
		`"event retried by operator" event=aaa1 service=crm retried=1`,
		`"events retried by operator" state=dead service=crm account="" retried=1 complete=true`,
		`"event dropped by operator" event=aaa1 service=crm dropped=1`,
	} {
		if !strings.Contains(logged.String(), line) {
			t.Errorf("log: got no %s in\n%s", line, logged.String())
		}
	}
	for _, request := range []string{"GET /api/events/aaa1", "DELETE /api/events/aaa1",
		"POST /api/events/aaa1/retry", "DELETE /api/events/bbb2?service=crm",
		"GET /api/events/bbb2?service=crm", "POST /api/events/bbb2/retry?service=crm"} {
		method, path, _ := strings.Cut(request, " ")
		if got := ask(t, address, method, path, ""); got.status != 404 ||
			got.fields(t)["error"] != "unknown event" {
			t.Errorf("%s: got %d %s, want 404", request, got.status, got.body)
		}
	}
}

// Each wrong request gets JSON with a text: unknown and repeated parameters ×
// invalid values × every operation, ids that are none, wrong methods. Nothing
// is changed, and nothing is quoted.
func TestInvalidEventRequests(t *testing.T) {
	_, address := newEventTest(t, nil)
	f := func(method, path string, status int) {
		t.Helper()
		got := ask(t, address, method, path, "")
		if got.status != status || method != "HEAD" && (got.fields(t)["error"] == nil ||
			got.fields(t)["hint"] == nil || strings.Contains(got.body, "hostile")) {
			t.Errorf("%s %s: got %d %s, want %d and a text that quotes nothing",
				method, path, got.status, got.body, status)
		}
	}
	long := strings.Repeat("x", 65)
	for _, q := range []string{"state=hostile", "state=Dead", "state=waiting,dead",
		"state=dead&state=dead",
		"states=dead", "service=a/hostile", "service=%00", "service=" + long, "appid=hostile",
		"appid=wx", "hostile=1", "hostile", "state=dead&q=hostile", "state=%zz",
		"state=dead;service=crm"} {
		f("GET", "/api/events?"+q, 400)
		f("POST", "/api/events/retry?"+q, 400)
	}
	for _, q := range []string{"offset=-1", "offset=hostile", "limit=0", "limit=-1", "limit=1e3"} {
		f("GET", "/api/events?"+q, 400)
	}
	f("POST", "/api/events/retry?limit=1", 400) // it would retry more than that
	for _, q := range []string{"service=a/hostile", "services=crm", "state=dead",
		"service=crm&service=crm"} {
		f("GET", "/api/events/aaa1?"+q, 400)
		f("DELETE", "/api/events/aaa1?"+q, 400)
		f("POST", "/api/events/aaa1/retry?"+q, 400)
	}
	for _, id := range []string{"", "hostile", "aaa", "AAA1", "%61aa1", "..", "%2e%2e", "a%2Fb",
		"%00",
		"aaa1%20", strings.Repeat("a", 129), "*", "queue%2Fcrm"} {
		f("GET", "/api/events/"+id, 404)
		f("HEAD", "/api/events/"+id, 404)
		f("DELETE", "/api/events/"+id, 404)
		f("POST", "/api/events/"+id+"/retry", 404)
	}
	for _, path := range []string{"/api/events/aaa1/", "/api/events/aaa1/hostile",
		"/api/events/aaa1/retry/"} {
		if got := ask(t, address, "POST", path, ""); got.status != 404 {
			t.Errorf("POST %s: got %d, want 404", path, got.status)
		}
	}
	for _, request := range []string{"POST /api/events", "DELETE /api/events",
		"PUT /api/events/aaa1",
		"POST /api/events/aaa1", "GET /api/events/aaa1/retry", "GET /api/events/retry",
		"DELETE /api/events/retry", "PATCH /api/events/retry"} {
		method, path, _ := strings.Cut(request, " ")
		f(method, path, 405)
	}
	got := ask(t, address, "GET", "/api/events", "")
	if n := len(entries(t, got, "events")); n != 4 {
		t.Errorf("entries after wrong requests: got %d, want 4", n)
	}
}

// A queue that does not respond is 503 with Retry-After, for every operation.
// The text of its error is only logged.
func TestQueueErrorsBecomeStatuses(t *testing.T) {
	var logged logBuffer
	e, address := newEventTest(t, func(c *console.Config) { c.Log = logged.logger() })
	for _, c := range []struct {
		err               error
		words, retryAfter string
	}{
		{errors.New("dial 10.1.2.3: secret"), "the store of the queue does not respond", "5"},
		{store.ErrClosed, "stopping", "1"},
		{context.DeadlineExceeded, "timeout", "1"},
	} {
		e.setErr(c.err)
		for _, request := range []string{"GET /api/events", "GET /api/events/aaa1",
			"DELETE /api/events/aaa1",
			"POST /api/events/aaa1/retry", "POST /api/events/retry?state=dead"} {
			method, path, _ := strings.Cut(request, " ")
			got := ask(t, address, method, path, "")
			if text := fmt.Sprint(got.fields(t)["error"]); got.status != 503 ||
				!strings.Contains(text, c.words) ||
				got.header.Get("Retry-After") != c.retryAfter || strings.Contains(got.body,
				"secret") {
				t.Errorf("%v, %s: got %d %s, Retry-After %q", c.err, request, got.status, got.body,
					got.header.Get("Retry-After"))
			}
		}
	}
	if n := strings.Count(logged.String(), "secret"); n != 5 {
		t.Errorf("log: got the error %d times, want 5", n)
	}
}

// The guards of the admin listener hold for events, too: wrong and missing key,
// foreign origin, foreign host × every operation. Without a queue there are no
// such paths.
func TestEventsRequireKeyAndSameSite(t *testing.T) {
	e, address := newEventTest(t, func(c *console.Config) {
		c.Key, c.Loopback = wechat.NewSecret(key), true
	})
	right := "Authorization: Bearer " + key
	for _, request := range []string{"GET /api/events", "GET /api/events/aaa1",
		"DELETE /api/events/aaa1",
		"POST /api/events/aaa1/retry", "POST /api/events/retry?state=dead",
		"GET /api/events/nothing"} {
		method, path, _ := strings.Cut(request, " ")
		f := func(status int, headers ...string) {
			t.Helper()
			got := ask(t, address, method, path, "", headers...)
			if got.status != status || got.fields(t)["error"] == nil {
				t.Errorf("%s with %v: got %d %s, want %d", request, headers, got.status, got.body,
					status)
			}
		}
		f(401)
		f(401, "Authorization: Bearer wrong")
		f(403, right, "Sec-Fetch-Site: cross-site")
		f(403, right, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate",
			"Sec-Fetch-Dest: document")
		f(403, right, "Origin: https://evil.example")
		f(403, right, "Origin: null")
		if got := send(t, address, request+" HTTP/1.1", "Host: evil.example",
			right); got.status != 403 {
			t.Errorf("%s for another host: got %d, want 403", request, got.status)
		}
	}
	if got := ask(t, address, "GET", "/api/events?state=dead", "",
		right); got.fields(t)["total"] != 1.0 {
		t.Errorf("dead events after denied requests: got %s, want 1", got.body)
	}
	if all, err := e.Find(t.Context(), "aaa1"); err != nil || len(all) != 2 {
		t.Errorf("event after denied requests: got %d entries, %v, want 2", len(all), err)
	}
	none := start(t, newBackend().config())
	for _, path := range []string{"/api/events", "/api/events/aaa1", "/api/events/retry"} {
		if got := ask(t, none, "GET", path, ""); got.status != 404 {
			t.Errorf("%s without a queue: got %d, want 404", path, got.status)
		}
	}
}

// The status has the size of the queue, and null while it is not known.
func TestStatusHasEvents(t *testing.T) {
	e, address := newEventTest(t, nil)
	f := func(want string) {
		t.Helper()
		b, err := json.Marshal(ask(t, address, "GET", "/api/status", "").fields(t)["events"])
		if err != nil || string(b) != want {
			t.Errorf("events in the status: got %s, %v, want %s", b, err, want)
		}
	}
	f(`{"dead":0,"oldest":null,"waiting":0}`)
	e.size = queue.Totals{Waiting: 7, Dead: 2,
		Oldest: time.Now().Add(-90*time.Second - 500*time.Millisecond)}
	f(`{"dead":2,"oldest":90,"waiting":7}`)
	e.size.Oldest = time.Now().Add(time.Hour) // clocks differ
	f(`{"dead":2,"oldest":0,"waiting":7}`)
	e.setErr(errors.New("away"))
	f(`null`)
}
