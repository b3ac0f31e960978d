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
	"wxproxy/wechat"
)

func stateOf(t *testing.T, b *tokens.Broker, appid string) tokens.State {
	t.Helper()
	a, err := b.Account(t.Context(), appid)
	if err != nil {
		t.Fatal(err)
	}
	return a.State
}

// The merchant's browser and WeChat's push bring codes, in any order and at once. The account works, and each
// code is exchanged once.
func TestBrowserAndPush(t *testing.T) {
	for _, order := range []string{"browser first", "push first", "at once"} {
		t.Run(order, func(t *testing.T) {
			s, client := newScript(t)
			b := newBroker(t, store.NewMemory(), client, nil)
			putTicket(t, b)
			code := codeOf(accountA, 1000)
			browser := func() {
				a, err := b.Exchange(t.Context(), code)
				if err != nil || a.AppID != accountA {
					t.Errorf("%+v %v", a, err)
				}
			}
			push := func() { authorize(t, b, accountA, 1000) }
			switch order {
			case "browser first":
				browser()
				push()
			case "push first":
				push()
				browser()
			default:
				var all sync.WaitGroup
				for range 5 {
					all.Go(browser)
					all.Go(push)
				}
				all.Wait()
			}
			browser() // the page is opened again
			mustToken(t, b, accountA)
			if n := s.count("api_query_auth"); n != 1 {
				t.Errorf("%d exchanges", n)
			}
			// The time of the authorization is WeChat's: a withdrawal from before it does nothing, one from after it does.
			eventually(t, func() bool {
				return errors.Is(b.MarkRevoked(t.Context(), accountA, time.Unix(999, 0)), tokens.ErrStale)
			})
			if err := b.MarkRevoked(t.Context(), accountA, time.Unix(1001, 0)); err != nil {
				t.Error(err)
			}
			if state := stateOf(t, b, accountA); state != tokens.Revoked {
				t.Error(state)
			}
		})
	}
}

// Both bring a code of their own, as WeChat does: the one that is exchanged last counts.
func TestTwoCodes(t *testing.T) {
	s, client := newScript(t)
	b := newBroker(t, store.NewMemory(), client, nil)
	putTicket(t, b)
	a, err := b.Exchange(t.Context(), codeOf(accountA, 1))
	if err != nil || a.AppID != accountA || a.Name != "店?铺" {
		t.Fatalf("%+v %v", a, err)
	}
	first := mustToken(t, b, accountA)
	authorize(t, b, accountA, 1000)
	eventually(t, func() bool { return !mustToken(t, b, accountA).Value.Equal(first.Value) })
	if n := s.count("api_query_auth"); n != 2 {
		t.Errorf("%d exchanges", n)
	}
	if _, err := b.Exchange(t.Context(), codeOf(accountA, 1)); err != nil {
		t.Errorf("the first once more: %v", err)
	}
}

// A code that WeChat refuses is told to the merchant, and harms nothing.
func TestBadCode(t *testing.T) {
	s, client := newScript(t)
	b := authorized(t, store.NewMemory(), client, nil)
	before := mustToken(t, b, accountA)
	s.answer("api_query_auth", func(map[string]any) (any, bool) { return errcode(61010), true })
	if _, err := b.Exchange(t.Context(), codeOf(accountA, 2)); wechat.Code(err) != 61010 {
		t.Error(err)
	}
	if !mustToken(t, b, accountA).Value.Equal(before.Value) {
		t.Error("the account has another token")
	}
	s.down.Store(true)
	if _, err := b.Exchange(t.Context(), codeOf(accountA, 3)); !errors.Is(err, wechat.ErrUnreachable) {
		t.Error(err)
	}
}

// A code that somebody else has spent, of an account that nobody here knows: the refresh token is WeChat's to tell.
func TestSpentElsewhere(t *testing.T) {
	s, client := newScript(t)
	b := newBroker(t, store.NewMemory(), client, nil)
	putTicket(t, b)
	s.answer("api_query_auth", func(map[string]any) (any, bool) { return errcode(61009), true })
	authorize(t, b, accountA, 1000)
	if state := stateOf(t, b, accountA); state != tokens.Active {
		t.Error(state)
	}
}

func TestPreAuthCode(t *testing.T) {
	_, client := newScript(t)
	b := newBroker(t, store.NewMemory(), client, nil)
	if _, _, err := b.PreAuthCode(t.Context()); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("without a ticket: %v", err)
	}
	putTicket(t, b)
	c, life, err := b.PreAuthCode(t.Context())
	if err != nil || c.IsEmpty() || life != 10*time.Minute {
		t.Errorf("%v %v", life, err)
	}
}

