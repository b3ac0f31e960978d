package tokens_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// The merchant's browser and WeChat's push bring the same code, in any order.
// The account works, and the code is exchanged once.
func TestBrowserAndPushExchangeOnce(t *testing.T) {
	for _, order := range []string{"browser first", "push first", "concurrently"} {
		t.Run(order, func(t *testing.T) {
			f, client := newFakeWeChat(t)
			b := newBroker(t, store.NewMemory(), client, nil)
			f.date.Store(1000) // of the exchange, in the second of the push
			putTicket(t, b)
			code := codeOf(accountA, 1000)
			browser := func() {
				a, err := b.Exchange(t.Context(), code)
				if err != nil || a.AppID != accountA {
					t.Errorf("Exchange: got account %q, error %v, want %s", a.AppID, err, accountA)
				}
			}
			push := func() { pushCode(t, b, accountA, code, 1000) }
			switch order {
			case "browser first":
				browser()
				push()
			case "push first":
				push()
				browser()
			default:
				var all sync.WaitGroup
				for range 5 {
					all.Go(browser)
					all.Go(push)
				}
				all.Wait()
			}
			waitForToken(t, b, accountA)
			browser() // the page is reloaded
			f.wantCount(t, "api_query_auth", 1)
			// The time of the authorization is the push's, whichever came
			// first.
			eventually(t, "an older revocation is stale", func() bool {
				return errors.Is(b.MarkRevoked(t.Context(), accountA, time.Unix(999, 0)), tokens.ErrStale)
			})
			if err := b.MarkRevoked(t.Context(), accountA, time.Unix(1001, 0)); err != nil {
				t.Errorf("MarkRevoked with a newer revocation: %v", err)
			}
			wantState(t, b, accountA, tokens.Revoked)
		})
	}
}

// WeChat may give browser and push two codes. The tokens of the one that is
// exchanged last count, and the first still names its account.
func TestBrowserAndPushWithDifferentCodes(t *testing.T) {
	f, client := newFakeWeChat(t)
	b := newBroker(t, store.NewMemory(), client, nil)
	putTicket(t, b)
	a, err := b.Exchange(t.Context(), codeOf(accountA, 1))
	if err != nil || a.AppID != accountA || a.Name != "店?铺" {
		t.Fatalf("Exchange: got account %q named %q, error %v, want %s named 店?铺", a.AppID, a.Name, err, accountA)
	}
	first := mustToken(t, b, accountA)
	authorize(t, b, accountA, 1000)
	eventually(t, "the push's token replaces the browser's", func() bool {
		return !mustToken(t, b, accountA).Value.Equal(first.Value)
	})
	f.wantCount(t, "api_query_auth", 2)
	if a, err := b.Exchange(t.Context(), codeOf(accountA, 1)); err != nil || a.AppID != accountA {
		t.Errorf("Exchange of the first code again: got account %q, error %v, want %s", a.AppID, err, accountA)
	}
}

// A code that WeChat rejects is an error for the merchant, and leaves the
// account as it was.
func TestRejectedCodeChangesNothing(t *testing.T) {
	f, client := newFakeWeChat(t)
	b := newAuthorized(t, store.NewMemory(), client, nil)
	before := mustToken(t, b, accountA)
	f.fail("api_query_auth", 61010)
	if _, err := b.Exchange(t.Context(), codeOf(accountA, 2)); wechat.Code(err) != 61010 {
		t.Errorf("Exchange of an expired code: got error %v, want errcode 61010", err)
	}
	if tok := mustToken(t, b, accountA); !tok.Value.Equal(before.Value) {
		t.Errorf("Token: got %s, want the old %s", tok.Value.Fingerprint(), before.Value.Fingerprint())
	}
	f.down.Store(true)
	if _, err := b.Exchange(t.Context(), codeOf(accountA, 3)); !errors.Is(err, wechat.ErrUnreachable) {
		t.Errorf("Exchange without WeChat: got error %v, want %v", err, wechat.ErrUnreachable)
	}
}

// If another program exchanged the code, the refresh token that WeChat lists
// serves.
func TestCodeExchangedElsewhere(t *testing.T) {
	f, client := newFakeWeChat(t)
	b := newBroker(t, store.NewMemory(), client, nil)
	putTicket(t, b)
	f.fail("api_query_auth", 61009)
	authorize(t, b, accountA, 1000)
	wantState(t, b, accountA, tokens.Active)
}

// A code that WeChat exchanges for another account's tokens makes neither
// account known.
func TestCodeOfAnotherAccount(t *testing.T) {
	f, client := newFakeWeChat(t)
	f.list(map[string]authorizer{accountA: {"held", 1}})
	b := newAuthorized(t, store.NewMemory(), client, nil)
	wantTokenError(t, b, unknownAccount, tokens.ErrUnknownAccount)
	pushCode(t, b, unknownAccount, codeOf(accountB, 5000), 5000)
	waitForTokenError(t, b, unknownAccount, tokens.ErrUnknownAccount)
	wantTokenError(t, b, accountB, tokens.ErrUnknownAccount)
	f.wantCount(t, "api_query_auth", 2)
}

