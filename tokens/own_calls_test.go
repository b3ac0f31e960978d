package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// appidOf returns the appid of one of many accounts.
func appidOf(i int) string { return fmt.Sprintf("wx%016d", i) }

// addAccounts gives a Broker n accounts that have a refresh token and no
// access token.
func addAccounts(t *testing.T, b *tokens.Broker, n int) {
	t.Helper()
	for i := range n {
		if _, err := b.Import(t.Context(), appidOf(i), wechat.NewSecret("held")); err != nil {
			t.Fatalf("Import: %v", err)
		}
	}
}

// inParallel calls fn(0) to fn(n-1) in goroutines of their own, and waits.
func inParallel(n int, fn func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { fn(i) })
	}
	wg.Wait()
}

// Another program keeps replacing the component's token, so that WeChat rejects
// each one when an account's token is fetched. 2,000 calls for one account, or
// for 50 accounts in turn, at one time or one after the other, cost WeChat a
// handful of requests in a minute, and the accounts recover when it ends.
func TestReplacedComponentTokenIsBounded(t *testing.T) {
	for _, accounts := range []int{1, 50} {
		t.Run(fmt.Sprint(accounts), func(t *testing.T) {
			f, client := newFakeWeChat(t)
			var c clock
			s := store.NewMemory()
			b := newBroker(t, s, client, c.use)
			putTicket(t, b)
			waitForComparison(t, s) // for its requests the token is accepted
			addAccounts(t, b, accounts)
			mustToken(t, b, component)
			f.fail("api_authorizer_token", 40001)
			sent := func() int {
				return f.count("api_authorizer_token") + f.count("api_component_token")
			}
			call := func(i int) {
				err := errorOf(b.Token(t.Context(), appidOf(i%accounts)))
				if !errors.Is(err, tokens.ErrUnavailable) {
					t.Errorf("Token: got error %v, want %v", err, tokens.ErrUnavailable)
				}
			}
			for minute := range 3 {
				before := sent()
				for i := range 1000 { // of the fake clock, 50 seconds
					call(i)
					c.advance(50 * time.Millisecond)
				}
				if n := sent() - before; n > 8 {
					t.Errorf("minute %d, in turn: got %d requests, want 8 at most", minute, n)
				}
				before = sent()
				inParallel(1000, call)
				if n := sent() - before; n > 8 {
					t.Errorf("minute %d, at one time: got %d requests, want 8 at most", minute, n)
				}
				c.advance(10 * time.Second)
			}
			f.handle("api_authorizer_token", nil)
			c.advance(2 * time.Minute)
			mustToken(t, b, appidOf(0))
			mustToken(t, b, appidOf(accounts-1))
		})
	}
}

// An exhausted quota is the component's: of 300 accounts that are called in
// turn, one asks WeChat. Valid tokens serve, other endpoints are asked, an
// operator can try, and after half an hour one account finds out.
func TestQuotaPausesComponent(t *testing.T) {
	f, client := newFakeWeChat(t)
	var c clock
	b := newBroker(t, store.NewMemory(), client, c.use)
	putTicket(t, b)
	addAccounts(t, b, 300)
	mustToken(t, b, component)
	valid := mustToken(t, b, appidOf(299))
	f.fail("api_authorizer_token", 45009)
	before := f.count("api_authorizer_token")
	for i := range 299 {
		err := errorOf(b.Token(t.Context(), appidOf(i)))
		wait := tokens.RetryAfter(err, c.now())
		if !errors.Is(err, tokens.ErrUnavailable) || !strings.Contains(err.Error(), "45009") ||
			wait < 29*time.Minute || wait > 30*time.Minute {
			t.Fatalf("account %d: got error %v, retry after %v, want 45009, 30 min", i, err, wait)
		}
	}
	f.wantCount(t, "api_authorizer_token", before+1)
	if tok := mustToken(t, b, appidOf(299)); !tok.Value.Equal(valid.Value) {
		t.Error("a valid token is not used during the pause")
	}
	if _, err := b.Exchange(t.Context(), codeOf(accountB, 1)); err != nil {
		t.Errorf("Exchange, another endpoint: got error %v", err)
	}
	open := b.Stats().BreakersOpen()
	if !open["quota"] || open["unreachable"] || open["component_refused"] {
		t.Errorf("BreakersOpen: got %v, want quota only", open)
	}
	if _, err := b.Refresh(t.Context(), appidOf(5)); wechat.Code(err) != 45009 {
		t.Errorf("Refresh: got error %v, want WeChat's 45009", err)
	}
	f.wantCount(t, "api_authorizer_token", before+2)
	f.handle("api_authorizer_token", nil)
	c.advance(31 * time.Minute)
	for i := range 300 {
		mustToken(t, b, appidOf(i))
	}
	if open := b.Stats().BreakersOpen(); open["quota"] {
		t.Error("BreakersOpen: got quota after a success")
	}
}