// What a refusal says about the authorization is asked of WeChat once, and then the account is revoked, fails, or goes on.
func TestAuthorizationInDoubt(t *testing.T) {
	for name, v := range map[string]struct {
		code  int
		known map[string]listed
		state tokens.State
		err   error
	}{
		"withdrawn":                 {61003, map[string]listed{}, tokens.Revoked, tokens.ErrRevoked},
		"61003, but listed":         {61003, map[string]listed{accountA: {"refresh@" + accountA + "@1000", 1}}, tokens.Failing, tokens.ErrUnavailable},
		"refresh token dead":        {61023, map[string]listed{accountA: {"refresh@" + accountA + "@1000", 1}}, tokens.Failing, tokens.ErrUnavailable},
		"refresh token dead, gone":  {61023, map[string]listed{}, tokens.Revoked, tokens.ErrRevoked},
		"password changed":          {42007, map[string]listed{accountA: {"refresh@" + accountA + "@1000", 1}}, tokens.Failing, tokens.ErrUnavailable},
		"password changed, gone":    {42007, map[string]listed{}, tokens.Revoked, tokens.ErrRevoked},
		"password changed, another": {42007, map[string]listed{accountA: {"another", 1}}, tokens.Active, nil},
		"busy":                      {-1, map[string]listed{}, tokens.Failing, tokens.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			s, client := newScript(t)
			b := authorized(t, store.NewMemory(), client, nil)
			s.knows(v.known)
			s.answer("api_authorizer_token", func(in map[string]any) (any, bool) {
				return errcode(v.code), in["authorizer_refresh_token"] != "another"
			})
			stale := mustToken(t, b, accountA).Value
			if _, err := b.Renew(t.Context(), accountA, stale); !errors.Is(err, v.err) {
				t.Errorf("%v, want %v", err, v.err)
			}
			if state := stateOf(t, b, accountA); state != v.state {
				t.Errorf("%s, want %s", state, v.state)
			}
			if v.state != tokens.Revoked {
				return
			}
			// Of a revoked account nothing is asked, and a new authorization brings it back.
			n := s.count("api_authorizer_token")
			if _, err := b.Token(t.Context(), accountA); !errors.Is(err, tokens.ErrRevoked) {
				t.Error(err)
			}
			if s.count("api_authorizer_token") != n {
				t.Error("WeChat was asked")
			}
			authorize(t, b, accountA, 2000)
		})
	}
}

// A call that is refused with 61003 has the account looked for, once for many refusals.
func TestDoubt(t *testing.T) {
	s, client := newScript(t)
	b := authorized(t, store.NewMemory(), client, nil)
	mustToken(t, b, accountA)
	b.Revalidate(accountA, 48001)
	b.Revalidate(unknown, 61003)
	b.Revalidate(component, 61003)
	s.knows(map[string]listed{})
	for range 50 {
		b.Revalidate(accountA, 61003)
	}
	eventually(t, func() bool { _, err := b.Token(t.Context(), accountA); return errors.Is(err, tokens.ErrRevoked) })
	if n := s.count("api_authorizer_token"); n != 0 {
		t.Errorf("%d renewals", n)
	}
}

// An account whose push was lost is found when it is called for; strange appids cannot use up the quota.
func TestDiscovered(t *testing.T) {
	s, client := newScript(t)
	b := newBroker(t, store.NewMemory(), client, nil)
	putTicket(t, b)
	mustToken(t, b, accountB)
	before := s.count("api_get_authorizer_info")
	s.knows(map[string]listed{})
	for i := range 200 {
		if _, err := b.Token(t.Context(), fmt.Sprintf("wx%016d", i)); !errors.Is(err, tokens.ErrUnknownAccount) {
			t.Fatal(err)
		}
	}
	if n := s.count("api_get_authorizer_info") - before; n > 40 {
		t.Errorf("asked %d times", n)
	}
}

// A lost store is made again from one ticket: all accounts, and not one call for each.
func TestRebuilt(t *testing.T) {
	s, client := newScript(t)
	known := map[string]listed{}
	for i := range 1234 {
		known[fmt.Sprintf("wx%016d", i)] = listed{fmt.Sprint("refresh", i), 1000}
	}
	known["wx9999999999999999"] = listed{"", 1000} // authorized, and its code never exchanged
	s.knows(known)
	b := newBroker(t, store.NewMemory(), client, nil)
	putTicket(t, b)
	eventually(t, func() bool { active, _, failing, _ := b.Accounts(); return active == 1234 && failing == 1 })
	if n := s.count("api_get_authorizer_list"); n != 3 {
		t.Errorf("%d pages", n)
	}
	if n := s.count("api_get_authorizer_info") + s.count("api_authorizer_token"); n != 0 {
		t.Errorf("%d calls for accounts", n)
	}
	mustToken(t, b, "wx0000000000000777")
	if _, err := b.Token(t.Context(), "wx9999999999999999"); !errors.Is(err, tokens.ErrUnavailable) || !strings.Contains(err.Error(), "never exchanged") {
		t.Error(err)
	}
	// A second ticket does not begin it again.
	putTicket(t, b)
	mustToken(t, b, "wx0000000000000778")
	if n := s.count("api_get_authorizer_list"); n != 3 {
		t.Errorf("%d pages", n)
	}
}

