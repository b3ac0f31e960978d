package governor_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"wxproxy/tokens/governor"
	"wxproxy/wechat"
)

const (
	component = "wxcccccccccccccccc"
	other     = "wxdddddddddddddddd"
)

func authorizerToken() wechat.Call {
	return wechat.Call{Endpoint: "api_authorizer_token", AppID: component}
}

// outcome returns that of an errcode, or of one of the values below.
func outcome(code int) wechat.Outcome {
	switch code {
	case 0:
		return wechat.Outcome{}
	case unreachable:
		return wechat.Outcome{Err: fmt.Errorf("%w: connection refused", wechat.ErrUnreachable)}
	}
	return wechat.Outcome{Err: &wechat.Error{Code: code}}
}

// unreachable stands for a request without an answer in outcome.
const unreachable = -503

// pass lets d pass on the clock of the bubble.
func pass(d time.Duration) { <-time.After(d) }

// send passes a request and reports whether it was sent.
func send(
	t *testing.T, g *governor.Governor, ctx context.Context, call wechat.Call, code int,
) bool {
	t.Helper()
	leave, err := g.Enter(ctx, call)
	var n *governor.NotSentError
	if err != nil && !errors.As(err, &n) {
		t.Fatalf("Enter: got error %v, want a NotSentError", err)
	}
	if err == nil {
		leave(outcome(code))
	}
	return err == nil
}

// No more requests than the limit are in flight, in any mix of classes, and no
// class takes the slots of the others: limit 1–64 × 300 requests of each class.
func TestLimit(t *testing.T) {
	for _, limit := range []int{1, 2, 7, 64} {
		synctest.Test(t, func(t *testing.T) {
			g := governor.New(governor.Config{Limit: limit})
			var mu sync.Mutex
			inFlight, most, mostEarly, early, done := 0, 0, 0, 0, 0
			for i := range 900 {
				class := governor.Class(i % 3)
				go func() {
					leave, err := g.Enter(governor.WithClass(t.Context(), class), authorizerToken())
					if err != nil {
						t.Errorf("limit %d: Enter: %v", limit, err)
						return
					}
					mu.Lock()
					inFlight++
					if class == governor.Early {
						early++
					}
					most, mostEarly = max(most, inFlight), max(mostEarly, early)
					mu.Unlock()
					pass(time.Millisecond)
					mu.Lock()
					inFlight--
					if class == governor.Early {
						early--
					}
					done++
					mu.Unlock()
					leave(wechat.Outcome{})
				}()
			}
			synctest.Wait()
			if limit > 1 && g.Waiting() == 0 {
				t.Errorf("limit %d: got no waiting requests", limit)
			}
			pass(5 * time.Second)
			synctest.Wait()
			if done != 900 || most > limit || mostEarly > max(limit/2, 1) || g.Waiting() != 0 {
				t.Errorf("limit %d: got %d done, %d in flight, %d of them early, "+
					"%d waiting at the end, want 900, at most the limit, at most half of it, 0",
					limit, done, most, mostEarly, g.Waiting())
			}
		})
	}
}

// Slow requests of one class leave slots to the others: 16 early ones of ten
// seconds each, as many as the limit.
func TestSlowClassLeavesSlots(t *testing.T) {
	classes := []governor.Class{governor.ForCaller, governor.Early, governor.Background}
	for _, slow := range classes {
		synctest.Test(t, func(t *testing.T) {
			g := governor.New(governor.Config{Limit: 16})
			for range 16 {
				go func() {
					leave, err := g.Enter(governor.WithClass(t.Context(), slow), authorizerToken())
					if err == nil {
						pass(9 * time.Second)
						leave(wechat.Outcome{})
					}
				}()
			}
			synctest.Wait()
			for _, class := range classes {
				began := time.Now()
				ok := send(t, g, governor.WithClass(t.Context(), class), authorizerToken(), 0)
				if class != slow && (!ok || time.Since(began) > 0) {
					t.Errorf("class %d beside slow class %d: got %v after %v, want a slot at once",
						class, slow, ok, time.Since(began))
				}
			}
			pass(time.Minute)
		})
	}
}

