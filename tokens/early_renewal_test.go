package tokens_test

import (
	"maps"
	"slices"
	"sync"
	"testing"

	"wxproxy/tokens/store"
)

// Tokens in use are renewed before they expire. Tokens that are not used are
// not, so that the renewals of an account end with its calls.
func TestEarlyRenewal(t *testing.T) {
	f, client := newFakeWeChat(t)
	f.lifetime = 1 // second; due after 0.9 at the latest
	var mu sync.Mutex
	renewals := map[string]int{}
	f.handle("api_authorizer_token", func(in map[string]any) (any, bool) {
		mu.Lock()
		defer mu.Unlock()
		renewals[in["authorizer_appid"].(string)]++
		return nil, false
	})
	counts := func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(renewals)
	}
	b := newBroker(t, store.NewMemory(), client, nil)
	putTicket(t, b)
	pushCode(t, b, accountB, codeOf(accountB, 1), 1000) // authorized, and never called
	authorize(t, b, accountA, 1000)
	mustToken(t, b, accountA)
	eventually(t, "accountA is renewed without a call", func() bool { return counts()[accountA] > 0 })
	mustToken(t, b, accountA)
	eventually(t, "no early renewal is left", func() bool { return b.EarlyRenewals() == 0 })
	got := counts()
	if apps := slices.Sorted(maps.Keys(got)); !slices.Equal(apps, []string{accountA}) {
		t.Errorf("renewed accounts: got %v, want only %s, the one that was called", apps, accountA)
	}
	// Each of the three calls can cause one renewal, if the token has expired
	// by then, and one more before the next expiry.
	if got[accountA] > 6 {
		t.Errorf("got %d renewals for three calls, want 6 at most", got[accountA])
	}
}
