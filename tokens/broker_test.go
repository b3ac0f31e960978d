package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// slowStore lets a test hold a reader between the store and the cache.
type slowStore struct {
	store.Store
	loaded chan struct{} // said after a Load of hold
	resume chan struct{}
	hold   atomic.Pointer[string]
}

func (s *slowStore) Load(ctx context.Context, key string) ([]byte, error) {
	b, err := s.Store.Load(ctx, key)
	if h := s.hold.Load(); h != nil && *h == key && s.hold.CompareAndSwap(h, nil) {
		s.loaded <- struct{}{}
		<-s.resume
	}
	return b, err
}

// A caller that was refused A0 must not join a look-up that is about to return A0.
func TestRefusedDoesNotJoinLookUp(t *testing.T) {
	_, client := newScript(t)
	store := &slowStore{Store: store.NewMemory(), loaded: make(chan struct{}), resume: make(chan struct{})}
	stale := mustToken(t, authorized(t, store, client, nil), accountA).Value

	b := newBroker(t, store, client, nil) // with an empty cache
	key := "account/" + accountA
	store.hold.Store(&key)
	cold := make(chan struct{})
	go func() { defer close(cold); b.Token(context.Background(), accountA) }()
	<-store.loaded // the look-up has A0 in hand
	fresh, err := b.Renew(t.Context(), accountA, stale)
	if err != nil || fresh.Value.Equal(stale) {
		t.Errorf("handed the refused token again (%v)", err)
	}
	close(store.resume)
	<-cold
	// nor may the late reader have left A0 in the cache
	if tok := mustToken(t, b, accountA); !tok.Value.Equal(fresh.Value) {
		t.Errorf("the cache holds %s, the account has %s", tok.Value.Fingerprint(), fresh.Value.Fingerprint())
	}
}

func TestOneRenewalForAll(t *testing.T) {
	s, client := newScript(t)
	b := authorized(t, store.NewMemory(), client, nil)
	stale := mustToken(t, b, accountA).Value
	var wg sync.WaitGroup
	got := make([]string, 500)
	for i := range got {
		wg.Go(func() {
			tok, err := b.Renew(context.Background(), accountA, stale)
			if err != nil {
				t.Error(err)
			}
			got[i] = tok.Value.Reveal()
		})
	}
	wg.Wait()
	for _, g := range got {
		if g != got[0] || g == stale.Reveal() {
			t.Fatalf("%q and %q", g, got[0])
		}
	}
	// one that comes late finds the new one
	if tok, err := b.Renew(t.Context(), accountA, stale); err != nil || tok.Value.Reveal() != got[0] {
		t.Error(err)
	}
	if n := s.count("api_authorizer_token"); n != 1 {
		t.Errorf("%d renewals", n)
	}
}

// A restart asks WeChat for nothing while what is stored is good.
func TestRestartFetchesNothing(t *testing.T) {
	s, client := newScript(t)
	st := store.NewMemory()
	b := authorized(t, st, client, nil)
	tok, comp := mustToken(t, b, accountA), mustToken(t, b, component)
	b.Close(t.Context())
	s.down.Store(true)
	b = newBroker(t, st, client, nil)
	if again := mustToken(t, b, accountA); !again.Value.Equal(tok.Value) || again.Hit {
		t.Error("another token after the restart, or a hit in an empty cache")
	}
	if again := mustToken(t, b, component); !again.Value.Equal(comp.Value) || again.Kind != tokens.Component {
		t.Error("another component token after the restart")
	}
}

// failingStore loses what it is given from some point on.
type failingStore struct {
	store.Store
	fail atomic.Bool
}

func (s *failingStore) Update(ctx context.Context, key string, fn func(context.Context, []byte) ([]byte, error)) error {
	return s.Store.Update(ctx, key, func(ctx context.Context, old []byte) ([]byte, error) {
		out, err := fn(ctx, old)
		if err == nil && s.fail.Load() {
			return nil, errors.New("disk full")
		}
		return out, err
	})
}

// What could not be saved is not used: after a crash it would be lost, and its refresh token with it.
func TestSaveBeforeUse(t *testing.T) {
	_, client := newScript(t)
	store := &failingStore{Store: store.NewMemory()}
	b := authorized(t, store, client, nil)
	stale := mustToken(t, b, accountA).Value
	store.fail.Store(true)
	if _, err := b.Renew(t.Context(), accountA, stale); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("given out unsaved: %v", err)
	}
	store.fail.Store(false)
	if _, err := b.Renew(t.Context(), accountA, stale); err != nil {
		t.Error(err)
	}
}

