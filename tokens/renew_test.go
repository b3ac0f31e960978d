package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

func TestConcurrentRejectionsRenewOnce(t *testing.T) {
	f, client := newFakeWeChat(t)
	b := newAuthorized(t, store.NewMemory(), client, nil)
	stale := mustToken(t, b, accountA).Value
	var wg sync.WaitGroup
	got := make([]string, 500)
	for i := range got {
		wg.Go(func() {
			tok, err := b.Renew(context.Background(), accountA, stale)
			if err != nil {
				t.Errorf("Renew: %v", err)
			}
			got[i] = tok.Value.Reveal()
		})
	}
	wg.Wait()
	for i, g := range got {
		if g != got[0] || g == stale.Reveal() {
			t.Fatalf("caller %d: got token %q, want %q, which is not the rejected one", i, g, got[0])
		}
	}
	if tok, err := b.Renew(t.Context(), accountA, stale); err != nil || tok.Value.Reveal() != got[0] {
		t.Errorf("a late rejection: got token %q, error %v, want %q", tok.Value.Reveal(), err, got[0])
	}
	f.wantCount(t, "api_authorizer_token", 1)
}

// While renewals fail, a valid token serves and an expired one does not. When
// WeChat is back, tokens are renewed without an operator.
func TestValidTokenServesWhileRenewalFails(t *testing.T) {
	f, client := newFakeWeChat(t)
	var c clock
	b := newAuthorized(t, store.NewMemory(), client, c.use)
	valid := mustToken(t, b, accountA).Value
	f.down.Store(true)
	c.advance(115 * time.Minute) // due, and valid for five minutes
	for range 20 {
		if tok := mustToken(t, b, accountA); !tok.Value.Equal(valid) {
			t.Fatalf("Token: got %s, want the valid %s", tok.Value.Fingerprint(), valid.Fingerprint())
		}
	}
	c.advance(6 * time.Minute)
	attempts := func() int { return f.count("api_authorizer_token") + f.count("api_component_token") }
	before := attempts()
	for range 100 {
		_, err := b.Token(t.Context(), accountA)
		if !errors.Is(err, tokens.ErrUnavailable) || tokens.RetryAfter(err, c.now()) < time.Second {
			t.Fatalf("Token after the expiry: got error %v, retry after %v, want %v, a second or more",
				err, tokens.RetryAfter(err, c.now()), tokens.ErrUnavailable)
		}
	}
	if n := attempts() - before; n > 3 {
		t.Errorf("got %d requests to WeChat for 100 calls, want 3 at most", n)
	}
	f.down.Store(false)
	// A renewal that began while WeChat was down may note its failure only now,
	// so the clock is moved past its pause until a renewal succeeds.
	var tok tokens.Token
	eventually(t, "a renewal succeeds", func() bool {
		c.advance(2 * time.Minute)
		var err error
		tok, err = b.Token(t.Context(), accountA)
		return err == nil
	})
	if tok.Value.Equal(valid) {
		t.Error("Token: got the expired token, want a new one")
	}
}

// No response without a token makes an account unusable for longer than its
// pause.
func TestInvalidTokenResponses(t *testing.T) {
	for name, body := range map[string]string{
		"empty":       "",
		"HTML":        "<html>",
		"null":        "null",
		"array":       "[]",
		"no token":    `{"expires_in":7200}`,
		"empty token": `{"authorizer_access_token":"","expires_in":7200}`,
		"truncated":   `{"authorizer_access_token":"x`,
		"busy":        `{"errcode":-1,"errmsg":"system error"}`,
	} {
		t.Run(name, func(t *testing.T) {
			f, client := newFakeWeChat(t)
			var c clock
			b := newAuthorized(t, store.NewMemory(), client, c.use)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "api_authorizer_token") {
					fmt.Fprint(w, body)
					return
				}
				f.ServeHTTP(w, r)
			}))
			defer srv.Close()
			b.Reconfigure(secrets(), wechat.NewClient(srv.URL, nil))
			c.advance(121 * time.Minute) // only now: an early renewal would have succeeded
			wantTokenError(t, b, accountA, tokens.ErrUnavailable)
			b.Reconfigure(secrets(), client)
			c.advance(time.Minute)
			mustToken(t, b, accountA)
		})
	}
}

// Tokens that are rejected although they are new cost three renewals within a
// minute, then one a minute. An ordinary expiry is never throttled.
func TestRepeatedRejectionsAreThrottled(t *testing.T) {
	f, client := newFakeWeChat(t)
	var c clock
	b := newAuthorized(t, store.NewMemory(), client, c.use)
	reject := func() error { return errorOf(rejectToken(t, b, accountA)) }
	for i := range 3 {
		if err := reject(); err != nil {
			t.Fatalf("rejection %d: %v", i+1, err)
		}
	}
	for i := range 50 {
		if err := reject(); !errors.Is(err, tokens.ErrThrottled) {
			t.Fatalf("rejection %d: got error %v, want %v", i+4, err, tokens.ErrThrottled)
		}
	}
	for minute := range 3 {
		c.advance(61 * time.Second)
		if err := reject(); err != nil {
			t.Fatalf("minute %d: %v", minute+1, err)
		}
		if err := reject(); !errors.Is(err, tokens.ErrThrottled) {
			t.Fatalf("minute %d, second rejection: got error %v, want %v", minute+1, err, tokens.ErrThrottled)
		}
	}
	f.wantCount(t, "api_authorizer_token", 6)
	c.advance(121 * time.Minute)
	mustToken(t, b, accountA)
}

