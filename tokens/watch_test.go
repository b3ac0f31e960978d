package tokens_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// waitForProfile waits until the name of accountA was read. After that nothing
// writes its record in the background.
func waitForProfile(t *testing.T, b *tokens.Broker) {
	t.Helper()
	eventually(t, "the account's name is read", func() bool {
		list, _, err := b.List(t.Context(), 0, 10, tokens.AccountFilter{Query: accountA})
		return err == nil && len(list) == 1 && list[0].Name != ""
	})
}

// waitForHit waits until the token of appid is cached.
func waitForHit(t *testing.T, b *tokens.Broker, appid string) {
	t.Helper()
	eventually(t, "the token of "+appid+" is cached", func() bool { return mustToken(t, b, appid).Hit })
}

// What happens to an account in one replica reaches the others: a renewal, a
// revocation, a new authorization, and that it was forgotten.
func TestChangesReachOtherReplicas(t *testing.T) {
	_, client := newFakeWeChat(t)
	s := newSharedStore()
	one := newAuthorized(t, s.view(), client, nil)
	two := newBroker(t, s.view(), client, nil)
	waitForToken := func(want tokens.Token) {
		t.Helper()
		eventually(t, "the other replica has the token", func() bool {
			got, err := two.Token(t.Context(), accountA)
			return err == nil && got.Value.Equal(want.Value)
		})
	}
	waitForError := func(want error) {
		t.Helper()
		waitForTokenError(t, two, accountA, want)
	}
	waitForToken(mustToken(t, one, accountA))
	waitForToken(mustRenew(t, one, accountA))
	if err := one.MarkRevoked(t.Context(), accountA, time.Unix(1001, 0)); err != nil {
		t.Fatalf("MarkRevoked: %v", err)
	}
	waitForError(tokens.ErrRevoked)
	authorize(t, one, accountA, 1002)
	waitForToken(mustToken(t, one, accountA))
	if err := one.Forget(t.Context(), accountA); err != nil {
		t.Fatalf("Forget: %v", err)
	}
	waitForError(tokens.ErrForgotten)
}

// A replica's own changes, and changes that change nothing, evict nothing.
func TestOwnChangesEvictNothing(t *testing.T) {
	_, client := newFakeWeChat(t)
	v := newSharedStore().view()
	b := newAuthorized(t, v, client, nil)
	waitForHit(t, b, accountA)
	fresh := mustRenew(t, b, accountA)
	v.waitForWatcher(t)
	waitForHit(t, b, accountA)
	keep := func(context.Context, []byte) ([]byte, error) { return store.Keep, nil }
	for range 10 {
		if err := v.Update(t.Context(), "account/"+accountA, keep); err != nil {
			t.Fatalf("Update: %v", err)
		}
		v.waitForWatcher(t)
		if got, ok := b.Cached(accountA); !ok || !got.Value.Equal(fresh.Value) {
			t.Fatalf("Cached: got token %s, %t, want %s",
				got.Value.Fingerprint(), ok, fresh.Value.Fingerprint())
		}
	}
}

