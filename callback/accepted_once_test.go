package callback_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/callback"
	"wxproxy/tokens/store"
	"wxproxy/tokens/store/bolt"
	"wxproxy/wechat"
)

var _ callback.Claims = store.Store(nil)

// thirdAccount has no push of its own in these tests.
const thirdAccount = "wx0000000000000002"

// TestAgeOfPushes: age from 400 days to 6 minutes ahead × message, event,
// ticket × the default limit and another one, which a reload sets.
func TestAgeOfPushes(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	const day = 24 * time.Hour
	for _, tc := range []struct {
		signed   time.Duration // ahead of the clock
		maxAge   time.Duration // 0: the default
		accepted bool          // of messages and events; tickets always are
	}{
		{signed: -400 * day},
		{signed: -day},
		{signed: -16 * time.Minute},
		{signed: -15*time.Minute - time.Second},
		{signed: -15 * time.Minute, accepted: true},
		{signed: -14 * time.Minute, accepted: true},
		{signed: 0, accepted: true},
		{signed: 4 * time.Minute, accepted: true},
		{signed: 5 * time.Minute, accepted: true},
		{signed: 6 * time.Minute},
		{signed: 400 * day},
		{signed: -16 * time.Minute, maxAge: time.Hour, accepted: true},
		{signed: -61 * time.Minute, maxAge: time.Hour},
		{signed: -2 * time.Minute, maxAge: time.Minute},
	} {
		t.Run(fmt.Sprint(tc.signed, " of ", tc.maxAge), func(t *testing.T) {
			s := newService(t, nil)
			rule := forwardAll(s.URL)
			rule.Events = []string{"text"}
			c := callback.Config{Forwards: []callback.Forward{rule}}
			c.Now = func() time.Time { return now }
			w := start(t, c)
			c.ComponentAppID, c.Crypts, c.MaxAge = component, []*wechat.Crypt{w.crypt}, tc.maxAge
			w.handler.Reconfigure(c)
			at := now.Add(tc.signed)
			status, result, deliveries := 403, "wrong_time", 0
			if tc.accepted {
				status, result, deliveries = 200, "ok", 1
			}
			m := sealAt(w.crypt, textDoc("hello"), at)
			w.wantResponse(w.sendTo(account, m), status)
			w.wantResponse(w.send(sealAt(w.crypt, unauthorizedDoc(), at)), status)
			w.wantResponse(w.send(sealAt(w.crypt, ticketDoc(), at)), 200)
			w.wantCounted("message "+result, "unauthorized "+result, "component_verify_ticket ok")
			s.wantDeliveries(t, deliveries)
			if !tc.accepted {
				w.wantStored(ticketStored)
				w.wantLogged("check that the clock of this machine is synchronized (NTP)")
			}
		})
	}
}

// With a wrong clock every push is rejected. The log says so, and does not grow
// with the pushes.
func TestRejectedPushesDoNotFloodTheLog(t *testing.T) {
	now := time.Now()
	var ahead atomic.Int64
	clock := func() time.Time { return now.Add(time.Duration(ahead.Load())) }
	w := start(t, callback.Config{Now: clock})
	old := func() {
		p := sealAt(w.crypt, textDoc("a"), now.Add(-time.Hour))
		w.wantResponse(w.sendTo(account, p), 403)
	}
	for range 100 {
		old()
	}
	if n := strings.Count(w.logged(), "NTP"); n != 10 {
		t.Errorf("got %d lines in the log for 100 pushes, want 10", n)
	}
	ahead.Store(int64(time.Minute))
	old()
	w.wantLogged("not_logged=90")
}

