package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"wxproxy/callback/queue"
	"wxproxy/console"
	"wxproxy/tokens/store"
)

// eventsTest is an [adminTest] whose console has a queue in memory that
// delivers nothing: none of its services is configured.
type eventsTest struct {
	*adminTest
	*queue.Queue
	store store.Queue
}

func newEventsTest(t *testing.T) *eventsTest {
	t.Helper()
	e := &eventsTest{store: store.NewMemory().(store.Queuer).Queue()}
	e.Queue = queue.New(queue.Config{
		Store: e.store,
		Deliver: func(context.Context,
			queue.Delivery) error {
			return errors.New("not configured")
		},
		Service: func(string) (time.Duration, bool) { return 0, false },
	})
	t.Cleanup(func() { e.Close(context.Background()) })
	e.adminTest = newAdminTest(t, func(c *console.Config) { c.Events = e.Queue })
	return e
}

// add adds an event that was pushed two minutes ago.
func (e *eventsTest) add(id, appid, document string, services ...string) {
	e.t.Helper()
	err := e.Add(e.t.Context(), time.Hour, queue.Event{
		ID: id, AppID: appid, OpenID: "o-user\x1b[31m", Kind: "message",
		Document: []byte(document), Created: time.Now().Add(-130 * time.Second),
	}, services...)
	if err != nil {
		e.t.Fatal(err)
	}
}

// kill makes the first entry of a service dead, after a failed try.
func (e *eventsTest) kill(service, why string) {
	e.t.Helper()
	taken, err := e.store.Take(e.t.Context(), map[string]int{service: 1}, time.Minute)
	if err != nil || len(taken) != 1 {
		e.t.Fatalf("entries of %s: got %d, %v, want 1", service, len(taken), err)
	}
	outcome := store.QueueOutcome{Result: store.QueueDead, Error: why}
	if err := e.store.Settle(e.t.Context(), taken[0], outcome); err != nil {
		e.t.Fatal(err)
	}
}

// hostileText is what a user can write: it clears a terminal, changes the
// direction of text, and imitates the output of wxproxy.
const hostileText = "<xml><Content>\x1b[2J\u202e\nid  other\n</pre><script></Content></xml>"

// newFilledEvents returns a queue with three events, of which one is dead for
// one of its two services.
func newFilledEvents(t *testing.T) *eventsTest {
	t.Helper()
	e := newEventsTest(t)
	e.add("aaa1", plainAccount, hostileText, "crm", "orders")
	e.kill("crm", "HTTP 500\x1b[31m")
	e.add("bbb2", plainAccount, "<xml/>", "orders")
	e.add("ccc3", revokedAccount, "<xml/>", "orders")
	return e
}

const eventsTable = `ID    SERVICE  APPID               STATE    TRIES  PUSHED  NEXT
aaa1  orders   wxd000000000000001  waiting  0      2m ago  now
bbb2  orders   wxd000000000000001  waiting  0      2m ago  -
ccc3  orders   wxd000000000000002  waiting  0      2m ago  now
aaa1  crm      wxd000000000000001  dead     1      2m ago  -     HTTP 500?[31m
`

// The list has a line for each event and service; flags select by state,
// service, account and number.
func TestEventsList(t *testing.T) {
	e := newFilledEvents(t)
	e.want("events list", ran{out: eventsTable})
	head := regexp.MustCompile(`(?m)^\S+`)
	for args, want := range map[string]string{
		"--state dead":                         "ID aaa1",
		"--state waiting":                      "ID aaa1 bbb2 ccc3",
		"--service crm":                        "ID aaa1",
		"--appid " + revokedAccount:            "ID ccc3",
		"--service nothing":                    "ID",
		"--state waiting --limit 2":            "ID aaa1 bbb2",
		"--state dead --service orders":        "ID",
		"--limit 0 --appid " + failingAccount:  "ID",
		"--service orders --appid " + accountA: "ID",
	} {
		got := e.run(append([]string{"events", "list"}, strings.Fields(args)...)...)
		if ids := strings.Join(head.FindAllString(got.out, -1), " "); got.code != 0 || ids != want {
			t.Errorf("events list %s: got exit code %d and %s, want %s", args, got.code, ids, want)
		}
	}
	got := e.run("events", "list", "--json", "--limit", "1")
	var all struct {
		Total, Offset, Limit int
		Events               []map[string]any
	}
	if err := json.Unmarshal([]byte(got.out), &all); err != nil || all.Total != 4 ||
		all.Limit != 1 || len(all.Events) != 1 || len(all.Events[0]) != 8 ||
		got.errors != "wxproxy: 1 of 4 events listed\n" {
		t.Errorf("events list --json: got %+v, %v, want one of 4", got, err)
	}
}