// Of many replicas one asks WeChat: when a token is rejected everywhere, when
// it is due, and for what is done once a day.
func TestOneReplicaAsksWeChat(t *testing.T) {
	f, client := newFakeWeChat(t)
	f.list(map[string]authorizer{accountA: {"refresh@" + accountA + "@1000", 1000}})
	s := newSharedStore()
	var c clock
	brokers := []*tokens.Broker{newAuthorized(t, s.view(), client, c.use)}
	for range 2 {
		brokers = append(brokers, newBroker(t, s.view(), client, c.use))
	}
	waitForProfile(t, brokers[0])
	profiles := f.count("api_get_authorizer_info")
	everywhere := func(n int, do func(b *tokens.Broker)) {
		var all sync.WaitGroup
		for _, b := range brokers {
			for range n {
				all.Go(func() { do(b) })
			}
		}
		all.Wait()
	}
	current := mustToken(t, brokers[0], accountA).Value
	// A replica's cache may lag behind the store until its watcher reports the
	// change, so each round begins when brokers[0] has the newest token.
	waitForCurrent := func() {
		t.Helper()
		eventually(t, "the first replica has the newest token", func() bool {
			return mustToken(t, brokers[0], accountA).Value.Equal(current)
		})
	}
	for round := range 3 {
		waitForCurrent()
		stale, before := current, f.count("api_authorizer_token")
		var mu sync.Mutex
		everywhere(200, func(b *tokens.Broker) {
			tok, err := b.Renew(t.Context(), accountA, stale)
			if err != nil || tok.Value.Equal(stale) {
				t.Errorf("round %d: Renew: got token %s, error %v, want another token than %s",
					round, tok.Value.Fingerprint(), err, stale.Fingerprint())
			}
			mu.Lock()
			defer mu.Unlock()
			current = tok.Value
		})
		if n := f.count("api_authorizer_token") - before; n != 1 {
			t.Errorf("round %d: got %d renewals for 600 rejections, want 1", round, n)
		}
	}

	// Early renewal: the token is used everywhere and becomes due everywhere.
	waitForCurrent()
	before := f.count("api_authorizer_token")
	everywhere(1, func(b *tokens.Broker) { mustToken(t, b, accountA) })
	c.advance(2*time.Hour - 5*time.Minute)
	everywhere(50, func(b *tokens.Broker) { mustToken(t, b, accountA) })
	for _, b := range brokers {
		eventually(t, "the due token is renewed", func() bool {
			return !mustToken(t, b, accountA).Value.Equal(current)
		})
	}
	f.wantCount(t, "api_authorizer_token", before+1)
	if n := f.count("api_get_authorizer_list"); n > 1 {
		t.Errorf("got %d readings of WeChat's list, want 1 at most", n)
	}
	f.wantCount(t, "api_get_authorizer_info", profiles)
}

// While the store is down, cached tokens serve, even if they are due. What
// happened meanwhile is seen when it is up again.
func TestCachedTokensServeWithoutStore(t *testing.T) {
	_, client := newFakeWeChat(t)
	s := newSharedStore()
	var c clock
	b := newAuthorized(t, s.view(), client, c.use)
	other := newBroker(t, s.view(), client, c.use)
	waitForHit(t, other, accountA)

	s.down.Store(true)
	cached := mustToken(t, other, accountA)
	wantCached := func(when string) {
		t.Helper()
		if got := mustToken(t, other, accountA); !got.Hit || !got.Value.Equal(cached.Value) {
			t.Fatalf("%s: got token %s, hit %t, want the cached %s",
				when, got.Value.Fingerprint(), got.Hit, cached.Value.Fingerprint())
		}
	}
	for range 10 {
		c.advance(11 * time.Minute)
		wantCached("valid")
	}
	c.advance(4 * time.Minute)
	for range 10 {
		wantCached("due")
	}
	if _, err := other.Renew(t.Context(), accountA, cached.Value); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("Renew: got error %v, want %v", err, tokens.ErrUnavailable)
	}
	c.advance(30 * time.Minute)
	wantTokenError(t, other, accountA, tokens.ErrUnavailable) // expired
	s.comeUp()
	waitForToken(t, other, accountA)

	// The account is revoked while one replica cannot learn of it.
	waitForHit(t, other, accountA)
	s.down.Store(true)
	mustToken(t, other, accountA)
	s.down.Store(false)
	if err := b.MarkRevoked(t.Context(), accountA, time.Unix(1001, 0)); err != nil {
		t.Fatalf("MarkRevoked: %v", err)
	}
	s.comeUp()
	waitForTokenError(t, other, accountA, tokens.ErrRevoked)
}

