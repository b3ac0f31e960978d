// Package governor stands in front of WeChat: every request that wxproxy makes
// for itself passes it. It bounds how many of them are in flight, serves those
// first that a caller waits for, and stops sending requests that WeChat would
// reject for a reason that concerns more than one account.
//
// What it knows belongs to this process and is not stored.
package governor

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"wxproxy/wechat"
)

// DefaultLimit is the default of [Config.Limit].
const DefaultLimit = 64

// Config configures a Governor. All fields have defaults.
type Config struct {
	Limit int              // requests in flight at one time; default: DefaultLimit
	Now   func() time.Time // default: time.Now
	// Observe is called for each request. result is ok, refused, unreachable,
	// paused if a breaker kept it from being sent, or busy if no slot became
	// free in time. nil disables it.
	Observe func(endpoint, result string)
	Log     *slog.Logger // nil disables it
}

// Governor implements [wechat.Gate]. It is safe for concurrent use.
type Governor struct {
	config Config
	slots  slots

	mu       sync.Mutex
	event    uint64 // counts admissions and outcomes
	breakers map[scope]*breaker

	answered time.Time // when WeChat last answered, at first when the Governor was made
	failing  time.Time // when the first request since then began that failed; zero if none did
	lastErr  error     // of the last one
}

// New returns a Governor without open breakers.
func New(c Config) *Governor {
	if c.Limit <= 0 {
		c.Limit = DefaultLimit
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Observe == nil {
		c.Observe = func(string, string) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Governor{
		config: c, slots: slots{limit: c.Limit},
		breakers: map[scope]*breaker{}, answered: c.Now(),
	}
}

// NotSentError is the error of [Governor.Enter] for a request that was not
// sent.
type NotSentError struct {
	Reason Reason    // "" if no slot became free in time
	Until  time.Time // when the next attempt makes sense; zero if unknown
	text   string
}

// Error implements the error interface.
func (e *NotSentError) Error() string { return e.text }

// insistentKey is the key of the mark that Insist sets.
type insistentKey struct{}

// Insist returns a context whose requests are sent although a breaker is open:
// an operator asked for them, or they finish what a request began that the
// breaker let through.
func Insist(ctx context.Context) context.Context {
	return context.WithValue(ctx, insistentKey{}, true)
}

// Insists reports whether Insist returned ctx.
func Insists(ctx context.Context) bool { return ctx.Value(insistentKey{}) != nil }

// Enter implements [wechat.Gate]. Its errors are those of type *NotSentError,
// and the one of ctx if that was canceled.
//
// A slot is held during one request and never while waiting for another one. So
// the renewal of an account that needs a new token of the component first cannot
// deadlock, even with one slot.
func (g *Governor) Enter(
	ctx context.Context, call wechat.Call,
) (leave func(wechat.Outcome), err error) {
	if err := g.admit(ctx, call, false); err != nil {
		g.config.Observe(call.Endpoint, "paused")
		return nil, err
	}
	class := classOf(ctx)
	// All renewals may be waiting for the component's token.
	if !g.slots.acquire(ctx, class, call.Endpoint == "api_component_token") {
		g.config.Observe(call.Endpoint, "busy")
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, ctx.Err()
		}
		return nil, &NotSentError{text: "too many requests of wxproxy's own to WeChat are waiting"}
	}
	// A breaker may have opened while the request was waiting.
	if err := g.admit(ctx, call, true); err != nil {
		g.slots.release(class)
		g.config.Observe(call.Endpoint, "paused")
		return nil, err
	}
	g.mu.Lock()
	g.event++
	began, at := g.event, g.config.Now()
	g.mu.Unlock()
	return func(o wechat.Outcome) {
		g.slots.release(class)
		g.settle(ctx, call, o.Err, began, at)
	}, nil
}

// Check returns the error with which Enter would reject a request now, or nil.
func (g *Governor) Check(ctx context.Context, call wechat.Call) error {
	return g.admit(ctx, call, false)
}

// admit returns an error if a breaker rejects the request. take is set if the
// request is about to be sent.
func (g *Governor) admit(ctx context.Context, call wechat.Call, take bool) error {
	if Insists(ctx) {
		return nil
	}
	now := g.config.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	scopes := scopesOf(call)
	for _, s := range scopes {
		if b := g.breakers[s]; b != nil && b.open && now.Before(b.until) {
			return &NotSentError{Reason: s.reason, Until: b.until, text: b.text}
		}
	}
	for _, s := range scopes {
		if b := g.breakers[s]; take && b != nil {
			b.admits(now)
		}
	}
	return nil
}

// settle notes what became of a request.
func (g *Governor) settle(
	ctx context.Context, call wechat.Call, err error, began uint64, at time.Time,
) {
	result := "ok"
	switch {
	case wechat.Code(err) != 0:
		result = "refused"
	case err != nil:
		result = "unreachable"
	}
	g.config.Observe(call.Endpoint, result)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return // wxproxy gave up, which says nothing about WeChat
	}
	now := g.config.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.event++
	if result == "unreachable" {
		if g.failing.IsZero() {
			g.failing = at
		}
		g.lastErr = err
	} else {
		g.answered, g.failing, g.lastErr = now, time.Time{}, nil
	}
	for _, s := range scopesOf(call) {
		last := time.Duration(0)
		if b := g.breakers[s]; b != nil {
			last = b.pause
		}
		failed, known, pause := s.verdict(err, last)
		switch {
		case failed:
			g.fail(s, failure{s.after(), pause, s.describe(call, err)}, began, now)
		case known:
			g.succeed(s, began)
		}
	}
}

