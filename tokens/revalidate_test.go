package tokens_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/internal/proctest"
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

// revokedBy are the ways in which wxproxy finds out that an account is not
// authorized although no push has said so. WeChat answers 61003 to all of them.
var revokedBy = map[string]func(t *testing.T, f *fakeWeChat, b *tokens.Broker){
	"rejected request": func(_ *testing.T, _ *fakeWeChat, b *tokens.Broker) {
		b.Revalidate(accountA, 61003)
	},
	"failed renewal": func(t *testing.T, f *fakeWeChat, b *tokens.Broker) {
		f.fail("api_authorizer_token", 61003)
		if _, err := rejectToken(t, b, accountA); !errors.Is(err, tokens.ErrRevoked) {
			t.Errorf("Renew: got error %v, want %v", err, tokens.ErrRevoked)
		}
		f.handle("api_authorizer_token", nil)
	},
	"comparison": func(t *testing.T, _ *fakeWeChat, b *tokens.Broker) {
		if r, err := b.Sync(t.Context(), tokens.SyncOptions{}); err != nil || r.Revoked != 1 {
			t.Errorf("Sync: got %+v, error %v, want 1 revoked", r, err)
		}
	},
}

// One false 61003 costs a minute and no person: found out by a rejected
// request, a failed renewal or a comparison × WeChat's second answer with or
// without the refresh token. Of 50 calls in each second, one asks WeChat, after
// a minute.
func TestFalseRevocationHeals(t *testing.T) {
	for name, find := range revokedBy {
		for _, refresh := range []string{"", "held"} {
			t.Run(name+", refresh token "+refresh, func(t *testing.T) {
				f, client := newFakeWeChat(t)
				var c clock
				b := newAuthorized(t, store.NewMemory(), client, c.use)
				waitForProfile(t, b)
				f.list(map[string]authorizer{})
				c.advance(time.Second) // a comparison trusts newer tokens
				find(t, f, b)
				waitForTokenError(t, b, accountA, tokens.ErrRevoked)
				f.list(map[string]authorizer{accountA: {refresh, 1000}})
				var used atomic.Value
				f.handle("api_authorizer_token", func(in map[string]any) (any, bool) {
					used.Store(in["authorizer_refresh_token"])
					return nil, false
				})
				asked := f.count("api_get_authorizer_info")
				for range 59 {
					c.advance(time.Second)
					wantTokenError(t, b, accountA, tokens.ErrRevoked)
				}
				f.wantCount(t, "api_get_authorizer_info", asked)
				c.advance(time.Second)
				for range 50 {
					b.Token(t.Context(), accountA)
				}
				waitForToken(t, b, accountA)
				wantState(t, b, accountA, tokens.Active)
				want := cmp.Or(refresh, "refresh@"+codeOf(accountA, 1000).Reveal())
				if got := used.Load(); got != want {
					t.Errorf("refresh token that was used: got %v, want %s", got, want)
				}
			})
		}
	}
}

// What was found out is confirmed by a second answer ten minutes later or more,
// or by a push; until then the refresh token is kept. Afterwards the account is
// asked about once a minute at most, while it is called, and an answer that it
// is authorized heals it all the same.
func TestRevocationIsConfirmed(t *testing.T) {
	for _, how := range []string{"answer", "push"} {
		t.Run(how, func(t *testing.T) {
			f, client := newFakeWeChat(t)
			var c clock
			s := store.NewMemory()
			b := newAuthorized(t, s, client, c.use)
			waitForProfile(t, b)
			f.list(map[string]authorizer{})
			b.Revalidate(accountA, 61003)
			waitForTokenError(t, b, accountA, tokens.ErrRevoked)
			hasRefresh := func() bool {
				return strings.Contains(fieldsOf(t, s, "account/"+accountA), "refresh")
			}
			asked := f.count("api_get_authorizer_info")
			for range 9 { // minutes
				c.advance(time.Minute)
				asked++
				wantTokenError(t, b, accountA, tokens.ErrRevoked)
				f.waitForCount(t, "api_get_authorizer_info", asked)
				waitForCheck(t, s, c.now())
			}
			if !hasRefresh() {
				t.Error("refresh token after nine minutes: got none, want it kept")
			}
			if how == "push" {
				err := b.MarkRevoked(t.Context(), accountA, time.Unix(2000, 0))
				wantError(t, "MarkRevoked", err, nil)
			}
			c.advance(time.Minute)
			wantTokenError(t, b, accountA, tokens.ErrRevoked)
			waitForCheck(t, s, c.now())
			if hasRefresh() {
				t.Error("refresh token of a confirmed revocation: got one, want none")
			}
			f.list(map[string]authorizer{accountA: {"held", 1000}})
			c.advance(time.Minute)
			waitForToken(t, b, accountA)
		})
	}
}

