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
	grant := wechat.Grant{
		Access: wechat.NewSecret(token), Refresh: wechat.NewSecret("R"), Life: 2 * time.Hour,
	}
	acc.setTokens(grant, at(0))
	return acc
}

func with(acc *account, change func(*account)) *account {
	change(acc)
	return acc
}

func TestDecide(t *testing.T) {
	const (
		renewBefore = 10 * time.Minute
		missing     = reasonMissing
		rejected    = reasonRejected
		due         = reasonDue
	)
	paused := func(until int) *account {
		return with(holding("T"), func(a *account) { a.RetryAt = millis(at(until)) })
	}
	throttled := with(holding("T"), func(a *account) {
		for range throttleLimit {
			a.Throttle.record(at(60))
		}
	})
	revoked := with(holding("T"), func(a *account) { a.markRevoked(1, at(0)) })
	empty := newAccount(Authorizer)
	tests := []struct {
		name   string
		stored *account
		kind   Kind
		stale  string
		why    reason
		now    int // minute
		want   action
		err    error
	}{
		{"unknown authorizer", nil, Authorizer, "", missing, 1, deny, ErrUnknownAccount},
		{"unknown, rejected", nil, Authorizer, "T", rejected, 1, deny, ErrUnknownAccount},
		{"component without a record", nil, Component, "", missing, 1, fetchNew, nil},
		{"own account without a record", nil, App, "", missing, 1, fetchNew, nil},
		{"revoked", revoked, Authorizer, "", missing, 1, deny, ErrRevoked},
		{"revoked, due", revoked, Authorizer, "", due, 1, deny, ErrRevoked},

		{"missing, valid", holding("T"), Authorizer, "", missing, 1, useStored, nil},
		{"missing, due", holding("T"), Authorizer, "", missing, 115, useStored, nil},
		{"missing, expired", holding("T"), Authorizer, "", missing, 121, fetchNew, nil},
		{"missing, none stored", empty, Authorizer, "", missing, 1, fetchNew, nil},

		{"rejected, stored", holding("T"), Authorizer, "T", rejected, 1, fetchNew, nil},
		{"rejected, another stored", holding("T"), Authorizer, "S", rejected, 1, useStored, nil},
		{"rejected, another expired", holding("T"), Authorizer, "S", rejected, 121, fetchNew, nil},

		{"due", holding("T"), Authorizer, "", due, 115, fetchNew, nil},
		{"due, renewed meanwhile", holding("T"), Authorizer, "", due, 60, useStored, nil},
		{"due, expired", holding("T"), Authorizer, "", due, 121, fetchNew, nil},

		{"paused, expired", paused(130), Authorizer, "", missing, 121, deny, ErrUnavailable},
		{"paused, valid", paused(130), Authorizer, "", missing, 115, useStored, nil},
		{"paused, rejected", paused(130), Authorizer, "T", rejected, 115, deny, ErrUnavailable},
		{"paused, due", paused(130), Authorizer, "", due, 115, deny, ErrUnavailable},
		{"pause over", paused(120), Authorizer, "", missing, 121, fetchNew, nil},

		{"throttled", throttled, Authorizer, "T", rejected, 60, deny, ErrThrottled},
		{"throttled, a minute later", throttled, Authorizer, "T", rejected, 61, fetchNew, nil},
		{"throttled, another stored", throttled, Authorizer, "S", rejected, 60, useStored, nil},
		{"throttled, expired", throttled, Authorizer, "T", rejected, 121, fetchNew, nil},
		{"throttled, due", throttled, Authorizer, "", due, 115, fetchNew, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := tokenRequest{
				appid: "wxaaaaaaaaaaaaaaaa", kind: tt.kind,
				stale: wechat.NewSecret(tt.stale), why: tt.why,
			}
			got := decide(r, tt.stored, at(tt.now), renewBefore)
			if got.action != tt.want || !errors.Is(got.err, tt.err) || (got.err == nil) != (tt.err == nil) {
				t.Errorf("decide: got action %d, error %v, want action %d, error %v",
					got.action, got.err, tt.want, tt.err)
			}
			want := tt.want == fetchNew && tt.why == rejected &&
				tt.stored.usable(at(tt.now)) && tt.stored.Access == tt.stale
			if got.suspect != want {
				t.Errorf("decide: got suspect %t, want %t", got.suspect, want)
			}
		})
	}
}