// An account that grants no API permission has no tokens. That is an error that
// says so, and WeChat is not asked for each call.
func TestAccountWithoutPermissions(t *testing.T) {
	f, client := newFakeWeChat(t)
	var c clock
	b := newAuthorized(t, store.NewMemory(), client, c.use)
	f.handle("api_query_auth", func(map[string]any) (any, bool) {
		info := map[string]any{"authorizer_appid": accountB, "func_info": []any{}}
		return map[string]any{"authorization_info": info}, true
	})
	f.handle("api_get_authorizer_info", func(map[string]any) (any, bool) {
		return map[string]any{"authorization_info": map[string]any{}}, true
	})
	pushCode(t, b, accountB, codeOf(accountB, 1), 1000)
	for range 20 {
		wantTokenError(t, b, accountB, tokens.ErrUnavailable)
	}
	if n := f.count("api_get_authorizer_info"); n > 8 { // the pauses between attempts start with a second
		t.Errorf("got %d requests to WeChat for 20 calls, want 8 at most", n)
	}
}

// A code that was stored is exchanged although WeChat was down and the process
// restarted, without a call for the account.
func TestPendingCodeSurvivesRestart(t *testing.T) {
	f, client := newFakeWeChat(t)
	s := store.NewMemory()
	b := newBroker(t, s, client, nil)
	putTicket(t, b)
	mustToken(t, b, component)
	f.down.Store(true)
	pushCode(t, b, accountA, codeOf(accountA, 1), 1000)
	wantTokenError(t, b, accountA, tokens.ErrUnavailable)
	b.Close(t.Context())
	f.down.Store(false)
	b = newBroker(t, s, client, nil)
	eventually(t, "the account is active", func() bool {
		counts, _ := b.Stats().AccountCounts()
		return counts.Active == 1
	})
	mustToken(t, b, accountA)
	f.wantCount(t, "api_authorizer_token", 0)
}

// signalingStore sends on waiting before each update of the record key.
type signalingStore struct {
	store.Store
	key     string
	waiting chan struct{}
}

func (s *signalingStore) Update(ctx context.Context, key string, fn store.UpdateFunc) error {
	if key == s.key {
		select {
		case s.waiting <- struct{}{}:
		default: // not waited for any more
		}
	}
	return s.Store.Update(ctx, key, fn)
}

// A newer code arrives while the exchange of the older one waits for the
// account's lock. The older one is not exchanged any more: its tokens would be
// invalid, or would invalidate those of the newer one.
func TestReplacedCodeIsNotExchanged(t *testing.T) {
	f, client := newFakeWeChat(t)
	s := &signalingStore{
		Store: store.NewMemory(), key: "account/" + accountA, waiting: make(chan struct{}, 100),
	}
	b := newBroker(t, s, client, nil)
	putTicket(t, b)
	older, newer := codeOf(accountA, 1), codeOf(accountA, 2)
	exchanged := make(chan any, 100)
	f.handle("api_query_auth", func(in map[string]any) (any, bool) {
		exchanged <- in["authorization_code"]
		return nil, false
	})
	// The inner store: the test itself is not to be waited for.
	err := s.Store.Update(t.Context(), s.key, func(context.Context, []byte) ([]byte, error) {
		pushCode(t, b, accountA, older, 1000)
		<-s.waiting // the older code was read from the store
		pushCode(t, b, accountA, newer, 1000)
		<-s.waiting
		return store.Keep, nil
	})
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
	waitForToken(t, b, accountA)
	eventually(t, "no code is pending", func() bool {
		return errors.Is(errorOf(s.Load(t.Context(), "code/"+accountA)), store.ErrNotFound)
	})
	if got := <-exchanged; got != newer.Reveal() {
		t.Errorf("code that was exchanged first: got %v, want %s", got, newer.Reveal())
	}
	f.wantCount(t, "api_query_auth", 1)
}

// A code that could not be exchanged yet is given up when a newer revocation
// arrives, and is not replaced by an older one.
func TestPendingCodeIsOvertaken(t *testing.T) {
	f, client := newFakeWeChat(t)
	s := store.NewMemory()
	b := newBroker(t, s, client, nil)
	putTicket(t, b)
	mustToken(t, b, component)
	exchanged := make(chan any, 100)
	f.handle("api_query_auth", func(in map[string]any) (any, bool) {
		exchanged <- in["authorization_code"]
		return nil, false
	})
	f.down.Store(true)
	pushCode(t, b, accountA, codeOf(accountA, 2), 2000)
	err := b.Authorize(t.Context(), accountA, codeOf(accountA, 1), time.Time{}, time.Unix(1000, 0))
	if !errors.Is(err, tokens.ErrStale) {
		t.Errorf("Authorize with an older code: got error %v, want %v", err, tokens.ErrStale)
	}
	if err := b.MarkRevoked(t.Context(), accountA, time.Unix(3000, 0)); err != nil {
		t.Fatalf("MarkRevoked: %v", err)
	}
	f.down.Store(false)
	eventually(t, "no code is pending", func() bool {
		return errors.Is(errorOf(s.Load(t.Context(), "code/"+accountA)), store.ErrNotFound)
	})
	wantTokenError(t, b, accountA, tokens.ErrRevoked)
	if n := len(exchanged); n != 0 {
		t.Errorf("got %d exchanges of codes, first %v, want none", n, <-exchanged)
	}
}