// waitForCheck waits until the record of accountA says that WeChat answered at
// the time at.
func waitForCheck(t *testing.T, s store.Store, at time.Time) {
	t.Helper()
	eventually(t, "WeChat's answer is recorded", func() bool {
		raw, _ := s.Load(t.Context(), "account/"+accountA)
		var acc struct {
			Checked int64 `json:"checked"`
		}
		return json.Unmarshal(raw, &acc) == nil && acc.Checked == at.UnixMilli()
	})
}

// A revocation that was pushed is first checked after a minute. Of two replicas
// one asks, and a question that WeChat did not answer does not count.
func TestPushedRevocationIsRechecked(t *testing.T) {
	f, client := newFakeWeChat(t)
	var c clock
	shared := newSharedStore()
	one := newAuthorized(t, shared.view(), client, c.use)
	var log proctest.Output
	two := newBroker(t, shared.view(), client, func(cfg *tokens.Config) {
		c.use(cfg)
		cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	waitForProfile(t, one)
	err := one.MarkRevoked(t.Context(), accountA, time.Unix(2000, 0))
	wantError(t, "MarkRevoked", err, nil)
	waitForTokenError(t, two, accountA, tokens.ErrRevoked)
	asked := f.count("api_get_authorizer_info")
	for range 59 {
		c.advance(time.Second)
		wantTokenError(t, one, accountA, tokens.ErrRevoked)
		wantTokenError(t, two, accountA, tokens.ErrRevoked)
	}
	f.wantCount(t, "api_get_authorizer_info", asked)
	f.list(map[string]authorizer{})
	for range 3 {
		c.advance(time.Minute)
		asked++
		for range 20 {
			wantTokenError(t, one, accountA, tokens.ErrRevoked)
			wantTokenError(t, two, accountA, tokens.ErrRevoked)
		}
		waitForCheck(t, shared, c.now())
		f.wantCount(t, "api_get_authorizer_info", asked)
	}
	f.down.Store(true)
	c.advance(time.Minute)
	wantTokenError(t, two, accountA, tokens.ErrRevoked)
	eventually(t, "WeChat is asked in vain", func() bool {
		return strings.Contains(log.String(), "revalidation failed")
	})
	f.list(map[string]authorizer{accountA: {"held", 1000}})
	f.down.Store(false)
	// The question without an answer counts neither for the minute nor for
	// longer than the pauses after failures. The clock stands still while WeChat
	// is asked, however long that takes.
	c.advance(15 * time.Second)
	waitForToken(t, two, accountA)
	waitForToken(t, one, accountA)
}

// Records of earlier versions, without the time of the last answer, are checked
// at the first call: found out (no time of the revocation), and pushed.
func TestEarlierRevokedRecordIsRechecked(t *testing.T) {
	for _, record := range []string{
		`{"v":1,"kind":"authorizer","authorized":1000,"gone":true}`,
		`{"v":1,"kind":"authorizer","authorized":1000,"revoked":2000,"gone":true}`,
	} {
		f, client := newFakeWeChat(t)
		s := store.NewMemory()
		save := func(context.Context, []byte) ([]byte, error) { return []byte(record), nil }
		if err := s.Update(t.Context(), "account/"+accountA, save); err != nil {
			t.Fatalf("Update: %v", err)
		}
		b := newBroker(t, s, client, nil)
		putTicket(t, b)
		waitForToken(t, b, accountA)
		if n := f.count("api_get_authorizer_info"); n > 2 { // and the profile
			t.Errorf("%s: got %d questions, want 2 at most", record, n)
		}
	}
}

// Questions about revoked accounts have a budget: of 200 that are called, 30
// are asked about at once, and the others within minutes.
func TestRechecksHaveBudget(t *testing.T) {
	f, client := newFakeWeChat(t)
	var c clock
	b := newBroker(t, store.NewMemory(), client, c.use)
	putTicket(t, b)
	mustToken(t, b, component)
	f.list(map[string]authorizer{})
	const n = 200
	appid := func(i int) string { return fmt.Sprintf("wx%016d", i) }
	for i := range n {
		err := b.MarkRevoked(t.Context(), appid(i), time.Unix(1000, 0))
		wantError(t, "MarkRevoked", err, nil)
	}
	c.advance(time.Minute)
	for i := range n {
		wantTokenError(t, b, appid(i), tokens.ErrRevoked)
	}
	f.waitForCount(t, "api_get_authorizer_info", 30)
	c.advance(10 * time.Second)
	for i := range n {
		wantTokenError(t, b, appid(i), tokens.ErrRevoked)
	}
	f.waitForCount(t, "api_get_authorizer_info", 35)
}

// An account whose push was lost is found when it is called. Calls for made-up
// appids cannot exhaust the quota: WeChat answers 30 at once and then one in
// ten seconds. The others get 503, not 404, and do not hide an authorized
// account: a comparison with WeChat's list finds it.
func TestUnknownAccountsAreAskedWithinLimit(t *testing.T) {
	f, client := newFakeWeChat(t)
	var c clock
	b := newBroker(t, store.NewMemory(), client, c.use)
	f.list(map[string]authorizer{accountB: {"held", 1}})
	putTicket(t, b)
	mustToken(t, b, accountB)
	eventually(t, "the first comparison", func() bool { return f.count("api_get_authorizer_list") == 1 })
	before := f.count("api_get_authorizer_info")
	f.list(map[string]authorizer{accountA: {"held", 1}, accountB: {"held", 1}})
	for i := range 200 {
		want := tokens.ErrUnknownAccount
		if i >= 30 {
			want = tokens.ErrUnavailable
		}
		wantTokenError(t, b, fmt.Sprintf("wx%016d", i), want)
	}
	if n := f.count("api_get_authorizer_info") - before; n > 40 {
		t.Errorf("got %d requests to WeChat for 200 unknown accounts, want 40 at most", n)
	}
	waitForToken(t, b, accountA)
	f.wantCount(t, "api_get_authorizer_list", 2)
	err := errorOf(b.Token(t.Context(), "wx0000000000000200"))
	if d := tokens.RetryAfter(err, c.now()); d < time.Second || d > 11*time.Second {
		t.Errorf("RetryAfter(%v): got %v, want about ten seconds", err, d)
	}
	c.advance(11 * time.Second)
	wantTokenError(t, b, "wx0000000000000200", tokens.ErrUnknownAccount)
	wantTokenError(t, b, "wx0000000000000000", tokens.ErrUnknownAccount) // remembered
}

// Without WeChat's answer an unknown account is not called unknown, and the
// question is asked again at once when it can be: WeChat unreachable, its quota
// exhausted, or no component token × Token and CheckAccount × an account that
// is authorized, and one that is not.
func TestUnansweredQuestionIsNoAnswer(t *testing.T) {
	for name, outage := range map[string]struct {
		begin, end func(f *fakeWeChat)
	}{
		"unreachable": {
			func(f *fakeWeChat) { f.down.Store(true) },
			func(f *fakeWeChat) { f.down.Store(false) },
		},
		"quota": {
			func(f *fakeWeChat) {
				f.fail("api_get_authorizer_info", 45009)
				f.fail("api_get_authorizer_list", 45009)
			},
			func(f *fakeWeChat) {
				f.handle("api_get_authorizer_info", nil)
				f.handle("api_get_authorizer_list", nil)
			},
		},
		"no component token": {
			func(f *fakeWeChat) { f.fail("api_component_token", 61005) },
			func(f *fakeWeChat) { f.handle("api_component_token", nil) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, client := newFakeWeChat(t)
			var c clock
			b := newBroker(t, store.NewMemory(), client, c.use)
			outage.begin(f)
			putTicket(t, b)
			for range 100 {
				c.advance(time.Second)
				for _, appid := range []string{accountA, unknownAccount} {
					wantTokenError(t, b, appid, tokens.ErrUnavailable)
					err := b.CheckAccount(t.Context(), appid)
					wantError(t, "CheckAccount", err, tokens.ErrUnavailable)
				}
			}
			outage.end(f)
			putTicket(t, b)             // ends the pause of the component's token
			c.advance(31 * time.Minute) // and the one after 45009 is half an hour
			wantError(t, "CheckAccount", b.CheckAccount(t.Context(), accountA), nil)
			mustToken(t, b, accountA)
			wantTokenError(t, b, unknownAccount, tokens.ErrUnknownAccount)
			err := b.CheckAccount(t.Context(), unknownAccount)
			wantError(t, "CheckAccount", err, tokens.ErrUnknownAccount)
		})
	}
}

// updateWatch is a store that says when an update is about to wait for the lock
// of an account.
type updateWatch struct {
	store.Store
	updates chan string
}

func (w *updateWatch) Update(ctx context.Context, key string, fn store.UpdateFunc) error {
	select {
	case w.updates <- key:
	default:
	}
	return w.Store.Update(ctx, key, fn)
}

// The store loses the record of an account while a call waits for its lock, to
// renew the token. WeChat says that the account is authorized, so it gets a
// token, and not the answer that it is unknown.
func TestRecordLostWhileWaitingForItsLock(t *testing.T) {
	f, client := newFakeWeChat(t)
	var c clock
	s := &updateWatch{Store: store.NewMemory(), updates: make(chan string, 1000)}
	b := newAuthorized(t, s, client, func(cfg *tokens.Config) { c.use(cfg) })
	f.list(map[string]authorizer{accountA: {"held", 1}})
	stale := mustToken(t, b, accountA)
	key := "account/" + accountA
	locked, lose, lost := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		lost <- s.Store.Update(t.Context(), key, func(context.Context, []byte) ([]byte, error) {
			close(locked)
			<-lose
			return nil, nil
		})
	}()
	<-locked
	for len(s.updates) > 0 {
		<-s.updates
	}
	renewed := make(chan error, 1)
	go func() { renewed <- errorOf(b.Renew(t.Context(), accountA, stale.Value)) }()
	for k := range s.updates {
		if k == key {
			break
		}
	}
	close(lose)
	if err := <-lost; err != nil {
		t.Fatal(err)
	}
	if err := <-renewed; err != nil {
		t.Errorf("Renew: got error %v, want a token", err)
	}
}
