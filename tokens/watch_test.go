package tokens_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// shared is a store of several processes, which can go away and be emptied.
type shared struct {
	store.Store
	away atomic.Bool

	mu    sync.Mutex
	views []*view
}

// view is how one of the processes sees it.
type view struct {
	*shared
	changes    []string // not told yet
	everything bool
}

func newShared() *shared { return &shared{Store: store.NewMemory()} }

func (s *shared) view() *view {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := &view{shared: s, everything: true}
	s.views = append(s.views, v)
	return v
}

var errAway = errors.New("the store is away")

func (s *shared) fault() error {
	if s.away.Load() {
		return errAway
	}
	return nil
}

func (s *shared) Load(ctx context.Context, key string) ([]byte, error) {
	if err := s.fault(); err != nil {
		return nil, err
	}
	return s.Store.Load(ctx, key)
}

func (s *shared) List(ctx context.Context, prefix, after string, yield func(string, []byte) bool) error {
	return errors.Join(s.fault(), s.Store.List(ctx, prefix, after, yield))
}

func (s *shared) Update(ctx context.Context, key string, fn func(context.Context, []byte) ([]byte, error)) error {
	if err := s.fault(); err != nil {
		return err
	}
	err := s.Store.Update(ctx, key, fn)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.views {
		v.changes = append(v.changes, key)
	}
	return err
}

// comeBack ends an absence: whoever watches compares everything.
func (s *shared) comeBack() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.views {
		v.everything = true
	}
	s.away.Store(false)
}

// empty removes all records, as FLUSHALL does.
func (s *shared) empty(t *testing.T) {
	t.Helper()
	var keys []string
	if err := s.Store.List(t.Context(), "", "", func(key string, _ []byte) bool { keys = append(keys, key); return true }); err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if err := s.Store.Update(t.Context(), key, func(context.Context, []byte) ([]byte, error) { return nil, nil }); err != nil {
			t.Fatal(err)
		}
	}
	s.comeBack()
}

func (v *view) Watch(ctx context.Context, changed func([]string)) {
	t := time.NewTicker(time.Millisecond)
	defer t.Stop()
	for {
		v.mu.Lock()
		keys, everything := v.changes, v.everything
		if v.away.Load() {
			keys, everything = nil, false
		} else {
			v.changes, v.everything = nil, false
		}
		v.mu.Unlock()
		switch {
		case everything:
			changed(nil)
		case len(keys) > 0:
			changed(keys)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// heard waits until v's broker was told of all changes.
func (v *view) heard(t *testing.T) {
	t.Helper()
	eventually(t, func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		return len(v.changes) == 0 && !v.everything
	})
}

// named says whether the name of accountA is known, without asking for it.
func named(t *testing.T, b *tokens.Broker) bool {
	t.Helper()
	list, _, err := b.List(t.Context(), 0, 10, accountA)
	return err == nil && len(list) == 1 && list[0].Name != ""
}

// What becomes of an account in one process, becomes of it in all.
func TestAllFollow(t *testing.T) {
	s, client := newScript(t)
	store := newShared()
	one := authorized(t, store.view(), client, nil)
	two := newBroker(t, store.view(), client, nil)
	has := func(token tokens.Token) func() bool {
		return func() bool {
			got, err := two.Token(t.Context(), accountA)
			return err == nil && got.Value.Equal(token.Value)
		}
	}
	first := mustToken(t, one, accountA)
	eventually(t, has(first))
	// renewed
	fresh, err := one.Renew(t.Context(), accountA, first.Value)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, has(fresh))
	// withdrawn
	if err := one.MarkRevoked(t.Context(), accountA, time.Unix(1001, 0)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return errors.Is(second(two.Token(t.Context(), accountA)), tokens.ErrRevoked) })
	// authorized again
	authorize(t, one, accountA, 1002)
	again := mustToken(t, one, accountA)
	eventually(t, has(again))
	// forgotten
	s.knows(map[string]listed{})
	if err := one.Forget(t.Context(), accountA); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return errors.Is(second(two.Token(t.Context(), accountA)), tokens.ErrUnknownAccount) })
}

// What a process has written itself stays in its memory.
func TestOwnChangesStay(t *testing.T) {
	_, client := newScript(t)
	st := newShared()
	v := st.view()
	b := authorized(t, v, client, nil)
	mustToken(t, b, accountA)
	eventually(t, func() bool { return mustToken(t, b, accountA).Hit })
	stale := mustToken(t, b, accountA)
	fresh, err := b.Renew(t.Context(), accountA, stale.Value)
	if err != nil {
		t.Fatal(err)
	}
	v.heard(t)
	eventually(t, func() bool { return mustToken(t, b, accountA).Hit })
	for range 10 {
		if err := v.Update(t.Context(), "account/"+accountA, func(context.Context, []byte) ([]byte, error) { return store.Keep, nil }); err != nil {
			t.Fatal(err)
		}
		v.heard(t)
		if got, ok := b.Cached(accountA); !ok || !got.Value.Equal(fresh.Value) {
			t.Fatal("pushed out by a change that changed nothing")
		}
	}
}

