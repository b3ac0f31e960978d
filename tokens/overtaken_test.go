package tokens_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// pauseOnce makes the first request to an endpoint that match selects wait
// until resume is called. paused is closed when it arrives.
func pauseOnce(
	t *testing.T, f *fakeWeChat, endpoint string, match func(request map[string]any) bool, response any,
) (paused <-chan struct{}, resume func()) {
	arrived, done := make(chan struct{}), make(chan struct{})
	first := make(chan struct{}, 1)
	f.handle(endpoint, func(in map[string]any) (any, bool) {
		if !match(in) {
			return nil, false
		}
		select {
		case first <- struct{}{}:
		default:
			return nil, false
		}
		close(arrived)
		<-done
		return response, response != nil
	})
	resume = sync.OnceFunc(func() { close(done) })
	t.Cleanup(resume)
	return arrived, resume
}

// A push's code is exchanged while WeChat exchanges the browser's. The token of
// the push is newer, and stays.
func TestPushOvertakesBrowser(t *testing.T) {
	f, client := newFakeWeChat(t)
	var c clock
	b := newBroker(t, store.NewMemory(), client, c.use)
	putTicket(t, b)
	browser := codeOf(accountA, 1)
	isBrowser := func(in map[string]any) bool { return in["authorization_code"] == browser.Reveal() }
	paused, resume := pauseOnce(t, f, "api_query_auth", isBrowser, nil)
	exchanged := make(chan error, 1)
	go func() { exchanged <- errorOf(b.Exchange(context.Background(), browser)) }()
	<-paused
	c.advance(time.Second)
	authorize(t, b, accountA, 1000)
	want := mustToken(t, b, accountA).Value
	resume()
	if err := <-exchanged; err != nil {
		t.Errorf("Exchange: %v", err)
	}
	if got := mustToken(t, b, accountA).Value; !got.Equal(want) {
		t.Errorf("Token: got %s, want %s of the push", got.Fingerprint(), want.Fingerprint())
	}
}

// WeChat says that an account is not authorized, while its token is renewed or
// it authorizes again. The answer is about the past, and changes nothing.
func TestChangeOvertakesRevalidation(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, b *tokens.Broker){
		"renewal": func(t *testing.T, b *tokens.Broker) { mustRenew(t, b, accountA) },
		"authorization": func(t *testing.T, b *tokens.Broker) {
			if _, err := b.Exchange(t.Context(), codeOf(accountA, 2)); err != nil {
				t.Errorf("Exchange: %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, client := newFakeWeChat(t)
			var c clock
			b := newAuthorized(t, store.NewMemory(), client, c.use)
			waitForProfile(t, b)
			all := func(map[string]any) bool { return true }
			paused, resume := pauseOnce(t, f, "api_get_authorizer_info", all, errcode(61003))
			b.Revalidate(accountA, 61003)
			<-paused
			c.advance(time.Second)
			change(t, b)
			resume()
			if err := b.Close(t.Context()); err != nil { // waits for the revalidation
				t.Fatalf("Close: %v", err)
			}
			wantState(t, b, accountA, tokens.Active)
		})
	}
}

// A process ends after it saved the tokens of a code, and before it noted that
// the code was exchanged. The next one does not exchange the code again.
func TestCrashAfterExchange(t *testing.T) {
	f, client := newFakeWeChat(t)
	s := store.NewMemory()
	b := newAuthorized(t, s, client, nil)
	b.Close(t.Context())
	set := func(key, record string) {
		save := func(context.Context, []byte) ([]byte, error) {
			if record == "" {
				return nil, nil
			}
			return []byte(record), nil
		}
		if err := s.Update(t.Context(), key, save); err != nil {
			t.Fatalf("Update(%s): %v", key, err)
		}
	}
	var exchanged string
	find := func(key string, _ []byte) bool { exchanged = strings.Clone(key); return false }
	if err := s.List(t.Context(), "spent/", "", find); err != nil || exchanged == "" {
		t.Fatalf("List(spent/): got key %q, error %v, want a key", exchanged, err)
	}
	set(exchanged, "")
	code := codeOf(accountA, 1000)
	set("code/"+accountA, `{"v":1,"code":"`+code.Reveal()+`","created":1000,"expires":99999999999999}`)
	newBroker(t, s, client, nil)
	eventually(t, "no code is pending", func() bool {
		return errors.Is(errorOf(s.Load(t.Context(), "code/"+accountA)), store.ErrNotFound)
	})
	f.wantCount(t, "api_query_auth", 1)
}