// past waits until the millisecond in which something was written is over: a comparison takes what was written since it began
// for newer than what it read.
func past(t *testing.T) {
	t.Helper()
	now := time.Now().UnixMilli()
	eventually(t, func() bool { return time.Now().UnixMilli() > now })
}

// Sync takes over what WeChat lists, and finds out who has left.
func TestSync(t *testing.T) {
	s, client := newScript(t)
	s.knows(map[string]listed{accountA: {"refresh@" + accountA + "@1000", 1000}})
	b := authorized(t, store.NewMemory(), client, nil)
	eventually(t, func() bool { return s.count("api_get_authorizer_list") > 0 })
	if _, err := b.Sync(t.Context()); err != nil { // the one at the first ticket is over
		t.Fatal(err)
	}
	authorize(t, b, accountB, 1000)
	var left = "wxdddddddddddddddd"
	authorize(t, b, left, 1000)
	if err := b.MarkRevoked(t.Context(), left, time.Unix(1500, 0)); err != nil {
		t.Fatal(err)
	}
	past(t)
	// B has left without a word; the withdrawn one has come back later; one is new; A has another refresh token.
	s.knows(map[string]listed{accountA: {"other", 1000}, left: {"back", 2000}, unknown: {"new", 3000}})
	r, err := b.Sync(t.Context())
	if err != nil || r.Listed != 3 || r.Added != 1 || r.Recovered != 2 || r.Revoked != 1 || r.Unchanged != 0 {
		t.Errorf("%+v %v", r, err)
	}
	for appid, want := range map[string]tokens.State{accountA: tokens.Active, accountB: tokens.Revoked, left: tokens.Active, unknown: tokens.Active} {
		if state := stateOf(t, b, appid); state != want {
			t.Errorf("%s is %s", appid, state)
		}
	}
	if a, err := b.Account(t.Context(), accountA); err != nil || a.RefreshToken != wechat.NewSecret("other").Fingerprint() {
		t.Errorf("%+v %v", a, err)
	}
	past(t)
	if r, err = b.Sync(t.Context()); err != nil || r.Unchanged != 3 || r.Added+r.Recovered+r.Revoked != 0 {
		t.Errorf("again: %+v %v", r, err)
	}
	// A list that is wrongly empty revokes nobody.
	s.answer("api_get_authorizer_list", func(map[string]any) (any, bool) { return map[string]any{"total_count": 0, "list": []any{}}, true })
	if r, err = b.Sync(t.Context()); err != nil || r.Revoked != 0 {
		t.Errorf("empty: %+v %v", r, err)
	}
	s.answer("api_get_authorizer_list", func(map[string]any) (any, bool) { return errcode(45009), true })
	if _, err = b.Sync(t.Context()); wechat.Code(err) != 45009 {
		t.Errorf("without quota: %v", err)
	}
}

// A withdrawal that WeChat told of stands against a list that still shows the authorization before it.
func TestWithdrawalOutlivesList(t *testing.T) {
	s, client := newScript(t)
	b := authorized(t, store.NewMemory(), client, nil)
	if err := b.MarkRevoked(t.Context(), accountA, time.Unix(1500, 0)); err != nil {
		t.Fatal(err)
	}
	s.knows(map[string]listed{accountA: {"held", 1000}})
	if _, err := b.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if state := stateOf(t, b, accountA); state != tokens.Revoked {
		t.Error(state)
	}
	// The operator may insist.
	if a, err := b.Refresh(t.Context(), accountA); err != nil || a.State != tokens.Active {
		t.Errorf("%+v %v", a, err)
	}
}

// Tickets that WeChat refuses, or that do not come, have it asked to push again, once in ten minutes.
func TestStartPush(t *testing.T) {
	s, client := newScript(t)
	var c clock
	b := newBroker(t, store.NewMemory(), client, func(cfg *tokens.Config) { c.use(cfg); cfg.MaintenanceInterval = 10 * time.Millisecond })
	for range 3 {
		if _, err := b.Token(t.Context(), component); !errors.Is(err, tokens.ErrUnavailable) {
			t.Fatal(err)
		}
		c.forward(2 * time.Minute)
	}
	if n := s.count("api_start_push_ticket"); n != 1 {
		t.Errorf("without a ticket: asked %d times", n)
	}
	s.answer("api_component_token", func(map[string]any) (any, bool) { return errcode(61006), true })
	putTicket(t, b)
	if _, err := b.Token(t.Context(), component); !errors.Is(err, tokens.ErrUnavailable) {
		t.Error(err)
	}
	eventually(t, func() bool { return s.count("api_start_push_ticket") == 2 })
	s.answer("api_component_token", nil)
	putTicket(t, b)
	mustToken(t, b, component)
	// Nobody calls, and no ticket comes.
	c.forward(61 * time.Minute)
	eventually(t, func() bool { return s.count("api_start_push_ticket") == 3 })
}

