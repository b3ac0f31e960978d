package state

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	component = "wx00000000000000c0"
	shop      = "wx00000000000000aa"
)

var start = time.Unix(1_790_000_000, 0)

func newState() *State {
	return New(Config{ComponentAppID: component, TokenLife: 2 * time.Hour, TicketLife: 12 * time.Hour})
}

func TestBoundedMapDropsTheOldest(t *testing.T) {
	m := newBoundedMap[int](3)
	for i := range 3 {
		m.put(strconv.Itoa(i), i)
	}
	m.put("0", 10) // replaces the value and keeps the age
	m.put("3", 3)
	for key, want := range map[string]bool{"0": false, "1": true, "2": true, "3": true} {
		if _, got := m.get(key); got != want {
			t.Errorf("key %s: got known %v, want %v", key, got, want)
		}
	}
	if len(m.entries) != 3 || len(m.order) != 3 {
		t.Errorf("got %d entries and %d keys in order, want 3", len(m.entries), len(m.order))
	}
}

// atOnce calls f in a hundred goroutines and returns how often it returned
// true.
func atOnce(f func() bool) int {
	var wg sync.WaitGroup
	var n atomic.Int64
	begin := make(chan struct{})
	for range 100 {
		wg.Go(func() {
			<-begin
			if f() {
				n.Add(1)
			}
		})
	}
	close(begin)
	wg.Wait()
	return int(n.Load())
}

func TestAuthorizationCodeIsExchangedOnce(t *testing.T) {
	s := newState()
	code, _, err := s.Accounts.Authorize(shop, start)
	if err != nil {
		t.Fatal(err)
	}
	n := atOnce(func() bool {
		_, errcode := s.Accounts.ExchangeCode(code, start)
		return errcode == 0
	})
	if n != 1 {
		t.Errorf("got %d exchanges of one code, want 1", n)
	}
}

func TestPreAuthCodeIsSpentOnce(t *testing.T) {
	s := newState()
	preAuth := s.Accounts.NewPreAuthCode(start)
	n := atOnce(func() bool {
		_, _, err := s.Accounts.Consent(PageConsent{
			PreAuthCode: preAuth, AppID: shop, Eligible: func(string, Kind) bool { return true },
		}, start)
		return err == nil
	})
	if n != 1 {
		t.Errorf("got %d consents with one pre-auth code, want 1", n)
	}
}

// A merchant that chooses the wrong account can choose again on the same page.
func TestFailedConsentKeepsThePreAuthCode(t *testing.T) {
	s := newState()
	preAuth := s.Accounts.NewPreAuthCode(start)
	_, _, err := s.Accounts.Consent(PageConsent{
		PreAuthCode: preAuth, AppID: shop, Eligible: func(string, Kind) bool { return false },
	}, start)
	if err != ErrNotEligible {
		t.Errorf("got %v, want ErrNotEligible", err)
	}
	if err := s.Accounts.CheckPreAuthCode(preAuth, start); err != nil {
		t.Errorf("pre-auth code after a failed consent: got %v, want it usable", err)
	}
	if ids := s.Accounts.AppIDs(); len(ids) != 0 {
		t.Errorf("got accounts %v, want none", ids)
	}
}

func TestLoginCodeIsUsedOnce(t *testing.T) {
	s := newState()
	if n := atOnce(func() bool { return s.EndUsers.UseCode(shop, "code01") }); n != 1 {
		t.Errorf("got %d uses of one login code, want 1", n)
	}
	if !s.EndUsers.UseCode(component, "code01") {
		t.Error("the same code of another account: got used, want new")
	}
}