// Requests that a caller waits for come first, and the component's token before
// all of them.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := governor.New(governor.Config{Limit: 1})
		leave, err := g.Enter(t.Context(), authorizerToken())
		if err != nil {
			t.Fatal(err)
		}
		var order []string
		enter := func(class governor.Class, endpoint, name string) {
			go func() {
				call := wechat.Call{Endpoint: endpoint, AppID: component}
				leave, err := g.Enter(governor.WithClass(t.Context(), class), call)
				if err != nil {
					t.Errorf("%s: got error %v", name, err)
					return
				}
				order = append(order, name)
				leave(wechat.Outcome{})
			}()
			synctest.Wait()
		}
		enter(governor.Background, "api_get_authorizer_list", "background")
		enter(governor.Early, "api_authorizer_token", "early")
		enter(governor.ForCaller, "api_authorizer_token", "caller 1")
		enter(governor.ForCaller, "api_authorizer_token", "caller 2")
		enter(governor.ForCaller, "api_component_token", "component")
		leave(wechat.Outcome{})
		synctest.Wait()
		want := []string{"component", "caller 1", "caller 2", "early", "background"}
		if !slices.Equal(order, want) {
			t.Errorf("order: got %v, want %v", order, want)
		}
	})
}

// A request that gets no slot within ten seconds is rejected, and one whose
// context is canceled earlier.
func TestWaitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var results []string
		g := governor.New(governor.Config{Limit: 1, Observe: func(_, result string) {
			results = append(results, result)
		}})
		leave, err := g.Enter(t.Context(), authorizerToken())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		sent := send(t, g, t.Context(), authorizerToken(), 0)
		if took := time.Since(began); sent || took != 10*time.Second {
			t.Errorf("without a slot: sent %v after %v, want false after 10 s", sent, took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := g.Enter(ctx, authorizerToken()); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: got error %v, want %v", err, context.Canceled)
		}
		leave(wechat.Outcome{})
		if !send(t, g, t.Context(), authorizerToken(), 0) {
			t.Error("with a slot: got an error")
		}
		if want := []string{"busy", "busy", "ok", "ok"}; !slices.Equal(results, want) {
			t.Errorf("results: got %v, want %v", results, want)
		}
	})
}

// After an answer that concerns more than one account, requests are paused: for
// how long, after how many failures, and which others are sent all the same.
func TestPauses(t *testing.T) {
	list := wechat.Call{Endpoint: "api_get_authorizer_list", AppID: component}
	componentToken := wechat.Call{Endpoint: "api_component_token", AppID: component}
	for name, c := range map[string]struct {
		code   int
		reason governor.Reason
		after  int // failures
		pause  time.Duration
		paused []wechat.Call
		sent   []wechat.Call
	}{
		"daily quota": {45009, governor.Quota, 1, 30 * time.Minute, nil,
			[]wechat.Call{list, componentToken, {Endpoint: "api_authorizer_token", AppID: other}}},
		"quota of a minute": {45011, governor.Quota, 1, time.Minute, nil, []wechat.Call{list}},
		"concurrency": {9402202, governor.Quota, 1, 5 * time.Second, nil,
			[]wechat.Call{list}},
		"address": {61004, governor.ComponentRefused, 1, time.Minute,
			[]wechat.Call{list, componentToken},
			[]wechat.Call{{Endpoint: "stable_token", AppID: other}}},
		"no answer": {unreachable, governor.Unreachable, 2, 500 * time.Millisecond, nil,
			[]wechat.Call{list, componentToken}},
		"invalid refresh token": {61023, "", 0, 0, nil, nil},
		"busy":                  {-1, "", 0, 0, nil, nil},
		"rejected token":        {40001, "", 0, 0, nil, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := governor.New(governor.Config{})
			call := authorizerToken()
			for range max(c.after, 10) {
				if c.after > 0 && g.Open(c.reason) {
					break
				}
				send(t, g, t.Context(), call, c.code)
			}
			if c.reason == "" {
				if !send(t, g, t.Context(), call, 0) {
					t.Errorf("%s: paused, want it to concern one account only", name)
				}
				return
			}
			for _, call := range append(c.paused, call) {
				var n *governor.NotSentError
				_, err := g.Enter(t.Context(), call)
				if !errors.As(err, &n) || n.Reason != c.reason || time.Until(n.Until) != c.pause {
					t.Errorf("%s, %s: got error %v, want %s for %v",
						name, call.Endpoint, err, c.reason, c.pause)
				}
			}
			for _, call := range c.sent {
				if !send(t, g, t.Context(), call, 0) {
					t.Errorf("%s, %s of %s: paused, too", name, call.Endpoint, call.AppID)
				}
			}
			if !send(t, g, governor.Insist(t.Context()), call, c.code) {
				t.Errorf("%s: an operator's request is paused, too", name)
			}
			// A request finds out whether the reason persists, and no other one
			// is sent before its outcome is known.
			pass(2 * c.pause) // no answer: the operator's request failed, too
			leave, err := g.Enter(t.Context(), call)
			if err != nil {
				t.Fatalf("%s, after the pause: got error %v", name, err)
			}
			if send(t, g, t.Context(), call, 0) {
				t.Errorf("%s: a second request is sent while the first one finds out", name)
			}
			leave(wechat.Outcome{})
			if g.Open(c.reason) || !send(t, g, t.Context(), call, 0) {
				t.Errorf("%s: still paused after a success", name)
			}
		})
	}
}

