//go:build unix

package redis_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/redis"
)

// takerEnv makes the test binary a child that takes an entry. Its value is the
// URL of the Redis.
const takerEnv = "WXPROXY_TEST_REDIS_TAKER"

// runTaker takes an entry for a second, prints its id, and waits to be killed.
func runTaker(url string) {
	s, err := redis.Open(context.Background(), url, patient)
	if err != nil {
		panic(err)
	}
	taken, err := s.Queue().Take(context.Background(), map[string]int{"orders": 1}, time.Second)
	if err != nil || len(taken) != 1 {
		panic(fmt.Sprint(len(taken), err))
	}
	fmt.Println(taken[0].ID)
	select {}
}

// TestKilledTakerLosesNothing kills a process with SIGKILL between Take and
// Settle. Its lane is taken by another one when the lease has passed, not
// before, and in order.
func TestKilledTakerLosesNothing(t *testing.T) {
	t.Parallel()
	r := start(t)
	q := open(t, r.url(), patient).Queue()
	addEvents(t, q, event("a", "1"), event("a", "2"))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(self)
	child.Env = append(os.Environ(), takerEnv+"="+r.url())
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	child.Process.Kill()
	child.Wait()
	if line != "1\n" {
		t.Fatalf("output of the child: got %q, error %v, want 1", line, err)
	}
	if got := deliverAll(t, q); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("delivered: got %v, want 1 and 2", got)
	}
	if passed := time.Since(began); passed < time.Second {
		t.Errorf("delivered after %v, want the lease of a second to hold", passed)
	}
}

// TestQueueWithoutRedis: Redis is killed × suspended during Add, Take, Settle,
// Sizes and List. Each returns an error with its address, in time. Redis comes
// back with its append-only file. All that was added is delivered, also the
// entry that was taken.
func TestQueueWithoutRedis(t *testing.T) {
	t.Parallel()
	for _, suspended := range []bool{false, true} {
		r := start(t, "--appendonly", "yes", "--appendfsync", "always")
		q := openImpatient(t, r.url()).Queue()
		addEvents(t, q, event("a", "1"), event("a", "2"), event("b", "3"))
		taken := takeEvents(t, q, 1, time.Second)
		if suspended {
			r.signal(syscall.SIGSTOP)
		} else {
			r.stop()
		}
		ctx := t.Context()
		for name, do := range map[string]func() error{
			"add": func() error { _, err := q.Add(ctx, time.Hour, event("c", "4")); return err },
			"take": func() error {
				_, err := q.Take(ctx, map[string]int{"orders": 1}, time.Second)
				return err
			},
			"settle": func() error {
				return q.Settle(ctx, taken[0], store.QueueOutcome{Result: store.QueueFailed})
			},
			"sizes": func() error { _, err := q.Sizes(ctx); return err },
			"list":  func() error { _, _, err := q.List(ctx, store.QueueFilter{}, 0, 1); return err },
		} {
			began := time.Now()
			if err := do(); !mentions(err, r.addr()) {
				t.Errorf("%s, suspended %t: got error %v, want the address", name, suspended, err)
			}
			if took := time.Since(began); took > patience {
				t.Errorf("%s took %v, want less than %v", name, took, patience)
			}
		}
		if suspended {
			r.signal(syscall.SIGCONT)
		} else if !r.run() {
			t.Fatal("redis-server does not start again")
		}
		eventually(t, "Redis responds again", func() bool { _, err := q.Sizes(ctx); return err == nil })
		// WeChat repeats what was not acknowledged. A suspended Redis has
		// received it before.
		if _, err := q.Add(ctx, time.Hour, event("c", "4")); err != nil {
			t.Errorf("add again: %v", err)
		}
		if got := deliverAll(t, q); !slices.Equal(got, []string{"1", "2", "3", "4"}) {
			t.Errorf("suspended %t: delivered %v, want 1 to 4", suspended, got)
		}
	}
}

