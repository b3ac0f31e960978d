package queue_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"wxproxy/callback/queue"
)

// TestUnavailableAccountsDelayNoOther: a service {hangs, cannot be reached} for
// {10, 150} accounts since {0, 10} minutes, and accepts the events of one more,
// which gets one every {1 s, 20 s}, for 5 minutes. Each of these is tried
// within 2 s. If it hangs for 150 these are 32 s at first, and 5 s later. The
// other accounts keep their pauses.
func TestUnavailableAccountsDelayNoOther(t *testing.T) {
	hangs := func(ctx context.Context) error {
		<-ctx.Done()
		return queue.Unavailable(ctx.Err())
	}
	isGone := func(context.Context) error { return errGone }
	for _, test := range []struct {
		name     string
		fail     func(context.Context) error
		accounts int
		first    time.Duration // limits
		later    time.Duration
	}{
		{"hangs for 10", hangs, 10, 2 * time.Second, 2 * time.Second},
		{"hangs for 150", hangs, 150, 32 * time.Second, 5 * time.Second},
		{"cannot be reached for 10", isGone, 10, 2 * time.Second, 2 * time.Second},
		{"cannot be reached for 150", isGone, 150, 2 * time.Second, 2 * time.Second},
	} {
		for _, since := range []time.Duration{0, 10 * time.Minute} {
			for _, every := range []time.Duration{time.Second, 20 * time.Second} {
				limit := test.first
				if since > 0 {
					limit = test.later
				}
				t.Run(fmt.Sprintf("%s since %v, every %v", test.name, since, every),
					func(t *testing.T) {
						testUnavailable(t, test.fail, test.accounts, since, every, limit)
					})
			}
		}
	}
}

func testUnavailable(
	t *testing.T, fail func(context.Context) error, accounts int, since, every, limit time.Duration,
) {
	run(t, nil, func(t *testing.T, e *env) {
		good := account(accounts)
		e.to.set(func(ctx context.Context, d queue.Delivery) error {
			if d.AppID == good {
				return nil
			}
			return fail(ctx)
		})
		for n := range accounts {
			e.add(event(account(n), 0), "a")
		}
		wait(since)
		events := int(5 * time.Minute / every)
		for n := range events {
			e.add(event(good, n), "a")
			wait(every)
		}
		wait(limit)
		equal(t, "accepted events", e.to.accepted("a", good), ids(good, events))
		others := 0
		for _, try := range e.to.tried("a") {
			late := try.at.Sub(try.Created)
			if try.AppID != good {
				others++
			} else if late > limit {
				t.Fatalf("%s was tried after %v, want at most %v", try.ID, late, limit)
			}
		}
		if others > 25*accounts {
			t.Errorf("tries of the others: got %d, want at most 25 of each", others)
		}
	})
}

// TestDownServiceIsIdle: a service that cannot be reached, which takes a second
// to find out × 4,500 accounts. Each has some tries within 10 minutes. In the
// next 10 there is one try at a time, 10 s after the last.
func TestDownServiceIsIdle(t *testing.T) {
	run(t, nil, func(t *testing.T, e *env) {
		tries := 0
		e.to.set(func(context.Context, queue.Delivery) error {
			<-time.After(time.Second)
			e.mu.Lock()
			defer e.mu.Unlock()
			tries++
			return errGone
		})
		const accounts = 4_500
		for n := range accounts {
			e.add(event(account(n), 0), "a")
		}
		for _, limits := range [][2]int{{accounts, 4 * accounts}, {45, 61}} {
			wait(10 * time.Minute)
			e.mu.Lock()
			if tries < limits[0] || tries > limits[1] {
				t.Errorf("tries in 10 minutes: got %d, want %d to %d", tries, limits[0], limits[1])
			}
			tries = 0
			e.mu.Unlock()
		}
	})
}
