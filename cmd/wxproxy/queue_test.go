//go:build unix

package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

// eventSink is a service that notes each delivery.
type eventSink struct {
	*httptest.Server
	mu   sync.Mutex
	got  []received
	fail func(received) bool // nil: all are accepted
}

// received is a delivery, and whether it was accepted.
type received struct {
	event, attempt, source, appid, doc string
	accepted                           bool
}

// newEventSink returns an eventSink that listens until the test ends.
func newEventSink(t *testing.T) *eventSink {
	t.Helper()
	s := &eventSink{}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *eventSink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return // wxproxy was killed
	}
	d := received{
		event: r.Header.Get("X-Wxproxy-Event"), attempt: r.Header.Get("X-Wxproxy-Attempt"),
		source: r.Header.Get("X-Wxproxy-Source"), appid: r.Header.Get("X-WX-APPID"),
		doc: string(b),
	}
	s.mu.Lock()
	d.accepted = s.fail == nil || !s.fail(d)
	s.got = append(s.got, d)
	s.mu.Unlock()
	if !d.accepted {
		w.WriteHeader(http.StatusInternalServerError)
	}
}

// accepted returns the deliveries whose document contains text and that were
// accepted, in their order.
func (s *eventSink) accepted(text string) (all []received) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.got {
		if d.accepted && strings.Contains(d.doc, text) {
			all = append(all, d)
		}
	}
	return all
}

// TestUnpushedChangesReachServices: a withdrawal whose push was lost, a return
// whose push was lost, and a withdrawal that was pushed × the comparison that
// finds it, another one, and kill -9 in between. The service gets one event of
// each, and those that were not pushed are marked.
func TestUnpushedChangesReachServices(t *testing.T) {
	service := newEventSink(t)
	w := newTestEnv(t, sandbox.Config{})
	w.callbackExtra = fmt.Sprintf("[[forward]]\nurl = %q", service.URL)
	w.start().authorized(accountA)
	sync := func() {
		t.Helper()
		if code, out := w.operate("accounts", "sync"); code != 0 {
			t.Fatalf("accounts sync: got exit code %d, %s", code, out)
		}
	}
	restart := func() {
		w.end(syscall.SIGKILL)
		w.start()
	}
	sync() // from here on an account without a record is news
	w.wx.SetPushURL("")
	if err := w.wx.Unauthorize(t.Context(), accountA); err != nil {
		t.Fatal(err)
	}
	sync()
	restart()
	sync()
	const gone, back = "<InfoType>unauthorized</InfoType>", "<InfoType>authorized</InfoType>"
	proctest.Eventually(t, func() bool { return len(service.accepted(gone)) > 0 })
	w.authorizedElsewhere(accountA)
	sync()
	restart()
	sync()
	proctest.Eventually(t, func() bool { return len(service.accepted(back)) > 0 })
	if err := w.wx.Unauthorize(t.Context(), accountA); err != nil { // is pushed
		t.Fatal(err)
	}
	sync()
	proctest.Eventually(t, func() bool {
		return len(service.accepted("<InfoType><![CDATA[unauthorized]]></InfoType>")) == 1
	})
	w.end(syscall.SIGTERM)
	for _, text := range []string{gone, back} {
		all := service.accepted(text)
		if len(all) != 1 || all[0].source != "comparison" || all[0].appid != accountA ||
			!strings.Contains(all[0].doc, "<AuthorizerAppid>"+accountA+"</AuthorizerAppid>") {
			t.Errorf("events with %s: got %+v, want one of %s from a comparison", text, all, accountA)
		}
	}
}

// killTest pushes messages of several accounts to wxproxy while that is killed.
// Like WeChat it repeats a push until that is answered with success.
type killTest struct {
	t       *testing.T
	client  http.Client
	targets []string // addresses of callback listeners
	stop    atomic.Bool
	all     sync.WaitGroup
	sent    []int // messages of each account
}

// killAccounts is how many accounts have messages.
const killAccounts = 6

func killAccount(n int) string { return fmt.Sprintf("wx%016x", 0xabc0+n) }

// begin starts to push.
func (k *killTest) begin() {
	k.client.Timeout = proctest.Patience
	k.sent = make([]int, killAccounts)
	for a := range killAccounts {
		k.all.Go(func() {
			for i := 0; !k.stop.Load(); i++ {
				doc := messageTo("gh_"+killAccount(a), fmt.Sprintf("#%d#", i))
				k.push(a+i, killAccount(a), record(k.t, doc, time.Now()))
				k.sent[a]++
			}
		})
	}
}

// push sends a push until it is answered with success.
func (k *killTest) push(n int, appid string, p recordedPush) {
	for ; !k.t.Failed(); n++ {
		url := "http://" + k.targets[n%len(k.targets)] + "/" + appid + "/events?" + p.query
		resp, err := k.client.Post(url, "text/xml", strings.NewReader(p.body))
		if err == nil {
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err == nil && resp.StatusCode == 200 && string(b) == "success" {
				return
			}
		}
		<-time.After(5 * time.Millisecond)
	}
}

