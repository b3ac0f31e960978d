package tokens_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	compare := func(want tokens.SyncResult) {
		t.Helper()
		waitForNextMillisecond(t)
		got, err := b.Sync(t.Context(), tokens.SyncOptions{})
		want.Took = got.Took
		if err != nil || got != want {
			t.Errorf("Sync: got %+v, error %v, want %+v", got, err, want)
		}
	}
	eventually(t, "the first ticket starts a comparison", func() bool { return f.count("api_get_authorizer_list") > 0 })
	if _, err := b.Sync(t.Context(), tokens.SyncOptions{}); err != nil { // that one is over now
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
	compare(tokens.SyncResult{Listed: 3, Added: 1, Recovered: 2, Revoked: 1})
	wantState(t, b, accountA, tokens.Active)
	wantState(t, b, accountB, tokens.Revoked)
	wantState(t, b, revokedThenBack, tokens.Active)
	wantState(t, b, unknownAccount, tokens.Active)
	want := wechat.NewSecret("other").Fingerprint()
	if a, err := b.Account(t.Context(), accountA); err != nil || a.RefreshToken != want {
		t.Errorf("Account: got refresh token %s, error %v, want %s", a.RefreshToken, err, want)
	}
	compare(tokens.SyncResult{Listed: 3, Unchanged: 3})

	// An empty list revokes nothing, because each account is asked about first.
	f.handle("api_get_authorizer_list", func(map[string]any) (any, bool) {
		return map[string]any{"total_count": 0, "list": []any{}}, true
	})
	compare(tokens.SyncResult{})
	f.fail("api_get_authorizer_list", 45009)
	if _, err := b.Sync(t.Context(), tokens.SyncOptions{}); wechat.Code(err) != 45009 {
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
	if _, err := b.Sync(t.Context(), tokens.SyncOptions{}); err != nil {
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
		if _, err := b.Sync(t.Context(), tokens.SyncOptions{}); err != nil {
			t.Fatalf("Sync: %v", err)
		}
		if got := stateOf(t, b, accountA); got != tt.want {
			t.Errorf("authorization listed with time %d: got %s, want %s", tt.time, got, tt.want)
		}
	}
}

// listOf returns a list of n accounts. Those whose number is in without are
// missing.
func listOf(n int, without ...int) map[string]authorizer {
	listed := map[string]authorizer{}
	for i := range n {
		if !slices.Contains(without, i) {
			listed[numbered(i)] = authorizer{fmt.Sprint("refresh", i), 1000}
		}
	}
	return listed
}

func numbered(i int) string { return fmt.Sprintf("wx%016d", i) }

// isCompared reports whether a comparison is complete, and none runs.
func isCompared(t *testing.T, s store.Store) bool {
	raw, _ := s.Load(t.Context(), "sync/"+component)
	text := string(raw)
	return strings.Contains(text, `"done"`) && !strings.Contains(text, `"incomplete"`) &&
		!strings.Contains(text, `"run_begun"`)
}

// An operator has to confirm that accounts are gone, if they are more than 20
// and more than 5 % of all. Until then none is marked as revoked.
func TestManyWithdrawalsNeedConfirmation(t *testing.T) {
	for _, tt := range []struct {
		known, gone int
		held        bool
	}{
		{20, 20, false}, {21, 21, true}, {400, 20, false}, {420, 21, false},
		{419, 21, true}, {1000, 50, false}, {1000, 51, true}, {1200, 1200, true},
	} {
		t.Run(fmt.Sprintf("%d of %d", tt.gone, tt.known), func(t *testing.T) {
			f, client := newFakeWeChat(t)
			f.list(listOf(tt.known))
			var c clock
			s := store.NewMemory()
			b := newBroker(t, s, client, c.use)
			putTicket(t, b)
			waitForComparison(t, s) // else it may read the list that follows
			revoked := func() int { counts, _ := b.Stats().AccountCounts(); return counts.Revoked }
			want := func(o tokens.SyncOptions, revokedNow, held int) {
				t.Helper()
				c.advance(time.Hour) // the counts are read again
				got, err := b.Sync(t.Context(), o)
				if err != nil || got.Revoked != revokedNow || got.Held != held {
					t.Errorf("Sync(%+v): got %+v, error %v, want %d revoked and %d held",
						o, got, err, revokedNow, held)
				}
				c.advance(time.Hour)
				if status, known := b.Stats().Comparison(); !known || status.Held != held {
					t.Errorf("Comparison: got %+v, known %t, want %d held", status, known, held)
				}
			}
			got, err := b.Sync(t.Context(), tokens.SyncOptions{})
			if err != nil || got.Listed != tt.known {
				t.Fatalf("Sync: got %+v, error %v, want %d listed", got, err, tt.known)
			}
			var gone []int
			for i := range tt.gone {
				gone = append(gone, i)
			}
			f.list(listOf(tt.known, gone...))
			if tt.held {
				want(tokens.SyncOptions{}, 0, tt.gone)
				if n := revoked(); n != 0 {
					t.Errorf("without a confirmation: got %d revoked accounts, want 0", n)
				}
			}
			asked := min(tt.gone, 1000) // the rest waits for the next comparison
			want(tokens.SyncOptions{Confirm: tt.held}, asked, 0)
			// A count that takes long returns the previous numbers.
			eventually(t, fmt.Sprintf("%d accounts are revoked", asked), func() bool {
				return revoked() == asked
			})
		})
	}
}

// A comparison that ends early is resumed where it was: after WeChat failed,
// and by another replica after the first one was stopped. What was read before
// is not read again, except by the search for accounts that are no longer
// listed.
func TestInterruptedComparisonIsResumed(t *testing.T) {
	const accounts = 3000 // 6 pages
	for name, interrupt := range map[string]func(b *tokens.Broker){
		"the page fails":         func(*tokens.Broker) {},
		"the replica is stopped": func(b *tokens.Broker) { b.Close(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			f, client := newFakeWeChat(t)
			f.list(listOf(accounts))
			var c clock
			s := newSharedStore()
			var failing atomic.Bool
			failing.Store(true)
			var mu sync.Mutex
			var offsets []int
			f.handle("api_get_authorizer_list", func(in map[string]any) (any, bool) {
				mu.Lock()
				defer mu.Unlock()
				offset := int(in["offset"].(float64))
				if offset > 1500 && failing.Load() {
					return errcode(-1), true
				}
				offsets = append(offsets, offset)
				return nil, false
			})
			one := newBroker(t, s.view(), client, c.use)
			putTicket(t, one)
			eventually(t, "the comparison has failed", func() bool {
				raw, err := s.Load(t.Context(), "sync/"+component)
				return err == nil && !strings.Contains(string(raw), `"owner"`)
			})
			interrupt(one)
			failing.Store(false)
			mu.Lock()
			before := len(offsets)
			mu.Unlock()
			c.advance(time.Minute) // the pause after a failure
			two := newBroker(t, s.view(), client, c.use)
			two.RunMaintenance()
			one.RunMaintenance()
			eventually(t, "the comparison is complete", func() bool { return isCompared(t, s) })
			mu.Lock()
			defer mu.Unlock()
			if before != 4 || offsets[before] < 500 || len(offsets) > 4+6+2 {
				t.Errorf("offsets: got %d, want 4 pages, then the rest", offsets)
			}
			if counts, _ := two.Stats().AccountCounts(); counts.Active != accounts {
				t.Errorf("got %+v, want %d active accounts", counts, accounts)
			}
		})
	}
}

// Of all replicas one compares. If it hangs, another takes over after a minute,
// and what the first one returns then is not noted.
func TestHangingComparisonIsTakenOver(t *testing.T) {
	f, client := newFakeWeChat(t)
	f.list(listOf(100))
	s := newSharedStore()
	var c clock
	hold := make(chan struct{})
	var held atomic.Bool
	f.handle("api_get_authorizer_list", func(map[string]any) (any, bool) {
		if held.CompareAndSwap(false, true) {
			<-hold
		}
		return nil, false
	})
	release := sync.OnceFunc(func() { close(hold) })
	t.Cleanup(release)
	one := newBroker(t, s.view(), client, c.use)
	putTicket(t, one)
	f.waitForCount(t, "api_get_authorizer_list", 1)
	two := newBroker(t, s.view(), client, c.use)
	two.RunMaintenance()
	if n := f.count("api_get_authorizer_list"); n != 1 {
		t.Fatalf("got %d readings of the list while another replica compares, want 1", n)
	}
	c.advance(time.Minute)
	two.RunMaintenance()
	eventually(t, "the comparison of the second replica is complete", func() bool {
		raw, _ := s.Load(t.Context(), "sync/"+component)
		return strings.Contains(string(raw), `"done"`) && !strings.Contains(string(raw), `"owner"`)
	})
	f.wantCount(t, "api_get_authorizer_list", 2)
	before, err := s.Load(t.Context(), "sync/"+component)
	if err != nil {
		t.Fatal(err)
	}
	release()
	one.Close(t.Context())
	after, err := s.Load(t.Context(), "sync/"+component)
	if err != nil || string(after) != string(before) {
		t.Errorf("the first replica has continued: got %s, error %v, want %s", after, err, before)
	}
}

// Data that a part of the store lost makes a comparison due at once, in one of
// all replicas, though the record of comparisons says that one was done just
// now. So it is if all replicas were down when the store lost it. A part that
// was only unreachable makes none due.
func TestLostDataMakesComparisonDue(t *testing.T) {
	f, client := newFakeWeChat(t)
	f.list(listOf(100))
	s := newSharedStore()
	one, two := newBroker(t, s.view(), client, nil), newBroker(t, s.view(), client, nil)
	putTicket(t, one)
	// wait waits until a comparison of the data with this identity is done. The
	// record of an earlier one must not pass for it: Close would interrupt it.
	wait := func(identity int) {
		t.Helper()
		eventually(t, "the accounts are known", func() bool {
			raw, _ := s.Load(t.Context(), "sync/"+component)
			accounts := 0
			err := s.List(t.Context(), "account/wx0", "", func(string, []byte) bool {
				accounts++
				return true
			})
			return isCompared(t, s) && err == nil && accounts == 100 &&
				strings.Contains(string(raw), fmt.Sprintf(`"data":{"0":"%d"`, identity))
		})
	}
	wait(0)
	f.wantCount(t, "api_get_authorizer_list", 1)
	s.comeUp()
	for _, b := range []*tokens.Broker{one, two} {
		b.RunMaintenance()
	}
	f.wantCount(t, "api_get_authorizer_list", 1)

	isLost := func(key string) bool {
		return strings.HasPrefix(key, "account/wx") && key < "account/wx0000000000000060"
	}
	s.lose(t, isLost)
	wait(1)
	f.wantCount(t, "api_get_authorizer_list", 2)

	one.Close(t.Context())
	two.Close(t.Context())
	s.lose(t, isLost)
	one = newBroker(t, s.view(), client, nil)
	wait(2)
	f.wantCount(t, "api_get_authorizer_list", 3)
	one.RunMaintenance()
	f.wantCount(t, "api_get_authorizer_list", 3)
}

// WeChat's list has no end: each page is the same, of 1 or 500 accounts, and
// the total is a billion. Neither a comparison nor the search for an account
// reads on, and no account is marked as revoked.
func TestListThatRepeatsIsNotReadOn(t *testing.T) {
	for _, n := range []int{1, 500} {
		f, client := newFakeWeChat(t)
		b := newAuthorized(t, store.NewMemory(), client, nil)
		page := make([]any, n)
		for i := range page {
			page[i] = map[string]any{
				"authorizer_appid": fmt.Sprintf("wx%016d", i), "refresh_token": "r", "auth_time": 1000,
			}
		}
		f.handle("api_get_authorizer_list", func(map[string]any) (any, bool) {
			return map[string]any{"total_count": 1_000_000_000, "list": page}, true
		})
		before := f.count("api_get_authorizer_list")
		_, err := b.Sync(t.Context(), tokens.SyncOptions{})
		if err == nil || !strings.Contains(err.Error(), "repeats") {
			t.Errorf("pages of %d: Sync: got error %v, want one with \"repeats\"", n, err)
		}
		f.fail("api_get_authorizer_info", 48001)
		f.fail("api_authorizer_token", 61023)
		if _, err := rejectToken(t, b, accountA); err == nil {
			t.Errorf("pages of %d: Renew: got no error, want one", n)
		}
		if pages := f.count("api_get_authorizer_list") - before; pages > 8 {
			t.Errorf("pages of %d: got %d requests, want 8 at most", n, pages)
		}
		wantState(t, b, accountA, tokens.Failing)
	}
}

// A comparison that an operator began, and that failed at the third page, is
// finished without a command, although one succeeded a short while ago.
func TestFailedSyncOfOperatorIsFinished(t *testing.T) {
	f, client := newFakeWeChat(t)
	f.list(listOf(1500))
	var c clock
	s := store.NewMemory()
	b := newBroker(t, s, client, c.use)
	putTicket(t, b)
	eventually(t, "the first comparison is complete", func() bool { return isCompared(t, s) })
	var failing atomic.Bool
	failing.Store(true)
	f.handle("api_get_authorizer_list", func(in map[string]any) (any, bool) {
		return errcode(-1), in["offset"].(float64) >= 1000 && failing.Load()
	})
	if _, err := b.Sync(t.Context(), tokens.SyncOptions{}); wechat.Code(err) != -1 {
		t.Fatalf("Sync: got error %v, want errcode -1", err)
	}
	failing.Store(false)
	before := f.count("api_get_authorizer_list")
	c.advance(time.Minute) // the pause after a failure
	b.RunMaintenance()
	eventually(t, "the list is read on", func() bool {
		return f.count("api_get_authorizer_list") > before && isCompared(t, s)
	})
}
