package tokens_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// The events of these tests, by WeChat's clock in Unix seconds: the account
// authorizes at 1000, revokes at 2000, and authorizes again at 3000, with two
// codes. In one test it revokes once more at 4000.
const (
	authorizedFirst = 1000
	revokedFirst    = 2000
	authorizedAgain = 3000
	revokedAgain    = 4000
)

// delivery is how wxproxy learns of an event.
type delivery string

const (
	browser     delivery = "browser code"
	sameCode    delivery = "authorized, same code"
	otherCode   delivery = "authorized, another code"
	revocation  delivery = "unauthorized"
	oldCode     delivery = "authorized, first code"
	revocation2 delivery = "unauthorized again"
	duplicate   delivery = "a duplicate" // of one of the others
)

// orderTest is WeChat with one account, and a Broker that gets its events.
type orderTest struct {
	t *testing.T
	f *fakeWeChat
	s store.Store
	b *tokens.Broker

	isRevoked atomic.Bool      // by WeChat's state
	used      sync.Map         // codes that were exchanged
	codes     [3]wechat.Secret // of the browser, of the other push, of the first authorization
}

// newOrderTest returns a test with the account as it was before 2000, unknown
// or active. date is the one of WeChat's responses.
func newOrderTest(t *testing.T, known bool, date int64) *orderTest {
	f, client := newFakeWeChat(t)
	s := store.NewMemory()
	o := &orderTest{t: t, f: f, s: s}
	o.codes = [3]wechat.Secret{codeOf(accountA, 1), codeOf(accountA, 2), codeOf(accountA, 0)}
	o.b = newBroker(t, s, client, nil)
	putTicket(t, o.b)
	mustToken(t, o.b, component)
	f.date.Store(date)
	if known {
		o.deliver(oldCode)
	}
	o.used.Store(o.codes[2].Reveal(), true)
	f.handle("api_query_auth", func(in map[string]any) (any, bool) {
		if o.isRevoked.Load() {
			return errcode(61003), true
		}
		_, used := o.used.LoadOrStore(in["authorization_code"], true)
		return errcode(61009), used
	})
	f.handle("api_get_authorizer_info", func(map[string]any) (any, bool) {
		return errcode(61003), o.isRevoked.Load()
	})
	return o
}

// deliver delivers an event and waits until it has had its effect.
func (o *orderTest) deliver(d delivery) {
	o.t.Helper()
	push := func(code wechat.Secret, created int64) error {
		return o.b.Authorize(o.t.Context(), accountA, code, time.Time{}, time.Unix(created, 0))
	}
	revoke := func(created int64) error {
		return o.b.MarkRevoked(o.t.Context(), accountA, time.Unix(created, 0))
	}
	var err error
	switch d {
	case browser:
		if _, err = o.b.Exchange(o.t.Context(), o.codes[0]); wechat.Code(err) == 61003 {
			err = nil
		}
	case sameCode:
		err = push(o.codes[0], authorizedAgain)
	case otherCode:
		err = push(o.codes[1], authorizedAgain)
	case oldCode:
		err = push(o.codes[2], authorizedFirst)
	case revocation:
		err = revoke(revokedFirst)
	case revocation2:
		o.isRevoked.Store(true)
		err = revoke(revokedAgain)
	}
	if err != nil && !errors.Is(err, tokens.ErrStale) {
		o.t.Errorf("%s: %v", d, err)
	}
	waitForNoCode(o.t, o.s, accountA)
}

// permute calls fn with each order of events.
func permute(events []delivery, fn func([]delivery)) {
	var step func(n int)
	step = func(n int) {
		if n == len(events) {
			fn(slices.Clone(events))
			return
		}
		for i := n; i < len(events); i++ {
			events[n], events[i] = events[i], events[n]
			step(n + 1)
			events[n], events[i] = events[i], events[n]
		}
	}
	step(0)
}

// The end state is that of WeChat's newest event, in whatever order the events
// arrive: each order of browser code, unauthorized, authorized with the same
// code, authorized with another code, and a late duplicate of one of these
// pushes or of an older one (they take turns), also without some of them ×
// known or unknown before (in turns) × Date of the exchange missing, two
// seconds before, in the same second as, or after the authorization × newest
// event authorized or unauthorized.
func TestNewestEventDecides(t *testing.T) {
	for _, newest := range []delivery{sameCode, revocation2} {
		for _, date := range []int64{
			noDate, authorizedAgain - 2, authorizedAgain, authorizedAgain + 2,
		} {
			t.Run(fmt.Sprintf("%s, date %d", newest, date), func(t *testing.T) {
				t.Parallel()
				revoked := revocation
				if newest == revocation2 {
					revoked = revocation2
				}
				testOrders(t, date, browser, revoked, sameCode, otherCode, duplicate)
				testOrders(t, date, browser, revoked, sameCode, duplicate)
				testOrders(t, date, browser, revoked, otherCode, duplicate)
				if date != noDate { // a push or a call is needed to find out
					testOrders(t, date, browser, revoked)
				}
			})
		}
	}
}

// testOrders delivers the events in each order.
func testOrders(t *testing.T, date int64, events ...delivery) {
	t.Helper()
	want := tokens.Active
	if slices.Contains(events, revocation2) {
		want = tokens.Revoked
	}
	duplicates := []delivery{revocation, otherCode, oldCode}
	if slices.Contains(events, sameCode) {
		duplicates = append(duplicates, sameCode)
	}
	n := 0
	permute(events, func(order []delivery) {
		if again := slices.Index(order, duplicate); again >= 0 {
			order[again] = duplicates[n%len(duplicates)]
		}
		known := n/len(duplicates)%2 == 0
		n++
		o := newOrderTest(t, known, date)
		defer o.b.Close(t.Context())
		for _, d := range order {
			o.deliver(d)
		}
		_, err := o.b.Token(t.Context(), accountA)
		if got := stateOf(t, o.b, accountA); got != want || (err == nil) != (want == tokens.Active) {
			t.Errorf("known %t, %v: got state %s, error %v, want %s", known, order, got, err, want)
		}
	})
}