// TestOldPushCannotBeMadeFresh: the signature covers timestamp and nonce
// without a separator, so digits of a nonce can be made into a timestamp. The
// nonces here are such that this gives the present time: nonce of 9, 10 and 12
// digits × in front of and behind the timestamp.
func TestOldPushCannotBeMadeFresh(t *testing.T) {
	s := newService(t, nil)
	w := start(t, callback.Config{Forwards: []callback.Forward{forwardAll(s.URL)}})
	now := strconv.FormatInt(time.Now().Unix(), 10)
	for name, tc := range map[string]struct{ timestamp, nonce, newTimestamp, newNonce string }{
		"swapped":           {"1512627534", now, now, "1512627534"},
		"swapped, later":    {"1912627534", now, now, "1912627534"},
		"digit moved":       {"151262753" + now[:1], now[1:], now, "151262753"},
		"two digits moved":  {"15126275" + now[:2], now[2:], now, "15126275"},
		"longer nonce":      {"1512627534", "19" + now, now, "151262753419"},
		"nonce in front":    {"1912627534", now + "12", now, "121912627534"},
		"nonce of two more": {"1912627534", now + "1", now, "11912627534"},
	} {
		// WeChat makes a document in the second in which it signs it.
		doc := strings.Replace(textDoc(name), "1715943329", tc.timestamp, 1)
		p := seal(w.crypt, doc)
		envelope, err := wechat.ParseEnvelope(p.body)
		if err != nil {
			t.Fatal(err)
		}
		p.timestamp, p.nonce = tc.newTimestamp, tc.newNonce
		p.signature = w.crypt.Signature(tc.timestamp, tc.nonce, envelope.Encrypt)
		if w.crypt.Signature(p.timestamp, p.nonce, envelope.Encrypt) != p.signature {
			continue // Encrypt happens to be sorted in between, or it is no splice at all
		}
		w.wantResponse(w.sendTo(account, p), 403)
	}
	if n := len(w.counted()); n < 3 {
		t.Errorf("got %d pushes with a valid signature, want 3 at least", n)
	}
	s.wantDeliveries(t, 0)
}

// TestEncryptCannotBeShortened: the first 64 characters of Encrypt are whole
// blocks, and could become the end of the nonce under the same signature. The
// rest decrypts to what a user has written, here a whole message.
func TestEncryptCannotBeShortened(t *testing.T) {
	s := newService(t, nil)
	w := start(t, callback.Config{Forwards: []callback.Forward{forwardAll(s.URL)}})
	inner := textDoc("forged")
	doc := strings.Repeat(" ", 28+16) + string(binary.BigEndian.AppendUint32(nil, uint32(len(inner)))) + inner
	for range 10_000 {
		p := seal(w.crypt, doc)
		envelope, err := wechat.ParseEnvelope(p.body)
		if err != nil {
			t.Fatal(err)
		}
		p.nonce += envelope.Encrypt[:64]
		rest := envelope.Encrypt[64:]
		if w.crypt.Signature(p.timestamp, p.nonce, rest) != p.signature {
			continue // not sorted one after the other
		}
		if got, err := w.crypt.Decrypt(rest); err != nil || string(got) != inner {
			t.Fatalf("shortened Encrypt: got %q, error %v, want the inner message", got, err)
		}
		p.body = []byte("<xml><Encrypt>" + rest + "</Encrypt></xml>")
		w.wantResponse(w.sendTo(account, p), 400)
		s.wantDeliveries(t, 0)
		return
	}
	t.Fatal("got no push that can be shortened")
}

// openBolt opens a sealed store in a file.
func openBolt(t *testing.T, path string) store.Store {
	t.Helper()
	s, err := bolt.OpenFile(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// claiming is a Config whose pushes are claimed in s. No test depends on how
// fast the store is.
func claiming(s store.Store, service *fakeService) callback.Config {
	rule := forwardAll(service.URL)
	rule.Events = []string{"text", "unauthorized"}
	return callback.Config{
		Claims: s, ClaimTimeout: 2 * time.Minute, Forwards: []callback.Forward{rule},
	}
}

// TestPushIsHandledOnce: message, event × the same process, another process,
// after a restart with the same file, after 20,000 other pushes. The service is
// asked once. A repeat gets the same bytes from the same process within a
// minute, and success from all others.
func TestPushIsHandledOnce(t *testing.T) {
	const passive = "<xml><a>b</a></xml>"
	s := newService(t, respondWith(200, passive))
	path := filepath.Join(t.TempDir(), "a.db")
	file := openBolt(t, path)
	queue := store.NewMemory().(store.Queuer).Queue() // that the processes share
	process := func(claims store.Store) *env {
		c := claiming(claims, s)
		c.Queue = queue
		return start(t, c)
	}
	first, second := process(file), process(file)
	message := sealMessage(first.crypt, textDoc("hello"))
	event := seal(first.crypt, unauthorizedDoc())

	reply := first.sendTo(account, message)
	first.wantReply(reply, passive)
	if again := first.sendTo(account, message); again.body != reply.body {
		t.Errorf("repeat in the same process: got %q, want the same bytes %q", again.body, reply.body)
	}
	first.wantResponse(first.send(event), 200)
	first.wantResponse(first.send(event), 200)
	second.wantResponse(second.sendTo(account, message), 200)
	second.wantResponse(second.send(event), 200)
	second.wantCounted("message replayed", "unauthorized replayed")

	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	restarted := process(openBolt(t, path))
	for _, others := range []int{20_000, 0} {
		restarted.wantResponse(restarted.sendTo(account, message), 200)
		restarted.wantResponse(restarted.send(event), 200)
		pushOthers(t, restarted, others)
	}
	eventually(t, "all is delivered", func() bool { return first.waiting() == 0 })
	counts := map[string]int{}
	for _, d := range s.deliveries() {
		for _, name := range []string{"hello", "unauthorized"} {
			if strings.Contains(d.body, name) {
				counts[name]++
			}
		}
	}
	if counts["hello"] != 1 || counts["unauthorized"] != 1 {
		t.Errorf("service: got pushes %v, want each once", counts)
	}
}

// pushOthers sends n different events, without connections. They are sent
// concurrently, because the store commits concurrent claims together.
func pushOthers(t *testing.T, w *env, n int) {
	t.Helper()
	var all sync.WaitGroup
	var next atomic.Int64
	for range 250 {
		all.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				p := seal(w.crypt, eventDoc(component, fmt.Sprint("brand_new", i)))
				resp := httptest.NewRecorder()
				w.handler.ServeHTTP(resp, httptest.NewRequest(http.MethodPost,
					"/component/events?"+p.query(), strings.NewReader(string(p.body))))
				if resp.Code != 200 {
					t.Errorf("push: got status %d, want 200", resp.Code)
				}
			}
		})
	}
	all.Wait()
}