func TestSettle(t *testing.T) {
	grant := fetched{grant: wechat.Grant{
		Access: wechat.NewSecret("N"), Refresh: wechat.NewSecret("R2"), Life: 2 * time.Hour,
	}}
	accessOnly := fetched{grant: wechat.Grant{Access: wechat.NewSecret("N"), Life: time.Hour}}
	recovered := fetched{recovered: wechat.NewSecret("R3")}
	componentFailed := &unavailableError{reason: "no component token"}
	componentRejected := componentError(ErrThrottled)
	refreshRejected := &wechat.Error{Code: wechat.CodeRefreshTokenInvalid}
	ticketRejected := &wechat.Error{Code: wechat.CodeTicketExpired}
	quota := &wechat.Error{Code: wechat.CodeQuota}
	const pause = 4 * time.Second // after three failures
	type record struct {
		access, refresh string
		failures        int
		noTicket        bool
		revoked         bool
	}
	before := record{"T", "R", 2, false, false}
	tests := []struct {
		name    string
		fetched fetched
		err     error

		save    bool
		result  string
		wantErr error
		record  record
		pause   time.Duration // the longest one; 0 if there is none
	}{
		{"success", grant, nil, true, "ok", nil, record{"N", "R2", 0, false, false}, 0},
		{"success without a refresh token", accessOnly, nil, true, "ok", nil, record{"N", "R", 0, false, false}, 0},

		{"no component token", fetched{}, componentFailed, false, "", ErrUnavailable, before, 0},
		{"no component token, recovered", recovered, componentFailed, false, "", ErrUnavailable, before, 0},
		{"closing", fetched{}, ErrClosed, false, "", ErrClosed, before, 0},

		{"revoked", fetched{}, ErrRevoked, true, "refused", ErrRevoked, record{"", "R", 0, false, true}, 0},
		{"unreachable", fetched{}, wechat.ErrUnreachable,
			false, "unreachable", ErrUnavailable, before, 0},
		{"unreachable, recovered", recovered, wechat.ErrUnreachable,
			true, "unreachable", ErrUnavailable, record{"T", "R3", 2, false, false}, 0},
		{"rejected component token", fetched{}, componentRejected,
			false, "", ErrUnavailable, before, 0},
		{"refresh token rejected", fetched{}, refreshRejected,
			true, "refused", ErrUnavailable, record{"T", "R", 3, false, false}, pause},
		{"no refresh token", fetched{}, errNoRefreshToken,
			true, "refused", ErrUnavailable, record{"T", "R", 3, false, false}, pause},
		{"no ticket", fetched{}, ErrNoTicket,
			true, "refused", ErrNoTicket, record{"T", "R", 3, true, false}, pause},
		{"ticket rejected", fetched{}, ticketRejected,
			true, "refused", ErrUnavailable, record{"T", "R", 3, true, false}, pause},
		{"quota exhausted", fetched{}, quota,
			true, "refused", ErrUnavailable, record{"T", "R", 3, false, false}, quotaPause},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			now := at(60)
			acc := with(holding("T"), func(a *account) { a.FailureCount, a.Failure = 2, "earlier" })
			stored := *acc
			got := settle(acc, tokenRequest{kind: Authorizer}, decision{action: fetchNew}, tt.fetched, tt.err, now)
			if got.save != tt.save || got.result != tt.result {
				t.Errorf("settle: got save %t, result %q, want %t, %q", got.save, got.result, tt.save, tt.result)
			}
			if !errors.Is(got.err, tt.wantErr) || (got.err == nil) != (tt.wantErr == nil) {
				t.Errorf("settle: got error %v, want %v", got.err, tt.wantErr)
			}
			if !tt.save && !reflect.DeepEqual(*acc, stored) {
				t.Errorf("settle: got a changed record %+v, want %+v", *acc, stored)
			}
			rec := record{acc.Access, acc.Refresh, acc.FailureCount, acc.NoTicket, acc.IsRevoked}
			if rec != tt.record {
				t.Errorf("record: got %+v, want %+v", rec, tt.record)
			}
			var pause time.Duration
			if acc.RetryAt != 0 {
				pause = fromMillis(acc.RetryAt).Sub(now)
			}
			if pause > tt.pause || pause < tt.pause*3/4-time.Millisecond {
				t.Errorf("pause: got %v, want %v less a quarter at most", pause, tt.pause)
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
		settle(acc, tokenRequest{}, decision{action: fetchNew, suspect: tt.suspect}, grant, tt.err, at(1))
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
		got := at(0).Add(tt.lifetime).Sub(acc.renewAt(appid, tt.before, at(0)))
		if got < tt.want || got > tt.want*9/8 {
			t.Errorf("lifetime %v, renew_before %v: got %v before the expiry, want %v to %v",
				tt.lifetime, tt.before, got, tt.want, tt.want*9/8)
		}
	}
}

func TestBackoff(t *testing.T) {
	for n, want := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 6: 32 * time.Second,
		7: time.Minute, 1000: time.Minute,
	} {
		if got := backoff(n); got > want || got < want*3/4 {
			t.Errorf("backoff(%d): got %v, want %v to %v", n, got, want*3/4, want)
		}
	}
}
