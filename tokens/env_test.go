package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// clock is the time that a Broker sees. It only advances by hand, so that what
// a test expects within a minute does not depend on the speed of the machine.
type clock struct {
	start  sync.Once
	base   time.Time
	offset atomic.Int64
}

func (c *clock) now() time.Time {
	c.start.Do(func() { c.base = time.Now() })
	return c.base.Add(time.Duration(c.offset.Load()))
}

func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }
func (c *clock) use(cfg *tokens.Config)  { cfg.Now = c.now }

func secrets() tokens.Secrets {
	return tokens.Secrets{
		Component: component, ComponentSecret: wechat.NewSecret("cs"),
		Apps: map[string]wechat.Secret{ownAccount: wechat.NewSecret("as")},
	}
}

// newBroker returns a Broker that is closed when the test ends. change may be
// nil.
func newBroker(
	t *testing.T, s store.Store, client *wechat.Client, change func(*tokens.Config),
) *tokens.Broker {
	t.Helper()
	c := tokens.Config{Store: s, Client: client, CacheSize: 1000, Secrets: secrets()}
	if change != nil {
		change(&c)
	}
	b, err := tokens.New(c)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() { b.Close(context.Background()) })
	return b
}

// newAuthorized returns a Broker with a ticket and accountA. The comparison
// that the first ticket causes is done: it would mark accountA as revoked if
// the test changed WeChat's list while it runs.
func newAuthorized(
	t *testing.T, s store.Store, client *wechat.Client, change func(*tokens.Config),
) *tokens.Broker {
	t.Helper()
	b := newBroker(t, s, client, change)
	putTicket(t, b)
	authorize(t, b, accountA, 1000)
	// If WeChat lists the account, the comparison may have added it before the
	// code was exchanged, and the exchange still replaces its token.
	eventually(t, "the code is exchanged", func() bool {
		return errors.Is(errorOf(s.Load(t.Context(), "code/"+accountA)), store.ErrNotFound)
	})
	waitForComparison(t, s)
	return b
}

// waitForComparison waits until the first comparison is done.
func waitForComparison(t *testing.T, s store.Store) {
	t.Helper()
	eventually(t, "the first comparison is done", func() bool { return isCompared(t, s) })
}

// ticketsPut counts the tickets of all tests.
var ticketsPut atomic.Int64

func putTicket(t *testing.T, b *tokens.Broker) {
	t.Helper()
	created := time.Unix(1000+ticketsPut.Add(1), 0) // each is newer than the last
	if err := b.PutTicket(t.Context(), wechat.NewSecret("ticket@@@1"), created); err != nil {
		t.Fatalf("PutTicket: %v", err)
	}
}

// codeOf returns an authorization code that fakeWeChat exchanges for tokens of
// appid.
func codeOf(appid string, n int64) wechat.Secret {
	return wechat.NewSecret(fmt.Sprintf("%s@%d", appid, n))
}

// pushCode pushes a code of appid. created is the time of the authorization.
func pushCode(t *testing.T, b *tokens.Broker, appid string, code wechat.Secret, created int64) {
	t.Helper()
	if err := b.Authorize(t.Context(), appid, code, time.Time{}, time.Unix(created, 0)); err != nil {
		t.Fatalf("Authorize(%s, %d): %v", appid, created, err)
	}
}

// authorize pushes a code and waits until the account has a token.
func authorize(t *testing.T, b *tokens.Broker, appid string, created int64) {
	t.Helper()
	pushCode(t, b, appid, codeOf(appid, created), created)
	waitForToken(t, b, appid)
}

func waitForToken(t *testing.T, b *tokens.Broker, appid string) {
	t.Helper()
	eventually(t, appid+" has a token", func() bool {
		return errorOf(b.Token(t.Context(), appid)) == nil
	})
}

// waitForTokenError waits until Token returns want.
func waitForTokenError(t *testing.T, b *tokens.Broker, appid string, want error) {
	t.Helper()
	eventually(t, "Token returns: "+want.Error(), func() bool {
		return errors.Is(errorOf(b.Token(t.Context(), appid)), want)
	})
}

// wantError fails the test unless got is want.
func wantError(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got error %v, want %v", what, got, want)
	}
}

// waitForNoCode waits until no code of appid waits to be exchanged.
func waitForNoCode(t *testing.T, s store.Store, appid string) {
	t.Helper()
	eventually(t, "no code is pending", func() bool {
		return errors.Is(errorOf(s.Load(t.Context(), "code/"+appid)), store.ErrNotFound)
	})
}

// eventually waits until ok returns true. The bound is only there for a test
// that fails: a machine may be slow.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timeout: %s", what)
		}
	}
}

func mustToken(t *testing.T, b *tokens.Broker, appid string) tokens.Token {
	t.Helper()
	tok, err := b.Token(t.Context(), appid)
	if err != nil {
		t.Fatalf("Token(%s): %v", appid, err)
	}
	return tok
}

// wantTokenError fails the test unless Token returns want.
func wantTokenError(t *testing.T, b *tokens.Broker, appid string, want error) {
	t.Helper()
	if tok, err := b.Token(t.Context(), appid); !errors.Is(err, want) {
		t.Errorf("Token(%s): got token %s, error %v, want error %v", appid, tok.Value.Fingerprint(), err, want)
	}
}

// rejectToken renews the current token of appid, as after a rejection.
func rejectToken(t *testing.T, b *tokens.Broker, appid string) (tokens.Token, error) {
	t.Helper()
	return b.Renew(t.Context(), appid, mustToken(t, b, appid).Value)
}

// mustRenew is rejectToken that has to succeed.
func mustRenew(t *testing.T, b *tokens.Broker, appid string) tokens.Token {
	t.Helper()
	tok, err := rejectToken(t, b, appid)
	if err != nil {
		t.Fatalf("Renew(%s): %v", appid, err)
	}
	return tok
}

func stateOf(t *testing.T, b *tokens.Broker, appid string) tokens.State {
	t.Helper()
	a, err := b.Account(t.Context(), appid)
	if err != nil {
		t.Fatalf("Account(%s): %v", appid, err)
	}
	return a.State
}

func wantState(t *testing.T, b *tokens.Broker, appid string, want tokens.State) {
	t.Helper()
	if got := stateOf(t, b, appid); got != want {
		t.Errorf("state of %s: got %s, want %s", appid, got, want)
	}
}

// errorOf returns the error of a call with two results.
func errorOf[T any](_ T, err error) error { return err }