// TestConcurrentCopiesAreHandledOnce: 20 copies of a push, over 3 processes.
func TestConcurrentCopiesAreHandledOnce(t *testing.T) {
	s := newService(t, nil)
	shared := store.NewMemory()
	var processes []*env
	for range 3 {
		processes = append(processes, start(t, claiming(shared, s)))
	}
	p := sealMessage(processes[0].crypt, textDoc("hello"))
	var all sync.WaitGroup
	for i := range 20 {
		w := processes[i%3]
		all.Go(func() { w.wantResponse(w.sendTo(account, p), 200) })
	}
	all.Wait()
	s.wantDeliveries(t, 1)
}

// TestRejectedCopyDoesNotUseUpThePush: copies with another account's path,
// another signature, a damaged body, and at a time at which the push is not
// valid, arrive first: the push is handled. After a failure of the service, it
// is handled by the same process and by another one.
func TestRejectedCopyDoesNotUseUpThePush(t *testing.T) {
	s := newService(t, respondWith(500, ""))
	shared := store.NewMemory()
	var offset atomic.Int64
	c := claiming(shared, s)
	c.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	c.IsFor = func(_ context.Context, appid, _ string) (bool, error) {
		return appid == account, nil
	}
	first, second := start(t, c), start(t, c)
	p := sealMessage(first.crypt, textDoc("hello"))

	first.wantResponse(first.sendTo(otherAccount, p), 403)
	forged, damaged := p, p
	forged.signature = strings.Repeat("0", 40)
	damaged.body = p.body[:len(p.body)/2]
	first.wantResponse(first.sendTo(account, forged), 403)
	first.wantResponse(first.sendTo(account, damaged), 400)
	for _, wrong := range []time.Duration{time.Hour, -time.Hour} {
		offset.Store(int64(wrong))
		first.wantResponse(first.sendTo(account, p), 403)
	}
	offset.Store(0)
	s.wantDeliveries(t, 0)

	first.wantResponse(first.sendTo(account, p), 500)
	second.wantResponse(second.sendTo(account, p), 500)
	s.setHandler(nil)
	second.wantResponse(second.sendTo(account, p), 200)
	first.wantResponse(first.sendTo(account, p), 200)
	s.wantDeliveries(t, 3)
	first.wantCounted("message wrong_account", "message bad_signature", "message bad_message",
		"message wrong_time", "message wrong_time", "message undelivered", "message replayed")
}

