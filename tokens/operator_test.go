package tokens_test

import (
	"errors"
	"testing"
	"time"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

func TestImport(t *testing.T) {
	_, client := newFakeWeChat(t)
	b := newAuthorized(t, store.NewMemory(), client, nil)
	if imported, err := b.Import(t.Context(), accountB, wechat.NewSecret("imported")); err != nil || !imported {
		t.Errorf("Import of a new account: got %t, error %v, want true", imported, err)
	}
	mustToken(t, b, accountB)
	if imported, err := b.Import(t.Context(), accountA, wechat.NewSecret("older")); err != nil || imported {
		t.Errorf("Import of an account with a refresh token: got %t, error %v, want false", imported, err)
	}
}

// Refresh renews a token that is not due, and does not wait for the pause after
// a failure.
func TestRefresh(t *testing.T) {
	f, client := newFakeWeChat(t)
	b := newAuthorized(t, store.NewMemory(), client, nil)
	before := mustToken(t, b, accountA).Value.Fingerprint()
	a, err := b.Refresh(t.Context(), accountA)
	if err != nil || a.Token == before || a.Name != "店?铺" || a.Type != "mini program" {
		t.Errorf("Refresh: got token %s, name %q, type %q, error %v, want another token than %s, 店?铺, mini program",
			a.Token, a.Name, a.Type, err, before)
	}
	if got := mustToken(t, b, accountA).Value.Fingerprint(); got != a.Token {
		t.Errorf("Token: got %s, want the refreshed %s", got, a.Token)
	}
	f.down.Store(true)
	if _, err := b.Refresh(t.Context(), accountA); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("Refresh without WeChat: got error %v, want %v", err, tokens.ErrUnavailable)
	}
	f.down.Store(false)
	if _, err := b.Refresh(t.Context(), accountA); err != nil {
		t.Errorf("Refresh right after a failure: %v", err)
	}
}

// A forgotten account stays away, and is told apart from revoked ones: with and
// without a record before × one process and after a restart × while WeChat
// lists it, for every call, comparison and late push.
func TestForget(t *testing.T) {
	for _, appid := range []string{accountA, accountB} { // only A has a record
		t.Run(appid, func(t *testing.T) {
			f, client := newFakeWeChat(t)
			s := store.NewMemory()
			b := newAuthorized(t, s, client, nil)
			f.list(map[string]authorizer{accountA: {"held", 1}, accountB: {"held", 1}})
			for range 2 { // forgetting again changes nothing
				if err := b.Forget(t.Context(), appid); err != nil {
					t.Fatalf("Forget: %v", err)
				}
			}
			wantForgotten(t, b, appid, "at once")
			b.Revalidate(appid, 61003)
			wantForgotten(t, b, appid, "after a rejection")
			if _, err := b.Sync(t.Context(), tokens.SyncOptions{}); err != nil {
				t.Fatalf("Sync: %v", err)
			}
			wantForgotten(t, b, appid, "after a comparison")
			if appid == accountA {
				err := b.Authorize(t.Context(), appid, codeOf(appid, 1000), time.Time{}, time.Unix(1000, 0))
				if !errors.Is(err, tokens.ErrStale) {
					t.Errorf("Authorize with the last code: got error %v, want ErrStale", err)
				}
			}
			err := b.UpdateAuthorization(
				t.Context(), appid, codeOf(appid, 2), time.Time{}, time.Unix(2000, 0))
			if !errors.Is(err, tokens.ErrStale) {
				t.Errorf("UpdateAuthorization: got error %v, want %v", err, tokens.ErrStale)
			}
			wantForgotten(t, b, appid, "after pushes")
			b.Close(t.Context())
			b = newBroker(t, s, client, nil)
			wantForgotten(t, b, appid, "after a restart")
			filter := tokens.AccountFilter{State: tokens.Forgotten}
			list, n, err := b.List(t.Context(), 0, 9, filter)
			if n != 1 || err != nil || list[0].AppID != appid {
				t.Errorf("List of forgotten accounts: got %v, error %v, want %s", list, err, appid)
			}
			if counts, _ := b.Stats().AccountCounts(); counts.Forgotten != 1 {
				t.Errorf("AccountCounts: got %+v, want 1 forgotten", counts)
			}
		})
	}
}