// RejectedToken notes that WeChat rejects the component's token although it is
// new: another program keeps replacing it. One account alone for which WeChat
// rejects it does not count, while it serves others.
func (g *Governor) RejectedToken(component string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.event++
	g.fail(rejectedTokenScope(component), failure{refusedAfter, componentPause,
		"WeChat rejects each new token of the component: " +
			"another program may be replacing it with the same app secret",
	}, g.event, g.config.Now())
}

// fail notes a failure. It requires g.mu.
func (g *Governor) fail(s scope, f failure, began uint64, now time.Time) {
	b := g.breakers[s]
	if b == nil {
		b = &breaker{}
		g.breakers[s] = b
	}
	if b.fail(f, began, g.event, now) {
		g.config.Log.Warn("requests to WeChat paused", "reason", string(s.reason),
			"endpoint", s.endpoint, "cause", f.text, "until", b.until)
	}
}

// succeed notes a success. It requires g.mu.
func (g *Governor) succeed(s scope, began uint64) {
	b := g.breakers[s]
	if b == nil {
		b = &breaker{}
		g.breakers[s] = b
	}
	if b.succeed(began, g.event) {
		g.config.Log.Info("requests to WeChat resumed", "reason", string(s.reason),
			"endpoint", s.endpoint)
	}
}

// Limit returns how many requests may be in flight at one time.
func (g *Governor) Limit() int { return g.config.Limit }

// EarlyShare returns how many requests of class Early may be in flight.
func (g *Governor) EarlyShare() int { return share(Early, g.config.Limit) }

// Waiting returns how many requests wait for a slot.
func (g *Governor) Waiting() int { return g.slots.waiting() }

// Open reports whether a breaker is open for a reason. A breaker whose pause
// ended a minute ago counts as closed, although no request has been made that
// could close it.
func (g *Governor) Open(r Reason) bool {
	latest := g.config.Now().Add(-time.Minute)
	g.mu.Lock()
	defer g.mu.Unlock()
	for s, b := range g.breakers {
		if s.reason == r && b.open && b.until.After(latest) {
			return true
		}
	}
	return false
}

// Silence returns for how long WeChat has not answered this process, and since
// when requests have failed. failing is 0, and err nil, if none has failed
// since the last answer.
func (g *Governor) Silence() (silent, failing time.Duration, err error) {
	now := g.config.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.failing.IsZero() {
		failing = now.Sub(g.failing)
	}
	return now.Sub(g.answered), failing, g.lastErr
}
