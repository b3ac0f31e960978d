package state

import (
	"sync"
	"time"
)

// Tickets holds the component_verify_tickets. Every ticket works for the ticket
// lifetime, not only the newest. It is safe for concurrent use.
type Tickets struct {
	life    time.Duration
	secrets *SecretList

	mu       sync.Mutex            // guards everything below
	made     boundedMap[time.Time] // ticket → when it was made
	newest   string                // "" before the first one
	pushedAt time.Time             // when the callback last accepted one; zero for never
}

func newTickets(life time.Duration, secrets *SecretList) *Tickets {
	return &Tickets{life: life, secrets: secrets, made: newBoundedMap[time.Time](maxTokens)}
}

// New makes a ticket and returns it.
func (t *Tickets) New(now time.Time) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.add(now)
}

// add makes a ticket. The caller holds t.mu.
func (t *Tickets) add(now time.Time) string {
	t.newest = t.secrets.Add(newTicket())
	t.made.put(t.newest, now)
	return t.newest
}

// Current returns the newest ticket. It makes one if that has expired or if
// there is none.
func (t *Tickets) Current(now time.Time) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if made, known := t.made.get(t.newest); !known || !now.Before(made.Add(t.life)) {
		return t.add(now)
	}
	return t.newest
}

// Check returns the errcode of an api_component_token request with that ticket.
func (t *Tickets) Check(ticket string, now time.Time) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	made, known := t.made.get(ticket)
	switch {
	case ticket == "":
		return 41020
	case !known:
		return 61006
	case !now.Before(made.Add(t.life)):
		return 61005
	}
	return 0
}

// ExpireAll makes all tickets as old as their lifetime, as if nothing had been
// pushed for half a day.
func (t *Tickets) ExpireAll(now time.Time) {
	old := now.Add(-t.life)
	t.mu.Lock()
	defer t.mu.Unlock()
	for ticket := range t.made.entries {
		t.made.entries[ticket] = old
	}
	t.pushedAt = time.Time{}
}

// Accepted records that the callback accepted a ticket at that time.
func (t *Tickets) Accepted(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pushedAt = now
}

// Flowing reports whether the callback has accepted a ticket within the ticket
// lifetime.
func (t *Tickets) Flowing(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.pushedAt.IsZero() && now.Before(t.pushedAt.Add(t.life))
}

// Newest returns the newest ticket and when it was made; ok is false if there
// is none.
func (t *Tickets) Newest() (ticket string, made time.Time, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	made, ok = t.made.get(t.newest)
	return t.newest, made, ok
}