// While renewing fails a good token serves on; a dead one is never given out; when WeChat is back
// everything is, without a person.
func TestRenewalDown(t *testing.T) {
	s, client := newScript(t)
	var c clock
	b := authorized(t, store.NewMemory(), client, c.use)
	good := mustToken(t, b, accountA).Value
	s.down.Store(true)
	c.forward(115 * time.Minute) // due, and good for five minutes
	for range 20 {
		if tok := mustToken(t, b, accountA); !tok.Value.Equal(good) {
			t.Fatal("another token")
		}
	}
	c.forward(6 * time.Minute)
	attempts := func() int { return s.count("api_authorizer_token") + s.count("api_component_token") }
	before := attempts()
	for range 100 {
		if _, err := b.Token(t.Context(), accountA); !errors.Is(err, tokens.ErrUnavailable) || tokens.RetryAfter(err, c.now()) < time.Second {
			t.Fatalf("a dead token, or no word: %v", err)
		}
	}
	if n := attempts() - before; n > 3 {
		t.Errorf("%d attempts for a hundred calls", n)
	}
	s.down.Store(false)
	// A renewal that began while WeChat was down may note its failure only now,
	// so the clock is moved past its pause until a renewal succeeds.
	var tok tokens.Token
	eventually(t, func() bool {
		c.forward(2 * time.Minute)
		var err error
		tok, err = b.Token(t.Context(), accountA)
		return err == nil
	})
	if tok.Value.Equal(good) {
		t.Error("Token: got the expired token, want a new one")
	}
}

// Everything that a token endpoint may answer but a token.
func TestBadTokenAnswers(t *testing.T) {
	for name, body := range map[string]string{
		"empty": "", "html": "<html>", "null": "null", "array": "[]", "no token": `{"expires_in":7200}`, "empty token": `{"authorizer_access_token":"","expires_in":7200}`,
		"cut": `{"authorizer_access_token":"x`, "busy": `{"errcode":-1,"errmsg":"system error"}`,
	} {
		t.Run(name, func(t *testing.T) {
			s, client := newScript(t)
			var c clock
			b := authorized(t, store.NewMemory(), client, c.use)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "api_authorizer_token") {
					fmt.Fprint(w, body)
					return
				}
				s.ServeHTTP(w, r)
			}))
			defer srv.Close()
			b.Reconfigure(secrets(), wechat.NewClient(srv.URL, nil))
			c.forward(121 * time.Minute) // not before: what is renewed ahead would be, and well
			if _, err := b.Token(t.Context(), accountA); !errors.Is(err, tokens.ErrUnavailable) {
				t.Errorf("%v", err)
			}
			b.Reconfigure(secrets(), client)
			c.forward(time.Minute)
			mustToken(t, b, accountA)
		})
	}
}

// A token that is refused again and again, though it is new, makes no storm.
func TestStorm(t *testing.T) {
	s, client := newScript(t)
	var c clock
	b := authorized(t, store.NewMemory(), client, c.use)
	refuse := func() error {
		_, err := b.Renew(t.Context(), accountA, mustToken(t, b, accountA).Value)
		return err
	}
	for i := range 3 {
		if err := refuse(); err != nil {
			t.Fatalf("refusal %d: %v", i+1, err)
		}
	}
	for range 50 {
		if err := refuse(); !errors.Is(err, tokens.ErrThrottled) {
			t.Fatalf("%v", err)
		}
	}
	for minute := range 3 { // one a minute
		c.forward(61 * time.Second)
		if err := refuse(); err != nil {
			t.Fatalf("minute %d: %v", minute+1, err)
		}
		if err := refuse(); !errors.Is(err, tokens.ErrThrottled) {
			t.Fatalf("minute %d: %v", minute+1, err)
		}
	}
	if n := s.count("api_authorizer_token"); n != 6 {
		t.Errorf("%d renewals", n)
	}
	// a real expiry never waits
	c.forward(121 * time.Minute)
	mustToken(t, b, accountA)
}

// Accounts in use are renewed before their tokens end, others cost nothing.
func TestRenewalAhead(t *testing.T) {
	s, client := newScript(t)
	s.life = 2 // renewed after 1.8 s at the latest
	b := newBroker(t, store.NewMemory(), client, nil)
	putTicket(t, b)
	if err := b.Authorize(t.Context(), accountB, codeOf(accountB, 1), time.Time{}, time.Unix(1000, 0)); err != nil {
		t.Fatal(err)
	}
	authorize(t, b, accountA, 1000)
	first := mustToken(t, b, accountA).Value
	eventually(t, func() bool { return s.count("api_authorizer_token") == 1 })
	eventually(t, func() bool { tok, ok := b.Cached(accountA); return ok && !tok.Value.Equal(first) })
	if n := s.count("api_authorizer_token"); n != 1 {
		t.Errorf("%d renewals", n) // accountB was authorized and never called
	}
	// A is not asked for any more after the look just taken: one more renewal, and no other.
	time.Sleep(5 * time.Second)
	if n := s.count("api_authorizer_token"); n > 2 {
		t.Errorf("%d renewals of accounts that nobody uses", n)
	}
}

