package queue_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"wxproxy/callback/queue"
	"wxproxy/tokens/store"
)

// TestDeliveryInOrder: 3 services × 5 accounts × 20 events × 1 and 3 processes
// × tries of 0–200 ms of which every third fails. Each service accepts each
// event once, those of an account in the order in which they were added, and
// never gets two of an account at a time.
func TestDeliveryInOrder(t *testing.T) {
	for _, processes := range []int{1, 3} {
		run(t, nil, func(t *testing.T, e *env) {
			random := rand.New(rand.NewPCG(1, 2))
			e.to.set(func(context.Context, queue.Delivery) error {
				e.mu.Lock()
				took, fails := random.IntN(200), random.IntN(3) == 0
				e.mu.Unlock()
				<-time.After(time.Duration(took) * time.Millisecond)
				if fails {
					return errRejected
				}
				return nil
			})
			for range processes - 1 {
				other := newEnv(t, func(c *queue.Config) {
					c.Store, c.Deliver = e.store, e.to.Deliver
				})
				defer other.end()
			}
			for i := range 20 {
				for a := range 5 {
					e.add(event(account(a), i), "a", "b", "c")
				}
			}
			wait(10 * time.Minute)
			for _, service := range []string{"a", "b", "c"} {
				for a := range 5 {
					got := e.to.accepted(service, account(a))
					equal(t, "accepted by "+service, got, ids(account(a), 20))
				}
			}
			if e.to.overlaps > 0 {
				t.Errorf("got %d concurrent tries of an account, want 0", e.to.overlaps)
			}
			if n := e.total(store.AnyQueueState, ""); n != 0 {
				t.Errorf("stored afterwards: got %d entries, want 0", n)
			}
		})
	}
}

// TestEventsOnce: the same event added 3 times × while it waits, after it was
// delivered, and for one service more. Each service gets it once. The same
// service twice in one call is one.
func TestEventsOnce(t *testing.T) {
	run(t, nil, func(t *testing.T, e *env) {
		ev := event(account(1), 0)
		e.add(ev, "a", "a")
		e.add(ev, "a")
		wait(time.Second)
		e.add(ev, "a", "b")
		wait(time.Second)
		for _, service := range []string{"a", "b"} {
			if tries := e.to.tried(service); len(tries) != 1 || tries[0].Attempt != 1 ||
				string(tries[0].Document) != "<xml>typed</xml>" {
				t.Errorf("tries at %s: got %+v, want one, of the whole event", service, tries)
			}
		}
	})
}

// TestPauses: one account, whose tries fail for an hour. The pauses double from
// half a second to a minute. A new event shortens the present one.
func TestPauses(t *testing.T) {
	for name, failure := range map[string]error{"rejected": errRejected, "unavailable": errGone} {
		t.Run(name, func(t *testing.T) {
			run(t, nil, func(t *testing.T, e *env) {
				e.to.set(func(context.Context, queue.Delivery) error { return failure })
				e.add(event(account(1), 0), "a")
				wait(time.Hour)
				tries := e.to.tried("a")
				want := 500 * time.Millisecond
				for i := range len(tries) - 1 {
					// Other processes may take up to a second more.
					pause := tries[i+1].at.Sub(tries[i].at)
					if pause < want || pause > want+10*time.Millisecond || tries[i].Attempt != i+1 {
						t.Fatalf("after attempt %d: got a pause of %v, want %v",
							tries[i].Attempt, pause, want)
					}
					want = min(2*want, time.Minute)
				}
				if len(tries) < 60 {
					t.Errorf("got %d tries in an hour, want at least 60", len(tries))
				}
				e.to.set(nil)
				e.add(event(account(1), 1), "a")
				wait(600 * time.Millisecond)
				equal(t, "accepted", e.to.accepted("a", ""), ids(account(1), 2))
			})
		})
	}
}

