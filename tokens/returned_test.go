package tokens_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

var errNotAdmitted = errors.New("not admitted")

// returned presents a code as a merchant's browser does, and expects want.
func returned(
	t *testing.T, b *tokens.Broker, what string, code wechat.Secret, state string, want error,
) {
	t.Helper()
	a, err := b.ExchangeReturned(t.Context(), code, state, func() error { return nil })
	if !errors.Is(err, want) || err == nil && (a.AppID != accountA || a.At.IsZero()) {
		t.Errorf("%s with state %q: got account %q at %v, error %v, want error %v",
			what, state, a.AppID, a.At, err, want)
	}
	if err != nil && a.AppID != "" {
		t.Errorf("%s with state %q: got account %q with error %v", what, state, a.AppID, err)
	}
}

// A used code is answered only with the state it came with: first presented by
// (browser with a state, browser without, push, service, version before) × then
// by a browser with (the same state, another, none) × in the same process, and
// in another one on the same store. A code that no browser has brought can be
// bound for an hour.
func TestUsedCodeIsBoundToItsState(t *testing.T) {
	const own, foreign = "own state", "foreign state"
	code := codeOf(accountA, 1000)
	for first, tc := range map[string]struct {
		use   func(t *testing.T, b *tokens.Broker, s store.Store)
		state string // to which the code is bound then
		bound bool
	}{
		"browser": {func(t *testing.T, b *tokens.Broker, _ store.Store) {
			returned(t, b, "first return", code, own, nil)
		}, own, true},
		"browser without state": {func(t *testing.T, b *tokens.Broker, _ store.Store) {
			returned(t, b, "first return", code, "", nil)
		}, "", true},
		"push": {func(t *testing.T, b *tokens.Broker, s store.Store) {
			pushCode(t, b, accountA, code, 1000)
			waitForToken(t, b, accountA)
			eventually(t, "the code is recorded", func() bool {
				_, err := s.Load(t.Context(), exchangedKey(code))
				return err == nil
			})
		}, own, false},
		"service": {func(t *testing.T, b *tokens.Broker, _ store.Store) {
			if _, err := b.Exchange(t.Context(), code); err != nil {
				t.Errorf("Exchange: %v", err)
			}
		}, own, false},
		"version before": {func(t *testing.T, _ *tokens.Broker, s store.Store) {
			now := time.Now().UnixMilli()
			record := fmt.Appendf(nil, `{"v":1,"appid":%q,"at":%d}`, accountA, now)
			save := func(context.Context, []byte) ([]byte, error) { return record, nil }
			if err := s.Update(t.Context(), exchangedKey(code), save); err != nil {
				t.Fatal(err)
			}
		}, own, false},
	} {
		for _, process := range []string{"same process", "another process"} {
			t.Run(first+", "+process, func(t *testing.T) {
				f, client := newFakeWeChat(t)
				s := newSharedStore()
				var c clock
				b := newBroker(t, s.view(), client, c.use)
				putTicket(t, b)
				tc.use(t, b, s)
				asked := f.count("api_query_auth")
				if process == "another process" {
					b = newBroker(t, s.view(), client, c.use)
				}
				returned(t, b, "return", code, tc.state, nil)
				for _, state := range []string{own, foreign, "", "none"} {
					want := tokens.ErrForeignState
					if state == tc.state {
						want = nil
					}
					returned(t, b, "later return", code, state, want)
				}
				if _, err := b.Exchange(t.Context(), code); err != nil {
					t.Errorf("Exchange by a service: %v", err)
				}
				f.wantCount(t, "api_query_auth", asked)

				// A day later, nothing has changed.
				c.advance(24 * time.Hour)
				returned(t, b, "return after a day", code, tc.state, nil)
				returned(t, b, "return after a day", code, foreign, tokens.ErrForeignState)
			})
		}
		if !tc.bound {
			t.Run(first+", after an hour", func(t *testing.T) {
				_, client := newFakeWeChat(t)
				s := newSharedStore()
				var c clock
				b := newBroker(t, s.view(), client, c.use)
				putTicket(t, b)
				tc.use(t, b, s)
				c.advance(time.Hour + time.Second)
				for _, state := range []string{own, ""} {
					returned(t, b, "return after an hour", code, state, tokens.ErrForeignState)
				}
			})
		}
	}
}

func exchangedKey(code wechat.Secret) string {
	return fmt.Sprintf("spent/%x", sha256.Sum256([]byte(code.Reveal())))
}

// Of browsers that present one code with different states at once, one gets the
// account, whether a push has brought the code before or not.
func TestConcurrentStatesBindOnce(t *testing.T) {
	for _, pushed := range []bool{false, true} {
		f, client := newFakeWeChat(t)
		s := newSharedStore()
		replicas := []*tokens.Broker{
			newBroker(t, s.view(), client, nil), newBroker(t, s.view(), client, nil),
		}
		putTicket(t, replicas[0])
		code := codeOf(accountA, 1000)
		if pushed {
			pushCode(t, replicas[0], accountA, code, 1000)
			waitForToken(t, replicas[0], accountA)
		}
		var all sync.WaitGroup
		var mu sync.Mutex
		winners := 0
		for n := range 20 {
			all.Go(func() {
				_, err := replicas[n%2].ExchangeReturned(
					t.Context(), code, fmt.Sprint("state ", n), func() error { return nil })
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					winners++
				case !errors.Is(err, tokens.ErrForeignState):
					t.Errorf("got error %v, want %v", err, tokens.ErrForeignState)
				}
			})
		}
		all.Wait()
		if winners != 1 {
			t.Errorf("pushed %v: got %d states with the account, want 1", pushed, winners)
		}
		f.wantCount(t, "api_query_auth", 1)
	}
}

// Codes that cost no call to WeChat need no admission: exchanged ones, in every
// process, and pushed ones while WeChat does not respond. Others are not
// exchanged without it.
func TestKnownCodesNeedNoAdmission(t *testing.T) {
	f, client := newFakeWeChat(t)
	s := newSharedStore()
	b := newBroker(t, s.view(), client, nil)
	putTicket(t, b)
	deny := func() error { return errNotAdmitted }
	present := func(b *tokens.Broker, code wechat.Secret) error {
		_, err := b.ExchangeReturned(t.Context(), code, "state", deny)
		return err
	}
	code := codeOf(accountA, 1)
	if err := present(b, code); !errors.Is(err, errNotAdmitted) {
		t.Errorf("new code: got error %v, want %v", err, errNotAdmitted)
	}
	f.wantCount(t, "api_query_auth", 0)
	returned(t, b, "first return", code, "state", nil)
	for _, b := range []*tokens.Broker{b, newBroker(t, s.view(), client, nil)} {
		if err := present(b, code); err != nil {
			t.Errorf("exchanged code: %v", err)
		}
	}
	f.down.Store(true)
	pushed := codeOf(accountB, 2000)
	pushCode(t, b, accountB, pushed, 2000)
	if err := present(b, pushed); !errors.Is(err, wechat.ErrUnreachable) {
		t.Errorf("pushed code without WeChat: got error %v, want %v", err, wechat.ErrUnreachable)
	}
}