// Of many processes one asks WeChat: when a token is refused everywhere, when it is due, and for what is due once a day.
func TestOneOfAll(t *testing.T) {
	s, client := newScript(t)
	s.knows(map[string]listed{accountA: {"refresh@" + accountA + "@1000", 1000}})
	store := newShared()
	var c clock
	brokers := []*tokens.Broker{authorized(t, store.view(), client, c.use)}
	for range 2 {
		brokers = append(brokers, newBroker(t, store.view(), client, c.use))
	}
	eventually(t, func() bool { return named(t, brokers[0]) }) // the name is read once, and kept
	names := s.count("api_get_authorizer_info")
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
	// A broker's cache may lag behind the store until its watcher reports the
	// change, so each round begins when brokers[0] has the newest token.
	waitForCurrent := func() {
		eventually(t, func() bool { return mustToken(t, brokers[0], accountA).Value.Equal(current) })
	}
	for round := range 3 {
		waitForCurrent()
		stale, before := current, s.count("api_authorizer_token")
		var mu sync.Mutex
		everywhere(200, func(b *tokens.Broker) {
			tok, err := b.Renew(t.Context(), accountA, stale)
			if err != nil || tok.Value.Equal(stale) {
				t.Errorf("round %d: Renew: got token %s, error %v, want another token than %s", round, tok.Value.Fingerprint(), err, stale.Fingerprint())
			}
			mu.Lock()
			defer mu.Unlock()
			current = tok.Value
		})
		if n := s.count("api_authorizer_token") - before; n != 1 {
			t.Errorf("round %d: got %d renewals for 600 rejections, want 1", round, n)
		}
	}
	waitForCurrent()
	// Ahead of its end: used everywhere, due everywhere at the same time.
	before := s.count("api_authorizer_token")
	old := mustToken(t, brokers[0], accountA).Value
	everywhere(1, func(b *tokens.Broker) { mustToken(t, b, accountA) })
	c.forward(2*time.Hour - 5*time.Minute)
	everywhere(50, func(b *tokens.Broker) { mustToken(t, b, accountA) })
	for _, b := range brokers {
		eventually(t, func() bool { return !mustToken(t, b, accountA).Value.Equal(old) })
	}
	if n := s.count("api_authorizer_token") - before; n != 1 {
		t.Errorf("%d renewals ahead", n)
	}
	if n := s.count("api_get_authorizer_list"); n > 1 {
		t.Errorf("the list was read %d times", n)
	}
	if n := s.count("api_get_authorizer_info"); n != names {
		t.Errorf("the name was read %d times more", n-names)
	}
}

// While the store is away what is in memory serves on, due or not; what happened meanwhile is seen when it is back.
func TestStoreAway(t *testing.T) {
	_, client := newScript(t)
	store := newShared()
	var c clock
	b := authorized(t, store.view(), client, c.use)
	other := newBroker(t, store.view(), client, c.use)
	mustToken(t, other, accountA)
	eventually(t, func() bool { return mustToken(t, other, accountA).Hit })

	store.away.Store(true)
	good := mustToken(t, other, accountA)
	for range 10 {
		c.forward(11 * time.Minute) // in the end it is due
		if got := mustToken(t, other, accountA); !got.Hit || !got.Value.Equal(good.Value) {
			t.Fatal("another token, or not from memory")
		}
	}
	c.forward(4 * time.Minute)
	for range 10 {
		if got := mustToken(t, other, accountA); !got.Hit || !got.Value.Equal(good.Value) {
			t.Fatal("due: another token, or not from memory")
		}
	}
	if _, err := other.Renew(t.Context(), accountA, good.Value); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("a refused one: %v", err)
	}
	// Its end is its end.
	c.forward(30 * time.Minute)
	if _, err := other.Token(t.Context(), accountA); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("over: %v", err)
	}
	store.comeBack()
	eventually(t, func() bool { _, err := other.Token(t.Context(), accountA); return err == nil })

	// Withdrawn while one of them could not hear of it.
	eventually(t, func() bool { return mustToken(t, other, accountA).Hit })
	store.away.Store(true)
	mustToken(t, other, accountA)
	store.away.Store(false)
	if err := b.MarkRevoked(t.Context(), accountA, time.Unix(1001, 0)); err != nil {
		t.Fatal(err)
	}
	store.comeBack()
	eventually(t, func() bool { return errors.Is(second(other.Token(t.Context(), accountA)), tokens.ErrRevoked) })
}