// TestOneDelaysNoOther: service a {hangs, cannot be reached, rejects at once
// or slowly, panics} for all events of 300 accounts, and b for those of one. b
// gets the events of 299 accounts at once, and c all.
func TestOneDelaysNoOther(t *testing.T) {
	for name, fail := range map[string]func(context.Context, queue.Delivery) error{
		"hangs": func(ctx context.Context, _ queue.Delivery) error {
			<-ctx.Done()
			return queue.Unavailable(ctx.Err())
		},
		"is gone": func(context.Context, queue.Delivery) error { return errGone },
		"rejects": func(context.Context, queue.Delivery) error { return errRejected },
		"panics":  func(context.Context, queue.Delivery) error { panic("typed") },
		"rejects slowly": func(context.Context, queue.Delivery) error {
			<-time.After(9 * time.Second)
			return errRejected
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, nil, func(t *testing.T, e *env) {
				e.to.set(func(ctx context.Context, d queue.Delivery) error {
					if d.Service == "a" || d.Service == "b" && d.AppID == account(7) {
						return fail(ctx, d)
					}
					return nil
				})
				began := time.Now()
				for n := range 300 {
					e.add(event(account(n), 0), "a", "b", "c")
				}
				wait(5 * time.Second)
				for n := range 300 {
					e.add(event(account(n), 1), "a", "b", "c")
				}
				wait(time.Minute)
				if n := len(e.to.accepted("c", "")); n != 600 {
					t.Errorf("c: got %d events, want 600", n)
				}
				if n := len(e.to.accepted("b", "")); n != 598 {
					t.Errorf("b: got %d events, want 598", n)
				}
				for _, service := range []string{"b", "c"} {
					for _, try := range e.to.tried(service) {
						late := try.at.Sub(try.Created)
						if try.accepted && late > time.Second {
							t.Fatalf("%s got an event after %v, want at most a second",
								service, late)
						}
					}
				}
				n, waiting := len(e.to.accepted("a", "")), e.total(store.WaitingEntries, "a")
				if n != 0 || waiting != 600 {
					t.Errorf("a: got %d events, and %d that wait, want 0 and 600", n, waiting)
				}
				if n := e.log.count("service=a account="); n != 1 && n != 2 {
					t.Errorf("in %v: got %d lines that a fails, want one a minute",
						time.Since(began), n)
				}
				if strings.Contains(e.log.String(), "typed") {
					t.Error("the log contains a document")
				}
			})
		})
	}
}

// TestDownService: 400 accounts of a service that cannot be reached for 10
// minutes: × tries while it is down, × an event of a new account just after it
// is back, and × without one. Then all events arrive within a few seconds.
func TestDownService(t *testing.T) {
	for _, isHastened := range []bool{true, false} {
		run(t, nil, func(t *testing.T, e *env) {
			e.to.set(func(context.Context, queue.Delivery) error {
				<-time.After(time.Millisecond)
				return errGone
			})
			for n := range 400 {
				e.add(event(account(n), 0), "a")
			}
			wait(time.Minute)
			before := len(e.to.tried("a"))
			e.to.mu.Lock()
			e.to.most["a"] = 0
			e.to.mu.Unlock()
			wait(9 * time.Minute)
			if n := len(e.to.tried("a")) - before; n < 50 || n > 60 || e.to.most["a"] != 1 {
				t.Errorf("in 9 minutes of the outage: got %d tries, %d at a time, "+
					"want about one in 10 s, one at a time", n, e.to.most["a"])
			}
			e.to.set(nil)
			limit := 11 * time.Second
			if isHastened {
				e.add(event(account(400), 0), "a")
				limit = 2 * time.Second
			}
			back := time.Now()
			wait(limit)
			if n := e.total(store.WaitingEntries, "a"); n != 0 {
				t.Errorf("%v after it was back: got %d events that wait, want 0",
					time.Since(back), n)
			}
			if e.log.count("service did not accept an event") != 1 ||
				e.log.count("service accepts events again") != 1 {
				t.Errorf("log: got\n%s\nwant a line that it failed, and one that it recovered",
					e.log)
			}
		})
	}
}

// TestPoisonedAccountsWakeNone: 3 accounts whose events are rejected, while 20
// others are accepted one a second. Those that are rejected keep their pauses.
func TestPoisonedAccountsWakeNone(t *testing.T) {
	run(t, nil, func(t *testing.T, e *env) {
		e.to.set(func(_ context.Context, d queue.Delivery) error {
			if d.AppID < account(3) {
				return errRejected
			}
			return nil
		})
		for n := range 3 {
			e.add(event(account(n), 0), "a")
		}
		for i := range 600 {
			e.add(event(account(3+i%20), i), "a")
			wait(time.Second)
		}
		failed := len(e.to.tried("a")) - len(e.to.accepted("a", ""))
		if failed > 3*17 {
			t.Errorf("rejected tries in 10 minutes: got %d, want at most 51", failed)
		}
		began, ended := e.log.count("did not accept"), e.log.count("accepts events again")
		if began != 1 || ended != 0 {
			t.Errorf("log: got %d lines of failures and %d of recoveries, want 1 and 0",
				began, ended)
		}
	})
}