// An answer's refresh token is kept, an empty one never is.
func TestRotation(t *testing.T) {
	s, client := newScript(t)
	b := authorized(t, store.NewMemory(), client, nil)
	var sent []string
	next := "rotated@1"
	s.answer("api_authorizer_token", func(in map[string]any) (any, bool) {
		sent = append(sent, in["authorizer_refresh_token"].(string))
		return map[string]any{"authorizer_access_token": fmt.Sprintf("R%d", len(sent)), "expires_in": "7200", "authorizer_refresh_token": next}, true
	})
	for _, n := range []string{"rotated@1", "", "rotated@2"} {
		next = n
		if _, err := b.Renew(t.Context(), accountA, mustToken(t, b, accountA).Value); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(sent, " "); got != "refresh@"+accountA+"@1000 rotated@1 rotated@1" {
		t.Error(got)
	}
}

// The refresh token that WeChat holds is the way back when ours is refused.
func TestRefreshTokenRecovered(t *testing.T) {
	s, client := newScript(t)
	b := authorized(t, store.NewMemory(), client, nil)
	s.answer("api_authorizer_token", func(in map[string]any) (any, bool) {
		return errcode(61023), in["authorizer_refresh_token"] != "held"
	})
	if _, err := b.Renew(t.Context(), accountA, mustToken(t, b, accountA).Value); err != nil {
		t.Fatal(err)
	}
	if n := s.count("api_authorizer_token"); n != 2 {
		t.Errorf("asked %d times", n)
	}
	// and when WeChat holds no other one, that is told
	s.answer("api_authorizer_token", func(map[string]any) (any, bool) { return errcode(61023), true })
	if _, err := b.Renew(t.Context(), accountA, mustToken(t, b, accountA).Value); !errors.Is(err, tokens.ErrUnavailable) || !strings.Contains(err.Error(), "authorize the component again") {
		t.Errorf("%v", err)
	}
	if _, _, failing, _ := b.Accounts(); failing != 1 {
		t.Errorf("%d failing", failing)
	}
}

// The component's token is refused in the middle of an account's renewal.
func TestComponentRefused(t *testing.T) {
	s, client := newScript(t)
	b := authorized(t, store.NewMemory(), client, nil)
	refusals := 0
	s.answer("api_authorizer_token", func(map[string]any) (any, bool) {
		refusals++
		return errcode(42001), refusals == 1
	})
	if _, err := b.Renew(t.Context(), accountA, mustToken(t, b, accountA).Value); err != nil {
		t.Fatal(err)
	}
	if n := s.count("api_component_token"); n != 2 {
		t.Errorf("%d component tokens", n)
	}
}

func TestOwnApp(t *testing.T) {
	s, client := newScript(t)
	b := newBroker(t, store.NewMemory(), client, nil)
	tok := mustToken(t, b, ownApp)
	if tok.Kind != tokens.App || tok.Value.Reveal() != "Sfalse" {
		t.Errorf("%v %s", tok.Kind, tok.Value.Reveal())
	}
	// WeChat still thinks the refused one current: it has to be forced
	if tok, err := b.Renew(t.Context(), ownApp, tok.Value); err != nil || tok.Value.Reveal() != "Strue" {
		t.Errorf("%s %v", tok.Value.Reveal(), err)
	}
	if n := s.count("stable_token"); n != 3 {
		t.Errorf("%d calls", n)
	}
}

// A waiter may leave; the renewal goes on for the others. Close waits for it.
func TestWaitersAndClose(t *testing.T) {
	s, client := newScript(t)
	st := store.NewMemory()
	b := authorized(t, st, client, nil)
	stale := mustToken(t, b, accountA).Value
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	t.Cleanup(open)
	s.mu.Lock()
	s.gate = gate
	s.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { _, err := b.Renew(ctx, accountA, stale); left <- err }()
	eventually(t, func() bool { return s.count("api_authorizer_token") == 1 })
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	closed := make(chan error, 1)
	go func() { closed <- b.Close(context.Background()) }()
	n := 0
	eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		n++ // each time another one: who asks for the same joins the question under way
		_, err := b.Token(ctx, fmt.Sprintf("wx%016d", n))
		return errors.Is(err, tokens.ErrClosed)
	})
	select {
	case <-closed:
		t.Fatal("closed in the middle of a renewal")
	default:
	}
	open()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if tok := mustToken(t, newBroker(t, st, client, nil), accountA); tok.Value.Equal(stale) {
		t.Error("the renewal was lost")
	}
}

func TestCachedAlloc(t *testing.T) {
	_, client := newScript(t)
	b := authorized(t, store.NewMemory(), client, nil)
	eventually(t, func() bool { mustToken(t, b, accountA); _, ok := b.Cached(accountA); return ok })
	if n := testing.AllocsPerRun(1000, func() { b.Cached(accountA) }); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkTokenHit(b *testing.B) {
	srv := httptest.NewServer(&script{calls: map[string]int{}, life: 7200})
	defer srv.Close()
	br, err := tokens.New(tokens.Config{Store: store.NewMemory(), Client: wechat.NewClient(srv.URL, nil), Secrets: secrets()})
	if err != nil {
		b.Fatal(err)
	}
	defer br.Close(context.Background())
	for ok := false; !ok; _, ok = br.Cached(ownApp) {
		if _, err := br.Token(context.Background(), ownApp); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		br.Cached(ownApp)
	}
}