// If the store is emptied under running replicas, cached tokens serve, signing
// keys stay the same, and the accounts are read from WeChat again. That needs
// no ticket, no restart and no operator.
func TestEmptiedStoreIsRebuilt(t *testing.T) {
	f, client := newFakeWeChat(t)
	f.list(map[string]authorizer{
		accountA: {"refresh@" + accountA + "@1000", 1000}, accountB: {"refresh@b", 1000},
	})
	s := newSharedStore()
	v := s.view()
	b := newAuthorized(t, v, client, nil)
	f.waitForCount(t, "api_get_authorizer_list", 1)
	key, err := b.SigningKey(t.Context(), "standin", nil)
	if err != nil {
		t.Fatalf("SigningKey: %v", err)
	}
	waitForProfile(t, b)
	v.waitForWatcher(t)
	waitForHit(t, b, accountA)
	waitForHit(t, b, component)
	s.empty(t)
	mustToken(t, b, accountA)
	f.waitForCount(t, "api_get_authorizer_list", 2)
	for _, appid := range []string{accountA, accountB} {
		eventually(t, appid+" is known again", func() bool { return errorOf(b.Account(t.Context(), appid)) == nil })
		mustToken(t, b, appid)
	}
	fresh := newBroker(t, s.view(), client, nil)
	eventually(t, "a new replica has the same signing key", func() bool {
		again, err := fresh.SigningKey(t.Context(), "standin", nil)
		return err == nil && slices.Equal(key, again)
	})
	mustToken(t, fresh, accountA)
	if err := b.PutTicket(t.Context(), wechat.NewSecret("ticket@@@2"), time.Unix(2000, 0)); err != nil {
		t.Errorf("PutTicket: %v", err)
	}
}

// A part of the store that does not respond delays no news of the others, also
// while all cached accounts are compared: an account in a healthy part is
// revoked, and the token of one in the silent part serves on. When the part
// responds again, what happened to its accounts is seen, too.
func TestSilentPartDelaysNoOther(t *testing.T) {
	_, client := newFakeWeChat(t)
	s := newSharedStore()
	b := newAuthorized(t, s.view(), client, nil)
	v := s.view()
	other := newBroker(t, v, client, nil)
	authorize(t, b, accountB, 1000)
	waitForHit(t, other, accountA)
	waitForHit(t, other, accountB)
	v.waitForWatcher(t)

	end := s.silence(partOf("account/" + accountB))
	defer end()
	s.comeUp() // all cached accounts are compared
	if err := b.MarkRevoked(t.Context(), accountA, time.Unix(1001, 0)); err != nil {
		t.Fatalf("MarkRevoked: %v", err)
	}
	waitForTokenError(t, other, accountA, tokens.ErrRevoked)
	if got := mustToken(t, other, accountB); !got.Hit {
		t.Error("account in the silent part: got a token that was not cached")
	}
	end()
	if err := b.MarkRevoked(t.Context(), accountB, time.Unix(1001, 0)); err != nil {
		t.Fatalf("MarkRevoked: %v", err)
	}
	waitForTokenError(t, other, accountB, tokens.ErrRevoked)
}

// A record that is missing says nothing about the cached token. Whether the
// store lost the records of accounts, of the component, or all but the ticket:
// the tokens serve, no call fails, and the records come back with the tokens,
// although WeChat does not respond. The refresh tokens come from WeChat's list
// as soon as it does.
func TestMissingRecordEvictsNothing(t *testing.T) {
	for name, isLost := range map[string]func(string) bool{
		"an account":     func(key string) bool { return key == "account/"+accountA },
		"the component":  func(key string) bool { return key == "account/"+component },
		"own account":    func(key string) bool { return key == "account/"+ownAccount },
		"all accounts":   func(key string) bool { return strings.HasPrefix(key, "account/") },
		"all but ticket": func(key string) bool { return !strings.HasPrefix(key, "ticket/") },
	} {
		t.Run(name, func(t *testing.T) {
			f, client := newFakeWeChat(t)
			f.list(map[string]authorizer{accountA: {"refresh@" + accountA + "@1000", 1000}})
			s := newSharedStore()
			v := s.view()
			b := newAuthorized(t, v, client, nil)
			waitForProfile(t, b)
			cached := map[string]wechat.Secret{}
			for _, appid := range []string{accountA, component, ownAccount} {
				waitForHit(t, b, appid)
				cached[appid] = mustToken(t, b, appid).Value
			}
			v.waitForWatcher(t)
			f.down.Store(true)
			s.lose(t, isLost)
			for appid, want := range cached {
				eventually(t, "the record of "+appid+" is back", func() bool {
					if got, err := b.Token(t.Context(), appid); err != nil || !got.Value.Equal(want) {
						t.Fatalf("Token(%s): got %s, error %v, want %s", appid, got.Value.Fingerprint(), err,
							want.Fingerprint())
					}
					a, err := b.Account(t.Context(), appid)
					return err == nil && a.Token == want.Fingerprint()
				})
			}
			f.down.Store(false)
			eventually(t, "a comparison succeeds", func() bool {
				return errorOf(b.Sync(t.Context(), tokens.SyncOptions{})) == nil
			})
			want := wechat.NewSecret("refresh@" + accountA + "@1000").Fingerprint()
			if a, err := b.Account(t.Context(), accountA); err != nil || a.RefreshToken != want {
				t.Errorf("Account: got refresh token %s, error %v, want %s", a.RefreshToken, err, want)
			}
		})
	}
}

