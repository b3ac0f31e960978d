package tokens_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
)

// changes records what a Broker reports. It fails while failing is set.
type changes struct {
	mu      sync.Mutex
	all     []tokens.Change
	failing bool
}

func (c *changes) use(cfg *tokens.Config) { cfg.Changed = c.changed }

func (c *changes) changed(_ context.Context, change tokens.Change) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, change)
	if c.failing {
		return errors.New("queue unavailable")
	}
	return nil
}

// take returns what was reported since the last call.
func (c *changes) take() []tokens.Change {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.all
	c.all = nil
	return all
}

func (c *changes) setFailing(failing bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failing = failing
}

// wantOne fails the test unless one change of an account was reported.
func (c *changes) wantOne(t *testing.T, what, appid string, isAuthorized bool) tokens.Change {
	t.Helper()
	all := c.take()
	if len(all) != 1 || all[0].AppID != appid || all[0].IsAuthorized != isAuthorized {
		t.Fatalf("%s: got %+v, want one change of %s, authorized: %v", what, all, appid, isAuthorized)
	}
	return all[0]
}

// TestUnpushedChangesAreReported: a withdrawal that {a rejected request, a
// failed renewal, a comparison} finds out × a return that {a call, a
// comparison} finds out × twice. Each is reported once, with an id of its own.
func TestUnpushedChangesAreReported(t *testing.T) {
	for name, find := range revokedBy {
		for _, isCalled := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				f, client := newFakeWeChat(t)
				var c clock
				var reported changes
				b := newAuthorized(t, store.NewMemory(), client, func(cfg *tokens.Config) {
					c.use(cfg)
					reported.use(cfg)
				})
				if all := reported.take(); len(all) > 0 {
					t.Fatalf("pushed authorization: got %+v, want no report", all)
				}
				ids := map[string]bool{}
				for round := range 2 {
					f.list(map[string]authorizer{})
					c.advance(11 * time.Minute) // a rejection is checked once in ten
					find(t, f, b)
					waitForTokenError(t, b, accountA, tokens.ErrRevoked)
					ids[reported.wantOne(t, "withdrawal", accountA, false).ID] = true
					f.list(map[string]authorizer{accountA: {"held", int64(2000 + round)}})
					c.advance(time.Minute)
					if !isCalled {
						if _, err := b.Sync(t.Context(), tokens.SyncOptions{}); err != nil {
							t.Fatal(err)
						}
					}
					waitForToken(t, b, accountA)
					ids[reported.wantOne(t, "return", accountA, true).ID+"+"] = true
					f.date.Store(time.Now().Add(time.Duration(round+1) * time.Hour).Unix())
				}
				if len(ids) != 4 {
					t.Errorf("ids: got %v, want 4", ids)
				}
			})
		}
	}
}

// TestPushedChangesAreNotReported: a pushed withdrawal that a comparison finds,
// too × an account whose pushed code waits, and that WeChat lists.
func TestPushedChangesAreNotReported(t *testing.T) {
	f, client := newFakeWeChat(t)
	var reported changes
	b := newAuthorized(t, store.NewMemory(), client, reported.use)
	if err := b.MarkRevoked(t.Context(), accountA, time.Unix(1500, 0)); err != nil {
		t.Fatal(err)
	}
	f.list(map[string]authorizer{accountB: {"held", 2000}})
	f.fail("api_query_auth", -1)
	pushCode(t, b, accountB, codeOf(accountB, 2000), 2000)
	if r, err := b.Sync(t.Context(), tokens.SyncOptions{}); err != nil || r.Added != 1 {
		t.Errorf("Sync: got %+v, %v, want accountB to be added", r, err)
	}
	if all := reported.take(); len(all) > 0 {
		t.Errorf("got %+v, want no report", all)
	}
}

// TestUnreportedChangeIsFoundAgain: a withdrawal and a return that {a
// comparison, a question} finds out, and that cannot be reported at first.
// Nothing is saved then, and both reports have the same id.
func TestUnreportedChangeIsFoundAgain(t *testing.T) {
	f, client := newFakeWeChat(t)
	var c clock
	var reported changes
	b := newAuthorized(t, store.NewMemory(), client, func(cfg *tokens.Config) {
		c.use(cfg)
		reported.use(cfg)
	})
	c.advance(time.Second)
	for _, isAuthorized := range []bool{false, true} {
		before, after := tokens.Active, tokens.Revoked
		f.list(map[string]authorizer{})
		if isAuthorized {
			before, after = after, before
			f.list(map[string]authorizer{accountA: {"held", 2000}})
		}
		reported.setFailing(true)
		if _, err := b.Sync(t.Context(), tokens.SyncOptions{}); err == nil {
			t.Error("Sync without a report: got no error, want one")
		}
		first := reported.wantOne(t, "report that fails", accountA, isAuthorized)
		wantState(t, b, accountA, before)
		reported.setFailing(false)
		if _, err := b.Sync(t.Context(), tokens.SyncOptions{}); err != nil {
			t.Error(err)
		}
		again := reported.wantOne(t, "report", accountA, isAuthorized)
		wantState(t, b, accountA, after)
		if again != first {
			t.Errorf("second report: got %+v, want %+v", again, first)
		}
	}
}

// TestUnknownAccountsAreReported: accounts without a record that {WeChat's
// list, a call} finds × {a new store, one that knows the accounts}. Those of a new
// store are no news.
func TestUnknownAccountsAreReported(t *testing.T) {
	f, client := newFakeWeChat(t)
	f.list(map[string]authorizer{accountB: {"held", 1000}, accountA: {"held", 1000}})
	var reported changes
	s := store.NewMemory()
	b := newBroker(t, s, client, reported.use)
	putTicket(t, b)
	waitForComparison(t, s)
	waitForToken(t, b, accountB)
	if all := reported.take(); len(all) > 0 {
		t.Errorf("new store: got %+v, want no report", all)
	}
	const listed, called = "wx1111111111111111", "wx2222222222222222"
	f.list(map[string]authorizer{
		accountA: {"held", 1000}, accountB: {"held", 1000}, listed: {"held", 3000},
	})
	if _, err := b.Sync(t.Context(), tokens.SyncOptions{}); err != nil {
		t.Fatal(err)
	}
	reported.wantOne(t, "listed account", listed, true)
	f.list(map[string]authorizer{called: {"held", 3000}})
	waitForToken(t, b, called)
	reported.wantOne(t, "account that was called", called, true)
}
