// Package queue delivers events to services, at least once and in order. It
// keeps them in a [store.Queue] until a service has accepted them.
package queue

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"wxproxy/tokens/store"
)

// Errors of [Queue.Add].
var (
	// ErrFull reports that the queue of a service has reached its limit.
	ErrFull = errors.New("queue of the service is full")
)

// DefaultKeep is how long an event is tried if its service does not say.
const DefaultKeep = 72 * time.Hour

// Event is what services are to get.
type Event struct {
	// ID identifies the event: the same for every service, every try, and for
	// WeChat's own repeats.
	ID       string
	AppID    string // of the account that it is about
	OpenID   string // of the sender of a message, or ""
	Kind     string // the label of the event, for logs: an InfoType, or "message"
	Document []byte // XML or JSON, as the services get it
	// ContentType of Document; "": text/xml.
	ContentType string
	// Reconciled is set if no push announced the event: wxproxy has found it
	// out by comparing its accounts with WeChat's list.
	Reconciled bool
	Created    time.Time // when it was pushed
}

// Delivery is a try to deliver an event to a service.
type Delivery struct {
	Event
	Service string
	Attempt int // from 1
}

// Unavailable marks an error of [Config].Deliver: the service as a whole cannot
// be reached, or says so, and other events would have no better luck. It returns
// nil if err is nil.
func Unavailable(err error) error {
	if err == nil {
		return nil
	}
	return unavailableError{err}
}

type unavailableError struct{ error }

func (e unavailableError) Unwrap() error { return e.error }

// Config configures a [Queue].
type Config struct {
	Store store.Queue // required
	// Deliver sends an event to a service, until ctx ends. An error means that
	// the service has not accepted it; [Unavailable] marks those that concern
	// the service as a whole. Its text is shown to operators, so it must
	// contain neither the address of the service nor anything of the event.
	Deliver func(ctx context.Context, d Delivery) error
	// Service returns how long events are tried for a service, and whether it
	// is configured. It is called concurrently.
	Service func(name string) (keep time.Duration, ok bool)
	// Observe is called after each try, with "ok", "failed" or "dead"; nil
	// disables it.
	Observe func(result string)
	// Log receives the log; nil disables it.
	Log *slog.Logger
}

// Queue delivers events. It is safe for concurrent use.
type Queue struct {
	c Config
}

// New returns a Queue that delivers until it is closed.
func New(c Config) *Queue { return &Queue{c: c} }

// Add stores an event for services. It is durable when Add returns nil.
// Services that have the event already, or got it within the time known, are
// left out.
func (q *Queue) Add(
	ctx context.Context, known time.Duration, e Event, services ...string,
) error {
	payload, err := json.Marshal(e)
	if err != nil {
		return err
	}
	var entries []store.QueueEntry
	for _, service := range services {
		entries = append(entries, store.QueueEntry{
			QueueKey: store.QueueKey{Service: service, AppID: e.AppID, ID: e.ID},
			Payload:  payload, Created: e.Created,
		})
	}
	_, err = q.c.Store.Add(ctx, known, entries...)
	return err
}

// Close ends the tries in flight when ctx ends, and delivers no more.
func (q *Queue) Close(ctx context.Context) error { return nil }

// Totals is the size of the queue as a whole.
type Totals struct {
	Waiting, Dead int
	Oldest        time.Time // Created of the oldest waiting event; zero if there is none
}

// Totals returns the size as it was a short while ago. known is false while the
// store has not said.
func (q *Queue) Totals() (t Totals, known bool) { return Totals{}, false }

// List returns the entries that match f; see [store.Queue].
func (q *Queue) List(
	ctx context.Context, f store.QueueFilter, offset, limit int,
) (total int, entries []store.QueueEntry, err error) {
	return q.c.Store.List(ctx, f, offset, limit)
}

// Stored is an entry with the event that it holds.
type Stored struct {
	store.QueueEntry
	Event *Event // nil if the stored event cannot be read
}

// Find returns the entries of an event, sorted by service. Without any the
// error is [store.ErrNotFound].
func (q *Queue) Find(ctx context.Context, id string) ([]Stored, error) {
	entries, err := q.c.Store.Find(ctx, id)
	if err != nil {
		return nil, err
	}
	found := make([]Stored, len(entries))
	for i, entry := range entries {
		found[i].QueueEntry = entry
		var e Event
		if json.Unmarshal(entry.Payload, &e) == nil {
			found[i].Event = &e
		}
	}
	return found, nil
}

// Retry makes the entries of an event due: that of one service, or all if
// service is "". It returns how many these are. Without any the error is
// [store.ErrNotFound].
func (q *Queue) Retry(ctx context.Context, id, service string) (n int, err error) {
	return q.each(ctx, id, service, q.c.Store.Revive)
}

// Drop removes the entries of an event: that of one service, or all if service
// is "". It returns how many these were. Without any the error is
// [store.ErrNotFound].
func (q *Queue) Drop(ctx context.Context, id, service string) (n int, err error) {
	return q.each(ctx, id, service, q.c.Store.Drop)
}

// each calls do with the entries of an event.
func (q *Queue) each(
	ctx context.Context, id, service string, do func(context.Context, store.QueueKey) error,
) (n int, err error) {
	entries, err := q.c.Store.Find(ctx, id)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if service != "" && e.Service != service {
			continue
		}
		switch err := do(ctx, e.QueueKey); {
		case err == nil:
			n++
		case !errors.Is(err, store.ErrNotFound):
			return n, err
		}
	}
	if n == 0 {
		return 0, store.ErrNotFound
	}
	return n, nil
}

// RetryAll makes the entries that match f due, and returns how many these are.
func (q *Queue) RetryAll(ctx context.Context, f store.QueueFilter) (n int, err error) {
	return 0, errors.New("not implemented")
}