// A code that a replica stored and did not exchange before it stopped is
// exchanged by another one.
func TestPendingCodeIsTakenOver(t *testing.T) {
	f, client := newFakeWeChat(t)
	s := newSharedStore()
	one := newBroker(t, s.view(), client, nil)
	putTicket(t, one)
	mustToken(t, one, component)
	f.down.Store(true)
	pushCode(t, one, accountA, codeOf(accountA, 1000), 1000)
	two := newBroker(t, s.view(), client, func(c *tokens.Config) { c.MaintenanceInterval = 5 * time.Millisecond })
	one.Close(t.Context())
	f.down.Store(false)
	eventually(t, "the account is known", func() bool { return errorOf(two.Account(t.Context(), accountA)) == nil })
	if n := f.count("api_query_auth"); n == 0 {
		t.Error("got no exchange of the code, want one")
	}
}

// losingStore loses the lock of accountA once: what the update returns is not
// saved.
type losingStore struct {
	store.Store
	armed     atomic.Bool
	meanwhile func() // what another replica does while the lock is lost
}

func (s *losingStore) Update(ctx context.Context, key string, fn store.UpdateFunc) error {
	if key != "account/"+accountA || !s.armed.CompareAndSwap(true, false) {
		return s.Store.Update(ctx, key, fn)
	}
	old, err := s.Load(ctx, key)
	if err != nil {
		return err
	}
	_, _ = fn(ctx, old)
	s.meanwhile()
	return store.ErrLost
}

// A replica that was suspended during a renewal, and lost the lock, returns the
// token that another one saved. If there is none it fails, and the next attempt
// succeeds.
func TestLostLock(t *testing.T) {
	_, client := newFakeWeChat(t)
	s := &losingStore{Store: store.NewMemory()}
	b := newAuthorized(t, s, client, nil)
	other := newBroker(t, s.Store, client, nil)
	waitForProfile(t, b)
	stale := mustToken(t, b, accountA).Value
	var theirs tokens.Token
	s.meanwhile = func() {
		var err error
		if theirs, err = other.Renew(t.Context(), accountA, stale); err != nil {
			t.Errorf("Renew of the other replica: %v", err)
		}
	}
	s.armed.Store(true)
	got, err := b.Renew(t.Context(), accountA, stale)
	if err != nil || !got.Value.Equal(theirs.Value) || got.Value.Equal(stale) {
		t.Errorf("Renew: got token %s, error %v, want the other replica's %s",
			got.Value.Fingerprint(), err, theirs.Value.Fingerprint())
	}
	s.meanwhile = func() {}
	s.armed.Store(true)
	if _, err := b.Renew(t.Context(), accountA, got.Value); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("Renew without another replica's token: got error %v, want %v", err, tokens.ErrUnavailable)
	}
	if again, err := b.Renew(t.Context(), accountA, got.Value); err != nil || again.Value.Equal(got.Value) {
		t.Errorf("Renew again: got token %s, error %v, want another token", again.Value.Fingerprint(), err)
	}
}
