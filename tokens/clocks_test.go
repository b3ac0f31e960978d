package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

const month = 30 * 24 * time.Hour

// clockAt returns a clock that is ahead of the machine's.
func clockAt(ahead time.Duration) *clock {
	c := new(clock)
	c.advance(ahead)
	return c
}

// A replica whose clock is 31 minutes to a month ahead fails to renew the token
// of an authorizer, an own account or the component, because WeChat refuses or
// cannot be reached. Then its clock is corrected. A healthy replica gets a
// token at once, and so does the first one after a restart.
func TestFailureWithWrongClockIsForgotten(t *testing.T) {
	for _, ahead := range []time.Duration{
		31 * time.Minute, 6 * time.Hour, month, 100 * 12 * month,
	} {
		for _, endpoint := range []string{
			"api_authorizer_token", "stable_token", "api_component_token",
		} {
			for _, down := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v %s down=%v", ahead, endpoint, down), func(t *testing.T) {
					appid := map[string]string{
						"api_authorizer_token": accountA, "stable_token": ownAccount,
						"api_component_token": component,
					}[endpoint]
					f, client := newFakeWeChat(t)
					s, c, right := store.NewMemory(), new(clock), new(clock)
					healthy := newBroker(t, s, client, right.use)
					wrong := newAuthorized(t, s, client, c.use)
					mustToken(t, wrong, appid)
					// Before the tokens expire: they are renewed early, too.
					f.fail(endpoint, 40125)
					f.down.Store(down)
					right.advance(3 * time.Hour) // all tokens have expired
					c.advance(3*time.Hour + ahead)
					putTicket(t, wrong)
					wantTokenError(t, wrong, appid, tokens.ErrUnavailable)
					f.handle(endpoint, nil)
					f.down.Store(false)
					wrong.Close(t.Context())
					for name, b := range map[string]*tokens.Broker{
						"healthy": healthy, "restarted": newBroker(t, s, client, right.use),
					} {
						if _, err := b.Token(t.Context(), appid); err != nil {
							t.Errorf("%s replica: got error %v, retry after %v, want a token",
								name, err, tokens.RetryAfter(err, time.Now()))
						}
					}
				})
			}
		}
	}
}

// A token that was issued by a clock a month ahead is served after the
// correction, and renewed once in the background: it is not known until when
// WeChat accepts it.
func TestTokenIssuedByWrongClockIsRenewed(t *testing.T) {
	f, client := newFakeWeChat(t)
	s := store.NewMemory()
	wrong := newAuthorized(t, s, client, clockAt(month).use)
	before := mustRenew(t, wrong, accountA)
	wrong.Close(t.Context())
	renewals := f.count("api_authorizer_token")
	b := newBroker(t, s, client, nil)
	if got := mustToken(t, b, accountA); !got.Value.Equal(before.Value) {
		t.Errorf("after the correction: got another token, want the stored one at once")
	}
	eventually(t, "the token is renewed", func() bool {
		return !mustToken(t, b, accountA).Value.Equal(before.Value)
	})
	for range 10 {
		mustToken(t, b, accountA)
	}
	f.wantCount(t, "api_authorizer_token", renewals+1)
}

// An authorization that a browser brings is used although the stored token was
// issued by a clock a month or six hours ahead. It is not taken for one that a
// push has brought meanwhile.
func TestAuthorizationAfterWrongClockIsUsed(t *testing.T) {
	for _, ahead := range []time.Duration{6 * time.Hour, month} {
		_, client := newFakeWeChat(t)
		s := store.NewMemory()
		wrong := newAuthorized(t, s, client, clockAt(ahead).use)
		old := mustRenew(t, wrong, accountA)
		wrong.Close(t.Context())
		b := newBroker(t, s, client, nil)
		if _, err := b.Exchange(t.Context(), codeOf(accountA, 2)); err != nil {
			t.Fatalf("clock was %v ahead: Exchange: %v", ahead, err)
		}
		if mustToken(t, b, accountA).Value.Equal(old.Value) {
			t.Errorf("clock was %v ahead: got the token of the old authorization, want that of the new one",
				ahead)
		}
	}
}

// The comparison with WeChat's list is due at once, although the last one was
// noted by a clock six hours to a month ahead, and the throttle of rejected
// tokens has ended after two minutes.
func TestNothingWaitsForWrongTimes(t *testing.T) {
	for _, ahead := range []time.Duration{6 * time.Hour, month} {
		f, client := newFakeWeChat(t)
		s := store.NewMemory()
		wrong := newAuthorized(t, s, client, clockAt(ahead).use)
		for range 3 {
			mustRenew(t, wrong, accountA)
		}
		if _, err := rejectToken(t, wrong, accountA); !errors.Is(err, tokens.ErrThrottled) {
			t.Fatalf("fourth rejection: got error %v, want %v", err, tokens.ErrThrottled)
		}
		wrong.Close(t.Context())
		lists := f.count("api_get_authorizer_list")
		b := newBroker(t, s, client, func(cfg *tokens.Config) {
			cfg.MaintenanceInterval = 10 * time.Millisecond
		})
		f.waitForCount(t, "api_get_authorizer_list", lists+1)
		mustRenew(t, b, accountA)
	}
}

