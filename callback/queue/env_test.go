package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"wxproxy/callback/queue"
	"wxproxy/tokens/store"
)

// services are fake services. answer decides about each try; nil accepts all.
type services struct {
	answer func(ctx context.Context, d queue.Delivery) error

	mu       sync.Mutex
	tries    []try
	busy     map[string]bool // lanes with a try in flight
	inFlight map[string]int  // by service
	most     map[string]int
	overlaps int // tries that began while another one of their lane was in flight
}

type try struct {
	queue.Delivery
	at       time.Time // when it began
	accepted bool
}

func (s *services) Deliver(ctx context.Context, d queue.Delivery) (err error) {
	lane, at := d.Service+"/"+d.AppID, time.Now()
	s.mu.Lock()
	if s.busy == nil {
		s.busy, s.inFlight, s.most = map[string]bool{}, map[string]int{}, map[string]int{}
	}
	if s.busy[lane] {
		s.overlaps++
	}
	s.busy[lane] = true
	s.inFlight[d.Service]++
	s.most[d.Service] = max(s.most[d.Service], s.inFlight[d.Service])
	answer := s.answer
	s.mu.Unlock()
	err = errors.New("panicked") // until it has returned
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.busy[lane] = false
		s.inFlight[d.Service]--
		s.tries = append(s.tries, try{d, at, err == nil})
	}()
	if answer == nil {
		err = nil
		return err
	}
	err = answer(ctx, d)
	return err
}

// set replaces answer.
func (s *services) set(answer func(context.Context, queue.Delivery) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// tried returns the tries of a service so far.
func (s *services) tried(service string) (tries []try) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tries {
		if t.Service == service {
			tries = append(tries, t)
		}
	}
	return tries
}

// accepted returns the ids that a service has accepted, those of one account if
// appid is not "".
func (s *services) accepted(service, appid string) (ids []string) {
	for _, t := range s.tried(service) {
		if t.accepted && (appid == "" || t.AppID == appid) {
			ids = append(ids, t.ID)
		}
	}
	return ids
}

// env is a queue on a store in memory, with fake services and fake time.
type env struct {
	*queue.Queue
	t       *testing.T
	store   store.Queue
	to      *services
	log     *lockedBuffer
	results map[string]int
	keeps   map[string]time.Duration // configured services
	mu      sync.Mutex
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// count returns how many lines contain text.
func (b *lockedBuffer) count(text string) int { return strings.Count(b.String(), text) }

// newEnv returns an env with the services a, b and c. Call Close, or leave that
// to run.
func newEnv(t *testing.T, change func(*queue.Config)) *env {
	e := &env{
		t: t, to: &services{}, log: &lockedBuffer{}, results: map[string]int{},
		keeps: map[string]time.Duration{
			"a": queue.DefaultKeep, "b": queue.DefaultKeep, "c": queue.DefaultKeep,
		},
	}
	c := queue.Config{
		Store:   store.NewMemory().(store.Queuer).Queue(),
		Deliver: e.to.Deliver,
		Service: func(name string) (time.Duration, bool) {
			e.mu.Lock()
			defer e.mu.Unlock()
			keep, ok := e.keeps[name]
			return keep, ok
		},
		Observe: func(result string) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.results[result]++
		},
		Log: slog.New(slog.NewTextHandler(e.log, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	if change != nil {
		change(&c)
	}
	e.store, e.Queue = c.Store, queue.New(c)
	return e
}

// run calls f with an env, in fake time.
func run(t *testing.T, change func(*queue.Config), f func(t *testing.T, e *env)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := newEnv(t, change)
		defer e.end()
		f(t, e)
	})
}

// end closes the queue, without patience for tries in flight.
func (e *env) end() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = e.Close(ctx)
}

// configure sets how long the events of a service are kept; 0 removes it.
func (e *env) configure(name string, keep time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keeps[name] = keep
	if keep == 0 {
		delete(e.keeps, name)
	}
}

func (e *env) observed(result string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.results[result]
}

// known is how long the tests' events are remembered.
const known = 20 * time.Minute

// event returns an event of an account. Its document is the only one that
// contains "typed".
func event(appid string, n int) queue.Event {
	return queue.Event{
		ID: fmt.Sprintf("%s-%d", appid, n), AppID: appid, Kind: "message",
		Document: []byte("<xml>typed</xml>"), Created: time.Now(),
	}
}

// add adds an event for services.
func (e *env) add(ev queue.Event, services ...string) {
	e.t.Helper()
	if err := e.Add(context.Background(), known, ev, services...); err != nil {
		e.t.Fatalf("adding %s: %v", ev.ID, err)
	}
}

// total returns how many entries of a service are in a state.
func (e *env) total(state store.QueueState, service string) int {
	e.t.Helper()
	total, _, err := e.List(context.Background(),
		store.QueueFilter{State: state, Service: service}, 0, 1)
	if err != nil {
		e.t.Fatal(err)
	}
	return total
}

// wait lets fake time pass.
func wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

var (
	errRejected = errors.New("service responded with HTTP 500")
	errGone     = queue.Unavailable(errors.New("connection refused"))
)

// account returns the appid of an account.
func account(n int) string { return fmt.Sprintf("wx%016d", n) }

// ids returns the ids of the first n events of an account.
func ids(appid string, n int) (all []string) {
	for i := range n {
		all = append(all, event(appid, i).ID)
	}
	return all
}

func equal[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
