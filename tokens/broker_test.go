package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// After a restart nothing is fetched while the stored tokens are valid.
func TestRestartFetchesNothing(t *testing.T) {
	f, client := newFakeWeChat(t)
	s := store.NewMemory()
	b := newAuthorized(t, s, client, nil)
	account, comp := mustToken(t, b, accountA), mustToken(t, b, component)
	b.Close(t.Context())
	f.down.Store(true)
	b = newBroker(t, s, client, nil)
	if got := mustToken(t, b, accountA); !got.Value.Equal(account.Value) || got.Hit {
		t.Errorf("account: got token %s, hit %t, want %s, false",
			got.Value.Fingerprint(), got.Hit, account.Value.Fingerprint())
	}
	if got := mustToken(t, b, component); !got.Value.Equal(comp.Value) || got.Kind != tokens.Component {
		t.Errorf("component: got token %s of kind %v, want %s of kind %v",
			got.Value.Fingerprint(), got.Kind, comp.Value.Fingerprint(), tokens.Component)
	}
}

// A renewal goes on when its caller gives up, and Close waits for it. New work
// is rejected meanwhile.
func TestCloseWaitsForRenewals(t *testing.T) {
	f, client := newFakeWeChat(t)
	s := store.NewMemory()
	b := newAuthorized(t, s, client, nil)
	stale := mustToken(t, b, accountA).Value
	unblock := f.block(t)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- errorOf(b.Renew(ctx, accountA, stale)) }()
	f.waitForCount(t, "api_authorizer_token", 1)
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("Renew of a caller that gave up: got error %v, want %v", err, context.Canceled)
	}
	closed := make(chan error, 1)
	go func() { closed <- b.Close(context.Background()) }()
	n := 0
	eventually(t, "the Broker rejects new work", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		n++ // another account each time: the same one would join the flight before it
		return errors.Is(errorOf(b.Token(ctx, fmt.Sprintf("wx%016d", n))), tokens.ErrClosed)
	})
	select {
	case <-closed:
		t.Fatal("Close returned during a renewal")
	default:
	}
	unblock()
	if err := <-closed; err != nil {
		t.Errorf("Close: %v", err)
	}
	if tok := mustToken(t, newBroker(t, s, client, nil), accountA); tok.Value.Equal(stale) {
		t.Error("the token of the renewal was not saved")
	}
}

// Close cancels renewals when its context ends, and still waits for them.
func TestCloseCancelsRenewals(t *testing.T) {
	f, client := newFakeWeChat(t)
	s := &updateCounter{Store: store.NewMemory()}
	b := newAuthorized(t, s, client, nil)
	stale := mustToken(t, b, accountA).Value
	unblock := f.block(t)
	defer unblock()
	result := make(chan error, 1)
	go func() { result <- errorOf(b.Renew(context.Background(), accountA, stale)) }()
	f.waitForCount(t, "api_authorizer_token", 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Close: got error %v, want %v", err, context.Canceled)
	}
	if n := s.inFlight.Load(); n != 0 { // the store may be closed now
		t.Errorf("updates in flight after Close: got %d, want 0", n)
	}
	if err := <-result; !errors.Is(err, tokens.ErrClosed) {
		t.Errorf("Renew: got error %v, want %v", err, tokens.ErrClosed)
	}
}

// updateCounter counts the updates that have not returned yet.
type updateCounter struct {
	store.Store
	inFlight atomic.Int64
}

func (s *updateCounter) Update(ctx context.Context, key string, fn store.UpdateFunc) error {
	s.inFlight.Add(1)
	defer s.inFlight.Add(-1)
	return s.Store.Update(ctx, key, fn)
}

// A signing key is generated once, by whichever call comes first, and survives
// a restart.
func TestSigningKeyIsShared(t *testing.T) {
	_, client := newFakeWeChat(t)
	s := store.NewMemory()
	b := newBroker(t, s, client, nil)
	keys := make(chan string)
	for range 20 {
		go func() {
			k, err := b.SigningKey(context.Background(), "standin", nil)
			if err != nil || len(k) != store.KeySize {
				t.Errorf("SigningKey: got %d bytes, error %v, want %d", len(k), err, store.KeySize)
			}
			keys <- string(k)
		}()
	}
	want, err := newBroker(t, s, client, nil).SigningKey(t.Context(), "standin", nil)
	if err != nil {
		t.Fatalf("SigningKey of a second Broker: %v", err)
	}
	for range 20 {
		if got := <-keys; got != string(want) {
			t.Errorf("SigningKey: got %x, want %x", got, want)
		}
	}
	if other, _ := b.SigningKey(t.Context(), "state", nil); string(other) == string(want) {
		t.Error("Key: got the same bytes for two names")
	}
}

func TestCachedDoesNotAllocate(t *testing.T) {
	_, client := newFakeWeChat(t)
	b := newAuthorized(t, store.NewMemory(), client, nil)
	waitForHit(t, b, accountA)
	if n := testing.AllocsPerRun(1000, func() { b.Cached(accountA) }); n >= 1 {
		t.Errorf("Cached: got %v allocations, want 0", n)
	}
}

func BenchmarkCached(b *testing.B) {
	srv := httptest.NewServer(&fakeWeChat{requests: map[string]int{}, lifetime: 7200})
	defer srv.Close()
	client := wechat.NewClient(srv.URL, nil)
	br, err := tokens.New(tokens.Config{Store: store.NewMemory(), Client: client, Secrets: secrets()})
	if err != nil {
		b.Fatal(err)
	}
	defer br.Close(context.Background())
	for ok := false; !ok; _, ok = br.Cached(ownAccount) {
		if _, err := br.Token(context.Background(), ownAccount); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		br.Cached(ownAccount)
	}
}