// 1,500 accounts without a token are called at one time. All get one, and no
// more requests than own_calls are in flight: 1, 5, and 64 by default.
func TestColdAccountsShareOwnCalls(t *testing.T) {
	for _, tt := range []struct{ ownCalls, limit int }{{1, 1}, {5, 5}, {0, 64}} {
		t.Run(fmt.Sprint(tt.limit), func(t *testing.T) {
			f, client := newFakeWeChat(t)
			var inFlight, most atomic.Int64
			f.handle("api_authorizer_token", func(map[string]any) (any, bool) {
				n := inFlight.Add(1)
				defer inFlight.Add(-1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				return nil, false
			})
			b := newBroker(t, store.NewMemory(), client, func(c *tokens.Config) {
				c.OwnCalls, c.CacheSize = tt.ownCalls, 10_000
			})
			putTicket(t, b)
			addAccounts(t, b, 1500)
			inParallel(1500, func(i int) {
				// A request that waited for ten seconds fails with a clear error
				// on a slow machine, and the caller comes again.
				for {
					err := errorOf(b.Token(t.Context(), appidOf(i)))
					if err == nil {
						return
					}
					if !strings.Contains(err.Error(), "requests of wxproxy's own") {
						t.Errorf("Token: %v", err)
						return
					}
				}
			})
			if n := most.Load(); n > int64(tt.limit) {
				t.Errorf("got %d requests in flight, want %d at most", n, tt.limit)
			}
			eventually(t, "no request is waiting", func() bool {
				return b.Stats().OwnCallsWaiting() == 0
			})
		})
	}
}

// 16 accounts for which WeChat does not respond, each due for renewal, do not
// stop the early renewals of 100 others: those go on while all 16 requests are
// in flight.
func TestSlowAccountsDoNotStopEarlyRenewals(t *testing.T) {
	f, client := newFakeWeChat(t)
	f.lifetime = 2 // seconds; due after 1.8 at the latest
	calls := &ownCalls{}
	b := newBroker(t, store.NewMemory(), client, func(c *tokens.Config) { c.Observer = calls })
	putTicket(t, b)
	addAccounts(t, b, 116)
	inParallel(116, func(i int) { mustToken(t, b, appidOf(i)) })
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	timedOut := func() int { return calls.count("api_authorizer_token unreachable") }
	var slow, beside atomic.Int64
	f.handle("api_authorizer_token", func(in map[string]any) (any, bool) {
		if in["authorizer_appid"].(string) < appidOf(16) {
			slow.Add(1)
			<-release
		} else if slow.Load() == 16 && timedOut() == 0 {
			beside.Add(1)
		}
		return nil, false
	})
	eventually(t, "others are renewed while 16 slow requests are in flight", func() bool {
		for i := range 116 {
			b.Cached(appidOf(i)) // tokens in use are renewed early
		}
		if timedOut() > 0 && beside.Load() == 0 {
			t.Fatal("no other account was renewed until the slow requests timed out")
		}
		return beside.Load() > 0
	})
}

// ownCalls counts requests by endpoint and result.
type ownCalls struct {
	mu     sync.Mutex
	counts map[string]int
}

func (o *ownCalls) Refreshed(string, string, time.Duration) {}

func (o *ownCalls) OwnCall(endpoint, result string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.counts == nil {
		o.counts = map[string]int{}
	}
	o.counts[endpoint+" "+result]++
}

func (o *ownCalls) count(what string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.counts[what]
}

// One replica cannot reach WeChat, its network is broken. That is no reason for
// another one to wait: it renews at once, and its errors are its own. Accounts ×
// kinds: an authorizer, an own account, the component.
func TestUnreachableIsOneReplicasMatter(t *testing.T) {
	f, client := newFakeWeChat(t)
	broken, brokenClient := newFakeWeChat(t)
	broken.down.Store(true)
	var c clock
	s := store.NewMemory()
	healthy := newAuthorized(t, s, client, c.use)
	mustToken(t, healthy, ownAccount)
	// It is away for a while: it would renew the tokens without being asked.
	if err := healthy.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	lost := newBroker(t, s, brokenClient, c.use)
	c.advance(3 * time.Hour) // all tokens have expired
	putTicket(t, lost)
	for range 20 {
		for _, appid := range []string{accountA, ownAccount, component} {
			wantTokenError(t, lost, appid, tokens.ErrUnavailable)
		}
		c.advance(time.Second)
	}
	a, err := lost.Account(t.Context(), accountA)
	if err != nil || a.State != tokens.Active || a.Failures != 0 {
		// Its component has no token, which is not the account's failure.
		t.Errorf("Account of the lost replica: got %+v, %v, want an active one", a, err)
	}
	a, err = lost.Account(t.Context(), ownAccount)
	if err != nil || a.State != tokens.Failing || a.Failures == 0 || a.RetryAt.IsZero() {
		t.Errorf("own account of the lost replica: got %+v, %v, want a failing one", a, err)
	}
	healthy = newBroker(t, s, client, c.use)
	for _, appid := range []string{accountA, ownAccount, component} {
		if a, err := healthy.Account(t.Context(), appid); err != nil || a.State != tokens.Active {
			t.Errorf("%s of the healthy replica: got %+v, %v, want an active one", appid, a, err)
		}
		mustToken(t, healthy, appid)
	}
	f.wantCount(t, "stable_token", 2)
	for _, appid := range []string{accountA, ownAccount, component} {
		mustToken(t, lost, appid) // from the store
	}
}

// A process that WeChat has not answered for a minute is not ready, says why,
// and is ready again with the first answer. It finds out by itself: no caller
// needs a token meanwhile. While WeChat answers, it is asked once in half a
// minute, and not at all if the answers to other requests are recent.
func TestReadyWithoutWeChat(t *testing.T) {
	f, client := newFakeWeChat(t)
	var c clock
	calls := &ownCalls{}
	b := newAuthorized(t, store.NewMemory(), client, func(cfg *tokens.Config) {
		c.use(cfg)
		cfg.Observer = calls
	})
	ready := func() error { return b.Ready(context.Background()) }
	waitForPings := func(result string, n int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d pings are %s", n, result), func() bool {
			return calls.count("ping "+result) >= n
		})
	}
	advance := func(d time.Duration) { // the clocks agree
		f.ahead.Add(int64(d))
		c.advance(d)
	}
	for range 10 {
		if err := ready(); err != nil {
			t.Fatalf("Ready: %v", err)
		}
	}
	if n := calls.count("ping ok"); n != 0 {
		t.Errorf("got %d pings right after other answers, want none", n)
	}
	for i := range 3 {
		advance(31 * time.Second)
		for range 10 {
			if err := ready(); err != nil {
				t.Fatalf("Ready of an idle process: %v", err)
			}
		}
		waitForPings("ok", i+1)
	}
	f.down.Store(true)
	pings := 0
	for range 3 { // 31, 42, 53 s
		advance(max(time.Duration(31-20*min(pings, 1))*time.Second, 11*time.Second))
		if err := ready(); err != nil {
			t.Fatalf("Ready before a minute: %v", err)
		}
		pings++
		waitForPings("unreachable", pings)
	}
	advance(8 * time.Second)
	err := ready()
	if err == nil || !strings.Contains(err.Error(), "no response from WeChat for 1m") {
		t.Errorf("Ready after a minute: got error %v, want no response from WeChat", err)
	}
	f.down.Store(false)
	advance(11 * time.Second)
	eventually(t, "the process is ready again", func() bool { return ready() == nil })
}