// TestReaddressedMessages: a message of one account on the path of another, of
// one that is not known, and of the component × before and after the genuine
// one. Documents without a ToUserName, and those whose account cannot be found
// out, are accepted.
func TestReaddressedMessages(t *testing.T) {
	s := newService(t, nil)
	c := claiming(store.NewMemory(), s)
	c.IsFor = func(_ context.Context, appid, userName string) (bool, error) {
		if userName == "gh_unavailable" {
			return false, errors.New("store unavailable")
		}
		return userName == originalID && appid == account, nil
	}
	w := start(t, c)
	p := sealMessage(w.crypt, textDoc("hello"))
	for range 2 {
		for _, path := range []string{otherAccount, thirdAccount, component} {
			w.wantResponse(w.sendTo(path, p), 403)
		}
		w.wantResponse(w.sendTo(account, p), 200)
	}
	s.wantDeliveries(t, 1)
	if got := s.deliveries()[0].header.Get("X-WX-APPID"); got != account {
		t.Errorf("X-WX-APPID: got %q, want %q", got, account)
	}
	// The outer ToUserName is not signed and changes nothing.
	outer := sealMessage(w.crypt, strings.Replace(textDoc("2"), originalID, "gh_other", 1))
	w.wantResponse(w.sendTo(account, outer), 403)
	for i, name := range []string{"", "gh_unavailable"} {
		w.wantResponse(w.message(strings.Replace(textDoc("3"), originalID, name, 1)), 200)
		s.wantDeliveries(t, 2+i)
	}
}

// failingClaims is a store of claims that fails, or does not respond.
type failingClaims struct {
	store.Store
	mode  atomic.Int32 // 0: works, 1: fails, 2: does not respond
	tries atomic.Int32
}

func (f *failingClaims) Claim(ctx context.Context, key string, until time.Time) (bool, error) {
	f.tries.Add(1)
	switch f.mode.Load() {
	case 1:
		return false, errors.New("store is broken")
	case 2:
		<-ctx.Done()
		return false, ctx.Err()
	}
	return f.Store.Claim(ctx, key, until)
}

// TestMessagesWhileTheStoreIsDown: the store fails, or does not respond.
// Messages are handled, counted as unclaimed, and recognized by this process.
// The store is tried once in a while; when it is back, messages are claimed
// again.
func TestMessagesWhileTheStoreIsDown(t *testing.T) {
	for _, mode := range []int32{1, 2} {
		s := newService(t, nil)
		f := &failingClaims{Store: store.NewMemory()}
		c := claiming(f, s)
		c.ClaimTimeout = time.Millisecond
		began := time.Now()
		var offset atomic.Int64
		c.Now = func() time.Time { return began.Add(time.Duration(offset.Load())) } // stands still
		w := start(t, c)
		f.mode.Store(mode)
		var last signed
		for i := range 20 {
			last = sealMessage(w.crypt, textDoc(fmt.Sprint("hello ", i)))
			w.wantResponse(w.sendTo(account, last), 200)
		}
		s.wantDeliveries(t, 20)
		w.wantResponse(w.sendTo(account, last), 200)
		s.wantDeliveries(t, 20)
		if n := f.tries.Load(); n != 1 {
			t.Errorf("got %d tries of the store for 20 messages, want 1", n)
		}
		w.wantLogged("store unavailable")
		counts := w.counted()
		if n := len(counts); n != 41 || !slices.Contains(counts, "message unclaimed") {
			t.Errorf("counted: got %d results, want 20 ok, 20 unclaimed, 1 replayed: %q", n, counts)
		}
		f.mode.Store(0)
		// With a timeout of a millisecond, a busy machine may need several
		// tries.
		eventually(t, "messages are claimed again", func() bool {
			offset.Add(int64(time.Minute))
			w.wantResponse(w.sendTo(account, sealAt(w.crypt, textDoc("again"), c.Now())), 200)
			return strings.Contains(w.logged(), "store available again")
		})
	}
}

// losingClaims is a store of claims that takes a claim and says that it failed,
// or cannot release one.
type losingClaims struct {
	store.Store
	claimed, released atomic.Bool // fail once each when true
}

func (l *losingClaims) Claim(ctx context.Context, key string, until time.Time) (bool, error) {
	first, err := l.Store.Claim(ctx, key, until)
	if l.claimed.CompareAndSwap(true, false) {
		return false, errors.New("no response from the store")
	}
	return first, err
}

func (l *losingClaims) Unclaim(ctx context.Context, key string) error {
	if l.released.CompareAndSwap(true, false) {
		return errors.New("store is broken")
	}
	return l.Store.Unclaim(ctx, key)
}

