package tokens_test

import (
	"context"
	"sync/atomic"
	"testing"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
)

// pausingStore stops one Load or Update after it is done in the store, and
// before its caller knows.
type pausingStore struct {
	store.Store
	pauseLoad, pauseUpdate atomic.Pointer[string] // the key; cleared when it pauses

	done   chan struct{} // receives when the store is done
	resume chan struct{} // lets the caller go on
}

func newPausingStore() *pausingStore {
	return &pausingStore{Store: store.NewMemory(), done: make(chan struct{}), resume: make(chan struct{})}
}

func (s *pausingStore) Load(ctx context.Context, key string) ([]byte, error) {
	b, err := s.Store.Load(ctx, key)
	s.pause(&s.pauseLoad, key)
	return b, err
}

func (s *pausingStore) Update(ctx context.Context, key string, fn store.UpdateFunc) error {
	err := s.Store.Update(ctx, key, fn)
	s.pause(&s.pauseUpdate, key)
	return err
}

func (s *pausingStore) pause(pauseAt *atomic.Pointer[string], key string) {
	if at := pauseAt.Load(); at != nil && *at == key && pauseAt.CompareAndSwap(at, nil) {
		s.done <- struct{}{}
		<-s.resume
	}
}

// A caller whose token was rejected must not join a load that is about to
// return that token, and the load must not leave it in the cache.
func TestRejectedTokenIsNotReturnedByConcurrentLoad(t *testing.T) {
	_, client := newFakeWeChat(t)
	s := newPausingStore()
	stale := mustToken(t, newAuthorized(t, s, client, nil), accountA).Value

	b := newBroker(t, s, client, nil) // its cache is empty
	key := "account/" + accountA
	s.pauseLoad.Store(&key)
	loading := make(chan struct{})
	go func() { defer close(loading); b.Token(context.Background(), accountA) }()
	<-s.done
	fresh, err := b.Renew(t.Context(), accountA, stale)
	if err != nil || fresh.Value.Equal(stale) {
		t.Errorf("Renew: got token %s, error %v, want another token than %s",
			fresh.Value.Fingerprint(), err, stale.Fingerprint())
	}
	close(s.resume)
	<-loading
	if tok := mustToken(t, b, accountA); !tok.Value.Equal(fresh.Value) {
		t.Errorf("Token: got %s, want the renewed %s", tok.Value.Fingerprint(), fresh.Value.Fingerprint())
	}
}

// A renewal that saved its token before an exchange, and learns of that after
// it, must not cache its token: the exchange has replaced it.
func TestReplacedTokenIsNotCached(t *testing.T) {
	_, client := newFakeWeChat(t)
	s := newPausingStore()
	b := newAuthorized(t, s, client, nil)
	stale := mustToken(t, b, accountA).Value
	key := "account/" + accountA
	s.pauseUpdate.Store(&key)
	renewed := make(chan tokens.Token)
	go func() {
		tok, err := b.Renew(context.Background(), accountA, stale)
		if err != nil {
			t.Errorf("Renew: %v", err)
		}
		renewed <- tok
	}()
	<-s.done
	if _, err := b.Exchange(t.Context(), codeOf(accountA, 2000)); err != nil {
		t.Fatalf("Exchange: %v", err)
	}
	a, err := b.Account(t.Context(), accountA)
	if err != nil {
		t.Fatalf("Account: %v", err)
	}
	close(s.resume)
	replaced := <-renewed
	if got := mustToken(t, b, accountA); got.Value.Fingerprint() != a.Token {
		t.Errorf("Token: got %s, want %s of the exchange; the renewal returned %s",
			got.Value.Fingerprint(), a.Token, replaced.Value.Fingerprint())
	}
}
