package redis_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/redis"
)

// childEnv tells the test binary that it is a child that holds a lock, and of which Redis.
const childEnv = "WXPROXY_TEST_REDIS_HOLDER"

func TestMain(m *testing.M) {
	if url := os.Getenv(childEnv); url != "" {
		hold(url)
	}
	// They wait for leases and for other processes more than they work.
	flag.Parse()
	flag.Set("test.parallel", "8")
	os.Exit(m.Run())
}

// hold takes the lock of "a", says so, and saves when it gets a line. Then it says what became of that.
func hold(url string) {
	s, err := redis.Open(context.Background(), url, quick)
	if err == nil {
		err = s.Update(context.Background(), "a", func(context.Context, []byte) ([]byte, error) {
			fmt.Println("held")
			bufio.NewReader(os.Stdin).ReadString('\n')
			return []byte("the holder's"), nil
		})
	}
	fmt.Println("ended", errors.Is(err, store.ErrLost), err)
	os.Exit(0)
}

// holder is such a child.
type holder struct {
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

func startHolder(t *testing.T, url string) *holder {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := &holder{cmd: exec.Command(self)}
	h.cmd.Env = append(os.Environ(), childEnv+"="+url)
	h.cmd.Stderr = os.Stderr
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	h.out = bufio.NewReader(out)
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.cmd.Process.Signal(syscall.SIGCONT)
		h.cmd.Process.Kill()
		h.cmd.Wait()
	})
	h.says(t, "held\n")
	return h
}

func (h *holder) says(t *testing.T, want string) {
	t.Helper()
	if line, err := h.out.ReadString('\n'); line != want {
		t.Fatalf("the holder says %q, %v; want %q", line, err, want)
	}
}

func TestHolderKilled(t *testing.T) {
	t.Parallel()
	r := start(t)
	s := open(t, r.url(), quick)
	put(t, s, "a", "before")
	h := startHolder(t, r.url())
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- s.Update(t.Context(), "a", replaceWith("after")) }()
	select {
	case err := <-done:
		t.Fatalf("not locked: %v", err)
	case <-time.After(3 * quick.Lease / 2): // a living holder keeps it for longer than a lease
	}
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
	want(t, s, "a", "after")
}

// A holder that slept longer than its lease writes nothing old over what came meanwhile, and says that it lost the lock.
func TestHolderSlept(t *testing.T) {
	t.Parallel()
	r := start(t)
	s := open(t, r.url(), quick)
	for _, between := range []string{"written", "being written", "deleted"} {
		put(t, s, "a", "before")
		h := startHolder(t, r.url())
		if err := h.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		wake := func() {
			io.WriteString(h.in, "\n")
			if err := h.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			h.says(t, "ended true Redis at "+r.addr()+": "+store.ErrLost.Error()+"\n")
		}
		err := s.Update(t.Context(), "a", func(_ context.Context, old []byte) ([]byte, error) {
			switch between {
			case "being written":
				wake()
			case "deleted":
				return nil, nil
			}
			return append(old, " and after"...), nil
		})
		if err != nil {
			t.Error(err)
		}
		if between != "being written" {
			wake()
		}
		if between == "deleted" {
			wantNone(t, s, "a")
		} else {
			want(t, s, "a", "before and after")
		}
	}
	// Where nobody came, nothing is old: what exists once is saved.
	h := startHolder(t, r.url())
	if err := h.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lease has ended", func() bool { return r.do("KEYS *lock*") == "" })
	io.WriteString(h.in, "\n")
	h.cmd.Process.Signal(syscall.SIGCONT)
	h.says(t, "ended false <nil>\n")
	want(t, s, "a", "the holder's")
}