// While WeChat does not answer, pauses grow to ten seconds and not further.
// Ten minutes of it cost 70 requests of thousands.
func TestPausesGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := governor.New(governor.Config{})
		sent, longest, last := 0, time.Duration(0), time.Now()
		end := time.Now().Add(10 * time.Minute)
		for ; time.Now().Before(end); pass(50 * time.Millisecond) {
			if send(t, g, t.Context(), authorizerToken(), unreachable) {
				sent++
				longest, last = max(longest, time.Since(last)), time.Now()
			}
		}
		if sent > 70 || longest < 10*time.Second || longest > 10*time.Second+50*time.Millisecond {
			t.Errorf("got %d requests, %v apart at most, want at most 70, 10 s", sent, longest)
		}
		silent, failing, err := g.Silence()
		if silent < 10*time.Minute || failing < 10*time.Minute || err == nil {
			t.Errorf("Silence: got %v, failing for %v, %v, want ten minutes", silent, failing, err)
		}
		pass(10 * time.Second)
		if !send(t, g, t.Context(), authorizerToken(), 61023) || g.Open(governor.Unreachable) {
			t.Error("still paused after an answer")
		}
		if silent, failing, err := g.Silence(); silent != 0 || failing != 0 || err != nil {
			t.Errorf("after an answer: got %v, %v, %v, want 0, 0, nil", silent, failing, err)
		}
	})
}

// Requests that time out while others succeed stop nothing: the accounts are
// slow, and not WeChat. Requests that were canceled do not count at all.
func TestSlowAccountsPauseNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := governor.New(governor.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		var leaves []func(wechat.Outcome)
		for range 16 {
			leave, err := g.Enter(ctx, authorizerToken())
			if err != nil {
				t.Fatal(err)
			}
			leaves = append(leaves, leave)
		}
		send(t, g, t.Context(), authorizerToken(), 0)
		for _, leave := range leaves {
			leave(outcome(unreachable))
		}
		if g.Open(governor.Unreachable) {
			t.Error("16 slow requests and one success: paused")
		}
		leaves = leaves[:0]
		for range 16 {
			leave, _ := g.Enter(ctx, authorizerToken())
			leaves = append(leaves, leave)
		}
		cancel()
		for _, leave := range leaves {
			leave(outcome(unreachable))
		}
		if g.Open(governor.Unreachable) {
			t.Error("16 canceled requests: paused")
		}
	})
}

// A component's token that keeps being rejected although it is new pauses the
// endpoints that need it for a minute, but not the one that issues it. One
// account whose token requests are rejected does not, while others succeed.
func TestRejectedToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := governor.New(governor.Config{})
		for range 10 {
			g.RejectedToken(component)
			send(t, g, t.Context(), authorizerToken(), 0)
		}
		if g.Open(governor.ComponentRefused) {
			t.Fatal("one rejected account among others: paused")
		}
		g.RejectedToken(component)
		g.RejectedToken(component)
		if send(t, g, t.Context(), authorizerToken(), 0) {
			t.Error("two rejections in a row: not paused")
		}
		issue := wechat.Call{Endpoint: "api_component_token", AppID: component}
		if !send(t, g, t.Context(), issue, 0) {
			t.Error("the component's token cannot be fetched")
		}
		pass(time.Minute)
		if !send(t, g, t.Context(), authorizerToken(), 40001) {
			t.Error("still paused after a minute")
		}
		// The rest of this attempt: a new token, which is accepted.
		if !send(t, g, governor.Insist(t.Context()), authorizerToken(), 0) ||
			g.Open(governor.ComponentRefused) {
			t.Error("still paused after an accepted token")
		}
	})
}

// Many requests that fail together count as one failure: the pause does not grow
// with their number. A request that was sent before a pause does not end it.
func TestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := governor.New(governor.Config{})
		var leaves []func(wechat.Outcome)
		for range 50 {
			leave, err := g.Enter(t.Context(), authorizerToken())
			if err != nil {
				t.Fatal(err)
			}
			leaves = append(leaves, leave)
		}
		for _, leave := range leaves[:49] {
			leave(outcome(unreachable))
		}
		_, err := g.Enter(t.Context(), authorizerToken())
		var n *governor.NotSentError
		if !errors.As(err, &n) || time.Until(n.Until) != 500*time.Millisecond {
			t.Errorf("49 failures together: got error %v, want a pause of 500 ms", err)
		}
		leaves[49](wechat.Outcome{})
		if !g.Open(governor.Unreachable) {
			t.Error("an old success ends the pause")
		}
	})
}
