// Package queue delivers events to services, at least once and in order. It
// keeps them in a [store.Queue] until a service has accepted them.
//
// A [Queue] has two goroutines and one for each try. The dispatcher
// (dispatcher.go) takes what is due, for each service on its own. Housekeeping
// (housekeeping.go) reads sizes and removes what is too old or too much. All
// else that a process knows of a service is in memory for the time being:
// how its tries have ended (health.go) and how full its queue is (service.go).
package queue

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"wxproxy/tokens/store"
)

// Errors of [Queue.Add].
var (
	// ErrFull reports that the queue of a service has reached its limit.
	ErrFull = errors.New("queue of the service is full")
	// ErrTooLarge reports an event that no store takes.
	ErrTooLarge = errors.New("event is too large to be stored")
)

// DefaultKeep is how long an event is tried if its service does not say.
const DefaultKeep = 72 * time.Hour

const (
	// maxPayload is the maximum size of a stored event; see [store.QueueEntry].
	maxPayload = 2 << 20
	// slots is how many tries of one service a process has in flight. They
	// bound the memory: waiting events are in the store only. A repeated try
	// that takes longer than slowAfter moves to one of slowSlots: a service may
	// hang for some accounts only.
	slots     = 64
	slowSlots = 128
	slowAfter = 2 * time.Second
	// tryTimeout bounds a try. Settling it has the rest of the lease.
	tryTimeout = 10 * time.Second
	// storeTimeout bounds one operation of the store.
	storeTimeout = 5 * time.Second
)

// leaseTime is how long the lane of a try is reserved, as a duration. Only
// tests link another value.
var leaseTime = "30s"

var lease = func() time.Duration {
	d, err := time.ParseDuration(leaseTime)
	if err != nil {
		panic("BUG: queue: invalid lease: " + err.Error())
	}
	return d
}()

// Event is what services are to get. It is stored as JSON.
type Event struct {
	// ID identifies the event: the same for every service, every try, and for
	// WeChat's own repeats.
	ID       string `json:"id"`
	AppID    string `json:"appid"`            // of the account that it is about
	OpenID   string `json:"openid,omitempty"` // of the sender of a message, or ""
	Kind     string `json:"kind"`             // for logs: an InfoType, or "message"
	Document []byte `json:"document"`         // XML or JSON, as the services get it
	// ContentType of Document; "": text/xml.
	ContentType string `json:"content_type,omitempty"`
	// Reconciled is set if no push announced the event: wxproxy has found it
	// out by comparing its accounts with WeChat's list.
	Reconciled bool      `json:"reconciled,omitempty"`
	Created    time.Time `json:"created"` // when it was pushed
}

// Delivery is a try to deliver an event to a service.
type Delivery struct {
	Event
	Service string
	Attempt int // from 1
}

// Unavailable marks an error of [Config].Deliver: the service as a whole cannot
// be reached, or says so, and would not accept other events either. It returns
// nil if err is nil.
func Unavailable(err error) error {
	if err == nil {
		return nil
	}
	return unavailableError{err}
}

type unavailableError struct{ error }

func (e unavailableError) Unwrap() error { return e.error }

// Limits bound the queue of each service, waiting and dead entries together. A
// value of 0 is the default.
type Limits struct {
	Entries int   // default: 100,000
	Bytes   int64 // default: 256 MiB
}

// SharedLimits are the limits in a database of its own, such as Redis. The
// default of [Limits] is for a store in a file beside wxproxy, or in memory.
var SharedLimits = Limits{Entries: 1_000_000, Bytes: 1 << 30}

// Config configures a [Queue].
type Config struct {
	Store  store.Queue // required
	Limits Limits
	// Deliver sends an event to a service, until ctx ends. An error means that
	// the service has not accepted it; [Unavailable] marks those that concern
	// the service as a whole. Its text is shown to operators, so it must
	// contain neither the address of the service nor anything of the event.
	Deliver func(ctx context.Context, d Delivery) error
	// Service returns how long events are tried for a service, and whether it
	// is configured. It is called concurrently, and each time anew.
	Service func(name string) (keep time.Duration, ok bool)
	// StoreAhead returns how far the clock of the store is ahead of this
	// machine's; nil: not at all.
	StoreAhead func() time.Duration
	// Observe is called after each try, with "ok", "failed" or "dead"; nil
	// disables it.
	Observe func(result string)
	// Log receives the log; nil disables it.
	Log *slog.Logger
}

