package returnticket_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/internal/returnticket"
)

const (
	component = "wx6001eeeefe06e0af"
	account   = "wxf7d2ddffc117e8de"
)

var (
	errDenied = errors.New("denied")
	errDown   = errors.New("store is down")
)

// env redeems tickets with a clock and a store that the test controls.
type env struct {
	signer *returnticket.Signer
	at     time.Time

	mu      sync.Mutex
	claimed map[string]time.Time
	down    bool
}

func newEnv(key string) *env {
	return &env{
		signer: returnticket.NewSigner([]byte(key)), at: time.Unix(1_790_000_000, 0),
		claimed: map[string]time.Time{},
	}
}

func (e *env) claim(_ context.Context, key string, until time.Time) (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.down {
		return false, errDown
	}
	if e.at.Before(e.claimed[key]) {
		return false, nil
	}
	e.claimed[key] = until
	return true, nil
}

// redeemFor redeems a ticket on behalf of a caller that is allowed one account.
func (e *env) redeemFor(component, allowed, ticket string) (returnticket.Authorization, error) {
	r := returnticket.Redeemer{
		Signer: e.signer, Component: component, Claim: e.claim,
		Now: func() time.Time { return e.at },
	}
	return r.Redeem(context.Background(), ticket, func(appid string) error {
		if appid != allowed {
			return errDenied
		}
		return nil
	})
}

func (e *env) want(t *testing.T, what, ticket string, want error) {
	t.Helper()
	a, err := e.redeemFor(component, account, ticket)
	if !errors.Is(err, want) || err != nil && a != (returnticket.Authorization{}) {
		t.Errorf("%s: got %+v, error %v, want error %v", what, a, err, want)
	}
}

// A ticket is redeemed once, within ten minutes. What is denied, or fails with
// the store, can be tried again.
func TestTicketIsRedeemedOnce(t *testing.T) {
	e := newEnv("key")
	for _, state := range []string{"", "s", "a\x00b\xff\r\n\"<", strings.Repeat("x", 512)} {
		issued := returnticket.Authorization{AppID: account, State: state, At: e.at.Add(-time.Hour)}
		ticket := e.signer.Issue(component, issued, e.at)
		if len(ticket) > 800 || url.QueryEscape(ticket) != ticket {
			t.Errorf("state %q: got ticket %q, want at most 800 characters, none escaped", state, ticket)
		}
		if _, err := e.redeemFor(component, "wx0", ticket); !errors.Is(err, errDenied) {
			t.Errorf("another caller: got error %v, want %v", err, errDenied)
		}
		e.down = true
		e.want(t, "store is down", ticket, errDown)
		e.down = false
		got, err := e.redeemFor(component, account, ticket)
		if err != nil || got.AppID != account || got.State != state || !got.At.Equal(issued.At) {
			t.Errorf("state %q: got %+v, error %v, want %+v", state, got, err, issued)
		}
		e.want(t, "again", ticket, returnticket.ErrUsed)
		e.at = e.at.Add(returnticket.Lifetime - time.Second)
		e.want(t, "again, a second before it expires", ticket, returnticket.ErrUsed)
		e.at = e.at.Add(time.Second)
		e.want(t, "again, expired", ticket, returnticket.ErrExpired)
		if _, err := e.redeemFor(component, "wx0", ticket); !errors.Is(err, errDenied) {
			t.Errorf("another caller, expired: got error %v, want %v", err, errDenied)
		}
		// A replica whose clock is four minutes late has to find the claim.
		for key, until := range e.claimed {
			if late := until.Sub(e.at); late < 4*time.Minute {
				t.Errorf("claim %s: got %v after the ticket expires, want 4m or more", key, late)
			}
		}
		clear(e.claimed)
	}
	unused := e.signer.Issue(component, returnticket.Authorization{AppID: account}, e.at)
	e.at = e.at.Add(returnticket.Lifetime - time.Second)
	other := e.signer.Issue(component, returnticket.Authorization{AppID: account}, e.at)
	e.want(t, "a second before it expires", unused, nil)
	e.at = e.at.Add(returnticket.Lifetime)
	e.want(t, "unused and expired", other, returnticket.ErrExpired)
}