// TestDead: keep {2 s, 10 minutes} × the event is {rejected, unreadable}. It is
// dead after that, does not delay the next one, and Retry delivers it.
func TestDead(t *testing.T) {
	for _, keep := range []time.Duration{2 * time.Second, 10 * time.Minute} {
		run(t, nil, func(t *testing.T, e *env) {
			e.configure("a", keep)
			isFixed := false
			e.to.set(func(_ context.Context, d queue.Delivery) error {
				if d.ID == event(account(1), 0).ID && !isFixed {
					return errRejected
				}
				return nil
			})
			began := time.Now()
			e.add(event(account(1), 0), "a")
			e.add(event(account(1), 1), "a")
			wait(keep - time.Millisecond)
			if n := e.total(store.WaitingEntries, "a"); n != 2 {
				t.Errorf("before %v: got %d events that wait, want 2", keep, n)
			}
			wait(62 * time.Second)
			equal(t, "accepted", e.to.accepted("a", ""), ids(account(1), 2)[1:])
			if n := e.total(store.DeadEntries, "a"); n != 1 || e.observed("dead") != 1 ||
				e.log.count("event is dead") != 1 {
				t.Errorf("after %v: got %d dead events, counted %d, log\n%s\nwant one",
					time.Since(began), n, e.observed("dead"), e.log)
			}
			totals, isKnown := e.Totals()
			if totals != (queue.Totals{Dead: 1}) || !isKnown {
				t.Errorf("totals: got %+v, %v, want one dead event", totals, isKnown)
			}
			isFixed = true
			n, err := e.Retry(context.Background(), event(account(1), 0).ID, "")
			if n != 1 || err != nil {
				t.Errorf("retry: got %d, %v, want 1", n, err)
			}
			wait(time.Millisecond)
			both := ids(account(1), 2)
			equal(t, "accepted", e.to.accepted("a", ""), []string{both[1], both[0]})
		})
	}
}

// TestUnreadableEvent: a payload that is {no JSON, another account's, another
// event's, empty}. It is dead at once and does not delay its lane.
func TestUnreadableEvent(t *testing.T) {
	for _, payload := range []string{
		"typed", `{"id":"x","appid":"wx2"}`, `{"id":"y","appid":"wx1"}`, "",
	} {
		run(t, nil, func(t *testing.T, e *env) {
			_, err := e.store.Add(t.Context(), known, store.QueueEntry{
				QueueKey: store.QueueKey{Service: "a", AppID: "wx1", ID: "x"},
				Payload:  []byte(payload), Created: time.Now(),
			})
			if err != nil {
				t.Fatal(err)
			}
			e.add(event("wx1", 1), "a")
			wait(2 * time.Second)
			if n := len(e.to.accepted("a", "")); n != 1 || e.total(store.DeadEntries, "a") != 1 {
				t.Errorf("payload %q: got %d events and %d dead ones, want one of each",
					payload, n, e.total(store.DeadEntries, "a"))
			}
			found, err := e.Find(t.Context(), "x")
			if err != nil || len(found) != 1 || found[0].Error == "" {
				t.Errorf("payload %q: found %+v, %v, want an entry with a reason",
					payload, found, err)
			}
			if strings.Contains(e.log.String(), "typed") {
				t.Error("the log contains the payload")
			}
		})
	}
}

// TestFull: a service that cannot be reached, with room for {5 events, 5 times
// the bytes of one}, and another one. The 6th event is ErrFull, and the other
// service has all. When events were delivered, there is room again.
func TestFull(t *testing.T) {
	for name, limits := range map[string]queue.Limits{
		"entries": {Entries: 5}, "bytes": {Bytes: 5 * 220},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(c *queue.Config) { c.Limits = limits }, func(t *testing.T, e *env) {
				e.to.set(func(_ context.Context, d queue.Delivery) error {
					if d.Service == "a" {
						return errGone
					}
					return nil
				})
				ctx, n := t.Context(), 0
				var err error
				for ; n < 20 && err == nil; n++ {
					if n == 3 {
						wait(5 * time.Second) // sizes are read meanwhile
					}
					err = e.Add(ctx, known, event(account(1), n), "a", "b")
				}
				if !errors.Is(err, queue.ErrFull) || n < 5 || n > 8 {
					t.Fatalf("event %d: got %v, want about the 6th to be ErrFull", n, err)
				}
				wait(2 * time.Second)
				equal(t, "accepted by b", e.to.accepted("b", ""), ids(account(1), n))
				e.to.set(nil)
				wait(20 * time.Second)
				if err := e.Add(ctx, known, event(account(1), n-1), "a", "b"); err != nil {
					t.Errorf("repeat after the service was back: got %v", err)
				}
				wait(2 * time.Second)
				equal(t, "accepted by a", e.to.accepted("a", ""), ids(account(1), n))
				equal(t, "accepted by b", e.to.accepted("b", ""), ids(account(1), n))
			})
		})
	}
}