// A long queue is listed page by page, each entry once, but only its first page
// without --limit.
func TestEventsListPages(t *testing.T) {
	e := newEventsTest(t)
	for i := range 1203 {
		e.add(fmt.Sprintf("e%04d", i), plainAccount, "<xml/>", "orders")
	}
	for args, want := range map[string]int{"": 1001, "--limit 0": 1204, "--limit 1100": 1101} {
		got := e.run(append([]string{"events", "list"}, strings.Fields(args)...)...)
		if n := strings.Count(got.out, "\n"); got.code != 0 || n != want ||
			(got.errors == "") != (want == 1204) {
			t.Errorf("events list %s: got %d lines, %q, want %d", args, n, got.errors, want)
		}
	}
}

// A document is printed as indented lines without anything that a terminal
// interprets; --json has all of it.
func TestEventsShow(t *testing.T) {
	e := newFilledEvents(t)
	got := e.run("events", "show", "aaa1")
	got.out = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:]{8}Z`).ReplaceAllString(got.out, "TIME")
	got.check(t, "events show aaa1", ran{out: `id       aaa1
account  wxd000000000000001
kind     message
user     o-user?[31m
type     text/xml
pushed   TIME, 2m ago

SERVICE  STATE    TRIES  PUSHED  NEXT
crm      dead     1      2m ago  -     HTTP 500?[31m
orders   waiting  0      2m ago  now

    <xml><Content>?[2J?
    id  other
    </pre><script></Content></xml>
`})
	got = e.run("events", "show", "aaa1", "--json", "--service", "orders")
	var v struct{ Document, Service string }
	if err := json.Unmarshal([]byte(got.out), &v); err != nil || v.Document != hostileText ||
		v.Service != "orders" || strings.Count(got.out, "\n") != 1 {
		t.Errorf("events show --json: got %v, %s, want the unchanged document", err, got.out)
	}
	e.add("ddd4", plainAccount, strings.Repeat("x", 40<<10), "orders")
	if got := e.run("events", "show", "ddd4"); len(got.out) > 34<<10 ||
		!strings.HasSuffix(got.out, "\n8192 more bytes: --json prints all of them\n") {
		t.Errorf("events show of a long document: got %d bytes, want the first 32 KiB",
			len(got.out))
	}
	key := store.QueueKey{Service: "crm", AppID: plainAccount, ID: "eee5"}
	entry := store.QueueEntry{QueueKey: key, Payload: []byte("x"), Created: time.Now()}
	if _, err := e.store.Add(t.Context(), time.Hour, entry); err != nil {
		t.Fatal(err)
	}
	if got := e.run("events", "show", "eee5"); got.code != 0 ||
		!strings.HasSuffix(got.out, "\nthe stored event cannot be read\n") {
		t.Errorf("events show of an unreadable event: got %+v", got)
	}
	const unknown = "unknown event (an event is kept until its services have accepted it, or " +
		"an operator drops it; GET /api/events lists those that are kept)"
	for _, args := range []string{"show fff6", "show bbb2 --service crm", "retry fff6",
		"retry bbb2 --service crm", "drop fff6", "drop bbb2 --service crm"} {
		e.want("events "+args, failsWith(unknown))
	}
}

// Retry is about an event for all services or one; drop, too, and asks on a
// terminal.
func TestEventsRetryAndDrop(t *testing.T) {
	e := newFilledEvents(t)
	e.want("events retry aaa1 --service crm", ran{out: "1 delivery is tried again now\n"})
	e.want("events list --state dead", ran{out: "ID  SERVICE  APPID  STATE  TRIES  PUSHED  NEXT\n"})
	e.want("events retry aaa1", ran{out: "2 deliveries are tried again now\n"})
	e.want("events retry aaa1 --json", ran{out: `{"retried":2}` + "\n"})
	e.want("events drop aaa1 --service crm --json", ran{out: `{"dropped":1}` + "\n"})
	e.want("events drop aaa1", ran{out: "1 delivery was dropped\n"})
	e.terminal = true
	const question = "Drop the event bbb2? [y/N] "
	for _, e.stdin = range []string{"n\n", "\n", ""} {
		canceled := failsWith("canceled: no event was dropped")
		canceled.errors = question + canceled.errors
		e.want("events drop bbb2", canceled)
	}
	e.stdin = "y\n"
	e.want("events drop bbb2", ran{out: "1 delivery was dropped\n", errors: question})
	e.want("events drop ccc3 --yes", ran{out: "1 delivery was dropped\n"})
	e.want("events list", ran{out: "ID  SERVICE  APPID  STATE  TRIES  PUSHED  NEXT\n"})
}

// The flags of retry --all become the query. Without --state it is about dead
// events only.
func TestEventsRetryAll(t *testing.T) {
	e := newFilledEvents(t)
	e.kill("orders", "timeout")
	e.want("events retry --all --state dead --service nothing",
		ran{out: "0 deliveries are tried again now\n"})
	e.want("events retry --all --service crm", ran{out: "1 delivery is tried again now\n"})
	e.want("events retry --all --json", ran{out: `{"retried":1}` + "\n"})
	e.want("events retry --all", ran{out: "0 deliveries are tried again now\n"})
	e.want("events retry --all --state waiting --service orders",
		ran{out: "3 deliveries are tried again now\n"})
	a := newAdminTest(t, nil)
	var asked string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.URL.RequestURI()
		fmt.Fprint(w, `{"retried":1234}`)
	}))
	defer srv.Close()
	a.url = srv.URL
	for args, want := range map[string]string{
		"":                                     "state=dead",
		"--state dead --service orders":        "service=orders&state=dead",
		"--state waiting":                      "state=waiting",
		"--service orders --appid " + accountA: "appid=" + accountA + "&service=orders&state=dead",
	} {
		a.want("events retry --all "+args, ran{out: "1234 deliveries are tried again now\n"})
		if want := "POST /api/events/retry?" + want; asked != want {
			t.Errorf("events retry --all %s: got the request %s, want %s", args, asked, want)
		}
	}
}

// A server that is not wxproxy, or is hostile, is reported, and nothing that it
// sends is printed as it is: {} × null × other types × escapes in each
// field.
func TestEventsFromAnotherServer(t *testing.T) {
	a := newAdminTest(t, nil)
	var body string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, body)
	}))
	defer srv.Close()
	a.url = srv.URL
	commands := []string{"events list", "events show aaa1", "events retry aaa1",
		"events retry --all", "events drop aaa1"}
	for _, body = range []string{"{}", "null", `{"total":"1","events":{}}`,
		`{"id":"other","retried":"1","dropped":null}`, `{"total":1,"events":[[]]}`} {
		for _, args := range commands {
			got := a.run(strings.Fields(args)...)
			if got.code != exitFailed || !strings.Contains(got.errors, "wxproxy") {
				t.Errorf("%s with the response %s: got %+v, want a failure", args, body, got)
			}
		}
	}
	const evil = `\u001b]0;x\u0007\u202e`
	body = `{"total":1,"events":[{"id":"` + evil + `","service":"` + evil + `","appid":"` + evil +
		`","state":"` + evil + `","error":"` + evil + `"}]}`
	a.run("events", "list") // run checks the output
	a.run("events", "list", "--json")
	body = strings.NewReplacer(`"id":"`+evil, `"id":"aaa1`, `{"total":1,"events":[`,
		`{"id":"aaa1","kind":"`+evil+`","openid":"`+evil+`","content_type":"`+evil+`","document":"`+
			evil+`","deliveries":[`).Replace(body)
	if got := a.run("events", "show", "aaa1"); got.code != 0 {
		t.Errorf("events show: got %+v, want success", got)
	}
	a.run("events", "show", "aaa1", "--json")
}

// Wrong command lines of each command: exit code 2, and no argument in the
// text.
func TestEventsUsage(t *testing.T) {
	const notAnID = "ID is not the id of an event: an id has lower-case letters and digits"
	a := newAdminTest(t, nil)
	for args, message := range map[string]string{
		"list x":             "list takes flags only, and there is an extra argument",
		"list --limit -1":    "--limit is negative",
		"list --state all":   "--state is not waiting or dead",
		"list --service a/b": "--service is not the name of a service",
		"list --appid x":     "--appid is not an appid: " + appIDForm,
		"show":               "show needs ID",
		"show " +
			hiddenArgument: notAnID,
		"show aaa1 bbb2":                 "show takes ID, and there is an extra argument",
		"show aaa1 --service a/b":        "--service is not the name of a service",
		"retry":                          "retry needs ID",
		"retry ../sync":                  notAnID,
		"retry aaa1 --all":               "retry takes ID or --all, not both",
		"retry aaa1 --state dead":        "--state and --appid need --all",
		"retry aaa1 --appid " + accountA: "--state and --appid need --all",
		"retry --all --state all":        "--state is not waiting or dead",
		"retry --all --service a/b":      "--service is not the name of a service",
		"drop":                           "drop needs ID",
		"drop AAA1":                      notAnID,
		"drop --all":                     `unknown flag "--all"`,
	} {
		command, _, _ := strings.Cut(args, " ")
		a.want("events "+args, wrongUsage("events "+command, message))
	}
}
