package tokens_test

import (
	"errors"
	"testing"

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

func TestForget(t *testing.T) {
	f, client := newFakeWeChat(t)
	b := newAuthorized(t, store.NewMemory(), client, nil)
	f.list(map[string]authorizer{})
	for _, want := range []error{nil, tokens.ErrUnknownAccount} {
		if err := b.Forget(t.Context(), accountA); !errors.Is(err, want) {
			t.Errorf("Forget: got error %v, want %v", err, want)
		}
	}
	for call, err := range map[string]error{
		"CheckAccount": b.CheckAccount(t.Context(), accountA),
		"Account":      errorOf(b.Account(t.Context(), accountA)),
		"Token":        errorOf(b.Token(t.Context(), accountA)),
		"Refresh":      errorOf(b.Refresh(t.Context(), accountA)),
	} {
		if !errors.Is(err, tokens.ErrUnknownAccount) {
			t.Errorf("%s of a forgotten account: got error %v, want %v", call, err, tokens.ErrUnknownAccount)
		}
	}
}

// CheckAccount asks the store and not WeChat.
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
	f.wantCount(t, "api_get_authorizer_info", before)
}
