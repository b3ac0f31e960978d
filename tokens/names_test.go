package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
)

// nameOf is the original id of an account in fakeWeChat.
func nameOf(appid string) string { return "gh_" + appid }

// wantAddressee fails the test unless a message to userName may be for appid,
// or may not.
func wantAddressee(t *testing.T, b *tokens.Broker, appid, userName string, want bool) {
	t.Helper()
	got, err := b.IsAddressee(t.Context(), appid, userName)
	if err != nil || got != want {
		t.Errorf("message to %s on the path of %s: got %v, error %v, want %v",
			userName, appid, got, err, want)
	}
}

// TestAddresseeIsLearned: the names of accounts are learned from WeChat, with
// their authorization or with the first message, and stay known after a restart
// without WeChat. Paths: the account's own × another authorized account's × one
// that is not known × the component's × an own account's.
func TestAddresseeIsLearned(t *testing.T) {
	f, client := newFakeWeChat(t)
	s := store.NewMemory()
	b := newAuthorized(t, s, client, nil)
	authorize(t, b, accountB, 1000)
	paths := []string{accountA, accountB, unknownAccount, component, ownAccount}
	check := func(b *tokens.Broker) {
		t.Helper()
		for range 2 {
			for _, path := range paths {
				wantAddressee(t, b, path, nameOf(accountA), path == accountA)
				wantAddressee(t, b, path, nameOf(accountB), path == accountB)
			}
		}
	}
	waitForProfile(t, b)
	wantAddressee(t, b, accountB, nameOf(accountB), true) // learned now, if not before
	check(b)
	wantAddressee(t, b, accountA, "", true)
	f.down.Store(true)
	check(newBroker(t, s, client, nil))
}

// TestUnknownNamesAreAccepted: a name that no account has, at accounts whose
// own name is known, and names that are no original ids, at any account.
func TestUnknownNamesAreAccepted(t *testing.T) {
	_, client := newFakeWeChat(t)
	b := newAuthorized(t, store.NewMemory(), client, nil)
	authorize(t, b, accountB, 1000)
	waitForProfile(t, b)
	for range 2 {
		for _, path := range []string{accountA, accountB} {
			wantAddressee(t, b, path, "gh_unknown", true)
		}
		for _, path := range []string{accountA, accountB, unknownAccount} {
			wantAddressee(t, b, path, "toUser", true)
			wantAddressee(t, b, path, "gh_"+strings.Repeat("0", 62), true)
		}
	}
}

// unlearned returns a Broker that cannot learn names, because WeChat responds
// with an error. learnable lets it.
func unlearned(t *testing.T, c *clock, s store.Store) (b *tokens.Broker, learnable func()) {
	t.Helper()
	f, client := newFakeWeChat(t)
	f.fail("api_get_authorizer_info", -1)
	b = newAuthorized(t, s, client, c.use)
	authorize(t, b, accountB, 1000)
	return b, func() {
		f.handle("api_get_authorizer_info", nil)
		c.advance(2 * nameAskPause)
	}
}

// nameAskPause is how often WeChat is asked about an account.
const nameAskPause = time.Minute

// TestAddresseeIsPinned: while WeChat cannot be asked, a name belongs to the
// first account that got a message with it.
func TestAddresseeIsPinned(t *testing.T) {
	var c clock
	s := store.NewMemory()
	b, _ := unlearned(t, &c, s)
	for range 2 {
		wantAddressee(t, b, accountA, nameOf(accountA), true)
		wantAddressee(t, b, accountB, nameOf(accountA), false)
		wantAddressee(t, b, unknownAccount, nameOf(accountA), false)
		wantAddressee(t, b, accountB, nameOf(accountB), true)
		wantAddressee(t, b, accountA, nameOf(accountB), false)
	}
}

// TestWrongPinDoesNotLast: a third party sends A's message to the path of B, or
// of an account that is not known, before A gets its first. A gets its messages
// as soon as WeChat can be asked, and the other one gets them no more, in other
// processes either.
func TestWrongPinDoesNotLast(t *testing.T) {
	for _, thief := range []string{accountB, unknownAccount} {
		t.Run(thief, func(t *testing.T) {
			var c clock
			shared := newSharedStore()
			b, learnable := unlearned(t, &c, shared.view())
			other, _ := unlearned(t, &c, shared.view())
			wantAddressee(t, b, thief, nameOf(accountA), true)
			wantAddressee(t, other, thief, nameOf(accountA), true)
			wantAddressee(t, b, accountA, nameOf(accountA), false)
			learnable()
			eventually(t, "the account gets its messages", func() bool {
				ok, err := b.IsAddressee(t.Context(), accountA, nameOf(accountA))
				c.advance(nameAskPause)
				return err == nil && ok
			})
			wantAddressee(t, b, thief, nameOf(accountA), false)
			// First the thief's path: a look at A's would read the record.
			eventually(t, "the other process knows", func() bool {
				ok, err := other.IsAddressee(t.Context(), thief, nameOf(accountA))
				return err == nil && !ok
			})
			wantAddressee(t, other, accountA, nameOf(accountA), true)
		})
	}
}

// TestNamesAreAskedForSeldom: 100 concurrent messages with unknown names cost
// WeChat one question, and none within the next minute if it fails.
func TestNamesAreAskedForSeldom(t *testing.T) {
	f, client := newFakeWeChat(t)
	f.fail("api_get_authorizer_info", -1)
	var c clock
	b := newAuthorized(t, store.NewMemory(), client, c.use)
	f.waitForCount(t, "api_get_authorizer_info", 1) // after the authorization
	before := f.count("api_get_authorizer_info")
	for round := range 3 {
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() { wantAddressee(t, b, accountA, fmt.Sprint("gh_", round, "_", i), true) })
		}
		all.Wait()
	}
	if n := f.count("api_get_authorizer_info"); n > before+1 {
		t.Errorf("got %d questions for 300 messages, want one at most", n-before)
	}
}

// TestAddresseeWhileTheStoreIsDown: names that are cached are known, others are
// an error.
func TestAddresseeWhileTheStoreIsDown(t *testing.T) {
	shared := newSharedStore()
	_, client := newFakeWeChat(t)
	b := newAuthorized(t, shared.view(), client, nil)
	wantAddressee(t, b, accountA, nameOf(accountA), true)
	shared.down.Store(true)
	wantAddressee(t, b, accountA, nameOf(accountA), true)
	if _, err := b.IsAddressee(t.Context(), accountB, nameOf(accountA)); err == nil {
		t.Error("another account's path: got no error, want that of the store")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	shared.down.Store(false)
	if _, err := b.IsAddressee(ctx, accountB, nameOf(accountB)); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled context: got error %v, want context.Canceled", err)
	}
}

// TestForgottenAccountHasNoName: forgetting an account frees its name.
func TestForgottenAccountHasNoName(t *testing.T) {
	s := store.NewMemory()
	_, client := newFakeWeChat(t)
	b := newAuthorized(t, s, client, nil)
	waitForProfile(t, b)
	if _, err := s.Load(t.Context(), "name/"+nameOf(accountA)); err != nil {
		t.Fatalf("record of the name: %v", err)
	}
	if err := b.Forget(t.Context(), accountA); err != nil {
		t.Fatal(err)
	}
	_, err := s.Load(t.Context(), "name/"+nameOf(accountA))
	if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("record of the name: got error %v, want ErrNotFound", err)
	}
}