// After the clock was set back by six hours or a month, a ticket from before is
// refused, used or not: Redis keeps a claim for the time that was left, and has
// forgotten it. The clocks of replicas may differ by minutes.
func TestTicketFromBeforeClockWasSetBack(t *testing.T) {
	for _, back := range []time.Duration{6 * time.Hour, 720 * time.Hour} {
		e := newEnv("key")
		issued := returnticket.Authorization{AppID: account}
		used := e.signer.Issue(component, issued, e.at)
		unused := e.signer.Issue(component, issued, e.at)
		ahead := e.signer.Issue(component, issued, e.at.Add(-back+5*time.Minute))
		e.want(t, "before", used, nil)
		clear(e.claimed)
		e.at = e.at.Add(-back)
		e.want(t, "used", used, returnticket.ErrExpired)
		e.want(t, "unused", unused, returnticket.ErrExpired)
		e.want(t, "from a replica that is five minutes ahead", ahead, nil)
	}
}

func TestForgedTicketsAreInvalid(t *testing.T) {
	e := newEnv("key")
	a := returnticket.Authorization{AppID: account, State: "s", At: e.at}
	ticket := e.signer.Issue(component, a, e.at)
	raw, err := base64.RawURLEncoding.DecodeString(ticket)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		forged := append([]byte(nil), raw...)
		forged[i] ^= 1
		spelled := base64.RawURLEncoding.EncodeToString(forged)
		e.want(t, "one bit changed", spelled, returnticket.ErrInvalid)
	}
	for _, forged := range []string{
		"", ticket[:len(ticket)-1], ticket + "A", ticket + "=", ticket + "\n", ticket[:40], "\x00",
		strings.Repeat("A", 2000), base64.StdEncoding.EncodeToString(raw) + "=",
		newEnv("another key").signer.Issue(component, a, e.at),
		e.signer.Issue("wx0000000000000001", a, e.at),
		// The boundary between component and text.
		e.signer.Issue(component+"\x00\x01", a, e.at),
	} {
		e.want(t, forged, forged, returnticket.ErrInvalid)
	}
	e.want(t, "unchanged", ticket, nil)
}

// Of many that redeem one ticket at once, one gets what it says.
func TestConcurrentRedemptions(t *testing.T) {
	e := newEnv("key")
	ticket := e.signer.Issue(component, returnticket.Authorization{AppID: account}, e.at)
	var all sync.WaitGroup
	results := make(chan error, 50)
	for range cap(results) {
		all.Go(func() {
			_, err := e.redeemFor(component, account, ticket)
			results <- err
		})
	}
	all.Wait()
	close(results)
	redeemed := 0
	for err := range results {
		switch {
		case err == nil:
			redeemed++
		case !errors.Is(err, returnticket.ErrUsed):
			t.Errorf("got error %v, want %v", err, returnticket.ErrUsed)
		}
	}
	if redeemed != 1 {
		t.Errorf("got %d redemptions, want 1", redeemed)
	}
}

// issuedEarlier was issued with the key "key" at the time of newEnv. Replicas
// of other versions have to accept it: the format is fixed. Fuzz targets run in
// many processes, which need the same ticket.
const issuedEarlier = "AQAAAABqsT3YKROT_ktBYcXrVFn_topXkgAAAABqsTuAEnd4ZjdkMmRkZmZj" +
	"MTE3ZThkZXPRy5Tj4b_NDAFviaRC3kFhDUdnc6OC-bIu2aix-8yVFw"

func TestFormatIsFixed(t *testing.T) {
	e := newEnv("key")
	got, err := e.redeemFor(component, account, issuedEarlier)
	want := returnticket.Authorization{AppID: account, State: "s", At: e.at}
	if err != nil || got != want {
		t.Errorf("got %+v, error %v, want %+v", got, err, want)
	}
}

// Nothing but an issued ticket is valid, and none in two spellings.
func FuzzRedeem(f *testing.F) {
	f.Add(issuedEarlier)
	f.Add(issuedEarlier + "A")
	f.Add("\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		_, err := newEnv("key").redeemFor(component, account, s)
		if (err == nil) != (s == issuedEarlier) {
			t.Fatalf("%q: got error %v, want one for all but %q", s, err, issuedEarlier)
		}
	})
}