// A used-up quota is not asked again and again, not even when tickets come.
func TestQuota(t *testing.T) {
	s, client := newScript(t)
	var c clock
	b := newBroker(t, store.NewMemory(), client, c.use)
	s.answer("api_component_token", func(map[string]any) (any, bool) { return errcode(45009), true })
	putTicket(t, b)
	for range 20 {
		if _, err := b.Token(t.Context(), component); !errors.Is(err, tokens.ErrUnavailable) || !strings.Contains(err.Error(), "quota") {
			t.Fatal(err)
		}
		putTicket(t, b)
		c.forward(time.Minute)
	}
	if n := s.count("api_component_token"); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if err := b.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "quota") {
		t.Errorf("ready: %v", err)
	}
	s.answer("api_component_token", nil)
	c.forward(time.Hour)
	mustToken(t, b, component)
}

// What an operator sees and does.
func TestOperator(t *testing.T) {
	s, client := newScript(t)
	b := authorized(t, store.NewMemory(), client, nil)
	for i := range 25 {
		if added, err := b.Import(t.Context(), fmt.Sprintf("wx%016d", i), wechat.NewSecret("imported")); err != nil || !added {
			t.Fatal(added, err)
		}
	}
	if added, err := b.Import(t.Context(), accountA, wechat.NewSecret("older")); err != nil || added {
		t.Error("a refresh token that is at hand was replaced", err)
	}
	mustToken(t, b, "wx0000000000000007")
	list, total, err := b.List(t.Context(), 20, 10, "wx00")
	if err != nil || total != 25 || len(list) != 5 || list[0].AppID != "wx0000000000000020" || list[0].Kind != tokens.Authorizer {
		t.Errorf("%d %+v %v", total, list, err)
	}
	if list, total, err = b.List(t.Context(), 0, 3, ""); err != nil || len(list) != 3 || total < 26 {
		t.Errorf("%d %+v %v", total, list, err)
	}
	before := mustToken(t, b, accountA)
	a, err := b.Refresh(t.Context(), accountA)
	if err != nil || a.Token == before.Value.Fingerprint() || a.Name != "店?铺" || a.Type != "mini program" || !mustToken(t, b, accountA).Value.Equal(mustToken(t, b, accountA).Value) {
		t.Errorf("%+v %v", a, err)
	}
	if list, _, err = b.List(t.Context(), 0, 10, "店"); err != nil || len(list) == 0 || list[0].Name != "店?铺" {
		t.Errorf("by name: %+v %v", list, err)
	}
	s.down.Store(true)
	if _, err := b.Refresh(t.Context(), accountA); !errors.Is(err, tokens.ErrUnavailable) {
		t.Error(err)
	}
	s.down.Store(false)
	if _, err := b.Refresh(t.Context(), accountA); err != nil {
		t.Errorf("the operator waits for nobody: %v", err)
	}
	s.knows(map[string]listed{})
	for _, want := range []error{nil, tokens.ErrUnknownAccount} {
		if err := b.Forget(t.Context(), accountA); !errors.Is(err, want) {
			t.Error(err)
		}
	}
	for _, err := range []error{b.Known(t.Context(), accountA), second(b.Account(t.Context(), accountA)), second(b.Token(t.Context(), accountA)), second(b.Refresh(t.Context(), accountA))} {
		if !errors.Is(err, tokens.ErrUnknownAccount) {
			t.Error(err)
		}
	}
	if err := b.Known(t.Context(), "wx0000000000000003"); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

// A key is made once, and outlives the process.
func TestKey(t *testing.T) {
	_, client := newScript(t)
	st := store.NewMemory()
	b := newBroker(t, st, client, nil)
	var all sync.WaitGroup
	got := make([]string, 20)
	for i := range got {
		all.Go(func() {
			k, err := b.Key(context.Background(), "standin")
			if err != nil || len(k) != store.KeySize {
				t.Error(err)
			}
			got[i] = string(k)
		})
	}
	all.Wait()
	again, err := newBroker(t, st, client, nil).Key(t.Context(), "standin")
	for _, k := range got {
		if k != string(again) || err != nil {
			t.Fatal("another key", err)
		}
	}
	if other, _ := b.Key(t.Context(), "state"); string(other) == got[0] {
		t.Error("two names have one key")
	}
}