// TestTooLarge: a document of {1.2, 2} MiB. The store takes 2 MiB of JSON.
func TestTooLarge(t *testing.T) {
	run(t, nil, func(t *testing.T, e *env) {
		for size, want := range map[int]error{1200 << 10: nil, 2 << 20: queue.ErrTooLarge} {
			ev := event(account(1), size)
			ev.Document = make([]byte, size)
			if err := e.Add(t.Context(), known, ev, "a"); !errors.Is(err, want) {
				t.Errorf("document of %d bytes: got %v, want %v", size, err, want)
			}
		}
	})
}

// TestUnconfiguredService: events of a service that no rule names any more, 71
// hours, and then {73 hours, a rule again}. They are never tried without a
// rule, and dead after 72 hours. Another process that has the rule delivers.
func TestUnconfiguredService(t *testing.T) {
	run(t, nil, func(t *testing.T, e *env) {
		e.to.set(func(context.Context, queue.Delivery) error { return errGone })
		e.add(event(account(1), 0), "a")
		e.add(event(account(2), 0), "b")
		e.add(event(account(3), 0), "c")
		wait(time.Second)
		for _, service := range []string{"a", "b", "c"} {
			e.configure(service, 0)
		}
		wait(time.Minute)
		tries, atC := len(e.to.tries), len(e.to.tried("c"))
		wait(71 * time.Hour)
		if len(e.to.tries) != tries || e.total(store.WaitingEntries, "") != 3 {
			t.Errorf("after 71 h: got %d tries more and %d events that wait, want 0 and 3",
				len(e.to.tries)-tries, e.total(store.WaitingEntries, ""))
		}
		if n := e.log.count("events wait for a service that is not configured"); n != 3 {
			t.Errorf("lines about services that are not configured: got %d, want 3", n)
		}
		e.to.set(nil)
		e.configure("a", queue.DefaultKeep)
		wait(3 * time.Second)
		equal(t, "accepted by a", e.to.accepted("a", ""), ids(account(1), 1))
		other := newEnv(t, func(c *queue.Config) { c.Store = e.store })
		other.configure("c", 0)
		wait(time.Second)
		other.end()
		equal(t, "accepted by b", other.to.accepted("b", ""), ids(account(2), 1))
		wait(2 * time.Hour)
		if n := e.total(store.DeadEntries, "c"); n != 1 || len(e.to.tried("c")) != atC {
			t.Errorf("c after 73 h: got %d dead events and %d tries, want 1 and still %d",
				n, len(e.to.tried("c")), atC)
		}
	})
}

// slowExpiry is a queue in which it takes a minute to make an entry dead.
type slowExpiry struct{ store.Queue }