// TestUncertainClaimLosesNoMessage: the response to a claim is lost, or a claim
// cannot be released × the service fails. The service gets the repeat, once.
func TestUncertainClaimLosesNoMessage(t *testing.T) {
	for _, lost := range []string{"claim", "release"} {
		s := newService(t, respondWith(500, ""))
		l := &losingClaims{Store: store.NewMemory()}
		l.claimed.Store(lost == "claim")
		l.released.Store(lost == "release")
		w := start(t, claiming(l, s))
		p := sealMessage(w.crypt, textDoc("hello"))
		w.wantResponse(w.sendTo(account, p), 500)
		s.setHandler(respondWith(200, ""))
		for range 3 {
			w.wantResponse(w.sendTo(account, p), 200)
		}
		s.wantDeliveries(t, 2)
	}
}

// The check of an account's name waits for the store no longer than a claim
// does, so the service still gets its time.
func TestNameCheckHasATimeout(t *testing.T) {
	s := newService(t, nil)
	c := claiming(store.NewMemory(), s)
	c.ClaimTimeout = time.Millisecond
	c.IsFor = func(ctx context.Context, _, _ string) (bool, error) {
		<-ctx.Done() // the test hangs here without a timeout
		return false, ctx.Err()
	}
	c.MessageTimeout = time.Hour
	w := start(t, c)
	w.wantResponse(w.message(textDoc("hello")), 200)
	s.wantDeliveries(t, 1)
}

// A text of a user that WeChat did not escape makes no event of a message.
func TestMessageIsNoEvent(t *testing.T) {
	w := start(t, callback.Config{})
	doc := textDoc("x]]></Content><AppId>" + component + "</AppId><InfoType>unauthorized</InfoType>" +
		"<AuthorizerAppid>" + account + "</AuthorizerAppid><Y><![CDATA[")
	doc = strings.Replace(doc, "]]></Content>\n", "]]></Y>\n", 1)
	w.wantResponse(w.send(seal(w.crypt, doc)), 400)
	w.wantStored()
}

// The names of the accounts with which WeChat checks a platform belong to them.
func TestNamesOfTheReleaseCheckerAreKnown(t *testing.T) {
	w := start(t, callback.Config{IsFor: func(context.Context, string, string) (bool, error) {
		t.Error("IsFor was called for a known name")
		return true, nil
	}})
	for path, status := range map[string]int{
		"wx570bc396a51b8ff8": 200, "wxd101a85aa106f53e": 403, account: 403,
	} {
		doc := strings.Replace(textDoc("hello"), originalID, "gh_3c884a361561", 1)
		w.wantResponse(w.sendTo(path, sealMessage(w.crypt, doc)), status)
	}
}

// BenchmarkMessages measures whole messages, with a service that answers after
// 5 ms: store of the claims, with and without a queued copy × senders at once.
func BenchmarkMessages(b *testing.B) {
	service := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		<-time.After(5 * time.Millisecond)
	}))
	b.Cleanup(service.Close)
	for _, kind := range []string{"none", "memory", "file", "file and copies"} {
		for _, senders := range []int{1, 64, 500} {
			b.Run(fmt.Sprintf("claims=%s/senders=%d", kind, senders), func(b *testing.B) {
				benchmarkMessages(b, service.URL, kind, senders)
			})
		}
	}
}

func benchmarkMessages(b *testing.B, service, kind string, senders int) {
	crypt := newCrypt(b, messageToken, currentKey, component)
	c := callback.Config{
		ComponentAppID: component, Crypts: []*wechat.Crypt{crypt},
		Forwards: []callback.Forward{forwardAll(service)},
	}
	switch kind {
	case "memory":
		c.Claims = store.NewMemory()
	case "file", "file and copies":
		s, err := bolt.OpenFile(b.Context(), filepath.Join(b.TempDir(), "a.db"), nil)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = s.Close() })
		c.Claims = s
		if kind == "file and copies" {
			q, _ := store.As[store.Queuer](s)
			c.Queue = q.Queue()
			c.Forwards = append(c.Forwards, withMode(forwardAll(service), callback.ModeQueue))
		}
	}
	h := callback.New(c)
	var next atomic.Int64
	var all sync.WaitGroup
	b.ResetTimer()
	for range senders {
		all.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				p := sealMessage(crypt, textDoc(strconv.FormatInt(i, 10)))
				resp := httptest.NewRecorder()
				h.ServeHTTP(resp, httptest.NewRequest(http.MethodPost,
					"/"+account+"/events?"+p.query(), strings.NewReader(string(p.body))))
				if resp.Code != 200 {
					b.Errorf("message: got status %d, want 200", resp.Code)
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
