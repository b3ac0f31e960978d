package tokens_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

func TestTicket(t *testing.T) {
	s, client := newScript(t)
	var c clock
	b := newBroker(t, store.NewMemory(), client, c.use)
	if _, err := b.Token(t.Context(), component); !errors.Is(err, tokens.ErrNoTicket) || !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if err := b.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "component_verify_ticket") {
		t.Errorf("%v", err)
	}
	if _, ok := b.TicketAge(); ok {
		t.Error("a ticket's age without a ticket")
	}
	// with the ticket nobody waits for the pause after the failure
	if err := b.PutTicket(t.Context(), wechat.NewSecret("ticket@@@1"), c.now()); err != nil {
		t.Fatal(err)
	}
	if err := b.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	mustToken(t, b, component)
	// A look at readiness asks nobody. With the first ticket the upkeep does, and has to be over with it.
	eventually(t, func() bool { return s.count("api_get_authorizer_list") > 0 })
	c.forward(3 * time.Hour)
	asked := s.count("api_component_token")
	if err := b.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	if s.count("api_component_token") != asked {
		t.Error("WeChat was asked by the look at readiness")
	}
	c.forward(-3 * time.Hour)
	if err := b.PutTicket(t.Context(), wechat.NewSecret("ticket@@@0"), c.now().Add(-time.Minute)); !errors.Is(err, tokens.ErrStale) {
		t.Errorf("an older ticket: %v", err)
	}
	// One from the future does not keep the others out.
	if err := b.PutTicket(t.Context(), wechat.NewSecret("ticket@@@2036"), c.now().Add(10*365*24*time.Hour)); err != nil {
		t.Error(err)
	}
	c.forward(20 * time.Minute)
	if err := b.PutTicket(t.Context(), wechat.NewSecret("ticket@@@2"), c.now()); err != nil {
		t.Errorf("after one from the future: %v", err)
	}
	c.forward(11 * time.Hour)
	mustToken(t, b, component) // a ticket serves for twelve hours
	c.forward(3 * time.Hour)
	if _, err := b.Token(t.Context(), component); !errors.Is(err, tokens.ErrNoTicket) {
		t.Errorf("with a ticket of fourteen hours: %v", err)
	}
}

func TestLifeOfAnAuthorization(t *testing.T) {
	s, client := newScript(t)
	var c clock
	b := authorized(t, store.NewMemory(), client, c.use)
	ctx := t.Context()

	// pushed again: nothing happens
	if err := b.Authorize(ctx, accountA, codeOf(accountA, 1000), time.Time{}, time.Unix(1000, 0)); err != nil {
		t.Error(err)
	}
	// a withdrawal from before it arrives late
	if err := b.MarkRevoked(ctx, accountA, time.Unix(999, 0)); !errors.Is(err, tokens.ErrStale) {
		t.Errorf("%v", err)
	}
	old := mustToken(t, b, accountA).Value
	// a new authorization replaces both tokens at once
	if err := b.Authorize(ctx, accountA, codeOf(accountA, 2000), time.Time{}, time.Unix(2000, 0)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { tok, err := b.Token(ctx, accountA); return err == nil && !tok.Value.Equal(old) })
	if n := s.count("api_query_auth"); n != 2 {
		t.Errorf("%d codes exchanged", n)
	}
	if err := b.Authorize(ctx, accountA, codeOf(accountA, 1500), time.Time{}, time.Unix(1500, 0)); !errors.Is(err, tokens.ErrStale) {
		t.Errorf("an older authorization: %v", err)
	}

	// withdrawn: at once, without a call to WeChat
	if err := b.MarkRevoked(ctx, accountA, time.Unix(3000, 0)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := b.Token(ctx, accountA); !errors.Is(err, tokens.ErrRevoked) {
			t.Errorf("%v", err)
		}
	}
	if _, err := b.Renew(ctx, accountA, old); !errors.Is(err, tokens.ErrRevoked) {
		t.Errorf("%v", err)
	}
	if s.count("api_authorizer_token") != 0 {
		t.Error("WeChat was asked for a revoked account")
	}
	c.forward(3 * time.Second) // the count of accounts may be two seconds old
	if _, revoked, _, _ := b.Accounts(); revoked != 1 {
		t.Errorf("%d revoked", revoked)
	}
	if err := b.Authorize(ctx, accountA, codeOf(accountA, 2500), time.Time{}, time.Unix(2500, 0)); !errors.Is(err, tokens.ErrStale) {
		t.Errorf("an authorization from before the withdrawal: %v", err)
	}
	authorize(t, b, accountA, 4000) // and back
	c.forward(3 * time.Second)
	if active, revoked, failing, _ := b.Accounts(); active != 1 || revoked+failing != 0 {
		t.Errorf("%d %d %d", active, revoked, failing)
	}
}

// A code that belongs to another account makes nobody known.
func TestForeignCode(t *testing.T) {
	s, client := newScript(t)
	s.knows(map[string]listed{accountA: {"held", 1}})
	b := authorized(t, store.NewMemory(), client, nil)
	if _, err := b.Token(t.Context(), unknown); !errors.Is(err, tokens.ErrUnknownAccount) {
		t.Errorf("%v", err)
	}
	if err := b.Authorize(t.Context(), unknown, codeOf(accountB, 5000), time.Time{}, time.Unix(5000, 0)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { _, err := b.Token(t.Context(), unknown); return errors.Is(err, tokens.ErrUnknownAccount) })
	if _, err := b.Token(t.Context(), accountB); !errors.Is(err, tokens.ErrUnknownAccount) {
		t.Errorf("%v", err)
	}
	if n := s.count("api_query_auth"); n != 2 {
		t.Errorf("%d exchanges", n)
	}
}

// An account without API permission has no tokens; that is told, and WeChat not asked without end.
func TestNoPermission(t *testing.T) {
	s, client := newScript(t)
	b := authorized(t, store.NewMemory(), client, nil)
	s.answer("api_query_auth", func(map[string]any) (any, bool) {
		return map[string]any{"authorization_info": map[string]any{"authorizer_appid": accountB, "func_info": []any{}}}, true
	})
	s.answer("api_get_authorizer_info", func(map[string]any) (any, bool) { return map[string]any{"authorization_info": map[string]any{}}, true })
	if err := b.Authorize(t.Context(), accountB, codeOf(accountB, 1), time.Time{}, time.Unix(1000, 0)); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if _, err := b.Token(t.Context(), accountB); !errors.Is(err, tokens.ErrUnavailable) {
			t.Fatalf("%v", err)
		}
	}
	if n := s.count("api_get_authorizer_info"); n > 8 { // the pauses between them begin with a second
		t.Errorf("asked %d times", n)
	}
}

// A code that was stored is exchanged, whatever comes between: WeChat's absence, a restart.
func TestCodeSurvives(t *testing.T) {
	s, client := newScript(t)
	st := store.NewMemory()
	b := newBroker(t, st, client, nil)
	putTicket(t, b)
	mustToken(t, b, component)
	s.down.Store(true)
	if err := b.Authorize(t.Context(), accountA, codeOf(accountA, 1), time.Time{}, time.Unix(1000, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Token(t.Context(), accountA); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("before the exchange: %v", err)
	}
	b.Close(t.Context())
	s.down.Store(false)
	b = newBroker(t, st, client, nil)
	// by itself: nobody calls for the account
	eventually(t, func() bool { active, _, _, _ := b.Accounts(); return active == 1 })
	mustToken(t, b, accountA)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.calls["api_authorizer_token"]; n != 0 {
		t.Errorf("%d renewals", n)
	}
}