// WeChat returns the token that it has just rejected, even when a new one is
// forced. It is not returned: WeChat would reject it again.
func TestRejectedTokenThatWeChatReturnsAgain(t *testing.T) {
	f, client := newFakeWeChat(t)
	f.handle("stable_token", func(map[string]any) (any, bool) {
		return map[string]any{"access_token": "same", "expires_in": 7200}, true
	})
	b := newBroker(t, store.NewMemory(), client, nil)
	if _, err := rejectToken(t, b, ownAccount); !errors.Is(err, tokens.ErrThrottled) {
		t.Errorf("Renew: got error %v, want %v", err, tokens.ErrThrottled)
	}
}

// Neither an import nor an earlier revocation that arrives late changes a
// revoked account.
func TestRevokedAccountStaysRevoked(t *testing.T) {
	_, client := newFakeWeChat(t)
	b := newAuthorized(t, store.NewMemory(), client, nil)
	for _, created := range []int64{3000, 2000} {
		if err := b.MarkRevoked(t.Context(), accountA, time.Unix(created, 0)); err != nil {
			t.Fatalf("MarkRevoked(%d): %v", created, err)
		}
	}
	imported, err := b.Import(t.Context(), accountA, wechat.NewSecret("refresh"))
	if imported || err != nil {
		t.Errorf("Import: got imported %t, error %v, want false, nil", imported, err)
	}
	err = b.Authorize(t.Context(), accountA, codeOf(accountA, 2), time.Time{}, time.Unix(2500, 0))
	if !errors.Is(err, tokens.ErrStale) {
		t.Errorf("Authorize before the newest revocation: got error %v, want %v", err, tokens.ErrStale)
	}
	wantState(t, b, accountA, tokens.Revoked)
}

// A code is kept until WeChat answers, however long that takes, and given up
// only if WeChat also answers that the account is not authorized: WeChat away
// for 61 minutes or 30 days × the code then exchanged, expired with and without
// an authorization, or exchanged elsewhere × the second question answered or
// not × with a restart in between.
func TestCodeIsKeptUntilWeChatAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		away       time.Duration
		code       int // WeChat's errcode for the code; 0: it is exchanged
		info       int // for the account; 0: authorized, -1: first not answered
		restart    bool
		wantActive bool
	}{
		"exchanged":                  {61 * time.Minute, 0, 61003, false, true},
		"exchanged after a restart":  {61 * time.Minute, 0, 61003, true, true},
		"expired, authorized":        {61 * time.Minute, 61010, 0, false, true},
		"expired, authorized, late":  {30 * 24 * time.Hour, 61010, 0, true, true},
		"expired, question lost":     {61 * time.Minute, 61010, -1, false, true},
		"used elsewhere, authorized": {61 * time.Minute, 61009, 0, false, true},
		"expired, not authorized":    {61 * time.Minute, 61010, 61003, false, false},
		"unknown code":               {61 * time.Minute, 61010, 61003, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			f, client := newFakeWeChat(t)
			var c clock
			s := store.NewMemory()
			b := newBroker(t, s, client, c.use)
			putTicket(t, b)
			mustToken(t, b, component)
			f.down.Store(true)
			pushCode(t, b, accountA, codeOf(accountA, 1), 1000)
			wantTokenError(t, b, accountA, tokens.ErrUnavailable)
			c.advance(tc.away)
			if tc.restart {
				b.Close(t.Context())
				b = newBroker(t, s, client, c.use)
			}
			wantTokenError(t, b, accountA, tokens.ErrUnavailable)
			if _, err := s.Load(t.Context(), "code/"+accountA); err != nil {
				t.Fatalf("waiting code without an answer of WeChat: %v", err)
			}
			var asked atomic.Int64
			f.handle("api_query_auth", func(map[string]any) (any, bool) {
				return errcode(tc.code), tc.code != 0
			})
			f.handle("api_get_authorizer_info", func(map[string]any) (any, bool) {
				if tc.info < 0 && asked.Add(1) == 1 {
					return errcode(-1), true // a system error is no answer
				}
				return errcode(tc.info), tc.info > 0
			})
			if tc.info < 0 {
				f.fail("api_get_authorizer_list", -1)
			}
			f.down.Store(false)
			if tc.restart { // the old ticket and token have expired
				putTicket(t, b)
			}
			want := error(nil)
			if !tc.wantActive {
				want = tokens.ErrUnknownAccount
			}
			eventually(t, "WeChat's answer counts", func() bool {
				c.advance(time.Second) // requests to WeChat are paused after failures
				return errors.Is(errorOf(b.Token(t.Context(), accountA)), want)
			})
			waitForNoCode(t, s, accountA)
		})
	}
}