func (q slowExpiry) Expire(ctx context.Context, key store.QueueKey, reason string) error {
	select {
	case <-time.After(time.Minute):
		return q.Queue.Expire(ctx, key, reason)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestSizesDuringASweep: a sweep of 30 events takes half an hour. The sizes are
// known all the time, and include what was added meanwhile. Close does not wait
// for the sweep.
func TestSizesDuringASweep(t *testing.T) {
	slow := func(c *queue.Config) { c.Store = slowExpiry{c.Store} }
	run(t, slow, func(t *testing.T, e *env) {
		e.configure("a", 0)
		for n := range 30 {
			e.add(event(account(n), 0), "a")
		}
		wait(queue.DefaultKeep + 10*time.Minute)
		dead := e.total(store.DeadEntries, "a")
		if dead == 0 || dead == 30 {
			t.Fatalf("got %d dead events, want a sweep that has begun and not ended", dead)
		}
		e.add(event(account(30), 0), "a")
		wait(2 * time.Second)
		if got, known := e.Totals(); !known || got.Waiting+got.Dead != 31 {
			t.Errorf("totals during a sweep: got %+v, known %v, want 31 events", got, known)
		}
		began := time.Now()
		e.end()
		if took := time.Since(began); took > time.Second {
			t.Errorf("Close: took %v during a sweep, want less than a second", took)
		}
	})
}

// TestDownServiceLosesOldEvents: keep 10 minutes × 50 accounts × a service that
// is down for 12. The events are dead after that, although few were tried.
func TestDownServiceLosesOldEvents(t *testing.T) {
	run(t, nil, func(t *testing.T, e *env) {
		e.configure("a", 10*time.Minute)
		e.to.set(func(context.Context, queue.Delivery) error { return errGone })
		for n := range 50 {
			e.add(event(account(n), 0), "a")
		}
		wait(12 * time.Minute)
		if n := e.total(store.DeadEntries, "a"); n != 50 || e.observed("dead") != 50 {
			t.Errorf("got %d dead events, counted %d, want 50", n, e.observed("dead"))
		}
	})
}

// TestDeadEventsAreBounded: 10,030 dead events of a service, and 10 of another
// one. The oldest 30 are dropped.
func TestDeadEventsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory().(store.Queuer).Queue()
		var entries []store.QueueEntry
		for n := range 10_040 {
			key := store.QueueKey{Service: "a", AppID: "wx1", ID: event("wx1", n).ID}
			if n >= 10_030 {
				key.Service = "b"
			}
			entries = append(entries, store.QueueEntry{
				QueueKey: key, Dead: true,
				Created: time.Now().Add(time.Duration(n) * time.Millisecond),
			})
		}
		if err := memory.Restore(t.Context(), entries...); err != nil {
			t.Fatal(err)
		}
		e := newEnv(t, func(c *queue.Config) { c.Store = memory })
		defer e.end()
		wait(3 * time.Second)
		a, b := e.total(store.DeadEntries, "a"), e.total(store.DeadEntries, "b")
		if a != 10_000 || b != 10 {
			t.Errorf("dead events: got %d and %d, want 10000 and 10", a, b)
		}
		if _, err := e.Find(t.Context(), "wx1-29"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("event 29: got %v, want it to be dropped", err)
		}
		if _, err := e.Find(t.Context(), "wx1-30"); err != nil {
			t.Errorf("event 30: got %v, want it to be kept", err)
		}
		if e.log.count("events=30") != 1 {
			t.Errorf("log: got\n%s\nwant one line about 30 events", e.log)
		}
	})
}

// The events of 300 accounts that die at once leave ten lines, and the next one
// to die says how many were left out.
func TestDeadEventsDoNotFloodTheLog(t *testing.T) {
	run(t, nil, func(t *testing.T, e *env) {
		e.configure("a", time.Second)
		e.to.set(func(context.Context, queue.Delivery) error { return errRejected })
		for n := range 300 {
			e.add(event(account(n), 0), "a")
		}
		wait(30 * time.Second)
		if n := e.total(store.DeadEntries, "a"); n != 300 || e.observed("dead") != 300 ||
			e.log.count("event is dead") != 10 {
			t.Errorf("got %d dead events, counted %d, %d lines, want 300, 300 and 10",
				n, e.observed("dead"), e.log.count("event is dead"))
		}
		wait(time.Minute)
		e.add(event(account(0), 1), "a")
		wait(30 * time.Second)
		if n := e.log.count("not_logged=290"); n != 1 {
			t.Errorf("lines about 290 events that were not logged: got %d, want 1", n)
		}
	})
}

// TestRetryAll: 2,500 dead events of 5 accounts and 2 services, 3 that wait ×
// filter {one service and dead, one account, all}.
func TestRetryAll(t *testing.T) {
	for name, test := range map[string]struct {
		filter store.QueueFilter
		want   int
	}{
		"service and dead": {store.QueueFilter{State: store.DeadEntries, Service: "a"}, 1250},
		"account":          {store.QueueFilter{AppID: account(0)}, 501},
		"all":              {store.QueueFilter{}, 2503},
		"none":             {store.QueueFilter{Service: "c"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := store.NewMemory().(store.Queuer).Queue()
				var entries []store.QueueEntry
				for n := range 2503 {
					ev, service := event(account(n%5), n), []string{"a", "b"}[n%2]
					key := store.QueueKey{Service: service, AppID: ev.AppID, ID: ev.ID}
					entries = append(entries, store.QueueEntry{
						QueueKey: key, Created: ev.Created, Dead: n >= 3,
					})
				}
				if err := memory.Restore(t.Context(), entries...); err != nil {
					t.Fatal(err)
				}
				e := newEnv(t, func(c *queue.Config) { c.Store = memory })
				defer e.end()
				e.configure("a", 0) // nothing is tried
				e.configure("b", 0)
				n, err := e.RetryAll(t.Context(), test.filter)
				if n != test.want || err != nil {
					t.Errorf("got %d, %v, want %d", n, err, test.want)
				}
				test.filter.State = store.DeadEntries
				if left, _, _ := e.List(t.Context(), test.filter, 0, 1); left != 0 {
					t.Errorf("dead events afterwards: got %d, want 0", left)
				}
			})
		})
	}
}

