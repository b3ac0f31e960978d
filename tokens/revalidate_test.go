package tokens_test

import (
	"context"
	"fmt"
	"testing"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
)

// WeChat is asked about an account whose request was rejected with 61003, and
// the account is marked as revoked. Many rejections cause one question.
func TestRevalidate(t *testing.T) {
	f, client := newFakeWeChat(t)
	b := newAuthorized(t, store.NewMemory(), client, nil)
	mustToken(t, b, accountA)
	b.Revalidate(accountA, 48001) // says nothing about the authorization
	b.Revalidate(unknownAccount, 61003)
	b.Revalidate(component, 61003)
	f.list(map[string]authorizer{})
	for range 50 {
		b.Revalidate(accountA, 61003)
	}
	waitForTokenError(t, b, accountA, tokens.ErrRevoked)
	f.wantCount(t, "api_authorizer_token", 0)
}

// If the account authorizes again while WeChat is asked about its old
// authorization, the answer does not revoke the new one.
func TestNewerAuthorizationIsNotRevoked(t *testing.T) {
	f, client := newFakeWeChat(t)
	b := newAuthorized(t, store.NewMemory(), client, nil)
	waitForProfile(t, b) // it would call the handler below
	old := mustToken(t, b, accountA).Value
	asked, answer := make(chan struct{}), make(chan struct{})
	f.handle("api_get_authorizer_info", func(map[string]any) (any, bool) {
		f.handle("api_get_authorizer_info", nil)
		close(asked)
		<-answer
		return errcode(61003), true
	})
	b.Revalidate(accountA, 61003)
	<-asked
	pushCode(t, b, accountA, codeOf(accountA, 2000), 2000)
	eventually(t, "the new authorization replaces the token", func() bool {
		return !mustToken(t, b, accountA).Value.Equal(old)
	})
	close(answer)
	if err := b.Close(context.Background()); err != nil { // waits for the revalidation
		t.Fatalf("Close: %v", err)
	}
	wantState(t, b, accountA, tokens.Active)
}

// An account whose push was lost is found when it is called. Calls for made-up
// appids cannot exhaust the quota.
func TestUnknownAccountsAreAskedWithinLimit(t *testing.T) {
	f, client := newFakeWeChat(t)
	var c clock
	b := newBroker(t, store.NewMemory(), client, c.use)
	putTicket(t, b)
	mustToken(t, b, accountB)
	before := f.count("api_get_authorizer_info")
	f.list(map[string]authorizer{})
	for i := range 200 {
		wantTokenError(t, b, fmt.Sprintf("wx%016d", i), tokens.ErrUnknownAccount)
	}
	if n := f.count("api_get_authorizer_info") - before; n > 40 {
		t.Errorf("got %d requests to WeChat for 200 unknown accounts, want 40 at most", n)
	}
}