// TestQueueLostReplies: the replies to Add, Take, Settle and Drop are lost, and
// the library sends each again. A result without an error is right
// nevertheless: nothing is added, taken or counted twice.
func TestQueueLostReplies(t *testing.T) {
	t.Parallel()
	r := start(t)
	between := startRelay(t, r.addr(), nil)
	q, direct := open(t, between.url(), patient).Queue(), open(t, r.url(), patient).Queue()
	ctx := t.Context()
	// lose calls do, whose first reply is lost, until it returns no error.
	lose := func(prepare func(id string), do func(id string) error) {
		t.Helper()
		for i := range 50 {
			id := fmt.Sprint(i)
			prepare(id)
			if _, err := q.Find(ctx, id); err != nil && err != store.ErrNotFound {
				t.Fatal(err) // there is a connection now
			}
			between.dropReplies.Store(true)
			time.AfterFunc(5*time.Millisecond, func() { between.dropReplies.Store(false) })
			err := do(id)
			eventually(t, "replies again", func() bool { return !between.dropReplies.Load() })
			if err == nil {
				return
			}
			for _, e := range takeEvents(t, direct, 10, time.Minute) {
				settle(t, direct, e, store.QueueDelivered)
			}
			r.do("FLUSHALL")
		}
		t.Fatal("each second reply was lost, too")
	}
	add := func(id string) { addEvents(t, direct, event("a", id)) }
	lose(func(string) {}, func(id string) error {
		n, err := q.Add(ctx, time.Hour, event("a", id))
		if err == nil && n != 1 {
			t.Errorf("add with a lost reply: got %d, want 1", n)
		}
		return err
	})
	r.do("FLUSHALL")
	var taken []store.TakenEntry
	lose(add, func(id string) (err error) {
		taken, err = q.Take(ctx, map[string]int{"orders": 1}, time.Minute)
		if err == nil && len(taken) != 1 {
			t.Errorf("take with a lost reply: got %d entries, want 1", len(taken))
		}
		return err
	})
	r.do("FLUSHALL")
	lose(func(id string) {
		add(id)
		taken = takeEvents(t, direct, 1, time.Minute)
	}, func(id string) error {
		err := q.Settle(ctx, taken[0], store.QueueOutcome{Result: store.QueueFailed})
		found, findErr := direct.Find(ctx, id)
		if err == nil && (findErr != nil || found[0].Attempts != 1) {
			t.Errorf("settle with a lost reply: got %v, error %v, want one attempt", found, findErr)
		}
		return err
	})
	r.do("FLUSHALL")
	lose(add, func(id string) error {
		err := q.Drop(ctx, event("a", id).QueueKey)
		if err == store.ErrNotFound {
			t.Error("drop with a lost reply: got ErrNotFound")
		}
		return err
	})
}

// TestQueueOfRedisThatLostIt: all keys × those of one bucket are lost while an
// entry is taken. Settle returns no error, and what is added later is
// delivered.
func TestQueueOfRedisThatLostIt(t *testing.T) {
	t.Parallel()
	r := start(t)
	q := open(t, r.url(), patient).Queue()
	for _, lost := range []string{"wxproxy:*", "wxproxy:{0c}:*"} {
		addEvents(t, q, event("a", "1"), event("b", "2"))
		taken := takeEvents(t, q, 2, time.Minute)
		deleteKeys(r, lost)
		for i, result := range []store.QueueResult{store.QueueFailed, store.QueueDelivered} {
			settle(t, q, taken[i], result)
		}
		addEvents(t, q, event("a", "3"))
		if got := deliverAll(t, q); !slices.Contains(got, "3") {
			t.Errorf("%s lost: delivered %v, want 3 among them", lost, got)
		}
		r.do("FLUSHALL")
	}
}

// deleteKeys deletes the keys that match a pattern of Redis. Braces are none of
// its special characters.
func deleteKeys(r *server, pattern string) {
	for _, key := range strings.Fields(r.do("KEYS " + pattern)) {
		r.do("DEL " + key)
	}
}

// TestLostKeysOfQueueAreRebuilt deletes each key of a bucket but the payloads,
// by itself, while it has waiting and dead entries and a lane that is taken.
// All waiting entries are delivered, the sizes are right again, and dead ones
// stay as long as the key that says so.
func TestLostKeysOfQueueAreRebuilt(t *testing.T) {
	t.Parallel()
	r := start(t)
	s := open(t, r.url(), patient)
	q := s.Queue()
	for _, key := range []string{
		"order", "waiting:orders", "dead:orders", "due:orders", "lanes", "sizes", "seq", "events",
		"clock", "items",
	} {
		addEvents(t, q, event("a", "1"), event("a", "2"), event("a", "3"))
		settle(t, q, takeEvents(t, q, 1, time.Minute)[0], store.QueueDead)
		if taken := takeEvents(t, q, 1, time.Millisecond); len(taken) != 1 || taken[0].ID != "2" {
			t.Fatalf("take: got %v, want 2", taken)
		}
		r.do("DEL wxproxy:{0c}:queue:" + key)
		want := []string{"2", "3", "4"}
		dead := 1
		switch key {
		case "events":
			want, dead = []string{"1", "2", "3", "4"}, 0
		case "items":
			want, dead = []string{"4"}, 0
		}
		addEvents(t, q, event("a", "4"))
		eventually(t, "the sizes after the loss of "+key, func() bool {
			sizes, err := q.Sizes(t.Context())
			size := sizes["orders"]
			return err == nil && size.Waiting == len(want) && size.Dead == dead &&
				size.Bytes == int64(len(event("a", "1").Payload)*(len(want)+dead))
		})
		// A lane that was taken is due a minute later if its lease was lost.
		if err := q.Wake(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
		r.do("HDEL wxproxy:{0c}:queue:lanes orders/a")
		if err := q.Wake(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
		if got := deliverAll(t, q); !slices.Equal(got, want) {
			t.Errorf("%s lost: delivered %v, want %v", key, got, want)
		}
		r.do("FLUSHALL")
	}
}