// Ten accounts whose refresh token is lost, and about which WeChat does not
// answer one by one, share a reading of WeChat's list of 19,500 accounts (39
// pages): at one time, or one after the other × where they are listed: at the
// start, at the end, spread over it, or nowhere × once, and again a minute later
// with other accounts.
func TestLostRefreshTokensShareOneReading(t *testing.T) {
	const pages = 39
	for name, place := range map[string]func(i int) int{
		"at the start": func(i int) int { return i },
		"at the end":   func(i int) int { return pages*500 - 1 - i },
		"spread":       func(i int) int { return (i*7919 + 13) % (pages * 500) },
		"nowhere":      func(i int) int { return pages*500 + i },
	} {
		for _, concurrent := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s concurrent %v", name, concurrent), func(t *testing.T) {
				f, client := newFakeWeChat(t)
				var c clock
				s := store.NewMemory()
				b := newBroker(t, s, client, c.use)
				putTicket(t, b)
				waitForComparison(t, s)
				listed := map[string]authorizer{}
				for i := range pages * 500 {
					listed[appidOf(i)] = authorizer{"listed", 1}
				}
				f.list(listed)
				f.fail("api_get_authorizer_info", 48001)
				f.handle("api_authorizer_token", func(in map[string]any) (any, bool) {
					return errcode(61023), in["authorizer_refresh_token"] != "listed"
				})
				search := func(from int) (read int) {
					for i := range 10 {
						appid := appidOf(place(from + i))
						if _, err := b.Import(t.Context(), appid, wechat.NewSecret("lost")); err != nil {
							t.Fatalf("Import: %v", err)
						}
					}
					before := f.count("api_get_authorizer_list")
					one := func(i int) {
						err := errorOf(b.Token(t.Context(), appidOf(place(from+i))))
						if name != "nowhere" && err != nil || name == "nowhere" && err == nil {
							t.Errorf("Token of account %d: got error %v", i, err)
						}
					}
					if concurrent {
						inParallel(10, one)
					} else if name == "nowhere" {
						one(0) // the next ones wait for a round of a later minute
					} else {
						for i := range 10 {
							one(i)
						}
					}
					return f.count("api_get_authorizer_list") - before
				}
				if n := search(0); n > 2*pages {
					t.Errorf("got %d pages for ten accounts, want %d at most", n, 2*pages)
				}
				c.advance(time.Minute)
				if n := search(10); n > 2*pages {
					t.Errorf("got %d pages for ten more accounts, want %d at most", n, 2*pages)
				}
			})
		}
	}
}