// check stops pushing and waits until the service has every message that was
// answered with success. Each account's must have arrived in their order, and
// all copies of one under the same id.
func (k *killTest) check(service *eventSink) {
	t := k.t
	t.Helper()
	k.stop.Store(true)
	k.all.Wait()
	total, copies := 0, 0
	for a, n := range k.sent {
		total += n
		proctest.Eventually(t, func() bool {
			return k.distinct(service, a) == n
		})
		next, ids := 0, map[int]string{}
		for _, d := range service.accepted("gh_" + killAccount(a)) {
			i := number(d.doc)
			switch id, isCopy := ids[i]; {
			case isCopy && id != d.event:
				t.Errorf("copies of message %d: got ids %s and %s, want one", i, id, d.event)
			case isCopy:
				copies++
			case i != next || d.event == "" || d.appid != killAccount(a):
				t.Errorf("account %d: got message %d (%+v), want message %d", a, i, d, next)
			}
			ids[i] = d.event
			next = max(next, i+1)
		}
	}
	t.Logf("%d messages, %d of them delivered again", total, copies)
}

// distinct returns how many messages of an account the service has.
func (k *killTest) distinct(service *eventSink, a int) int {
	seen := map[int]bool{}
	for _, d := range service.accepted("gh_" + killAccount(a)) {
		seen[number(d.doc)] = true
	}
	return len(seen)
}

// number returns the number of a message.
func number(doc string) (n int) {
	_, rest, _ := strings.Cut(doc, "#")
	fmt.Sscanf(rest, "%d", &n)
	return n
}

// killRounds is how often the tests below kill wxproxy.
func killRounds(usual int) int {
	if n, err := strconv.Atoi(os.Getenv("WXPROXY_ROUNDS")); err == nil {
		return n
	}
	return usual
}

// TestKillLosesNoEvent: kill -9 at 50 random points of 0–60 ms while 6 accounts
// push messages for a queue, each until it is answered with success × file
// store. WXPROXY_ROUNDS sets how many.
func TestKillLosesNoEvent(t *testing.T) {
	service := newEventSink(t)
	w := newTestEnv(t, sandbox.Config{})
	w.callbackExtra = fmt.Sprintf("[[forward]]\nname = \"a\"\nmode = \"queue\"\nurl = %q", service.URL)
	w.start()
	k := &killTest{t: t, targets: []string{w.callback}}
	k.begin()
	for range killRounds(50) {
		<-time.After(time.Duration(rand.IntN(60)) * time.Millisecond)
		w.end(syscall.SIGKILL)
		w.start()
	}
	k.check(service)
	if code := w.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
}

// TestKilledReplicaLosesNoEvent: kill -9 of one of two replicas on one Redis at
// 6 random points of 0–300 ms, as in TestKillLosesNoEvent.
func TestKilledReplicaLosesNoEvent(t *testing.T) {
	service := newEventSink(t)
	f := newFleet(t, 2, sandbox.Config{})
	k := &killTest{t: t}
	for _, r := range f.replicas {
		r.kill()
		file, err := os.OpenFile(r.config, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(file, "[[forward]]\nname = \"a\"\nmode = \"queue\"\nurl = %q\n", service.URL)
		file.Close()
		r.linked = "wxproxy/callback/queue.leaseTime=11s"
		r.start()
		k.targets = append(k.targets, r.callback)
	}
	k.begin()
	for i := range killRounds(6) {
		<-time.After(time.Duration(rand.IntN(300)) * time.Millisecond)
		r := f.replicas[i%2]
		r.kill()
		r.start()
	}
	k.check(service)
}

// TestManyPushesAtOnce: messages of 100 accounts over 400 connections × 10,000
// for a queue on a file store, 4,000 on Redis. Each is answered with success
// and arrives once. With -v it says how many a second were accepted.
func TestManyPushesAtOnce(t *testing.T) {
	const accounts, connections = 100, 400
	for kind, pushes := range map[string]int{"file": 10_000, "Redis": 4000} {
		t.Run(kind, func(t *testing.T) {
			service := newEventSink(t)
			block := fmt.Sprintf("[[forward]]\nname = \"a\"\nmode = \"queue\"\nurl = %q", service.URL)
			w := newTestEnv(t, sandbox.Config{})
			if kind == "Redis" {
				w.store = onRedis(startRedis(t), "k")
			}
			w.callbackExtra, w.format = block, "json"
			w.start()
			var recorded []recordedPush
			for i := range pushes {
				doc := messageTo("gh_"+killAccount(i%accounts), fmt.Sprintf("#%d#", i/accounts))
				recorded = append(recorded, record(t, doc, time.Now()))
			}
			k := &killTest{t: t, targets: []string{w.callback}}
			k.client.Transport = &http.Transport{
				MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections,
			}
			began := time.Now()
			for i, p := range recorded {
				k.all.Go(func() { k.push(0, killAccount(i%accounts), p) })
			}
			k.all.Wait()
			in := time.Since(began)
			proctest.Eventually(t, func() bool { return len(service.accepted("")) >= pushes })
			t.Logf("%.0f events a second accepted, %.0f delivered",
				float64(pushes)/in.Seconds(), float64(pushes)/time.Since(began).Seconds())
			w.end(syscall.SIGTERM)
			seen := map[string]bool{}
			for _, d := range service.accepted("") {
				seen[d.event] = true
			}
			if n := len(service.accepted("")); n != pushes || len(seen) != pushes {
				t.Errorf("service: got %d deliveries of %d events, want %d", n, len(seen), pushes)
			}
		})
	}
}