// putTickets pushes tickets ten minutes apart, by WeChat's clock, and returns
// how many of them are refused.
func putTickets(t *testing.T, b *tokens.Broker, weChat time.Time, n int) (stale int) {
	t.Helper()
	for i := range n {
		created := weChat.Add(time.Duration(i) * 10 * time.Minute)
		name := fmt.Sprintf("ticket@@@%d", created.Unix())
		switch err := b.PutTicket(t.Context(), wechat.NewSecret(name), created); {
		case errors.Is(err, tokens.ErrStale):
			stale++
		case err != nil:
			t.Fatalf("PutTicket: %v", err)
		}
	}
	return stale
}

// Tickets are ordered by WeChat's times alone. This machine's clock is set back
// by six hours, back and ahead by a month, or at random before every ticket:
// none of the tickets is refused, and every repeat of an older one is.
func TestTicketsWithWrongClock(t *testing.T) {
	weChat := time.Now()
	for name, step := range map[string]func(i int) time.Duration{
		"six hours back": func(i int) time.Duration { return -6 * time.Hour * time.Duration(i%12/6) },
		"a month back":   func(i int) time.Duration { return -month * time.Duration(i%12/6) },
		"a month ahead":  func(i int) time.Duration { return month * time.Duration(i%12/6) },
		"at random": func(int) time.Duration {
			return time.Duration(rand.Int64N(int64(4*month))) - 2*month
		},
	} {
		for _, known := range []bool{false, true} { // whether WeChat's clock was measured
			_, client := newFakeWeChat(t)
			if !known {
				// Not even the comparison that a ticket causes measures it.
				client = wechat.NewClient("http://127.0.0.1:1", nil)
			}
			c := new(clock)
			b := newBroker(t, store.NewMemory(), client, c.use)
			if known {
				measure(t, b)
			}
			at := time.Duration(0)
			for i := range 24 {
				c.advance(step(i) - at)
				at = step(i)
				now := weChat.Add(time.Duration(i) * 10 * time.Minute)
				if n := putTickets(t, b, now, 1); n != 0 {
					t.Errorf("%s, known %v: ticket %d: got it refused, want it stored",
						name, known, i)
				}
				if old := i - 1 - rand.IntN(i+1); old >= 0 {
					repeat := weChat.Add(time.Duration(old) * 10 * time.Minute)
					if n := putTickets(t, b, repeat, 1); n != 1 && !known {
						t.Errorf("%s, known %v: recorded ticket %d after %d: got it stored, want it refused",
							name, known, old, i)
					}
				}
			}
		}
	}
}

// measure lets b measure WeChat's clock.
func measure(t *testing.T, b *tokens.Broker) {
	t.Helper()
	for range 3 {
		_, err := b.Refresh(t.Context(), ownAccount)
		if err != nil && !errors.Is(err, tokens.ErrThrottled) {
			t.Fatalf("Refresh: %v", err)
		}
	}
	if ahead, known := b.Stats().ClockSkew(tokens.WeChatClock); !known {
		t.Fatalf("after responses: got skew %v, false, want it known", ahead)
	}
}

// One CreateTime in the far future, 16 minutes to 80 years, does not keep later
// tickets out: neither if WeChat's clock is known when it comes, nor if it
// becomes known later, nor for an earlier version's record. Recorded tickets
// are refused once a later one is stored.
func TestOneAbsurdTicketLocksNoneOut(t *testing.T) {
	for _, ahead := range []time.Duration{16 * time.Minute, 6 * time.Hour, month, 80 * 12 * month} {
		for _, known := range []bool{false, true} {
			_, client := newFakeWeChat(t)
			b := newBroker(t, store.NewMemory(), client, nil)
			if known {
				measure(t, b)
			}
			weChat := time.Now().Add(2 * time.Second)
			if n := putTickets(t, b, weChat.Add(ahead), 1); n != 0 {
				t.Errorf("%v ahead, known %v: got the ticket refused, want it stored",
					ahead, known)
			}
			if !known {
				measure(t, b)
			}
			if n := putTickets(t, b, weChat.Add(10*time.Minute), 12); n != 0 {
				t.Errorf("%v ahead, known %v: got %d of 12 later tickets refused, want 0",
					ahead, known, n)
			}
			if n := putTickets(t, b, weChat.Add(-2*time.Hour), 13); n != 13 {
				t.Errorf("%v ahead, known %v: got %d of 13 recorded tickets refused, want 13",
					ahead, known, n)
			}
		}
	}
}