// wantForgotten fails the test unless appid is forgotten for every call.
func wantForgotten(t *testing.T, b *tokens.Broker, appid, when string) {
	t.Helper()
	for call, err := range map[string]error{
		"CheckAccount": b.CheckAccount(t.Context(), appid),
		"Token":        errorOf(b.Token(t.Context(), appid)),
		"Renew":        errorOf(b.Renew(t.Context(), appid, wechat.NewSecret("A1"))),
	} {
		if !errors.Is(err, tokens.ErrForgotten) {
			t.Errorf("%s %s: got error %v, want %v", call, when, err, tokens.ErrForgotten)
		}
	}
	a, err := b.Account(t.Context(), appid)
	if err != nil || a.State != tokens.Forgotten || a.Forgotten.IsZero() ||
		a.Token != "" || a.RefreshToken != "" {
		t.Errorf("Account %s: got %+v, error %v, want no tokens and the time", when, a, err)
	}
}

// What brings a forgotten account back: a new code by push, by the merchant's
// browser or by a service, and an operator.
func TestForgottenAccountReturns(t *testing.T) {
	for name, bring := range map[string]func(*testing.T, *tokens.Broker) error{
		"push": func(t *testing.T, b *tokens.Broker) error {
			code, created := codeOf(accountA, 2), time.Unix(2000, 0)
			return b.Authorize(t.Context(), accountA, code, time.Time{}, created)
		},
		"browser": func(t *testing.T, b *tokens.Broker) error {
			admit := func() error { return nil }
			return errorOf(b.ExchangeReturned(t.Context(), codeOf(accountA, 2), "", admit))
		},
		"service": func(t *testing.T, b *tokens.Broker) error {
			return errorOf(b.Exchange(t.Context(), codeOf(accountA, 2)))
		},
		"refresh": func(t *testing.T, b *tokens.Broker) error {
			return errorOf(b.Refresh(t.Context(), accountA))
		},
		"restore": func(t *testing.T, b *tokens.Broker) error {
			r, err := b.Sync(t.Context(), tokens.SyncOptions{Restore: true})
			if r.Recovered != 1 {
				t.Errorf("Restore: got %+v, want 1 recovered", r)
			}
			return err
		},
		"import": func(t *testing.T, b *tokens.Broker) error {
			return errorOf(b.Import(t.Context(), accountA, wechat.NewSecret("imported")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, client := newFakeWeChat(t)
			b := newAuthorized(t, store.NewMemory(), client, nil)
			f.list(map[string]authorizer{accountA: {"held", 1}})
			if err := b.Forget(t.Context(), accountA); err != nil {
				t.Fatalf("Forget: %v", err)
			}
			if err := bring(t, b); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			waitForToken(t, b, accountA)
			wantState(t, b, accountA, tokens.Active)
			if a, err := b.Account(t.Context(), accountA); err != nil || !a.Forgotten.IsZero() {
				t.Errorf("Account: got %+v, error %v, want no time of forgetting", a, err)
			}
		})
	}
}

// The component and own accounts do not authorize, so they cannot stay away:
// only their tokens are deleted.
func TestForgetOwnAccount(t *testing.T) {
	_, client := newFakeWeChat(t)
	b := newAuthorized(t, store.NewMemory(), client, nil)
	for _, appid := range []string{component, ownAccount} {
		mustToken(t, b, appid)
		for _, want := range []error{nil, tokens.ErrUnknownAccount} {
			if err := b.Forget(t.Context(), appid); !errors.Is(err, want) {
				t.Errorf("Forget(%s): got error %v, want %v", appid, err, want)
			}
		}
		mustToken(t, b, appid)
	}
}

// CheckAccount fetches no token, and asks WeChat about an account without a
// record, once.
func TestCheckAccount(t *testing.T) {
	f, client := newFakeWeChat(t)
	b := newAuthorized(t, store.NewMemory(), client, nil)
	if _, err := b.Import(t.Context(), accountB, wechat.NewSecret("imported")); err != nil {
		t.Fatalf("Import: %v", err)
	}
	waitForProfile(t, b)
	before := f.count("api_get_authorizer_info")
	for appid, want := range map[string]error{
		accountA: nil, accountB: nil, component: nil, ownAccount: nil, unknownAccount: tokens.ErrUnknownAccount,
	} {
		if err := b.CheckAccount(t.Context(), appid); !errors.Is(err, want) {
			t.Errorf("CheckAccount(%s): got error %v, want %v", appid, err, want)
		}
	}
	f.wantCount(t, "api_authorizer_token", 0)
	wantError(t, "CheckAccount again", b.CheckAccount(t.Context(), unknownAccount), tokens.ErrUnknownAccount)
	f.wantCount(t, "api_get_authorizer_info", before+1)
}