// Results of tries, as [Config].Observe gets them.
const (
	resultOK     = "ok"
	resultFailed = "failed"
	resultDead   = "dead"
)

// withDefaults returns c with defaults in place of zero values.
func (c Config) withDefaults() Config {
	if c.Limits.Entries <= 0 {
		c.Limits.Entries = 100_000
	}
	if c.Limits.Bytes <= 0 {
		c.Limits.Bytes = 256 << 20
	}
	if c.StoreAhead == nil {
		c.StoreAhead = func() time.Duration { return 0 }
	}
	if c.Observe == nil {
		c.Observe = func(string) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Queue delivers events. It is safe for concurrent use.
type Queue struct {
	c      Config
	health storeHealth

	woken   chan struct{} // has a value: the dispatcher is to look for work
	closing chan struct{} // closed: nothing more is taken
	close   func()
	ctx     context.Context // of tries and of the store; ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup // the goroutines of Queue, tries included

	mu       sync.Mutex
	services map[string]*service
	sizedAt  time.Time // when the sizes of services were read; zero: never
	// settling has the entries whose outcome the store does not have yet.
	settling map[store.QueueKey]store.QueueOutcome
}

// New returns a Queue that delivers until it is closed.
func New(c Config) *Queue {
	q := &Queue{
		c: c.withDefaults(), woken: make(chan struct{}, 1), closing: make(chan struct{}),
		services: map[string]*service{}, settling: map[store.QueueKey]store.QueueOutcome{},
	}
	q.health.log = q.c.Log
	q.close = sync.OnceFunc(func() { close(q.closing) })
	q.ctx, q.cancel = context.WithCancel(context.Background())
	q.running.Go(q.dispatch)
	q.running.Go(housekeeper{q, q.c}.run)
	return q
}

// Add stores an event for services. It is durable when Add returns nil.
// Services that have the event already, or got it within the time known, are
// left out.
//
// With [ErrFull] the services that have room got it all the same: a full queue
// is a matter of its service alone. A repeat of Add changes nothing for them.
func (q *Queue) Add(
	ctx context.Context, known time.Duration, e Event, services ...string,
) error {
	payload, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if len(payload) > maxPayload {
		return ErrTooLarge
	}
	names, isFull := q.reserve(services, len(payload))
	var entries []store.QueueEntry
	for _, service := range names {
		entries = append(entries, store.QueueEntry{
			QueueKey: store.QueueKey{Service: service, AppID: e.AppID, ID: e.ID},
			Payload:  payload, Created: e.Created,
		})
	}
	if len(entries) > 0 {
		added, err := q.c.Store.Add(ctx, known, entries...)
		q.confirm(names, len(payload), added)
		if err != nil {
			return err
		}
	}
	if isFull {
		return ErrFull
	}
	return nil
}

// reserve counts an event of size bytes for those of the services that have
// room, and returns them.
func (q *Queue) reserve(services []string, size int) (names []string, isFull bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, name := range services {
		if slices.Contains(names, name) {
			continue
		}
		s := q.service(name)
		if !s.hasRoom(q.c.Limits, size) {
			isFull = true
			continue
		}
		s.count(1, size)
		names = append(names, name)
	}
	return names, isFull
}

// confirm takes back what reserve has counted if not all of it was added, and
// wakes the dispatcher. Sizes are exact again a second later.
func (q *Queue) confirm(names []string, size, added int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, name := range names {
		s := q.service(name)
		if added < len(names) {
			s.count(-1, -size)
		}
		if added > 0 {
			s.tryAll()
		}
	}
	if added > 0 {
		q.wake()
	}
}

// wake makes the dispatcher look for work.
func (q *Queue) wake() {
	select {
	case q.woken <- struct{}{}:
	default: // it will anyway
	}
}

// isClosing reports whether Close was called.
func (q *Queue) isClosing() bool {
	select {
	case <-q.closing:
		return true
	default:
		return false
	}
}

// Close takes no more events from the store. It waits for the tries in flight.
// When ctx ends, it cancels them and returns the error of ctx. What was not
// delivered stays in the store. Add stores events also after Close.
func (q *Queue) Close(ctx context.Context) (err error) {
	q.close()
	done := make(chan struct{})
	go func() { q.running.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	q.cancel()
	<-done // every try ends with its context
	return err
}
