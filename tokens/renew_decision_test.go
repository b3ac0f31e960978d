package tokens

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"wxproxy/wechat"
)

// at returns a time of the tests of decide and settle, whose tokens are issued
// at minute 0 and expire at minute 120.
func at(minute int) time.Time {
	return time.UnixMilli(1_700_000_000_000).Add(time.Duration(minute) * time.Minute)
}

// holding returns the record of an account that holds a token.
func holding(token string) *account {
	acc := newAccount(Authorizer)
	acc.setTokens(wechat.Grant{Access: wechat.NewSecret(token), Refresh: wechat.NewSecret("R"), Life: 2 * time.Hour}, at(0))
	return acc
}

func with(acc *account, change func(*account)) *account {
	change(acc)
	return acc
}

func TestDecide(t *testing.T) {
	const renewBefore = 10 * time.Minute
	pausedUntil := func(minute int) func(*account) {
		return func(a *account) { a.RetryAt, a.Failure = millis(at(minute)), "WeChat is down" }
	}
	throttled := func(a *account) {
		for range throttleLimit {
			a.Throttle.record(at(60))
		}
	}
	tests := []struct {
		name   string
		stored *account
		kind   Kind
		stale  string
		why    reason
		now    time.Time
		want   action
		err    error
	}{
		{"unknown authorizer", nil, Authorizer, "", reasonMissing, at(1), deny, ErrUnknownAccount},
		{"unknown authorizer, rejected", nil, Authorizer, "T", reasonRejected, at(1), deny, ErrUnknownAccount},
		{"component without a record", nil, Component, "", reasonMissing, at(1), fetchNew, nil},
		{"own account without a record", nil, App, "", reasonMissing, at(1), fetchNew, nil},
		{"revoked", with(holding("T"), func(a *account) { a.markRevoked(1) }), Authorizer, "", reasonMissing, at(1), deny, ErrRevoked},
		{"revoked, due", with(holding("T"), func(a *account) { a.markRevoked(1) }), Authorizer, "", reasonDue, at(1), deny, ErrRevoked},

		{"missing, stored token valid", holding("T"), Authorizer, "", reasonMissing, at(1), useStored, nil},
		{"missing, stored token due but valid", holding("T"), Authorizer, "", reasonMissing, at(115), useStored, nil},
		{"missing, stored token expired", holding("T"), Authorizer, "", reasonMissing, at(121), fetchNew, nil},
		{"missing, no token stored", newAccount(Authorizer), Authorizer, "", reasonMissing, at(1), fetchNew, nil},

		{"rejected, still stored", holding("T"), Authorizer, "T", reasonRejected, at(1), fetchNew, nil},
		{"rejected, another stored", holding("T"), Authorizer, "S", reasonRejected, at(1), useStored, nil},
		{"rejected, another stored but expired", holding("T"), Authorizer, "S", reasonRejected, at(121), fetchNew, nil},

		{"due", holding("T"), Authorizer, "", reasonDue, at(115), fetchNew, nil},
		{"due, renewed meanwhile", holding("T"), Authorizer, "", reasonDue, at(60), useStored, nil},
		{"due, expired", holding("T"), Authorizer, "", reasonDue, at(121), fetchNew, nil},

		{"paused, expired", with(holding("T"), pausedUntil(130)), Authorizer, "", reasonMissing, at(121), deny, ErrUnavailable},
		{"paused, valid", with(holding("T"), pausedUntil(130)), Authorizer, "", reasonMissing, at(115), useStored, nil},
		{"paused, rejected", with(holding("T"), pausedUntil(130)), Authorizer, "T", reasonRejected, at(115), deny, ErrUnavailable},
		{"paused, due", with(holding("T"), pausedUntil(130)), Authorizer, "", reasonDue, at(115), deny, ErrUnavailable},
		{"pause over", with(holding("T"), pausedUntil(120)), Authorizer, "", reasonMissing, at(121), fetchNew, nil},

		{"throttled", with(holding("T"), throttled), Authorizer, "T", reasonRejected, at(60), deny, ErrThrottled},
		{"throttled, a minute later", with(holding("T"), throttled), Authorizer, "T", reasonRejected, at(61), fetchNew, nil},
		{"throttled, another stored", with(holding("T"), throttled), Authorizer, "S", reasonRejected, at(60), useStored, nil},
		{"throttled, expired", with(holding("T"), throttled), Authorizer, "T", reasonRejected, at(121), fetchNew, nil},
		{"throttled, due", with(holding("T"), throttled), Authorizer, "", reasonDue, at(115), fetchNew, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := renewal{appid: "wxaaaaaaaaaaaaaaaa", kind: tt.kind, stale: wechat.NewSecret(tt.stale), why: tt.why}
			got := decide(r, tt.stored, tt.now, renewBefore)
			if got.action != tt.want || !errors.Is(got.err, tt.err) || (got.err == nil) != (tt.err == nil) {
				t.Errorf("decide: got action %d, error %v, want action %d, error %v", got.action, got.err, tt.want, tt.err)
			}
			rejectedWhileValid := tt.why == reasonRejected && tt.stored.usable(tt.now) && tt.stored.Access == tt.stale
			if want := tt.want == fetchNew && rejectedWhileValid; got.suspect != want {
				t.Errorf("decide: got suspect %t, want %t", got.suspect, want)
			}
		})
	}
}

