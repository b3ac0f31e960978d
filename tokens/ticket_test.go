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

// A ticket serves for twelve hours. The newest counts, and one whose CreateTime
// is in the far future does not keep later ones out.
func TestTicketLifetimeAndOrder(t *testing.T) {
	f, client := newFakeWeChat(t)
	var c clock
	b := newBroker(t, store.NewMemory(), client, c.use)
	put := func(ticket string, created time.Time) error {
		return b.PutTicket(t.Context(), wechat.NewSecret(ticket), created)
	}
	_, err := b.Token(t.Context(), component)
	for _, want := range []error{tokens.ErrNoTicket, tokens.ErrUnavailable} {
		if !errors.Is(err, want) {
			t.Errorf("Token without a ticket: got error %v, want %v", err, want)
		}
	}
	if err := b.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "component_verify_ticket") {
		t.Errorf("Ready without a ticket: got error %v, want one that names component_verify_ticket", err)
	}
	if age, ok := b.Stats().TicketAge(); ok {
		t.Errorf("TicketAge without a ticket: got %v, true, want false", age)
	}

	// The pause after the failed renewal ends with the ticket.
	if err := put("ticket@@@1", c.now()); err != nil {
		t.Fatalf("PutTicket: %v", err)
	}
	if err := b.Ready(t.Context()); err != nil {
		t.Errorf("Ready: %v", err)
	}
	mustToken(t, b, component)

	// Ready does not ask WeChat, even if the token has expired. The maintenance
	// does, and has to be done before.
	eventually(t, "the accounts are listed", func() bool { return f.count("api_get_authorizer_list") > 0 })
	c.advance(3 * time.Hour)
	before := f.count("api_component_token")
	if err := b.Ready(t.Context()); err != nil {
		t.Errorf("Ready with an expired token: %v", err)
	}
	f.wantCount(t, "api_component_token", before)
	c.advance(-3 * time.Hour)

	if err := put("ticket@@@0", c.now().Add(-time.Minute)); !errors.Is(err, tokens.ErrStale) {
		t.Errorf("PutTicket with an older one: got error %v, want %v", err, tokens.ErrStale)
	}
	// A push that was recorded does not make the ticket look new.
	if err := put("ticket@@@1", c.now()); !errors.Is(err, tokens.ErrStale) {
		t.Errorf("PutTicket with the same push: got error %v, want %v", err, tokens.ErrStale)
	}
	if err := put("ticket@@@1b", c.now()); err != nil {
		t.Errorf("PutTicket with another one of the same second: %v", err)
	}
	if err := put("ticket@@@2036", c.now().Add(10*365*24*time.Hour)); err != nil {
		t.Errorf("PutTicket with one from the future: %v", err)
	}
	c.advance(20 * time.Minute)
	if err := put("ticket@@@2", c.now()); err != nil {
		t.Errorf("PutTicket after one from the future: %v", err)
	}
	c.advance(11 * time.Hour)
	mustToken(t, b, component)
	c.advance(3 * time.Hour)
	wantTokenError(t, b, component, tokens.ErrNoTicket)
}

// WeChat is asked to push tickets if it rejects the stored one or none arrives,
// once in ten minutes at most.
func TestTicketPushIsRequested(t *testing.T) {
	const request = "api_start_push_ticket"
	f, client := newFakeWeChat(t)
	var c clock
	b := newBroker(t, store.NewMemory(), client, func(cfg *tokens.Config) {
		c.use(cfg)
		cfg.MaintenanceInterval = 10 * time.Millisecond
	})
	for range 3 {
		wantTokenError(t, b, component, tokens.ErrUnavailable)
		c.advance(2 * time.Minute)
	}
	f.wantCount(t, request, 1)
	f.fail("api_component_token", 61006)
	putTicket(t, b)
	wantTokenError(t, b, component, tokens.ErrUnavailable)
	f.waitForCount(t, request, 2)
	f.handle("api_component_token", nil)
	putTicket(t, b)
	mustToken(t, b, component)
	c.advance(61 * time.Minute)
	f.waitForCount(t, request, 3)
}

// When the day's quota is exhausted WeChat is not asked for half an hour, even
// if tickets arrive.
func TestExhaustedQuotaIsNotRetried(t *testing.T) {
	f, client := newFakeWeChat(t)
	var c clock
	b := newBroker(t, store.NewMemory(), client, c.use)
	f.fail("api_component_token", 45009)
	putTicket(t, b)
	for range 20 {
		_, err := b.Token(t.Context(), component)
		if !errors.Is(err, tokens.ErrUnavailable) || !strings.Contains(err.Error(), "quota") {
			t.Fatalf("Token: got error %v, want %v that names the quota", err, tokens.ErrUnavailable)
		}
		putTicket(t, b)
		c.advance(time.Minute)
	}
	f.wantCount(t, "api_component_token", 1)
	if err := b.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "quota") {
		t.Errorf("Ready: got error %v, want one that names the quota", err)
	}
	f.handle("api_component_token", nil)
	c.advance(time.Hour)
	mustToken(t, b, component)
}
