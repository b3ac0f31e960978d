package tokens_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// All accounts of a lost store are known again after one ticket, without a
// request for each.
func TestStoreRebuiltFromOneTicket(t *testing.T) {
	const exchangedNowhere = "wx9999999999999999"
	f, client := newFakeWeChat(t)
	listed := map[string]authorizer{exchangedNowhere: {"", 1000}}
	for i := range 1234 {
		listed[fmt.Sprintf("wx%016d", i)] = authorizer{fmt.Sprint("refresh", i), 1000}
	}
	f.list(listed)
	b := newBroker(t, store.NewMemory(), client, nil)
	putTicket(t, b)
	eventually(t, "all accounts are known", func() bool {
		counts, _ := b.Stats().AccountCounts()
		return counts.Active == 1234 && counts.Failing == 1
	})
	f.wantCount(t, "api_get_authorizer_list", 3) // pages of 500
	f.wantCount(t, "api_get_authorizer_info", 0)
	f.wantCount(t, "api_authorizer_token", 0)
	mustToken(t, b, "wx0000000000000777")
	_, err := b.Token(t.Context(), exchangedNowhere)
	if !errors.Is(err, tokens.ErrUnavailable) || !strings.Contains(err.Error(), "never exchanged") {
		t.Errorf("Token of an account without a refresh token: got error %v, want %v that names the reason",
			err, tokens.ErrUnavailable)
	}
	putTicket(t, b)
	mustToken(t, b, "wx0000000000000778")
	f.wantCount(t, "api_get_authorizer_list", 3) // a second ticket starts no comparison
}

// waitForNextMillisecond separates what was written before from a comparison
// that starts now. Records have times in milliseconds, and what was written
// since the start counts as newer than the list.
func waitForNextMillisecond(t *testing.T) {
	t.Helper()
	now := time.Now().UnixMilli()
	eventually(t, "the next millisecond", func() bool { return time.Now().UnixMilli() > now })
}

// Sync takes over what WeChat lists, and finds the accounts that revoked their
// authorization.
func TestSync(t *testing.T) {
	const revokedThenBack = "wxdddddddddddddddd"
	f, client := newFakeWeChat(t)
	f.list(map[string]authorizer{accountA: {"refresh@" + accountA + "@1000", 1000}})
	b := newAuthorized(t, store.NewMemory(), client, nil)
	sync := func(want tokens.SyncResult) {
		t.Helper()
		waitForNextMillisecond(t)
		got, err := b.Sync(t.Context())
		want.Took = got.Took
		if err != nil || got != want {
			t.Errorf("Sync: got %+v, error %v, want %+v", got, err, want)
		}
	}
	eventually(t, "the first ticket starts a comparison", func() bool { return f.count("api_get_authorizer_list") > 0 })
	if _, err := b.Sync(t.Context()); err != nil { // that one is over now
		t.Fatalf("Sync: %v", err)
	}
	authorize(t, b, accountB, 1000)
	authorize(t, b, revokedThenBack, 1000)
	if err := b.MarkRevoked(t.Context(), revokedThenBack, time.Unix(1500, 0)); err != nil {
		t.Fatalf("MarkRevoked: %v", err)
	}

	// accountB revoked and no push came; one authorized again; one is new;
	// accountA has another refresh token.
	f.list(map[string]authorizer{
		accountA: {"other", 1000}, revokedThenBack: {"back", 2000}, unknownAccount: {"new", 3000},
	})
	sync(tokens.SyncResult{Listed: 3, Added: 1, Recovered: 2, Revoked: 1})
	wantState(t, b, accountA, tokens.Active)
	wantState(t, b, accountB, tokens.Revoked)
	wantState(t, b, revokedThenBack, tokens.Active)
	wantState(t, b, unknownAccount, tokens.Active)
	want := wechat.NewSecret("other").Fingerprint()
	if a, err := b.Account(t.Context(), accountA); err != nil || a.RefreshToken != want {
		t.Errorf("Account: got refresh token %s, error %v, want %s", a.RefreshToken, err, want)
	}
	sync(tokens.SyncResult{Listed: 3, Unchanged: 3})

	// An empty list revokes nothing, because each account is asked about first.
	f.handle("api_get_authorizer_list", func(map[string]any) (any, bool) {
		return map[string]any{"total_count": 0, "list": []any{}}, true
	})
	sync(tokens.SyncResult{})
	f.fail("api_get_authorizer_list", 45009)
	if _, err := b.Sync(t.Context()); wechat.Code(err) != 45009 {
		t.Errorf("Sync without quota: got error %v, want errcode 45009", err)
	}
}

// A revocation that WeChat pushed stands, although the list still shows the
// older authorization. The operator can overrule it.
func TestRevocationIsNewerThanList(t *testing.T) {
	f, client := newFakeWeChat(t)
	b := newAuthorized(t, store.NewMemory(), client, nil)
	if err := b.MarkRevoked(t.Context(), accountA, time.Unix(1500, 0)); err != nil {
		t.Fatalf("MarkRevoked: %v", err)
	}
	f.list(map[string]authorizer{accountA: {"held", 1000}})
	if _, err := b.Sync(t.Context()); err != nil {
		t.Fatalf("Sync: %v", err)
	}
	wantState(t, b, accountA, tokens.Revoked)
	if a, err := b.Refresh(t.Context(), accountA); err != nil || a.State != tokens.Active {
		t.Errorf("Refresh: got state %s, error %v, want %s", a.State, err, tokens.Active)
	}
}

// WeChat's list may still hold an account whose revocation was pushed. Only an
// authorization that is newer than the revocation recovers the account.
func TestListedAuthorizationBeforeRevocation(t *testing.T) {
	f, client := newFakeWeChat(t)
	b := newAuthorized(t, store.NewMemory(), client, nil)
	if err := b.MarkRevoked(t.Context(), accountA, time.Unix(3000, 0)); err != nil {
		t.Fatalf("MarkRevoked: %v", err)
	}
	for _, tt := range []struct {
		time int64
		want tokens.State
	}{{2999, tokens.Revoked}, {3000, tokens.Revoked}, {3001, tokens.Active}} {
		f.list(map[string]authorizer{accountA: {"listed", tt.time}})
		if _, err := b.Sync(t.Context()); err != nil {
			t.Fatalf("Sync: %v", err)
		}
		if got := stateOf(t, b, accountA); got != tt.want {
			t.Errorf("authorization listed with time %d: got %s, want %s", tt.time, got, tt.want)
		}
	}
}