// A refresh token in a response replaces the stored one; an empty one does not.
func TestRefreshTokenRotation(t *testing.T) {
	f, client := newFakeWeChat(t)
	b := newAuthorized(t, store.NewMemory(), client, nil)
	var sent []string
	next := ""
	f.handle("api_authorizer_token", func(in map[string]any) (any, bool) {
		sent = append(sent, in["authorizer_refresh_token"].(string))
		return map[string]any{
			"authorizer_access_token": fmt.Sprintf("R%d", len(sent)), "expires_in": "7200",
			"authorizer_refresh_token": next,
		}, true
	})
	for _, next = range []string{"rotated@1", "", "rotated@2"} {
		mustRenew(t, b, accountA)
	}
	if want := []string{"refresh@" + accountA + "@1000", "rotated@1", "rotated@1"}; !slices.Equal(sent, want) {
		t.Errorf("refresh tokens sent to WeChat: got %q, want %q", sent, want)
	}
}

// If WeChat rejects the stored refresh token, the one that it lists is used. If
// it lists no other, the account fails and says what to do.
func TestRefreshTokenRecovered(t *testing.T) {
	f, client := newFakeWeChat(t)
	b := newAuthorized(t, store.NewMemory(), client, nil)
	f.handle("api_authorizer_token", func(in map[string]any) (any, bool) {
		return errcode(61023), in["authorizer_refresh_token"] != "held"
	})
	mustRenew(t, b, accountA)
	f.wantCount(t, "api_authorizer_token", 2)
	f.fail("api_authorizer_token", 61023)
	_, err := rejectToken(t, b, accountA)
	if !errors.Is(err, tokens.ErrUnavailable) || !strings.Contains(err.Error(), "authorize the component again") {
		t.Errorf("Renew: got error %v, want %v that says to authorize the component again", err, tokens.ErrUnavailable)
	}
	if counts, _ := b.Stats().AccountCounts(); counts.Failing != 1 {
		t.Errorf("AccountCounts: got %d failing, want 1", counts.Failing)
	}
}

// Whether an account revoked its authorization is asked of WeChat, whatever
// errcode its renewal got.
func TestRenewalConfirmsRevocation(t *testing.T) {
	type list = map[string]authorizer
	none, same := list{}, list{accountA: {"refresh@" + accountA + "@1000", 1}}
	other := list{accountA: {"another", 1}}
	for name, tt := range map[string]struct {
		code  int
		list  list
		state tokens.State
		err   error
	}{
		"61003, not listed":            {61003, none, tokens.Revoked, tokens.ErrRevoked},
		"61003, listed":                {61003, same, tokens.Failing, tokens.ErrUnavailable},
		"61023, listed":                {61023, same, tokens.Failing, tokens.ErrUnavailable},
		"61023, not listed":            {61023, none, tokens.Revoked, tokens.ErrRevoked},
		"42007, listed":                {42007, same, tokens.Failing, tokens.ErrUnavailable},
		"42007, not listed":            {42007, none, tokens.Revoked, tokens.ErrRevoked},
		"42007, another refresh token": {42007, other, tokens.Active, nil},
		"-1, not listed":               {-1, none, tokens.Failing, tokens.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			f, client := newFakeWeChat(t)
			b := newAuthorized(t, store.NewMemory(), client, nil)
			f.list(tt.list)
			f.handle("api_authorizer_token", func(in map[string]any) (any, bool) {
				return errcode(tt.code), in["authorizer_refresh_token"] != "another"
			})
			if _, err := rejectToken(t, b, accountA); !errors.Is(err, tt.err) {
				t.Errorf("Renew: got error %v, want %v", err, tt.err)
			}
			wantState(t, b, accountA, tt.state)
			if tt.state != tokens.Revoked {
				return
			}
			before := f.count("api_authorizer_token")
			wantTokenError(t, b, accountA, tokens.ErrRevoked)
			f.wantCount(t, "api_authorizer_token", before)
			authorize(t, b, accountA, 2000)
		})
	}
}

// An account's renewal renews the component's token if WeChat rejects that.
func TestComponentTokenRejected(t *testing.T) {
	f, client := newFakeWeChat(t)
	b := newAuthorized(t, store.NewMemory(), client, nil)
	rejections := 0
	f.handle("api_authorizer_token", func(map[string]any) (any, bool) {
		rejections++
		return errcode(42001), rejections == 1
	})
	mustRenew(t, b, accountA)
	f.wantCount(t, "api_component_token", 2)
}

func TestOwnAccountToken(t *testing.T) {
	f, client := newFakeWeChat(t)
	b := newBroker(t, store.NewMemory(), client, nil)
	tok := mustToken(t, b, ownAccount)
	if tok.Kind != tokens.App || tok.Value.Reveal() != "Sfalse" {
		t.Errorf("Token: got %s of kind %v, want Sfalse of kind %v", tok.Value.Reveal(), tok.Kind, tokens.App)
	}
	// WeChat returns the rejected token as long as it is valid, unless a new
	// one is forced.
	if tok, err := b.Renew(t.Context(), ownAccount, tok.Value); err != nil || tok.Value.Reveal() != "Strue" {
		t.Errorf("Renew: got %s, error %v, want Strue", tok.Value.Reveal(), err)
	}
	f.wantCount(t, "stable_token", 3)
}