// An update that takes three times the lease keeps its lock all the time.
func TestLongerThanLease(t *testing.T) {
	t.Parallel()
	r := start(t)
	a, b := open(t, r.url(), quick), open(t, r.url(), quick)
	var inside atomic.Int64
	long := func(s *redis.Store) error {
		return s.Update(t.Context(), "a", func(ctx context.Context, old []byte) ([]byte, error) {
			if inside.Add(1) != 1 {
				t.Error("two are inside")
			}
			defer inside.Add(-1)
			select {
			case <-time.After(3 * quick.Lease):
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
			return append(old, 'x'), nil
		})
	}
	done := make(chan error, 2)
	go func() { done <- long(a) }()
	go func() { done <- long(b) }()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	want(t, a, "a", "xx")
}

// A lock that somebody took away ends the work; a record that comes all the same is saved only over the one that was read, and
// the lock of another stays as it is.
func TestLockTakenAway(t *testing.T) {
	t.Parallel()
	r := start(t)
	s := open(t, r.url(), quick)
	put(t, s, "a", "before")
	lockKey := func() string {
		t.Helper()
		keys := r.do("KEYS *:lock:a")
		if keys == "" {
			t.Fatal("there is no lock")
		}
		return keys
	}
	for _, result := range []error{nil, errors.New("mine")} {
		var key string
		err := s.Update(t.Context(), "a", func(ctx context.Context, _ []byte) ([]byte, error) {
			key = lockKey()
			r.do("SET " + key + " another")
			<-ctx.Done()
			if cause := context.Cause(ctx); !errors.Is(cause, store.ErrLost) {
				t.Errorf("the cause is %v", cause)
			}
			return []byte("late"), result
		})
		if result == nil && !errors.Is(err, store.ErrLost) || result != nil && !errors.Is(err, result) {
			t.Errorf("%v", err)
		}
		if holder := r.do("GET " + key); holder != "another" {
			t.Errorf("the lock of another became %q", holder)
		}
		want(t, s, "a", "before")
		r.do("DEL " + key)
	}
}

// Redis is away for longer than a lease while an update runs: its context ends, and what it has is saved when Redis is back,
// or it is told that it was not.
func TestRedisAwayDuringUpdate(t *testing.T) {
	t.Parallel()
	r := start(t, "--appendonly", "yes", "--appendfsync", "always")
	s := open(t, r.url(), quick)
	put(t, s, "a", "before")
	back := make(chan struct{})
	err := s.Update(t.Context(), "a", func(ctx context.Context, _ []byte) ([]byte, error) {
		r.stop()
		<-ctx.Done()
		if cause := context.Cause(ctx); !errors.Is(cause, store.ErrLost) || !strings.Contains(cause.Error(), r.addr()) {
			t.Errorf("the cause is %v", cause)
		}
		go func() {
			defer close(back)
			if !r.run() {
				t.Error("redis-server does not start again")
			}
		}()
		return []byte("precious"), nil
	})
	<-back
	if err != nil { // a slow machine
		t.Logf("not saved: %v", err)
		want(t, s, "a", "before")
		return
	}
	want(t, s, "a", "precious")
}

// Who waits for a lock that another process holds, leaves with its context, and when the store is closed.
func TestWaitersLeave(t *testing.T) {
	t.Parallel()
	r := start(t)
	a, b := open(t, r.url(), quick), open(t, r.url(), quick)
	err := a.Update(t.Context(), "a", func(context.Context, []byte) ([]byte, error) {
		none := func(context.Context, []byte) ([]byte, error) {
			t.Error("fn was called")
			return nil, nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := b.Update(ctx, "a", none); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		left := make(chan error, 2)
		for range 2 { // one waits for Redis, the other for the first
			go func() { left <- b.Update(t.Context(), "a", none) }()
		}
		time.AfterFunc(50*time.Millisecond, func() { b.Close() })
		for range 2 {
			if err := <-left; !errors.Is(err, store.ErrClosed) {
				t.Error(err)
			}
		}
		return []byte("the holder's"), nil
	})
	if err != nil {
		t.Error(err)
	}
	want(t, a, "a", "the holder's")
}

// A long queue in one process does not keep the others out.
func TestTurns(t *testing.T) {
	t.Parallel()
	r := start(t)
	a, b := open(t, r.url(), redis.Options{}), open(t, r.url(), redis.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	var done atomic.Bool
	defer done.Store(true)
	working := make(chan struct{}, 1000)
	for range 10 {
		all.Go(func() {
			for !done.Load() {
				err := a.Update(t.Context(), "a", func(context.Context, []byte) ([]byte, error) {
					select {
					case working <- struct{}{}:
					default:
					}
					time.Sleep(100 * time.Millisecond)
					return []byte("a"), nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	<-working
	for range 3 {
		if err := b.Update(ctx, "a", replaceWith("b")); err != nil {
			t.Fatal(err)
		}
	}
}