func TestSettle(t *testing.T) {
	grant := fetched{grant: wechat.Grant{Access: wechat.NewSecret("N"), Refresh: wechat.NewSecret("R2"), Life: 2 * time.Hour}}
	recovered := fetched{recovered: wechat.NewSecret("R3")}
	tests := []struct {
		name    string
		fetched fetched
		err     error

		save            bool
		result          string
		wantErr         error
		access, refresh string
		failures        int
		noTicket        bool
		pause           time.Duration // the longest one; 0 if there is none
	}{
		{name: "success", fetched: grant,
			save: true, result: "ok", access: "N", refresh: "R2"},
		{name: "success without a refresh token", fetched: fetched{grant: wechat.Grant{Access: wechat.NewSecret("N"), Life: time.Hour}},
			save: true, result: "ok", access: "N", refresh: "R"},
		{name: "component unavailable", err: &unavailableError{reason: "component"},
			wantErr: ErrUnavailable, access: "T", refresh: "R", failures: 2},
		{name: "component unavailable after a recovery", fetched: recovered, err: &unavailableError{reason: "component"},
			wantErr: ErrUnavailable, access: "T", refresh: "R", failures: 2},
		{name: "closing", err: ErrClosed,
			wantErr: ErrClosed, access: "T", refresh: "R", failures: 2},
		{name: "revoked", err: ErrRevoked,
			save: true, result: "refused", wantErr: ErrRevoked},
		{name: "unreachable", err: wechat.ErrUnreachable,
			save: true, result: "unreachable", wantErr: ErrUnavailable, access: "T", refresh: "R", failures: 3, pause: 4 * time.Second},
		{name: "unreachable after a recovery", fetched: recovered, err: wechat.ErrUnreachable,
			save: true, result: "unreachable", wantErr: ErrUnavailable, access: "T", refresh: "R3", failures: 3, pause: 4 * time.Second},
		{name: "refresh token rejected", err: &wechat.Error{Code: wechat.CodeRefreshTokenInvalid},
			save: true, result: "refused", wantErr: ErrUnavailable, access: "T", refresh: "R", failures: 3, pause: 4 * time.Second},
		{name: "no refresh token", err: errNoRefreshToken,
			save: true, result: "refused", wantErr: ErrUnavailable, access: "T", refresh: "R", failures: 3, pause: 4 * time.Second},
		{name: "no ticket", err: ErrNoTicket,
			save: true, result: "refused", wantErr: ErrNoTicket, access: "T", refresh: "R", failures: 3, noTicket: true, pause: 4 * time.Second},
		{name: "ticket rejected", err: &wechat.Error{Code: wechat.CodeTicketExpired},
			save: true, result: "refused", wantErr: ErrUnavailable, access: "T", refresh: "R", failures: 3, noTicket: true, pause: 4 * time.Second},
		{name: "quota exhausted", err: &wechat.Error{Code: wechat.CodeQuota},
			save: true, result: "refused", wantErr: ErrUnavailable, access: "T", refresh: "R", failures: 3, pause: quotaPause},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			now := at(60)
			acc := with(holding("T"), func(a *account) { a.FailureCount, a.Failure = 2, "earlier" })
			before := *acc
			got := settle(acc, renewal{kind: Authorizer}, decision{action: fetchNew}, tt.fetched, tt.err, now)
			if got.save != tt.save || got.result != tt.result || !errors.Is(got.err, tt.wantErr) || (got.err == nil) != (tt.wantErr == nil) {
				t.Errorf("settle: got save %t, result %q, error %v, want %t, %q, %v",
					got.save, got.result, got.err, tt.save, tt.result, tt.wantErr)
			}
			if !tt.save && !reflect.DeepEqual(*acc, before) {
				t.Errorf("settle: got a changed record %+v, want %+v", *acc, before)
			}
			if acc.Access != tt.access || acc.Refresh != tt.refresh || acc.FailureCount != tt.failures || acc.NoTicket != tt.noTicket {
				t.Errorf("record: got access %q, refresh %q, failures %d, no ticket %t, want %q, %q, %d, %t",
					acc.Access, acc.Refresh, acc.FailureCount, acc.NoTicket, tt.access, tt.refresh, tt.failures, tt.noTicket)
			}
			var pause time.Duration
			if acc.RetryAt != 0 {
				pause = fromMillis(acc.RetryAt).Sub(now)
			}
			if pause > tt.pause || pause < tt.pause*3/4-time.Millisecond {
				t.Errorf("pause: got %v, want %v less a quarter at most", pause, tt.pause)
			}
			if acc.IsRevoked != errors.Is(tt.wantErr, ErrRevoked) {
				t.Errorf("record: got revoked %t", acc.IsRevoked)
			}
		})
	}
}