// TestClose: a try that takes 3 s × Close with {10 s, 1 s}. It waits for the
// first, and cancels the second, whose event the next process gets at once, as
// well as those that were added meanwhile.
func TestClose(t *testing.T) {
	for _, patience := range []time.Duration{10 * time.Second, time.Second} {
		run(t, nil, func(t *testing.T, e *env) {
			e.to.set(func(ctx context.Context, _ queue.Delivery) error {
				select {
				case <-time.After(3 * time.Second):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			e.add(event(account(1), 0), "a")
			e.add(event(account(1), 1), "a")
			wait(time.Millisecond)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err := e.Close(ctx)
			e.add(event(account(2), 0), "a")
			isPatient := patience > 3*time.Second
			if isPatient != (err == nil) || len(e.to.tried("a")) != 1 {
				t.Errorf("close with %v: got %v after %d tries, want one try",
					patience, err, len(e.to.tried("a")))
			}
			next := newEnv(t, func(c *queue.Config) { c.Store = e.store })
			defer next.end()
			wait(2 * time.Second)
			want := ids(account(1), 2)
			if isPatient {
				want = want[1:]
			}
			equal(t, "accepted by the next process", next.to.accepted("a", account(1)), want)
			got := next.to.accepted("a", account(2))
			equal(t, "accepted by the next process", got, ids(account(2), 1))
		})
	}
}

// TestKilledProcess: a process that ends without settling its tries. Another
// one delivers their events when the leases have ended, 30 s later.
func TestKilledProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory().(store.Queuer).Queue()
		_, err := memory.Add(t.Context(), known, store.QueueEntry{
			QueueKey: store.QueueKey{Service: "a", AppID: "wx1", ID: "wx1-0"},
			Payload:  []byte(`{"id":"wx1-0","appid":"wx1"}`),
		})
		if err != nil {
			t.Fatal(err)
		}
		taken, err := memory.Take(t.Context(), map[string]int{"a": 1}, 30*time.Second)
		if len(taken) != 1 || err != nil {
			t.Fatalf("got %d entries, %v", len(taken), err)
		}
		e := newEnv(t, func(c *queue.Config) { c.Store = memory })
		defer e.end()
		e.add(event("wx2", 0), "a")
		wait(29 * time.Second)
		equal(t, "accepted before the lease ended", e.to.accepted("a", ""), ids("wx2", 1))
		wait(3 * time.Second)
		equal(t, "accepted afterwards", e.to.accepted("a", "wx1"), ids("wx1", 1))
	})
}

// TestClockOfTheStore: the store's clock is a day {ahead, behind} × keep an
// hour. The event is tried for an hour.
func TestClockOfTheStore(t *testing.T) {
	for _, ahead := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		run(t, func(c *queue.Config) {
			c.Store = shiftedQueue{c.Store, ahead}
			c.StoreAhead = func() time.Duration { return ahead }
		}, func(t *testing.T, e *env) {
			e.configure("a", time.Hour)
			e.to.set(func(context.Context, queue.Delivery) error { return errRejected })
			e.add(event(account(1), 0), "a")
			wait(59 * time.Minute)
			if n := e.total(store.WaitingEntries, "a"); n != 1 {
				t.Errorf("after 59 minutes: got %d events that wait, want 1", n)
			}
			wait(3 * time.Minute)
			if n := e.total(store.DeadEntries, "a"); n != 1 {
				t.Errorf("after 62 minutes: got %d dead events, want 1", n)
			}
		})
	}
}

// shiftedQueue is a queue whose clock is ahead of this machine's.
type shiftedQueue struct {
	store.Queue
	ahead time.Duration
}

func (q shiftedQueue) Take(
	ctx context.Context, want map[string]int, lease time.Duration,
) ([]store.TakenEntry, error) {
	taken, err := q.Queue.Take(ctx, want, lease)
	for i := range taken {
		taken[i].Since = taken[i].Since.Add(q.ahead)
	}
	return taken, err
}