// A browser does not say when its authorization was. It counts as no older than
// the revocation that is known, so an earlier revocation that arrives late
// changes nothing.
func TestBrowserAuthorizationIsNewerThanKnownRevocation(t *testing.T) {
	_, client := newFakeWeChat(t)
	b := newAuthorized(t, store.NewMemory(), client, nil)
	if err := b.MarkRevoked(t.Context(), accountA, time.Unix(3000, 0)); err != nil {
		t.Fatalf("MarkRevoked: %v", err)
	}
	if _, err := b.Exchange(t.Context(), codeOf(accountA, 2)); err != nil {
		t.Fatalf("Exchange: %v", err)
	}
	err := b.MarkRevoked(t.Context(), accountA, time.Unix(2000, 0))
	if !errors.Is(err, tokens.ErrStale) {
		t.Errorf("MarkRevoked with an earlier revocation: got error %v, want %v", err, tokens.ErrStale)
	}
	wantState(t, b, accountA, tokens.Active)
}

// An account is authorized, authorized again, revoked and authorized once more,
// while older pushes arrive late.
func TestAuthorizationLifecycle(t *testing.T) {
	f, client := newFakeWeChat(t)
	var c clock
	b := newAuthorized(t, store.NewMemory(), client, c.use)
	ctx := t.Context()
	push := func(created int64) error {
		return b.Authorize(ctx, accountA, codeOf(accountA, created), time.Time{}, time.Unix(created, 0))
	}

	if err := push(1000); err != nil {
		t.Errorf("the same push again: %v", err)
	}
	if err := b.MarkRevoked(ctx, accountA, time.Unix(999, 0)); !errors.Is(err, tokens.ErrStale) {
		t.Errorf("a revocation before the authorization: got error %v, want %v", err, tokens.ErrStale)
	}
	old := mustToken(t, b, accountA).Value
	if err := push(2000); err != nil {
		t.Fatalf("a new authorization: %v", err)
	}
	eventually(t, "the new authorization replaces the token", func() bool {
		tok, err := b.Token(ctx, accountA)
		return err == nil && !tok.Value.Equal(old)
	})
	f.wantCount(t, "api_query_auth", 2)
	if err := push(1500); !errors.Is(err, tokens.ErrStale) {
		t.Errorf("an older authorization: got error %v, want %v", err, tokens.ErrStale)
	}

	if err := b.MarkRevoked(ctx, accountA, time.Unix(3000, 0)); err != nil {
		t.Fatalf("a revocation: %v", err)
	}
	wantTokenError(t, b, accountA, tokens.ErrRevoked)
	if _, err := b.Renew(ctx, accountA, old); !errors.Is(err, tokens.ErrRevoked) {
		t.Errorf("Renew of a revoked account: got error %v, want %v", err, tokens.ErrRevoked)
	}
	f.wantCount(t, "api_authorizer_token", 0) // WeChat was not asked
	c.advance(3 * time.Second)                // counts may be two seconds old
	if counts, _ := b.Stats().AccountCounts(); counts.Revoked != 1 {
		t.Errorf("AccountCounts: got %d revoked, want 1", counts.Revoked)
	}
	if err := push(2500); !errors.Is(err, tokens.ErrStale) {
		t.Errorf("an authorization before the revocation: got error %v, want %v", err, tokens.ErrStale)
	}

	authorize(t, b, accountA, 4000)
	c.advance(3 * time.Second)
	if counts, _ := b.Stats().AccountCounts(); counts != (tokens.AccountCounts{Active: 1}) {
		t.Errorf("AccountCounts: got %+v, want 1 active", counts)
	}
}

func TestPreAuthCode(t *testing.T) {
	_, client := newFakeWeChat(t)
	b := newBroker(t, store.NewMemory(), client, nil)
	if _, _, err := b.PreAuthCode(t.Context()); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("PreAuthCode without a ticket: got error %v, want %v", err, tokens.ErrUnavailable)
	}
	putTicket(t, b)
	code, lifetime, err := b.PreAuthCode(t.Context())
	if err != nil || code.IsEmpty() || lifetime != 10*time.Minute {
		t.Errorf("PreAuthCode: got empty %t, lifetime %v, error %v, want false, 10m", code.IsEmpty(), lifetime, err)
	}
}