// The push of a code that the browser brought before arrives after another code
// was exchanged. Its time is not that of the authorization in force.
func TestTimeOfReplacedCodeIsIgnored(t *testing.T) {
	f, client := newFakeWeChat(t)
	s := store.NewMemory()
	b := newBroker(t, s, client, nil)
	putTicket(t, b)
	f.date.Store(1100)
	if _, err := b.Exchange(t.Context(), codeOf(accountA, 1)); err != nil {
		t.Fatalf("Exchange: %v", err)
	}
	for _, push := range []struct{ code, created int64 }{{2, 1000}, {1, 1500}} {
		pushCode(t, b, accountA, codeOf(accountA, push.code), push.created)
		eventually(t, "no code is pending", func() bool {
			return errors.Is(errorOf(s.Load(t.Context(), "code/"+accountA)), store.ErrNotFound)
		})
	}
	f.wantCount(t, "api_query_auth", 2)
	if err := b.MarkRevoked(t.Context(), accountA, time.Unix(1200, 0)); err != nil {
		t.Errorf("MarkRevoked after the authorization in force: %v", err)
	}
}

// Forget deletes a code that could not be exchanged yet, too. Exchanging it
// would create the account again.
func TestForgetDeletesPendingCode(t *testing.T) {
	f, client := newFakeWeChat(t)
	s := store.NewMemory()
	b := newBroker(t, s, client, nil)
	putTicket(t, b)
	mustToken(t, b, component)
	f.down.Store(true)
	pushCode(t, b, accountA, codeOf(accountA, 1), 1000)
	if err := b.Forget(t.Context(), accountA); err != nil {
		t.Errorf("Forget: %v", err)
	}
	if _, err := s.Load(t.Context(), "code/"+accountA); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("pending code after Forget: got error %v, want %v", err, store.ErrNotFound)
	}
}

// The throttle of an account's renewals ends when the account authorizes again.
func TestAuthorizationEndsThrottle(t *testing.T) {
	_, client := newFakeWeChat(t)
	var c clock
	b := newAuthorized(t, store.NewMemory(), client, c.use)
	for range 3 {
		mustRenew(t, b, accountA)
	}
	if _, err := rejectToken(t, b, accountA); !errors.Is(err, tokens.ErrThrottled) {
		t.Errorf("fourth Renew: got error %v, want %v", err, tokens.ErrThrottled)
	}
	c.advance(time.Second) // the authorization is newer than the renewals
	if _, err := b.Exchange(t.Context(), codeOf(accountA, 2)); err != nil {
		t.Fatalf("Exchange: %v", err)
	}
	mustRenew(t, b, accountA)
}