// Only a renewal of a token that should have been valid counts towards the
// throttle, and only if it succeeded.
func TestSettleCountsSuspectRenewals(t *testing.T) {
	grant := fetched{grant: wechat.Grant{Access: wechat.NewSecret("N"), Life: 2 * time.Hour}}
	for _, tt := range []struct {
		suspect bool
		err     error
		want    int
	}{{true, nil, 1}, {false, nil, 0}, {true, wechat.ErrUnreachable, 0}} {
		acc := holding("T")
		settle(acc, renewal{}, decision{action: fetchNew, suspect: tt.suspect}, grant, tt.err, at(1))
		if got := len(acc.Throttle.At); got != tt.want {
			t.Errorf("suspect %t, error %v: got %d counted renewals, want %d", tt.suspect, tt.err, got, tt.want)
		}
	}
}

func TestThrottle(t *testing.T) {
	seconds := func(n int) time.Time { return at(0).Add(time.Duration(n) * time.Second) }
	var th renewalThrottle
	for _, step := range []struct {
		at   int // seconds
		want bool
	}{
		{0, true}, {1, true}, {2, true}, // three within a minute
		{3, false}, {61, false}, // then one a minute
		{62, true}, {63, false}, {121, false}, {122, true}, {123, false},
		{242, true}, {243, true}, {244, true}, {245, false}, // after two minutes without any, as at first
		{10, false}, // the clock was set back
	} {
		got := th.allows(seconds(step.at))
		if got != step.want {
			t.Errorf("second %d: got allowed %t, want %t", step.at, got, step.want)
		}
		if got {
			th.record(seconds(step.at))
		}
	}
}

func TestRenewAt(t *testing.T) {
	const appid = "wxaaaaaaaaaaaaaaaa"
	for _, tt := range []struct {
		lifetime, before time.Duration
		want             time.Duration // before the expiry, without the pseudorandom part
	}{
		{2 * time.Hour, 10 * time.Minute, 10 * time.Minute},
		{2 * time.Hour, 90 * time.Minute, 12 * time.Minute}, // more than half of the lifetime: a tenth
		{30 * time.Minute, 10 * time.Minute, 10 * time.Minute},
		{30 * time.Minute, time.Minute, 3 * time.Minute}, // a short lifetime: a tenth at least
		{10 * time.Second, 10 * time.Minute, time.Second},
	} {
		acc := newAccount(Authorizer)
		acc.setTokens(wechat.Grant{Access: wechat.NewSecret("T"), Life: tt.lifetime}, at(0))
		got := at(0).Add(tt.lifetime).Sub(acc.renewAt(appid, tt.before))
		if got < tt.want || got > tt.want*9/8 {
			t.Errorf("lifetime %v, renew_before %v: got %v before the expiry, want %v to %v",
				tt.lifetime, tt.before, got, tt.want, tt.want*9/8)
		}
	}
}

func TestBackoff(t *testing.T) {
	for n, want := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 6: 32 * time.Second, 7: time.Minute, 1000: time.Minute,
	} {
		if got := backoff(n); got > want || got < want*3/4 {
			t.Errorf("backoff(%d): got %v, want %v to %v", n, got, want*3/4, want)
		}
	}
}