// clockStore is a store with a clock of its own.
type clockStore struct {
	store.Store
	ahead time.Duration
}

func (s clockStore) Time(context.Context) (time.Time, error) { return time.Now().Add(s.ahead), nil }

// The clocks of WeChat and of the store are 50 seconds to a month off, in
// either direction: from a minute on Ready says so, in words. It never keeps a
// token from being served.
func TestReadyWithWrongClock(t *testing.T) {
	for _, tc := range []struct {
		weChat, store time.Duration
		hasClock      bool
		want          string // in the error of Ready, "": ready
	}{
		{0, 0, false, ""},
		{50 * time.Second, 0, false, ""},
		{-50 * time.Second, 0, false, ""},
		{70 * time.Second, 0, false, "behind WeChat's"},
		{-70 * time.Second, 0, false, "ahead of WeChat's"},
		{month, 0, false, "behind WeChat's"},
		{-month, 0, false, "ahead of WeChat's"},
		{0, 0, true, ""},
		{0, 50 * time.Second, true, ""},
		{0, 70 * time.Second, true, "behind the store's"},
		{6 * time.Hour, 6 * time.Hour, true, "behind WeChat's"},
		{-6 * time.Hour, -6 * time.Hour, true, "ahead of the store's"},
		{month, 0, true, "behind WeChat's"},
	} {
		f, client := newFakeWeChat(t)
		f.ahead.Store(int64(tc.weChat))
		s := store.Store(store.NewMemory())
		if tc.hasClock {
			s = clockStore{s, tc.store}
		}
		b := newAuthorized(t, s, client, nil)
		mustToken(t, b, ownAccount)
		if tc.hasClock {
			eventually(t, "the store's clock is measured", func() bool {
				_, known := b.Stats().ClockSkew(tokens.StoreClock)
				return known
			})
		}
		err := b.Ready(t.Context())
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%+v: Ready: got error %v, want none", tc, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%+v: Ready: got error %v, want one with %q", tc, err, tc.want)
		}
		for of, want := range map[tokens.Clock]time.Duration{
			tokens.WeChatClock: tc.weChat, tokens.StoreClock: tc.store,
		} {
			got, known := b.Stats().ClockSkew(of)
			if known != (of == tokens.WeChatClock || tc.hasClock) ||
				(got-want).Abs() > 2*time.Second {
				t.Errorf("%+v: skew of %s: got %v, %v, want %v", tc, of, got, known, want)
			}
		}
		mustToken(t, b, accountA)
		mustRenew(t, b, accountA)
	}
}

// timedView is a storeView with a clock, which is right.
type timedView struct{ *storeView }

func (timedView) Time(context.Context) (time.Time, error) { return time.Now(), nil }

// While the clock of one of two replicas is a month ahead or behind, both are
// called without a pause. Neither replaces the other's tokens: one renewal at
// most follows from the token that is stored, and one from a rejection at each
// replica. All calls get a token.
func TestReplicaWithWrongClockReplacesNoTokens(t *testing.T) {
	for _, ahead := range []time.Duration{-month - 24*time.Hour, month + 24*time.Hour} {
		f, client := newFakeWeChat(t)
		s := newSharedStore()
		right := newAuthorized(t, timedView{s.view()}, client, nil)
		wrong := newBroker(t, timedView{s.view()}, client, func(c *tokens.Config) {
			c.Now = func() time.Time { return time.Now().Add(ahead) }
		})
		eventually(t, "the store's clock is measured", func() bool {
			_, known := wrong.Stats().ClockSkew(tokens.StoreClock)
			return known
		})
		renewals := func() int {
			return f.count("api_authorizer_token") + f.count("api_component_token")
		}
		before := renewals()
		both := func() {
			for range 50 {
				mustToken(t, right, accountA)
				mustToken(t, wrong, accountA)
				mustToken(t, wrong, component)
				time.Sleep(2 * time.Millisecond) // the watchers of the store poll once in 1 ms
			}
		}
		both()
		if n := renewals() - before; n > 1 {
			t.Errorf("%v ahead: got %d renewals of valid tokens, want 1 at most", ahead, n)
		}
		mustRenew(t, wrong, accountA)
		both()
		mustRenew(t, right, accountA)
		both()
		if n := renewals() - before; n > 6 {
			t.Errorf("%v ahead: got %d renewals, want 6 at most", ahead, n)
		}
	}
}