// A page of the list that fails ends no search for good: the next attempt goes
// on with that page.
func TestSearchGoesOnAfterFailure(t *testing.T) {
	f, client := newFakeWeChat(t)
	var c clock
	s := store.NewMemory()
	b := newBroker(t, s, client, c.use)
	putTicket(t, b)
	waitForComparison(t, s)
	listed := map[string]authorizer{}
	for i := range 2000 {
		listed[appidOf(i)] = authorizer{"listed", 1}
	}
	f.list(listed)
	f.fail("api_get_authorizer_info", 48001)
	f.handle("api_authorizer_token", func(in map[string]any) (any, bool) {
		return errcode(61023), in["authorizer_refresh_token"] != "listed"
	})
	var mu sync.Mutex
	offsets, failed := []float64{}, false
	f.handle("api_get_authorizer_list", func(in map[string]any) (any, bool) {
		mu.Lock()
		defer mu.Unlock()
		offset := in["offset"].(float64)
		offsets = append(offsets, offset)
		fails := offset == 1000 && !failed
		failed = failed || fails
		return errcode(-1), fails
	})
	if _, err := b.Import(t.Context(), appidOf(1999), wechat.NewSecret("lost")); err != nil {
		t.Fatal(err)
	}
	wantTokenError(t, b, appidOf(1999), tokens.ErrUnavailable)
	c.advance(time.Minute)
	mustToken(t, b, appidOf(1999))
	mu.Lock()
	defer mu.Unlock()
	if got, want := fmt.Sprint(offsets), "[0 500 1000 1000 1500]"; got != want {
		t.Errorf("offsets: got %s, want %s", got, want)
	}
}