// A store that was emptied under running processes: what they have in memory serves on, their keys stay theirs, and the
// accounts are read from WeChat again, without a ticket, a restart or a person.
func TestStoreEmptied(t *testing.T) {
	s, client := newScript(t)
	s.knows(map[string]listed{accountA: {"refresh@" + accountA + "@1000", 1000}, accountB: {"refresh@b", 1000}})
	store := newShared()
	v := store.view()
	b := authorized(t, v, client, nil)
	eventually(t, func() bool { return s.count("api_get_authorizer_list") == 1 })
	key, err := b.Key(t.Context(), "standin")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return named(t, b) }) // nobody writes any more
	v.heard(t)
	eventually(t, func() bool { return mustToken(t, b, accountA).Hit && mustToken(t, b, component).Hit })
	store.empty(t)
	mustToken(t, b, accountA)
	eventually(t, func() bool { return s.count("api_get_authorizer_list") == 2 })
	for _, appid := range []string{accountA, accountB} {
		eventually(t, func() bool {
			_, err := b.Account(t.Context(), appid)
			return err == nil
		})
		mustToken(t, b, appid)
	}
	fresh := newBroker(t, store.view(), client, nil)
	eventually(t, func() bool {
		again, err := fresh.Key(t.Context(), "standin")
		return err == nil && slices.Equal(key, again)
	})
	mustToken(t, fresh, accountA)
	// The next ticket is taken as ever.
	if err := b.PutTicket(t.Context(), wechat.NewSecret("ticket@@@2"), time.Unix(2000, 0)); err != nil {
		t.Error(err)
	}
}

// A code that a process took in and could not exchange before it died is exchanged by another that runs.
func TestCodeTakenOver(t *testing.T) {
	s, client := newScript(t)
	store := newShared()
	one := newBroker(t, store.view(), client, nil)
	putTicket(t, one)
	mustToken(t, one, component)
	s.down.Store(true)
	if err := one.Authorize(t.Context(), accountA, codeOf(accountA, 1000), time.Time{}, time.Unix(1000, 0)); err != nil {
		t.Fatal(err)
	}
	two := newBroker(t, store.view(), client, func(c *tokens.Config) { c.MaintenanceInterval = 5 * time.Millisecond })
	one.Close(t.Context())
	s.down.Store(false)
	eventually(t, func() bool {
		_, err := two.Account(t.Context(), accountA)
		return err == nil
	})
	if n := s.count("api_query_auth"); n == 0 {
		t.Error("not exchanged")
	}
}

// losing loses a lock once: what the update brings comes too late.
type losing struct {
	store.Store
	armed   atomic.Bool
	quicker func() // what somebody else does meanwhile
}

func (l *losing) Update(ctx context.Context, key string, fn func(context.Context, []byte) ([]byte, error)) error {
	if key != "account/"+accountA || !l.armed.CompareAndSwap(true, false) {
		return l.Store.Update(ctx, key, fn)
	}
	old, err := l.Load(ctx, key)
	if err != nil {
		return err
	}
	_, _ = fn(ctx, old)
	l.quicker()
	return store.ErrLost
}

// Who slept during its renewal takes what somebody else has got meanwhile, and nobody sees an error.
func TestLockLost(t *testing.T) {
	_, client := newScript(t)
	store := &losing{Store: store.NewMemory()}
	b := authorized(t, store, client, nil)
	other := newBroker(t, store.Store, client, nil)
	eventually(t, func() bool { return named(t, b) }) // nobody else writes the account now
	stale := mustToken(t, b, accountA).Value
	var theirs tokens.Token
	store.quicker = func() {
		var err error
		if theirs, err = other.Renew(t.Context(), accountA, stale); err != nil {
			t.Error(err)
		}
	}
	store.armed.Store(true)
	got, err := b.Renew(t.Context(), accountA, stale)
	if err != nil || !got.Value.Equal(theirs.Value) || got.Value.Equal(stale) {
		t.Errorf("%v", err)
	}
	// Where nobody else has got one it fails, and the next try succeeds.
	store.quicker = func() {}
	store.armed.Store(true)
	if _, err := b.Renew(t.Context(), accountA, got.Value); !errors.Is(err, tokens.ErrUnavailable) {
		t.Error(err)
	}
	if again, err := b.Renew(t.Context(), accountA, got.Value); err != nil || again.Value.Equal(got.Value) {
		t.Error(err)
	}
}
